"""Models as graphs of tensors: feature maps, probes and CLIP's towers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from pe_dense.backbones import Backbone
from pe_dense.backbones.base import resolve_indices
from pe_dense.export.preprocess import Preprocessing
from pe_dense.utils.errors import InputError

MAX_BATCH, MAX_CELLS = 4096, 4096  # upper limits that an exported file states for its dynamic sizes


class Graph(nn.Module):
    """Base class of exportable models: a module on tensors, with the names of its inputs and outputs.

    Attributes:
        task: kind of output, see :mod:`pe_dense.runtime`.
        input_names, output_names: names of the tensors in the file.
        dynamic_axes: which of 'batch' and 'size' may be dynamic.
        static_reason: why the others may not.
        has_roi_align: whether the graph has RoIAlign, which ONNX defines correctly from opset 16 on.
        uses_sizes: whether the second input is the size of each image before padding, (B, 2) int64, height and width.
        stride: divisor of the sides of images with dynamic sizes, in pixels.
        classes: class names, if the model has classes.
    """

    task: str
    input_names: tuple[str, ...] = ("images",)
    output_names: tuple[str, ...]
    dynamic_axes: tuple[str, ...] = ("batch", "size")
    static_reason = ""
    has_roi_align = False
    uses_sizes = False
    stride = 1

    def __init__(self, preprocessing: Preprocessing | None, classes: Sequence[str] | None = None):
        super().__init__()
        self.preprocessing = preprocessing
        self.classes = None if classes is None else tuple(classes)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Convert the part that takes most of the memory and time to a data type: the backbone."""
        self.tower.to(dtype)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the backbone's maps in its precision and return them in float32."""
        dtype = next(self.tower.parameters()).dtype
        return tuple(x.float() for x in self.tower(images.to(dtype)))

    def example(self, batch: int, dynamic: Sequence[str] = ()) -> tuple[Tensor, ...]:
        """Return inputs with the right shapes, (B, 3, H, W) and if used (B, 2).

        Dimensions that are dynamic differ from each other, from 1 and from the native size: a program that is traced
        with equal sizes, or a size at which positions are not resized, would hold for these only.
        """
        size = self.preprocessing.size
        if "size" in dynamic:
            cells = max(size) // self.stride
            size = (self.stride * (cells + 1), self.stride * (cells + 2))
        batch = max(batch, 2) if "batch" in dynamic else batch
        images = torch.zeros(batch, 3, *size)
        if not self.uses_sizes:
            return (images,)
        return images, torch.tensor([self.preprocessing.size] * batch)

    def dynamic_shapes(self, axes: Sequence[str]) -> tuple[dict, ...] | None:
        """Describe dynamic dimensions for ``torch.export``.

        Raises:
            InputError: if an axis cannot be dynamic; the message says why.
        """
        for axis in axes:
            if axis not in self.dynamic_axes:
                raise InputError(f"a dynamic {axis} is not supported for {type(self).__name__}: {self.static_reason}")
        shapes: dict[int, object] = {}
        if "batch" in axes:
            shapes[0] = Dim("batch", min=1, max=MAX_BATCH)
        if "size" in axes:
            shapes[2] = self.stride * Dim("rows", min=1, max=MAX_CELLS)
            shapes[3] = self.stride * Dim("columns", min=1, max=MAX_CELLS)
        if not shapes:
            return None
        # The sizes of images have the batch in common with them.
        return (shapes, {0: shapes[0]} if 0 in shapes else {}) if self.uses_sizes else (shapes,)

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Replace what cannot be exported for the duration of an export."""
        yield


class TowerGraph(Graph):
    """Feature maps of a backbone's blocks, (B, C, h, w) each.

    With dynamic sizes, rotary tables and position embeddings are computed in the graph. Window attention then needs
    sides that are multiples of the window, because a graph has no branch for padding.

    Args:
        tower: the backbone.
        preprocessing: of its input.
        indices: blocks; those of ``out_indices`` by default.
        norm: apply the backbone's final norm.
    """

    task = "features"

    def __init__(
        self, tower: Backbone, preprocessing: Preprocessing, indices: Sequence[int] | None = None, norm: bool = False
    ):
        super().__init__(preprocessing)
        self.tower, self.norm = tower, norm
        self.indices = tower.out_indices if indices is None else resolve_indices("layers", indices, tower.num_layers)
        self.output_names = tuple(f"features_{index}" for index in self.indices)
        self.stride = size_step(tower)
        self.dynamic_axes, self.static_reason = axes_of(tower)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one map per block, float32."""
        images = images.to(next(self.tower.parameters()).dtype)
        maps = self.tower.forward_intermediates(images, self.indices, norm=self.norm)
        return tuple(x.float() for x in maps)


