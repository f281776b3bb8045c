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
from pe_dense.detection.inferencer import DetectionPredictor, Detector
from pe_dense.engine.inferencer import ImageResult
from pe_dense.ops.panopticapi import id2rgb
from pe_dense.probing.inferencer import ProbePredictor
from pe_dense.registry import INFERENCERS
from pe_dense.runtime.results import LabelMap, Segment, Segments
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.image import write_png
from pe_dense.visualization.results import draw_label_map, draw_segments

_INSTANCE_OFFSET = 1000  # mmdet's panoptic maps: label + 1000 x number of the object


@INFERENCERS.register_module()
class SegmentationPredictor(ProbePredictor):
    """Semantic segmentation inferencer that draws classes over the image, with a legend of the classes present.

    In addition, ``<name>_labels.png`` contains the label of each pixel (16 bits for more than 256 classes), and the
    JSON file the share of pixels of each class.
    """

    endings = ("", "_labels")
    tiles = "maps"

    @property
    def map_dtype(self) -> type[np.generic]:
        """See :class:`Predictor`."""
        return label_dtype(len(self.classes))

    def result(self, sample: SegDataSample) -> LabelMap:
        """See :meth:`Predictor.result`."""
        return self.map_result(sample.pred_sem_seg.data[0].numpy())

    def tile_scores(self, sample: SegDataSample) -> np.ndarray:
        """See :meth:`Predictor.tile_scores`."""
        return sample.seg_logits.data.float().cpu().numpy()

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """See :meth:`Predictor.decide`."""
        if len(scores) == 1:  # as in mmseg, the probability of the foreground
            return scores[0] > self.model.decode_head.threshold
        return scores.argmax(0)

    def map_result(self, values: np.ndarray) -> LabelMap:
        """See :meth:`Predictor.map_result`."""
        palette = [tuple(map(int, color)) for color in self.metainfo["palette"]]
        return LabelMap(values, self.classes, palette=palette)

    def write(self, stem: Path, pixels: np.ndarray, result: LabelMap) -> dict:
        """See :meth:`Predictor.write`."""
        write_png(f"{stem}.png", draw_label_map(result, pixels), reuse=True)
        write_png(f"{stem}_labels.png", np.asarray(result.labels, label_dtype(len(result.classes))))
        return result.to_json()


def label_dtype(num_classes: int) -> type[np.unsignedinteger]:
    """Return the type of the labels in a PNG file."""
    return np.uint8 if num_classes <= 256 else np.uint16


@INFERENCERS.register_module()
class PanopticPredictor(DetectionPredictor):
    """Panoptic segmentation inferencer that draws segments over the image, with a legend of the classes present.

    The results are also written in COCO's panoptic format: ``panoptic/<name>.png`` has the ids of the segments as
    colors, and ``panoptic/segments.json`` lists images, segments and categories. The id of a category is its label. The
    JSON file of an image lists its segments, and its objects if the model predicts them with scores.

    Args:
        config, checkpoint, device, tta: see :class:`~pe_dense.detection.DetectionPredictor`.
    """

    tiles = "none"

    def __init__(self, config: Config, checkpoint: str, device: str | None = None, tta: bool = False):
        super().__init__(config, checkpoint, device=device, tta=tta)

    def _set(self, detector: Detector, score_thr: Thresholds) -> None:
        super()._set(detector, score_thr)
        model = getattr(detector.model, "module", detector.model)  # inside a test-time augmentation model
        self._num_things = model.panoptic_fusion_head.num_things_classes

    def predict_files(
        self,
        images: Sequence[Path],
        out_dir: Path,
        batch_size: int = 1,
        *,
        results: Iterator[ImageResult] | None = None,
    ) -> Iterator[Path]:
        """See the base class; ``panoptic/segments.json``, written at the end, has the images in their order."""
        listed: list[dict] = []
        annotations: list[dict] = []

        def in_order() -> Iterator[ImageResult]:  # before the results go to several threads
            for path, name, pixels, result in results or self.predict_results(images, out_dir, batch_size):
                number, (height, width) = len(listed) + 1, result.ids.shape
                listed.append(dict(id=number, file_name=f"{name}{path.suffix}", height=height, width=width))
                annotations.append(dict(image_id=number, file_name=f"{name}.png", segments_info=result.to_coco()))
                yield path, name, pixels, result

        yield from super().predict_files(images, out_dir, batch_size, results=in_order())
        categories = [
            dict(id=label, name=name, isthing=int(label < self._num_things))
            for label, name in enumerate(self.detector.classes)
        ]
        content = dict(images=listed, annotations=annotations, categories=categories)
        write_json(Path(out_dir) / "panoptic" / "segments.json", content)

    def result(self, sample: DetDataSample) -> Segments:
        """See :meth:`Predictor.result`."""
        ids, segments = self._segments(sample.pred_panoptic_seg.sem_seg[0].numpy())
        objects = super().result(sample) if "pred_instances" in sample else None
        return Segments(ids, segments, self.classes, objects, palette=self._colors)

    def write(self, stem: Path, pixels: np.ndarray, result: Segments) -> dict:
        """See :meth:`Predictor.write`."""
        write_png(f"{stem}.png", draw_segments(result, pixels), reuse=True)
        name = f"{stem.name}.png"
        write_png(stem.with_name("panoptic") / name, id2rgb(result.ids), reuse=True)
        return dict(result.to_json(), segments_file=f"panoptic/{name}")

    def _segments(self, codes: np.ndarray) -> tuple[np.ndarray, tuple[Segment, ...]]:
        """Convert mmdet's panoptic map (H, W) to ids (H, W), 0 without a segment, and the segments."""
        present = [int(code) for code in np.unique(codes) if code % _INSTANCE_OFFSET < len(self.classes)]
        labels = [code % _INSTANCE_OFFSET for code in present]
        ids, segments = np.zeros(codes.shape, np.int32), []
        for code, label, number in zip(present, labels, segment_ids(labels, self._colors), strict=True):
            mask = codes == code
            ids[mask] = number
            left, top, right, bottom = map(int, mask2bbox(from_numpy(mask[None]))[0])
            box = (left, top, right - left, bottom - top)
            is_thing = label < self._num_things
            segments.append(Segment(number, label, self.classes[label], is_thing, int(mask.sum()), box))
        return ids, tuple(segments)
