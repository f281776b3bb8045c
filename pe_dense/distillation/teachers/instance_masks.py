"""Teacher that returns annotated instance masks instead of computing features: an oracle in place of SAM."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pe_dense.datasets.run_lengths import decode_mask
from pe_dense.distillation.feature_cache import digest
from pe_dense.distillation.teachers.base import Teacher
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import read_image


@MODELS.register_module()
class InstanceMaskTeacher(Teacher):
    """Teacher whose tokens are the fractions of a patch that the background and each annotated object cover.

    It takes the place of SAM in Spatial alignment where masks are known, as for generated scenes: two tokens are as
    similar as they share objects. Images are found by their pixels, so they must arrive uncropped and unscaled.

    Args:
        ann_file: annotations in COCO's format, with run-length codes or polygons.
        data_prefix: folder of the images.

    Raises:
        FileNotFoundError: if a file does not exist.
    """

    def __init__(self, ann_file: str | Path, data_prefix: str | Path):
        super().__init__()
        self._source = f"{ann_file} {data_prefix}"
        self._objects = objects_by_pixels(str(ann_file), str(data_prefix), Path(ann_file).stat().st_mtime_ns)

    def tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`Teacher.forward`; channels are the background and as many objects as the fullest image has.

        Raises:
            ValueError: for an image that is not among the annotated ones, pixel by pixel.
        """
        found = [object_fractions(*self.find(image)[1:], grid) for image in images]
        channels = max(tokens.shape[1] for tokens in found)
        padded = [torch.nn.functional.pad(tokens, (0, channels - tokens.shape[1])) for tokens in found]
        return torch.stack(padded).to(images.device)

    def find(self, image: Tensor) -> tuple[str, tuple[int, int], list]:
        """Find an image (3, H, W), RGB in [0, 1], by its pixels.

        Returns:
            its key, size (H, W) and the objects' segmentations.

        Raises:
            ValueError: if it is not among the annotated ones.
        """
        key = pixel_key((image.cpu() * 255).round().byte())
        if key not in self._objects:
            raise InputError(
                f"an image of {tuple(image.shape[1:])} px is none of the {len(self._objects)} annotated images: "
                "crops and scaled images have no masks; remove random transforms from the pipeline"
            )
        return key, *self._objects[key]

    def settings(self) -> str:
        """See :class:`Teacher`."""
        return self._source


def pixel_key(pixels: Tensor) -> str:
    """Hash of an image's pixels (3, H, W), uint8."""
    return digest([pixels.contiguous()])


@lru_cache(maxsize=2)
def objects_by_pixels(ann_file: str, data_prefix: str, changed: int) -> dict[str, list]:
    """Index the annotated images by their pixels; several teachers of the same files read all images only once.

    Args:
        ann_file, data_prefix: see :class:`InstanceMaskTeacher`.
        changed: modification time of ``ann_file``, so that a file that was written again is read again.

    Returns:
        size (H, W) and the objects' segmentations of each image by its :func:`pixel_key`; not to be changed.
    """
    return {pixel_key(pixels): found for pixels, *found in annotated_images(ann_file, data_prefix)}


def annotated_images(ann_file: str | Path, data_prefix: str | Path):
    """Yield pixels (3, H, W) uint8, size (H, W) and the objects' segmentations of each annotated image."""
    content = json.loads(Path(ann_file).read_text())
    objects: dict[int, list] = {}
    for entry in content["annotations"]:
        objects.setdefault(entry["image_id"], []).append(entry["segmentation"])
    for image in content["images"]:
        pixels = np.array(read_image(Path(data_prefix) / image["file_name"]))
        size = (image["height"], image["width"])
        yield torch.from_numpy(pixels).permute(2, 0, 1), size, objects.get(image["id"], [])


def object_fractions(size: tuple[int, int], segmentations: list, grid: tuple[int, int]) -> Tensor:
    """Compute the fractions of each patch of a grid (h, w) that the background and N objects cover: (h w, 1 + N)."""
    found = [torch.from_numpy(decode_mask(segmentation, size)) for segmentation in segmentations]
    maps = torch.stack([1 - sum(found, torch.zeros(size)).clamp(max=1), *(mask.float() for mask in found)])
    return torch.nn.functional.adaptive_avg_pool2d(maps, grid).flatten(1).T
