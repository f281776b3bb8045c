"""Teacher that gives the tokens of an object the pooled embedding of a crop around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.build import build_pretrained
from pe_dense.backbones.text_space import pooled_dim_of
from pe_dense.datasets.run_lengths import decode_mask
from pe_dense.distillation.preprocessor import colors_of, resize
from pe_dense.distillation.teachers.instance_masks import InstanceMaskTeacher, object_fractions
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class ObjectCropTeacher(InstanceMaskTeacher):
    """Teacher whose tokens are the pooled embeddings of crops around the annotated objects that they belong to.

    What a contrastively trained tower knows of an object is in its pooled embedding, and best if the object fills the
    image. Patch tokens learn it from this teacher. A token that objects cover in part has a shorter target, and a token
    of the background has the target 0; :func:`~pe_dense.distillation.losses.target_cosine` weights them by that length.

    Source: CLIPSelf (arXiv 2310.01403), section 3.2, where the regions are random or proposed boxes and the student's
    tokens are pooled over them. Here regions are annotated masks, and each token has its own target.

    Args:
        ann_file, data_prefix: see :class:`~pe_dense.distillation.teachers.instance_masks.InstanceMaskTeacher`.
        tower: config of a :class:`~pe_dense.backbones.PETower` with a pooling head, without ``init_cfg``.
        image_size: side of the crops after resizing, in pixels.
        checkpoint: path or ``hf://`` name of its weights; None for random weights.
        content: content of the checkpoint, if it was already read.
        context: side of the square crop as a multiple of the longer side of the object's box.

    Raises:
        ValueError: if the tower has no pooling head, or the context is below 1.
        CheckpointError, FileNotFoundError: if weights or data are missing or do not match.
    """

    def __init__(
        self,
        ann_file: str | Path,
        data_prefix: str | Path,
        tower: dict,
        image_size: int,
        checkpoint: str | None,
        content: Mapping | None = None,
        context: float = 1.4,
    ):
        super().__init__(ann_file, data_prefix)
        if context < 1:
            raise InputError(f"context of a crop must be at least 1 (the object's box), got {context}")
        self.tower: Backbone = build_pretrained(tower, checkpoint, content)
        self.channels = pooled_dim_of(self.tower)
        self.requires_grad_(False).eval()
        self.image_size = image_size
        self.context = context
        self._source += f" {tower} {image_size} {context}"
        self._embeddings: dict[str, Tensor] = {}

    def tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`Teacher.forward`: sums of the objects' unit embeddings, weighted by the covered fractions.

        Each object's crop is embedded once and its embedding is kept.

        Raises:
            ValueError: for an image that is not among the annotated ones, pixel by pixel.
        """
        found = [self.find(image) for image in images]
        crops = {}
        for image, (key, size, objects) in zip(images, found, strict=True):
            if key not in self._embeddings and objects:
                pixels = image.permute(1, 2, 0).float().cpu().numpy()
                crops[key] = [self._crop(pixels, decode_mask(segmentation, size)) for segmentation in objects]
        if crops:
            batch = torch.from_numpy(np.stack([crop for group in crops.values() for crop in group])).to(images.device)
            batch = resize(batch.permute(0, 3, 1, 2), self.image_size, colors_of(self.tower))
            with torch.autocast(images.device.type, enabled=False):
                embeddings = F.normalize(self.tower.forward_pooled(batch), dim=-1).cpu()
            for key, group in zip(crops, embeddings.split([len(group) for group in crops.values()]), strict=True):
                self._embeddings[key] = group.clone()
        tokens = []
        for key, size, objects in found:
            fractions = object_fractions(size, objects, grid)[:, 1:]
            tokens.append(
                fractions @ self._embeddings[key] if objects else fractions.new_zeros(len(fractions), self.channels)
            )
        return torch.stack(tokens).to(images.device)

    def _crop(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Crop a square around a mask from an image (H, W, 3); it is mirrored at the image's edges."""
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        side = max(self.context * max(width, height), 1.0)
        scale = self.image_size / side
        # OpenCV counts from the centers of pixels, which are half a pixel from their edges.
        center = np.array([x + width / 2, y + height / 2]) - 0.5
        offset = self.image_size / 2 - 0.5 - scale * center
        matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
        size = (self.image_size, self.image_size)
        return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
