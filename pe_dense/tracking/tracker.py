"""Video object tracker based on label propagation with backbone features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor

from pe_dense.backbones import Backbone
from pe_dense.datasets.davis import read_mask
from pe_dense.datasets.video_objects import entry_masks
from pe_dense.registry import MODELS, TRANSFORMS
from pe_dense.tracking.label_propagation import (
    PropagationContext,
    check_settings,
    harden_labels,
    harden_maps,
    resize_nearest,
    share_labels,
)
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import ImageError, read_image

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@MODELS.register_module()
class LabelPropagator(BaseModel):
    """Track objects by propagating the first mask of a video, separately for each layer of a backbone.

    See :class:`~pe_dense.tracking.PropagationContext` for the method. The features of all layers are computed in one
    forward pass of each frame. The features of the context frames are kept in memory, for each layer 4 bytes times
    channels, patches and frames: 100 MB for one layer of a G-size tower, 5 GB for all 50. Videos are tracked one by
    one, so results do not depend on batching.

    Args:
        backbone: config of a :class:`~pe_dense.backbones.Backbone`, or the backbone itself; its ``out_indices`` are the
            layers to evaluate, None for all blocks.
        num_last_frames, radius, topk, temperature, neighborhood: see :class:`~pe_dense.tracking.PropagationContext`;
            the defaults are those of DINO's protocol.
        upsampling: of soft label maps, 'bilinear' to the size of the resized frames (DINO) or 'nearest' to that of the
            masks (DINOv3).
        norm: apply the backbone's final norm to the features (DINOv3).
        frames_per_pass: number of frames per forward pass of the backbone.
        tower_dtype: dtype of weights and activations of the backbone, 'float32', 'bfloat16' or 'float16'; label
            propagation is computed in float32.
        mean, std: normalization of frames, ``(x - mean) / std``; those of the backbone by default.

    Raises:
        ValueError: if an argument is out of range or ``tower_dtype`` is unknown.
    """

    def __init__(
        self,
        backbone: dict | Backbone,
        *,
        num_last_frames: int = 7,
        radius: int = 12,
        topk: int = 5,
        temperature: float = 0.1,
        neighborhood: str = "square",
        upsampling: str = "bilinear",
        norm: bool = False,
        frames_per_pass: int = 4,
        tower_dtype: str = "float32",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ):
        super().__init__(data_preprocessor=dict(type="BaseDataPreprocessor"))
        self.settings = dict(
            num_last_frames=num_last_frames,
            radius=radius,
            topk=topk,
            temperature=temperature,
            neighborhood=neighborhood,
        )
        check_settings(**self.settings)
        if upsampling not in ("bilinear", "nearest"):
            raise InputError(f"upsampling {upsampling!r} is not 'bilinear' or 'nearest'")
        self.upsampling, self.norm = upsampling, norm
        if frames_per_pass < 1:
            raise InputError(f"frames_per_pass must be at least 1, got {frames_per_pass}")
        if tower_dtype not in _DTYPES:
            raise InputError(f"tower_dtype {tower_dtype!r} is not one of {', '.join(_DTYPES)}")
        built = backbone if isinstance(backbone, Backbone) else MODELS.build(backbone)
        self.backbone = built.to(_DTYPES[tower_dtype])
        self.frames_per_pass = frames_per_pass
        values = (self.backbone.mean if mean is None else mean, self.backbone.std if std is None else std)
        self.mean, self.std = (torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1) for value in values)

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Convert the state dict of a backbone, or of a model that contains one, to the names of this model."""
        tower = self.backbone.adapt_state_dict(state, source)
        return {f"backbone.{name}": value for name, value in tower.items()}

    def forward(
        self, inputs: list[Tensor], data_samples: list[BaseDataElement], mode: str = "predict"
    ) -> list[BaseDataElement]:
        """Track the objects of videos.

        Args:
            inputs: frames (T, 3, H, W) uint8 of each video.
            data_samples: data samples of :class:`~pe_dense.tracking.LoadVideo`.
            mode: 'predict'.

        Returns:
            the data samples, each with ``labels``: a dict from block numbers to (T, H, W) uint8 arrays of object
            numbers at the original size of the frames.

        Raises:
            ValueError: for any other mode, because the model has no training.
        """
        if mode != "predict":
            raise InputError(f"LabelPropagator only supports mode 'predict', got {mode!r}")
        for frames, sample in zip(inputs, data_samples, strict=True):
            sample.labels = self.track(frames, sample.first_mask, later_masks=sample.get("later_masks"))
        return data_samples

    @torch.no_grad()
    def track(
        self,
        frames: Tensor,
        first_mask: np.ndarray,
        num_objects: int | None = None,
        later_masks: dict[int, np.ndarray] | None = None,
    ) -> dict[int, np.ndarray]:
        """Track the objects of one video.

        Args:
            frames: (T, 3, H, W), values 0 to 255.
            first_mask: uint8 object numbers of the first frame, at any size; 0 is background.
            num_objects: track objects 1 to this number; by default those in the masks, whose numbers may have gaps.
            later_masks: by number of the frame, masks of objects that enter after the first frame.

        Returns:
            a dict from block numbers to masks (T, \\*first_mask.shape) uint8; the first one is ``first_mask``.
        """
        # Classes are renumbered without gaps: a class without pixels would take time and could be predicted.
        ids = np.unique(first_mask[first_mask > 0]) if num_objects is None else np.arange(1, num_objects + 1)
        later_masks = later_masks or {}
        entering = {frame: np.unique(mask[mask > 0]) for frame, mask in sorted(later_masks.items())}
        numbers = np.concatenate([[0], ids, *entering.values()]).astype(np.uint8)
        runs: dict[int, PropagationContext] = {}
        labels = {layer: [first_mask] for layer in dict.fromkeys(self.backbone.out_indices)}
        for layer, features in self._iter_features(frames):
            frame = len(labels[layer])
            if layer not in runs:
                shares = self._shares(first_mask, numbers[: 1 + len(ids)], features)
                runs[layer] = PropagationContext(features, shares, **self.settings)
            elif frame in later_masks:
                mask = later_masks[frame]
                shares = self._shares(mask, np.concatenate([[0], entering[frame]]), features)[1:]
                before = runs[layer].propagate(features, shares)[: -len(shares)]  # where the others are
                found = numbers[self._harden(before, mask.shape)]
                labels[layer].append(np.where(mask > 0, mask, found))
            else:
                found = self._harden(runs[layer].propagate(features), first_mask.shape)
                labels[layer].append(numbers[found])
        return {layer: np.stack(masks) for layer, masks in labels.items()}

    def _shares(self, mask: np.ndarray, numbers: np.ndarray, features: Tensor) -> Tensor:
        """Convert a mask (H, W) to shares (K, h, w) of the classes with these numbers."""
        classes = sum((place * (mask == number) for place, number in enumerate(numbers)), np.zeros_like(mask))
        return share_labels(classes.astype(np.uint8), len(numbers), tuple(features.shape[:2])).to(features.device)

    def _harden(self, soft: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Convert soft labels (K, h, w) to classes (H, W) uint8 at the size of the masks."""
        if self.upsampling == "bilinear":
            return resize_nearest(harden_labels(soft, self.backbone.patch_size).numpy(force=True), size)
        # Rescaling and argmax are pointwise, so they commute with nearest-neighbor upsampling.
        return F.interpolate(harden_maps(soft)[None, None], size=size, mode="nearest")[0, 0].numpy(force=True)

    def _iter_features(self, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield block numbers and features (h, w, C), with frames in order for each block."""
        for images in frames.split(self.frames_per_pass):
            images = (images.float() - self.mean.to(images.device)) / self.std.to(images.device)
            for layer, maps in self.backbone.iter_intermediates(images, self.backbone.out_indices, norm=self.norm):
                for features in maps:
                    yield layer, features.permute(1, 2, 0)  # (h, w, C)


@TRANSFORMS.register_module()
class LoadVideo:
    """Load and resize all frames of a video, and load its first mask.

    The published protocol uses 480 px and multiples of 64, for patch sizes of 8 and 16, which do not divide into
    patches of 14 px. Resampling the patch embedding would change the features, so for patch size 14 use frames of
    476 px (34 patches) and a ``divisor`` of 14.

    Args:
        short_side: size to which the shorter side of the frames is resized, in pixels.
        divisor: the other side is rounded down to a multiple of this.
        round_up: round both sides up to multiples of ``divisor`` and resize bicubically, as in DINOv3, instead of
            bilinearly.

    Raises:
        ValueError: if ``1 <= divisor <= short_side`` does not hold, or a frame cannot be read.
    """

    def __init__(self, *, short_side: int = 480, divisor: int = 64, round_up: bool = False):
        if not 1 <= divisor <= short_side:
            raise InputError(f"1 <= divisor <= short_side is required, got divisor={divisor}, short_side={short_side}")
        self.short_side, self.divisor, self.round_up = short_side, divisor, round_up

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Compute the size (H, W) after resizing frames of size (H, W)."""
        short, long = sorted(size)
        if self.round_up:
            side = -(-self.short_side // self.divisor) * self.divisor
            long = -(-side * long // (short * self.divisor)) * self.divisor
        else:
            side, long = self.short_side, self.short_side * long // short // self.divisor * self.divisor
        return (long, side) if size[0] > size[1] else (side, long)

    def __call__(self, video: dict) -> dict:
        """Load an item of :class:`~pe_dense.tracking.DavisDataset`.

        Returns:
            ``inputs``, RGB frames (T, 3, H, W) uint8, and ``data_samples`` with ``first_mask`` (H, W) uint8 at the
            original size, ``later_masks`` (see :func:`~pe_dense.datasets.video_objects.entry_masks`) and the fields of
            the item as metainfo.
        """
        height, width = self.size_of(video["size"])
        frames = [self._resize(read_frame(path), (width, height)) for path in video["frames"]]
        first_mask = read_mask(video["masks"][0])
        if entries := video.get("entries"):  # without objects that are not evaluated
            first_mask[
                np.isin(first_mask, [number for number, frame in entries.items() if frame == 0], invert=True)
            ] = 0
        sample = BaseDataElement(metainfo=video, first_mask=first_mask, later_masks=entry_masks(video))
        return dict(inputs=torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), data_samples=sample)

    def _resize(self, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if self.round_up:
            return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
        return cv2.resize(frame, size)  # bilinear


def read_frame(path: str) -> np.ndarray:
    """Read a frame as stored, RGB (H, W, 3) uint8; EXIF orientation is ignored, as masks match
    the stored pixels.

    Raises:
        InputError: if the file cannot be read or is truncated.
    """
    try:
        return np.asarray(read_image(path, ignore_orientation=True))
    except (ImageError, FileNotFoundError) as error:
        raise InputError(f"frame {path} can't be read: {error}") from error
