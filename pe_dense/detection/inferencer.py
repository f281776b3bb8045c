"""Inferencer of detectors: detect objects in images and image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead
from mmdet.structures import DetDataSample
from mmdet.visualization.palette import get_palette
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch.nn.functional import grid_sample

from pe_dense.datasets.annotations import compare_with_checkpoint
from pe_dense.datasets.loading import image_reader, without_loading
from pe_dense.engine.class_counts import fit_to_checkpoint
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import (
    Predictor,
    drop_pretrained,
    predict_batches,
    prepare_image,
    use_test_time_augmentation,
)
from pe_dense.engine.runner import load_model_state
from pe_dense.registry import INFERENCERS
from pe_dense.runtime.masks import CroppedMasks
from pe_dense.runtime.results import Detections
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import write_png
from pe_dense.utils.state_dict import checkpoint_classes
from pe_dense.visualization.results import draw_detections

Image = str | Path | np.ndarray


def load_detector(
    config: str | Path | Config,
    checkpoint: str | Path,
    *,
    device: str | None = None,
    options: dict | None = None,
    tta: bool = False,
) -> Detector:
    """Build a detector from a config and load a checkpoint.

    Args:
        config: path of a config, or a loaded config, which is not modified.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name.
        device: 'cuda', 'cpu', ...; a GPU if available by default.
        options: overrides of a config given by its path (``dict(image_size=512)``), see
            :func:`~pe_dense.engine.config.load_config`.
        tta: test-time augmentation (multi-scale and horizontal flip) with the config's ``tta_model`` and
            ``tta_pipeline``.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: if a file is missing or does not match.
        ValueError: if options are given with a loaded config.
    """
    if isinstance(config, Config) and options:
        raise InputError("options change a config that is given by its path; change the loaded one itself")
    config = deepcopy(config) if isinstance(config, Config) else load_config(config, options)
    content = read_checkpoint(checkpoint)
    fit_to_checkpoint(config, content)
    dataset = config.test_dataloader.dataset
    classes = (dataset.get("metainfo") or {}).get("classes")
    compare_with_checkpoint(content, classes, checkpoint, "the config's data set")
    init_default_scope(config.get("default_scope", "mmdet"))
    if tta:
        use_test_time_augmentation(config)
    drop_pretrained(config.model)
    model = MODELS.build(config.model)
    load_model_state(model, content, str(checkpoint))
    head = getattr(model, "module", model)  # the detector inside a test-time augmentation model
    head = getattr(head, "roi_head", head)
    num_classes = getattr(getattr(head, "bbox_head", None), "num_classes", None)
    metainfo = checkpoint_classes(content, str(checkpoint), num_classes) or dataset.get("metainfo")
    metainfo = metainfo or DATASETS.get(dataset.type).METAINFO
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Detector(model.to(device).eval(), dataset.pipeline, metainfo)


class Detector:
    """Detect objects in images.

    Args:
        model: an mmdet detector.
        pipeline: test pipeline, starting with the loading of a file.
        metainfo: meta information of the data set, with ``classes``.

    Attributes:
        reader: the loading step of the pipeline.
    """

    def __init__(self, model: torch.nn.Module, pipeline: Sequence[dict], metainfo: dict):
        self.model = model
        self.metainfo = dict(metainfo)
        self.reader = image_reader(pipeline)
        self._transforms = Compose(without_loading(pipeline))
        self._paste_masks = _bound_mask_memory(model)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return tuple(self.metainfo["classes"])

    def __call__(self, images: Image | Sequence[Image], batch_size: int = 1) -> list:
        """Detect objects in images.

        Args:
            images: paths, or uint8 arrays (H, W, 3) in RGB; one or a sequence.
            batch_size: number of images per batch.

        Returns:
            one ``DetDataSample`` per image, with ``pred_instances``: boxes (N, 4) as x1, y1, x2, y2 in pixels of the
            image, scores (N,), labels (N,) and masks (N, H, W) if the model predicts them, best first.

        Raises:
            ValueError: for an array of another shape or dtype, or a batch size below 1.
        """
        images = [images] if isinstance(images, Image) else list(images)
        prepared = ((number, self.prepare(image, number)[0]) for number, image in enumerate(images))
        return [sample for _, sample in predict_batches(self, prepared, batch_size)]

    def prepare(self, image: Image, index: int = 0) -> tuple[dict, np.ndarray]:
        """Read and transform an image.

        Returns:
            the model's input, and the image, (H, W, 3) uint8, RGB.

        Raises:
            ImageError: if a file cannot be used.
            InputError: for an array of another shape or dtype.
        """
        return prepare_image(self.reader, self._transforms, image, index)

    @torch.no_grad()
    def predict(self, batch: list[dict], *, cropped: bool = False) -> list[DetDataSample]:
        """Detect objects in prepared images.

        Args:
            batch: outputs of :meth:`prepare`.
            cropped: return masks as :class:`MaskCrops`.
        """
        if self._paste_masks is not None:
            self._paste_masks.cropped = cropped
        return self.model.test_step(pseudo_collate(batch))


@INFERENCERS.register_module()
class DetectionPredictor(Predictor):
    """Inferencer that draws boxes, masks, class names and scores, and lists all objects in a JSON file.

    Args:
        config: config of a detector.
        checkpoint: path, work dir or ``hf://`` name.
        device: see :func:`~pe_dense.detection.load_detector`.
        score_thr: minimum score of the objects to draw, or ``{class name: score}``; the JSON file lists all.
        tta: test-time augmentation, see :func:`~pe_dense.detection.load_detector`.
    """

    tiles = "objects"

    def __init__(
        self, config: Config, checkpoint: str, device: str | None = None, score_thr: Thresholds = 0.3, tta: bool = False
    ):
        self._set(load_detector(config, checkpoint, device=device, tta=tta), score_thr)

    @classmethod
    def of(cls, detector: Detector, score_thr: Thresholds = 0.3) -> DetectionPredictor:
        """Create the inferencer from a loaded detector."""
        predictor = cls.__new__(cls)
        predictor._set(detector, score_thr)
        return predictor

    def _set(self, detector: Detector, score_thr: Thresholds) -> None:
        super().__init__()
        self.detector, self.score_thr = detector, score_thr
        palette = detector.metainfo.get("palette") or "random"
        self._colors = [tuple(map(int, color)) for color in get_palette(palette, len(detector.classes))]

    @property
    def reader(self) -> BaseTransform:
        """See the base class."""
        return self.detector.reader

    @property
    def network(self) -> torch.nn.Module:
        """See the base class."""
        return self.detector.model

    @property
    def classes(self) -> tuple[str, ...]:
        """See the base class."""
        return self.detector.classes

    def prepare(self, image: Path | np.ndarray, index: int) -> tuple[dict, np.ndarray]:
        """See the base class."""
        return self.detector.prepare(image, index)

    def predict(self, batch: list[dict]) -> list[DetDataSample]:
        """See the base class."""
        return self.detector.predict(batch, cropped=True)

    def result(self, sample: DetDataSample) -> Detections:
        """See the base class."""
        found, size = sample.pred_instances.numpy(), tuple(map(int, sample.ori_shape[:2]))
        return Detections(
            boxes=found.bboxes,
            scores=found.scores,
            labels=found.labels,
            names=tuple(self.classes[label] for label in found.labels),
            masks=CroppedMasks(*_crops(found, size), size) if "masks" in found else None,
            classes=self.classes,
            size=size,
            palette=self._colors,
        )

    def write(self, stem: Path, pixels: np.ndarray, result: Detections) -> dict:
        """See the base class."""
        drawn = draw_detections(result, pixels, score_thr=self.score_thr, copy=False)
        write_png(f"{stem}.png", drawn, reuse=True)
        return result.to_json()


def predict_files(
    detector: Detector, images: Sequence[Path], out_dir: Path, *, score_thr: Thresholds = 0.3, batch_size: int = 1
) -> Iterator[Path]:
    """Detect objects in image files, see :meth:`pe_dense.engine.inferencer.Predictor.predict_files`.

    Args:
        detector: see :func:`~pe_dense.detection.load_detector`.
        images, out_dir, batch_size: see :meth:`~pe_dense.engine.inferencer.Predictor.predict_files`.
        score_thr: minimum score of the objects to draw, or ``{class name: score}``; the JSON file lists all.

    Yields:
        path of the visualization of each image that could be read, in order.
    """
    return DetectionPredictor.of(detector, score_thr).predict_files(images, out_dir, batch_size)


class MaskCrops(list):
    """Masks of an image, each as its pasted region, (h, w) bool, and the region's top left (row, column)."""


