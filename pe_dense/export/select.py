"""Choose the graph of a model, and how its images are preprocessed."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.detectors import FasterRCNN, MaskRCNN
from mmseg.models.segmentors import DepthEstimator, EncoderDecoder
from torch import nn

from pe_dense.backbones import Backbone, FrozenTower
from pe_dense.detection.deta.deta import DETA
from pe_dense.export.detection import DETAGraph, MaskRCNNGraph
from pe_dense.export.graphs import (
    DepthGraph,
    Graph,
    ImageEmbeddingGraph,
    SegmentationGraph,
    TextEmbeddingGraph,
    TowerGraph,
)
from pe_dense.export.masks import InstanceMaskGraph, SemanticMaskGraph
from pe_dense.export.preprocess import Preprocessing
from pe_dense.language import CLIP
from pe_dense.segmentation import MaskTransformerDetector, MaskTransformerSegmentor
from pe_dense.utils.errors import InputError

PARTS = ("model", "tower", "image", "text")
# In this order, because classes of depth are also those of segmentation in mmseg.
_GRAPHS = (
    (DETA, DETAGraph),
    ((MaskRCNN, FasterRCNN), MaskRCNNGraph),
    (MaskTransformerDetector, InstanceMaskGraph),
    (MaskTransformerSegmentor, SemanticMaskGraph),
    (DepthEstimator, DepthGraph),
    (EncoderDecoder, SegmentationGraph),
)


def graph_of(
    model: nn.Module,
    part: str = "model",
    *,
    size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    norm: bool = False,
) -> Graph:
    """Turn a model into a graph that can be exported.

    Args:
        model: a backbone, a CLIP, a probe, a detector or a mask transformer.
        part: 'model' for the predictions of a model, 'tower' for the feature maps of its backbone, 'image' or 'text'
            for a tower of a CLIP.
        size: height and width of the input in pixels; by default those that the model was trained with.
        classes: class names.
        layers: blocks of the feature maps, with part 'tower'; the backbone's ``out_indices`` by default.
        norm: apply the backbone's final norm to them.

    Raises:
        InputError: if the model has no such part, or cannot be exported; says why.
    """
    if part not in PARTS:
        raise InputError(f"part {part!r} is not one of {', '.join(PARTS)}")
    if isinstance(model, Backbone) and part == "model":
        part = "tower"
    if part == "tower":
        tower = backbone_of(model)
        return TowerGraph(tower, _of_tower(tower, size), layers, norm)
    if layers is not None or norm:
        raise InputError("layers and norm are of feature maps: export them by part 'tower'")
    clip = model if isinstance(model, CLIP) else getattr(model, "clip", None)
    if part in ("image", "text"):
        if not isinstance(clip, CLIP):
            raise InputError(f"{type(model).__name__} has no {part} tower of a CLIP")
        if part == "text" and size is not None:
            raise InputError("size is of images: leave it out for part 'text'")
        return TextEmbeddingGraph(clip) if part == "text" else _image_graph(clip.visual, size)
    if isinstance(clip, CLIP):
        raise InputError("a CLIP has two towers, which are exported separately: set part to 'image' or 'text'")
    for kinds, graph in _GRAPHS:
        if isinstance(model, kinds):
            if graph in (DepthGraph, SegmentationGraph) and not isinstance(model.backbone, FrozenTower):
                break
            return graph(model, _of_model(model, size), classes)
    raise InputError(
        f"{type(model).__name__} cannot be exported as a whole: Mask R-CNN, DETA, EoMT, PMT and probes can; export its "
        "backbone by part 'tower'"
    )


def backbone_of(model: nn.Module) -> Backbone:
    """Return the backbone of a model.

    Raises:
        InputError: if it has none of this package.
    """
    for found in (model, getattr(model, "backbone", None), getattr(model, "visual", None)):
        found = found.tower if isinstance(found, FrozenTower) else found
        if isinstance(found, Backbone):
            return found
    raise InputError(f"{type(model).__name__} has no backbone of this package to export")


def _image_graph(tower: Backbone, size: tuple[int, int] | None) -> ImageEmbeddingGraph:
    return ImageEmbeddingGraph(tower, _of_tower(tower, size))


def _of_tower(tower: Backbone, size: tuple[int, int] | None) -> Preprocessing:
    """Resize to the native size with Pillow's filter, as the transform of CLIP."""
    return Preprocessing(
        size=size or (tower.image_size, tower.image_size),
        mean=tuple(map(float, tower.mean)),
        std=tuple(map(float, tower.std)),
        resize="squash",
        antialias=True,
        stride=tower.patch_size,
    )


def _of_model(model: nn.Module, size: tuple[int, int] | None) -> Preprocessing:
    """Read the normalization from the data preprocessor, and the size unless it is given."""
    preprocessor = model.data_preprocessor
    if not hasattr(preprocessor, "mean"):
        raise InputError("the model's data_preprocessor has no mean and std, with which images could be normalized")
    if not getattr(preprocessor, "channel_conversion", getattr(preprocessor, "_channel_conversion", True)):
        raise InputError("images of this config are BGR; only models for RGB images can be exported")
    mean, std = (getattr(preprocessor, name).flatten().tolist() for name in ("mean", "std"))
    if size is None:
        size = _usual_size(model)
    return Preprocessing(tuple(size), tuple(mean), tuple(std), stride=backbone_of(model).patch_size)


def _usual_size(model: nn.Module) -> tuple[int, int]:
    preprocessor = model.data_preprocessor
    crop = (model.test_cfg or {}).get("crop_size") or getattr(preprocessor, "size", None)
    if crop:
        return tuple(crop)
    side = getattr(preprocessor, "pad_size_divisor", 1)
    patch = backbone_of(model).patch_size
    if side <= 4 * patch:  # a divisor of paddings rather than the size of all images
        raise InputError("the config has images of any size: give the size of the input")
    return side, side
