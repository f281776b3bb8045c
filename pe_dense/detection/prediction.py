"""Predictions on image files: a picture and a JSON file each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from pycocotools import mask as rle

from pe_dense.detection.detector import Detector, load_detector
from pe_dense.io.images import output_names
from pe_dense.registry import INFERENCERS

READABLE_SIDE = 480  # px; smaller images are enlarged before drawing


@INFERENCERS.register_module()
class DetectionPredictor:
    """Draws detections, see :func:`predict_files`.

    Args:
        config: of a detector.
        checkpoint: path, work dir or ``hf://`` name.
        device: as of :func:`~pe_dense.detection.load_detector`.
        score_thr: draw objects from this score on.
        tta: detect in several views of each image, as of :func:`~pe_dense.detection.load_detector`.
    """

    def __init__(
        self, config: Config, checkpoint: str, device: str | None = None, score_thr: float = 0.3, tta: bool = False
    ):
        self.detector = load_detector(config, checkpoint, device=device, tta=tta)
        self.score_thr = score_thr

    def predict_files(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[Path]:
        """As :func:`predict_files`."""
        return predict_files(self.detector, images, out_dir, score_thr=self.score_thr, batch_size=batch_size)


def predict_files(
    detector: Detector, images: Sequence[Path], out_dir: Path, *, score_thr: float = 0.3, batch_size: int = 1
) -> Iterator[Path]:
    """Detect in image files and write ``<name>.png`` with boxes, masks and labels drawn, and ``<name>.json``.

    Args:
        detector: see :func:`~pe_dense.detection.load_detector`.
        images: files that can be read.
        out_dir: made if missing; names repeat no folder, so equal names of different folders get a number.
        score_thr: draw objects from this score on; the JSON holds all.
        batch_size: images that run together.

    Yields:
        the picture of each image, in order.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = detector.metainfo
    samples = (sample for batch in detector.iter_batches(images, batch_size) for sample in batch)
    for image, name, sample in zip(images, output_names(images), samples, strict=True):
        picture = out_dir / f"{name}.png"
        pixels, drawn = enlarge(mmcv.imread(str(image), channel_order="rgb"), sample.cpu())
        visualizer.add_datasample(name, pixels, drawn, draw_gt=False, pred_score_thr=score_thr, out_file=str(picture))
        picture.with_suffix(".json").write_text(json.dumps(as_json(sample, detector.classes, image)))
        yield picture


def enlarge(pixels: np.ndarray, sample: DetDataSample) -> tuple[np.ndarray, DetDataSample]:
    """Enlarge a small image and what was found in it by a whole factor, so that labels can be read.

    Args:
        pixels: (H, W, 3).
        sample: detections in pixels of the image.

    Returns:
        image and detections with a longer side of at least 480 px.
    """
    factor = -(-READABLE_SIDE // max(pixels.shape[:2]))
    if factor == 1:
        return pixels, sample
    height, width = pixels.shape[:2]
    sample = sample.clone()
    found = sample.pred_instances = sample.pred_instances.clone()
    found.bboxes = found.bboxes * factor
    if "masks" in found:
        found.masks = found.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return mmcv.imresize(pixels, (width * factor, height * factor), interpolation="bicubic"), sample


def as_json(sample: DetDataSample, classes: Sequence[str], image: Path) -> dict:
    """A detection result in plain types; boxes are x1, y1, x2, y2 in pixels, masks COCO's run lengths."""
    found = sample.pred_instances.cpu().numpy()
    height, width = sample.ori_shape
    objects = [
        dict(category=classes[label], label=int(label), score=float(score), bbox=[float(x) for x in box])
        for label, score, box in zip(found.labels, found.scores, found.bboxes, strict=True)
    ]
    if "masks" in found:
        for item, mask in zip(objects, found.masks, strict=True):
            encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            item["mask"] = dict(size=encoded["size"], counts=encoded["counts"].decode())
    return dict(image=str(image), width=int(width), height=int(height), objects=objects)