def _crops(found, size: tuple[int, int]) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Crop masks to their pasted regions: boxes with a margin of one pixel, outside of which masks are empty.

    Returns:
        crops, and row and column of their top left pixels.
    """
    if isinstance(found.masks, MaskCrops):
        return [crop for crop, _ in found.masks], [corner for _, corner in found.masks]
    crops, corners = [], []
    for mask, box in zip(found.masks, found.bboxes, strict=True):
        left, top = (int(max(np.floor(value) - 1, 0)) for value in box[:2])
        right, bottom = (int(min(np.ceil(value) + 1, side)) for value, side in zip(box[2:], size[::-1], strict=True))
        crops.append(mask[top:bottom, left:right])
        corners.append((top, left))
    return crops, corners


_DENSE_BYTES = 64 << 20  # up to this size, the masks of an image are pasted together on a GPU, by mmdet


class _PasteMasks:
    """Faster and memory-efficient ``_predict_by_feat_single`` of a mask head.

    mmdet allocates N masks of the image's size, 1.2 GB for 50 objects in an image of 24 million pixels. On a CPU, and
    for large images, they are pasted box by box here, with the same result.

    Attributes:
        cropped: return :class:`MaskCrops` instead of a tensor (N, H, W), whose memory is touched only where boxes are.
    """

    def __init__(self, head: FCNMaskHead):
        self._dense = type(head)._predict_by_feat_single.__get__(head)
        self._class_agnostic = head.class_agnostic
        self.cropped = False

    def __call__(
        self, mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale=False, activate_map=False
    ) -> torch.Tensor | MaskCrops:
        height, width = img_meta["ori_shape"][:2]
        threshold = rcnn_test_cfg.mask_thr_binary
        count = len(mask_preds)
        small = bboxes.device.type != "cpu" and count * height * width <= _DENSE_BYTES
        if not rescale or activate_map or threshold < 0 or small:
            return self._dense(mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale, activate_map)
        bboxes /= bboxes.new_tensor(img_meta["scale_factor"]).repeat((1, 2))  # in place, as the caller expects
        if not self._class_agnostic:
            mask_preds = mask_preds[range(count), labels][:, None]
        probabilities, boxes = mask_preds.sigmoid().float().cpu(), bboxes.float().cpu().numpy()
        # np.zeros reserves memory lazily: the system allocates pages on first write.
        masks = MaskCrops() if self.cropped else torch.from_numpy(np.zeros((count, height, width), bool))
        for index, box in enumerate(boxes):
            pasted, (row, column) = _paste(probabilities[index : index + 1], box, (height, width))
            inside = pasted >= threshold
            if self.cropped:
                masks.append((inside.numpy(), (row, column)))
            else:
                masks[index, row : row + inside.shape[0], column : column + inside.shape[1]] = inside
        return masks


def _paste(mask: torch.Tensor, box: np.ndarray, size: tuple[int, int]) -> tuple[torch.Tensor, tuple[int, int]]:
    """Sample a mask at the pixels of its box and a margin of one pixel, as mmdet's ``_do_paste_mask`` does.

    The same arithmetic takes a third of the time, because the positions of the pixels are arrays of one dimension.

    Args:
        mask: (1, 1, h, w) float32, on the CPU.
        box: (4,) float32, x1, y1, x2, y2 in pixels.
        size: (H, W) of the image.

    Returns:
        (h, w) float32, and row and column of its top left pixel.
    """
    positions, corner = [], []
    for low, high, side in zip(box[:2], box[2:], size[::-1], strict=True):
        first, last = int(max(np.floor(low) - 1, 0)), int(min(np.ceil(high) + 1, side))
        with np.errstate(divide="ignore", invalid="ignore"):
            places = (np.arange(first, last, dtype=np.float32) + np.float32(0.5) - low) / (high - low) * 2 - 1
        places[np.isinf(places)] = 0  # of a box without area
        positions.append(places)
        corner.append(first)
    grid = np.empty((1, len(positions[1]), len(positions[0]), 2), np.float32)
    grid[..., 0], grid[..., 1] = positions[0], positions[1][:, None]
    return grid_sample(mask, torch.from_numpy(grid), align_corners=False)[0, 0], (corner[1], corner[0])


def _bound_mask_memory(model: torch.nn.Module) -> _PasteMasks | None:
    model = getattr(model, "module", model)
    head = getattr(getattr(model, "roi_head", None), "mask_head", None)
    if not isinstance(head, FCNMaskHead):
        return None
    head._predict_by_feat_single = _PasteMasks(head)
    return head._predict_by_feat_single
