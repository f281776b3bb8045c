"""Load images in data pipelines, and find the loading steps of a pipeline."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Sequence

import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import ImageError, read_image

ON_ERROR = ("raise", "skip")


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image with :func:`pe_dense.utils.image.read_image` and compare its size with its annotation.

    The EXIF orientation of JPEG, PNG, WebP and TIFF is applied, transparent images are composed on white, and more than
    8 bits are scaled to 8. If the annotation has ``width`` and ``height``, the image must have that size.

    Args:
        ignore_orientation: keep the pixels as stored, as DETA's published evaluation does.
        white_level: value that becomes 255 in grayscale images of more than 8 bits, such as 4095 for 12-bit cameras;
            determined per image by default.
        on_error: what to do if an image cannot be decoded or its size differs from the annotation: 'raise' ends the run
            with an error that names the file; 'skip' trains on another image instead, and logs the file's name and the
            number of skipped files. Testing requires every image, so it always raises.
        to_float32: return float32 instead of uint8.
        backend_args: arguments of MMEngine's file backends, for files that are not on disk.

    Raises:
        InputError: if ``on_error`` is unknown or ``white_level`` is not above 0.
    """

    def __init__(
        self,
        *,
        ignore_orientation: bool = False,
        white_level: float | None = None,
        on_error: str = "raise",
        to_float32: bool = False,
        backend_args: dict | None = None,
    ):
        super().__init__(to_float32=to_float32, backend_args=backend_args)
        if on_error not in ON_ERROR:
            raise InputError(f"on_error is {on_error!r}, must be one of {', '.join(ON_ERROR)}")
        if white_level is not None and not white_level > 0:
            raise InputError(f"white_level is {white_level}, must be above 0")
        self.ignore_orientation, self.white_level, self.on_error = ignore_orientation, white_level, on_error
        self._skipped: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        """Load the image into ``img``, BGR (H, W, 3), and set ``img_shape`` and ``ori_shape``.

        Returns:
            the results; None for a skipped image, which MMEngine's data sets replace.

        Raises:
            ImageError: naming the file, if ``on_error`` is 'raise'.
        """
        path = str(results["img_path"])
        try:
            image = self.read(path)
            self._check_size(results, path, image.shape[1::-1])
        except (ImageError, FileNotFoundError) as error:
            if self.on_error == "raise":
                raise ImageError(str(error)) from error
            if path not in self._skipped:
                self._skipped.add(path)
                print_log(f"Skipped image {len(self._skipped)} of this process: {error}", "current", logging.WARNING)
            return None
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def read(self, path: str) -> np.ndarray:
        """Read a file, BGR (H, W, 3) uint8.

        Raises:
            ImageError, FileNotFoundError: if it cannot be read.
        """
        file = io.BytesIO(fileio.get(path, self.backend_args)) if self.backend_args or "://" in path else path
        image = read_image(file, path, ignore_orientation=self.ignore_orientation, white_level=self.white_level)
        return np.ascontiguousarray(np.asarray(image)[..., ::-1])

    def _check_size(self, results: dict, path: str, size: tuple[int, int]) -> None:
        annotated = results.get("width"), results.get("height")
        if None not in annotated and annotated != size:
            raise ImageError(size_message(path, size, annotated, "its annotation"))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(ignore_orientation={self.ignore_orientation}, white_level={self.white_level}, "
            f"on_error={self.on_error!r}, to_float32={self.to_float32}, backend_args={self.backend_args})"
        )


def size_message(path: str, size: Sequence[int], annotated: Sequence[int], source: str) -> str:
    """Return the error message for an image whose size (width, height) differs from its annotation."""
    swapped = (
        " (width and height are swapped: was it annotated without its EXIF orientation?)"
        if (tuple(size) == tuple(annotated)[::-1])
        else ""
    )
    return (
        f"{path} is {size[0]} x {size[1]} pixels, but {source} says {annotated[0]} x {annotated[1]}: the "
        f"image was resized or rotated after it was annotated{swapped}"
    )


def transform_class(step: dict | BaseTransform) -> type:
    """Return the class of a pipeline step, whose ``type`` is a class, or a name with or without a scope.

    Raises:
        InputError: for a name that is not registered.
    """
    if not isinstance(step, dict):
        return type(step)
    kind = step["type"]
    if isinstance(kind, type):
        return kind
    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        found = registry.get(kind)
    if found is None:
        raise InputError(f"pipeline step {kind!r} is not a registered transform")
    return found


def loads_annotations(step: dict) -> bool:
    """Return whether a pipeline step reads annotations, label maps or depth maps."""
    from mmcv.transforms import LoadAnnotations
    from mmseg.datasets.transforms import LoadDepthAnnotation

    return issubclass(transform_class(step), LoadAnnotations | LoadDepthAnnotation)


def image_reader(steps: Iterable[dict]) -> LoadImageFromFile:
    """Build the image-loading step of a pipeline, with its options; :class:`LoadImage` if there is none.

    MMCV's own step is replaced by :class:`LoadImage` if it only has options that both support.
    """
    for step in steps:
        kind = transform_class(step)
        if issubclass(kind, LoadImageFromFile):
            options = {name: value for name, value in step.items() if name != "type"}
            if kind is LoadImageFromFile and options.keys() <= {"to_float32", "backend_args"}:
                kind = LoadImage
            return kind(**options)
    return LoadImage()


def without_loading(steps: Iterable[dict]) -> list[dict]:
    """Return the steps of a pipeline that read neither images nor annotations, including those of ``TestTimeAug``."""
    kept = []
    for step in steps:
        if loads_annotations(step) or issubclass(transform_class(step), LoadImageFromFile):
            continue
        branches = step.get("transforms") if isinstance(step, dict) else None
        if branches and all(isinstance(branch, list | tuple) for branch in branches):
            # A test-time augmentation group that only reads annotations is empty without them.
            groups = [[item for item in branch if not loads_annotations(item)] for branch in branches]
            step = {**step, "transforms": [group for group in groups if group]}
        kept.append(step)
    return kept


def read_pixels(reader: BaseTransform, path: str, index: int = 0) -> dict:
    """Run a loading step on a file.

    Returns:
        results dict for the rest of the pipeline.

    Raises:
        ImageError: if the file cannot be read, whatever exception the step raises.
    """
    try:
        results = reader(dict(img_path=path, img_id=index))
    except ImageError:
        raise
    except Exception as error:  # MMCV's steps raise AssertionError, cv2.error, ...
        raise ImageError(f"{path} is not a readable image ({error or type(error).__name__})") from error
    if results is None:
        raise ImageError(f"{path} is not a readable image")
    return results


def array_results(reader: BaseTransform, image: np.ndarray, index: int = 0) -> dict:
    """Return what a loading step would for an image in memory.

    Args:
        reader: the step, which decides on uint8 or float32.
        image: (H, W, 3) uint8, RGB.
        index: number of the image, for errors.

    Returns:
        results dict for the rest of the pipeline.

    Raises:
        InputError: for an array of another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"Image {index} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3) in RGB")
    shape, stored = image.shape[:2], np.ascontiguousarray(image[..., ::-1])
    stored = stored.astype(np.float32) if getattr(reader, "to_float32", False) else stored
    return dict(img=stored, img_id=index, img_path=None, img_shape=shape, ori_shape=shape)
