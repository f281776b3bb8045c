"""Label and depth maps: reading them, and what they must hold."""

from __future__ import annotations

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations, LoadDepthAnnotation

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError


class MapError(InputError):
    """A map that does not fit its image or its data set.

    A data worker hands an error on with its traceback before the message; what counts is the last line.
    """

    def __init__(self, message: str):
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.MapError: "))


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """As mmseg's ``LoadAnnotations``, but the map must have its image's size and no other labels than the classes'.

    Args:
        num_classes: of the data set, after its label map and without a zero label that is left out.
        ignore_index: label of pixels without a class.

    Raises:
        MapError: with file, sizes or labels.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def _load_seg_map(self, results: dict) -> None:
        path = results["seg_map_path"]
        raw = mmcv.imfrombytes(fileio.get(path), flag="unchanged", backend=self.imdecode_backend)
        if raw.squeeze().ndim != 2:
            raise MapError(f"label map {path} is of shape {raw.shape}: it must have one channel of labels")
        if raw.max() > 255:
            raise MapError(f"label map {path} holds label {raw.max()}, more than the 255 of 8 bits")
        super()._load_seg_map(results)
        labels = results["gt_seg_map"]
        _check_size(labels, results, "label map", path)
        present = np.unique(labels)
        wrong = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if len(wrong):
            reduced = ", counted without the zero label" if results["reduce_zero_label"] else ""
            raise MapError(
                f"label map {path} holds labels {', '.join(map(str, wrong[:8]))}{reduced}: legal are "
                f"0..{self.num_classes - 1}, and {self.ignore_index} for pixels without a class"
            )


@TRANSFORMS.register_module()
class LoadDepthMap(LoadDepthAnnotation):
    """As mmseg's ``LoadDepthAnnotation``, but the map must have its image's size and hold no NaN or negative depth.

    Args:
        depth_rescale_factor: metres of the file's unit: 1e-3 for millimetres.
        decode_backend: 'cv2' for images, 'numpy' for arrays.

    Raises:
        MapError: with file, sizes or values.
    """

    def __init__(self, depth_rescale_factor: float, decode_backend: str = "cv2"):
        super().__init__(decode_backend=decode_backend, depth_rescale_factor=depth_rescale_factor)

    def transform(self, results: dict) -> dict:
        """Read the map to ``gt_depth_map`` (H, W), float32, in metres; 0 where nothing is known."""
        results = super().transform(results)
        path, depth = results["depth_map_path"], results["gt_depth_map"]
        _check_size(depth, results, "depth map", path)
        finite = np.isfinite(depth)
        if not finite.all():
            raise MapError(
                f"depth map {path} holds {np.count_nonzero(~finite)} pixels of NaN or infinity: 0 is unknown"
            )
        if depth.min() < 0:
            raise MapError(f"depth map {path} holds negative depths, down to {depth.min():g} m")
        return results


def _check_size(values: np.ndarray, results: dict, what: str, path: str) -> None:
    if values.shape != tuple(results["ori_shape"][:2]):
        sides, image = " x ".join(map(str, values.shape)), " x ".join(map(str, results["ori_shape"][:2]))
        raise MapError(f"{what} {path} is of {sides} px, but its image {results['img_path']} of {image}")
