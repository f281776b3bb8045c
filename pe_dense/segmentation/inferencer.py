"""Inferencers for semantic and panoptic segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import from_numpy

from pe_dense.datasets.panoptic import segment_ids
from pe_dense.detection.inferencer import DetectionPredictor, Detector, as_json
from pe_dense.ops.panopticapi import id2rgb
from pe_dense.probing.inferencer import ProbePredictor
from pe_dense.registry import INFERENCERS
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.image import write_png
from pe_dense.visualization.drawing import add_legend, hstack

_OPACITY = 0.6
_INSTANCE_OFFSET = 1000  # mmdet's panoptic maps: label + 1000 x number of the object


def _blend(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Lay colors over the image in gray, which preserves them: (H, W, 3) uint8 each."""
    gray = pixels.mean(axis=2, keepdims=True, dtype=np.float32)
    return np.rint(gray + np.float32(_OPACITY) * (colors - gray)).astype(np.uint8)


@INFERENCERS.register_module()
class SegmentationPredictor(ProbePredictor):
    """Semantic segmentation inferencer that draws classes over the image, with a legend of the classes present.

    In addition, ``<name>_labels.png`` contains the label of each pixel (16 bits for more than 256 classes), and the
    JSON file the share of pixels of each class.
    """

    endings = ("", "_labels")

    def write(self, stem: Path, pixels: np.ndarray, sample: SegDataSample) -> dict:
        """See :meth:`Predictor.write`."""
        labels = sample.pred_sem_seg.data[0].numpy()  # (H, W)
        names, palette = self.metainfo["classes"], np.asarray(self.metainfo["palette"], np.uint8)
        present, counts = np.unique(labels, return_counts=True)
        order = np.argsort(-counts)
        entries = [(names[label], tuple(map(int, palette[label]))) for label in present[order]]
        write_png(f"{stem}.png", add_legend(hstack(pixels, _blend(pixels, palette[labels])), entries))
        write_png(f"{stem}_labels.png", labels.astype(np.uint8 if len(names) <= 256 else np.uint16))
        shares = counts[order] / labels.size
        found = zip(present[order], shares, strict=True)
        return dict(classes=[dict(name=names[label], label=int(label), share=float(share)) for label, share in found])


@INFERENCERS.register_module()
class PanopticPredictor(DetectionPredictor):
    """Panoptic segmentation inferencer that draws segments over the image, with a legend of the classes present.

    The results are also written in COCO's panoptic format: ``panoptic/<name>.png`` has the ids of the segments as
    colors, and ``panoptic/segments.json`` lists images, segments and categories. The id of a category is its label. The
    JSON file of an image lists its segments, and its objects if the model predicts them with scores.

    Args:
        config, checkpoint, device, tta: see :class:`~pe_dense.detection.DetectionPredictor`.
    """

    def __init__(self, config: Config, checkpoint: str, device: str | None = None, tta: bool = False):
        super().__init__(config, checkpoint, device=device, tta=tta)

    def _set(self, detector: Detector, score_thr: float) -> None:
        super()._set(detector, score_thr)
        model = getattr(detector.model, "module", detector.model)  # inside a test-time augmentation model
        self._num_things = model.panoptic_fusion_head.num_things_classes

    def predict_files(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[Path]:
        """See the base class; ``panoptic/segments.json`` is written at the end."""
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        yield from super().predict_files(images, out_dir, batch_size)
        categories = [
            dict(id=label, name=name, isthing=int(label < self._num_things))
            for label, name in enumerate(self.detector.classes)
        ]
        content = dict(images=self._images, annotations=self._annotations, categories=categories)
        write_json(Path(out_dir) / "panoptic" / "segments.json", content)

    def write(self, stem: Path, pixels: np.ndarray, sample: DetDataSample) -> dict:
        """See :meth:`Predictor.write`."""
        codes = sample.pred_panoptic_seg.sem_seg[0].numpy()  # (H, W)
        ids, segments = self._segments(codes)
        colors = id2rgb(ids)
        drawn = _blend(pixels, colors)
        drawn[ids == 0] = pixels[ids == 0]
        drawn[_borders(ids)] = 255
        classes, palette = self.detector.classes, self._colors
        present = dict.fromkeys(segment["category_id"] for segment in sorted(segments, key=lambda one: -one["area"]))
        picture = hstack(pixels, drawn)
        entries = [(classes[label], palette[label]) for label in present]
        write_png(f"{stem}.png", add_legend(picture, entries) if entries else picture)
        name = f"{stem.name}.png"
        write_png(stem.with_name("panoptic") / name, colors)
        height, width = ids.shape
        source = Path(sample.metainfo.get("img_path") or name)
        number = len(self._images) + 1
        self._images.append(dict(id=number, file_name=f"{stem.name}{source.suffix}", height=height, width=width))
        self._annotations.append(dict(image_id=number, file_name=name, segments_info=segments))
        named = [dict(segment, category=classes[segment["category_id"]]) for segment in segments]
        found = dict(segments_info=named, segments_file=f"panoptic/{name}")
        return found | (dict(objects=as_json(sample, classes)) if "pred_instances" in sample else {})

    def _segments(self, codes: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        """Convert mmdet's panoptic map (H, W) to ids (H, W), 0 without a segment, and COCO's list of segments."""
        present = [int(code) for code in np.unique(codes) if code % _INSTANCE_OFFSET < len(self.detector.classes)]
        labels = [code % _INSTANCE_OFFSET for code in present]
        ids, segments = np.zeros(codes.shape, np.int32), []
        for code, label, number in zip(present, labels, segment_ids(labels, self._colors), strict=True):
            mask = codes == code
            ids[mask] = number
            left, top, right, bottom = map(int, mask2bbox(from_numpy(mask[None]))[0])
            segments.append(
                dict(
                    id=number,
                    category_id=label,
                    isthing=int(label < self._num_things),
                    area=int(mask.sum()),
                    bbox=[left, top, right - left, bottom - top],
                    iscrowd=0,
                )
            )
        return ids, segments


def _borders(ids: np.ndarray) -> np.ndarray:
    """Return the pixels (H, W) bool whose right or lower neighbor has another id."""
    borders = np.zeros(ids.shape, bool)
    borders[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    borders[:-1] |= ids[1:] != ids[:-1]
    return borders
