"""Tracking objects from their first mask, with a tower and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from pe_dense.registry import MODELS
from pe_dense.tracking.label_propagation import (
    LabelPropagation,
    check_settings,
    harden_labels,
    resize_nearest,
    share_labels,
)
from pe_dense.utils.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@MODELS.register_module()
class LabelPropagator(BaseModel):
    """Carries a video's first mask on, by the features of each of a tower's taps for themselves.

    See :class:`~pe_dense.tracking.LabelPropagation` for the method. All taps come from one pass of the tower over each
    frame. Kept are the features of the context frames, for each tap 4 bytes times width, patches and frames: 100 MB
    for a tap of a G-size tower, 5 GB for all 50. Videos are tracked one by one, so that nothing depends on how they
    are put into batches.

    Args:
        backbone: config of a :class:`~pe_dense.backbones.PETower`; its ``out_indices`` are the taps, None for every
        block.
        num_last_frames, radius, topk, temperature: of the propagation; the published protocol's by default.
        frames_per_pass: frames of a video that go through the tower together.
        tower_dtype: of the tower's weights and activations, 'float32', 'bfloat16' or 'float16'; the propagation
            computes in float32.
        mean, std: of all channels; frames are normalized by ``(x - mean) / std``.

    Raises:
        ValueError: for numbers out of range or an unknown ``tower_dtype``.
    """

    def __init__(
        self,
        backbone: dict,
        *,
        num_last_frames: int = 7,
        radius: int = 12,
        topk: int = 5,
        temperature: float = 0.1,
        frames_per_pass: int = 4,
        tower_dtype: str = "float32",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ):
        super().__init__(data_preprocessor=dict(type="BaseDataPreprocessor"))
        self.settings = dict(num_last_frames=num_last_frames, radius=radius, topk=topk, temperature=temperature)
        check_settings(**self.settings)
        if frames_per_pass < 1:
            raise InputError(f"frames_per_pass is {frames_per_pass}, must be at least 1")
        if tower_dtype not in _DTYPES:
            raise InputError(f"tower_dtype {tower_dtype!r} is not one of {', '.join(_DTYPES)}")
        self.backbone = MODELS.build(backbone).to(_DTYPES[tower_dtype])
        self.frames_per_pass = frames_per_pass
        values = (self.backbone.mean if mean is None else mean, self.backbone.std if std is None else std)
        self.mean, self.std = (torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1) for value in values)

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Find the tower in the state of any model around one, and bring it to this model's names."""
        tower = self.backbone.adapt_state_dict(state, source)
        return {f"backbone.{name}": value for name, value in tower.items()}

    def forward(
        self, inputs: list[Tensor], data_samples: list[BaseDataElement], mode: str = "predict"
    ) -> list[BaseDataElement]:
        """Track the objects of videos.

        Args:
            inputs: for each video (T, 3, H, W) uint8.
            data_samples: as :class:`~pe_dense.tracking.LoadVideo` gives them.
            mode: 'predict'.

        Returns:
            the samples, each with ``labels``: for each tap's block number a (T, H, W) uint8 array of object numbers in
            the frames' original size.

        Raises:
            ValueError: for another mode; there is nothing to train.
        """
        if mode != "predict":
            raise InputError(f"LabelPropagator only predicts, asked for mode {mode!r}")
        for frames, sample in zip(inputs, data_samples, strict=True):
            sample.labels = self.track(frames, sample.first_mask)
        return data_samples

    @torch.no_grad()
    def track(self, frames: Tensor, first_mask: np.ndarray, num_objects: int | None = None) -> dict[int, np.ndarray]:
        """Track the objects of one video.

        Args:
            frames: (T, 3, H, W), values 0 to 255.
            first_mask: of the first frame, of any size, uint8 object numbers; 0 is background.
            num_objects: objects are 1 to this number; by default those that the mask has, which may have gaps.

        Returns:
            for each tap's block number (T, \\*first_mask.shape) uint8; the first is the given one.
        """
        # The propagation numbers classes without gaps: a class without pixels would cost time, and could win somewhere.
        ids = np.unique(first_mask[first_mask > 0]) if num_objects is None else np.arange(1, num_objects + 1)
        numbers = np.concatenate([[0], ids]).astype(np.uint8)
        classes = np.searchsorted(numbers, first_mask).astype(np.uint8)
        runs: dict[int, LabelPropagation] = {}
        labels = {layer: [first_mask] for layer in dict.fromkeys(self.backbone.out_indices)}
        for layer, features in self._iter_features(frames):
            if layer not in runs:
                shares = share_labels(classes, len(numbers), tuple(features.shape[:2])).to(features.device)
                runs[layer] = LabelPropagation(features, shares, **self.settings)
                continue
            pixels = harden_labels(runs[layer].step(features), self.backbone.patch_size)
            labels[layer].append(numbers[resize_nearest(pixels.numpy(force=True), first_mask.shape)])
        return {layer: np.stack(masks) for layer, masks in labels.items()}

    def _iter_features(self, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Block numbers and (h, w, C), frames in order for each tap."""
        for images in frames.split(self.frames_per_pass):
            images = (images.float() - self.mean.to(images.device)) / self.std.to(images.device)
            for layer, maps in self.backbone.iter_intermediates(images, self.backbone.out_indices):
                for features in maps:
                    yield layer, features.permute(1, 2, 0)  # (h, w, C)