def size_step(tower: Backbone) -> int:
    """Return the divisor of dynamic sizes in pixels: the patch size, times the window size if there are windows."""
    transformer = getattr(tower, "transformer", None)
    return tower.patch_size * (getattr(transformer, "window_size", None) or 1)


def axes_of(tower: Backbone) -> tuple[tuple[str, ...], str]:
    """Return the axes that may be dynamic with a backbone, and the reason for the others."""
    if getattr(tower, "dynamic", True) and hasattr(tower, "transformer"):
        return ("batch", "size"), ""
    return ("batch",), f"{tower.name} computes its positions for one image size when it is traced"


class ImageEmbeddingGraph(Graph):
    """CLIP's image tower: embeddings of unit length, (B, D)."""

    task = "image_embedding"
    output_names = ("embeddings",)

    def __init__(self, tower: Backbone, preprocessing: Preprocessing):
        super().__init__(preprocessing)
        self.tower = tower
        self.stride = size_step(tower)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), float32."""
        pooled = self.tower.forward_pooled(images.to(next(self.tower.parameters()).dtype))
        return F.normalize(pooled.float(), dim=-1)


class TextEmbeddingGraph(Graph):
    """CLIP's text tower: token ids (B, L) int64 to embeddings of unit length, (B, D).

    Args:
        tower: the text tower, or a CLIP.
    """

    task = "text_embedding"
    input_names = ("tokens",)
    output_names = ("embeddings",)
    dynamic_axes = ("batch",)
    static_reason = "texts are padded to the context length"

    def __init__(self, tower: nn.Module):
        super().__init__(None)
        self.tower = tower

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, D), float32."""
        return F.normalize(self.tower.encode_text(tokens).float(), dim=-1)

    def example(self, batch: int, dynamic: Sequence[str] = ()) -> tuple[Tensor, ...]:
        """Return token ids of the context length."""
        batch = max(batch, 2) if "batch" in dynamic else batch
        return (torch.ones(batch, self.tower.context_length, dtype=torch.int64),)


class ProbeGraph(Graph):
    """Base of heads on a frozen backbone, which becomes a part of the graph.

    Args:
        model: a probe of mmseg's form.
        preprocessing, classes: see :class:`Graph`.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str] | None = None):
        super().__init__(preprocessing, classes)
        # A FrozenTower keeps its backbone outside of the modules, where an export would not find its weights.
        self.tower: Backbone = model.backbone.tower
        self.head = model.decode_head
        self.flip = bool(model.test_cfg.get("flip"))
        self.stride = size_step(self.tower)
        self.dynamic_axes, self.static_reason = axes_of(self.tower)

    def upsampled(self, images: Tensor) -> Tensor:
        """Run the head and resize its output to the images, (B, K, H, W)."""
        size = images.shape[-2:]
        return F.interpolate(
            self.head_output(images), size, mode="bilinear", align_corners=bool(self.head.align_corners)
        )

    def head_output(self, images: Tensor) -> Tensor:
        """Run the backbone and the head."""
        return self.head(list(self.features(images)))


class SegmentationGraph(ProbeGraph):
    """A segmentation probe: labels (B, H, W) int64 of the pixels of the input."""

    task = "segmentation"
    output_names = ("labels",)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H, W)."""
        return self.upsampled(images).argmax(dim=1)


class DepthGraph(ProbeGraph):
    """A depth probe: meters (B, H, W) for the pixels of the input, averaged over flips if the config asks for it."""

    task = "depth"
    output_names = ("depth",)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H, W)."""
        depth = self.upsampled(images)
        if self.flip:
            depth = (depth + self.upsampled(images.flip(-1)).flip(-1)) / 2
        return depth[:, 0]

    def head_output(self, images: Tensor) -> Tensor:
        """Run backbone and head; depths are limited as in the head's own prediction."""
        if getattr(self.head, "class_token", False):
            images = images.to(next(self.tower.parameters()).dtype)
            pairs = self.tower.forward_intermediates(images, self.tower.out_indices, return_prefix_tokens=True)
            output = self.head([(features.float(), prefix[:, 0].float()) for features, prefix in pairs])
        else:
            output = super().head_output(images)
        limited = hasattr(self.head, "class_token")  # DINOv2's head limits depths in testing, the others by design
        return output.clamp(self.head.min_depth, self.head.max_depth) if limited else output
