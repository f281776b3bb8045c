"""Typed results of models, and their conversion to the formats of annotations.

Neither PyTorch nor OpenCV is imported, so that results of exported models have the same types.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pe_dense.runtime.masks import CroppedMasks, run_lengths, yolo_text
from pe_dense.runtime.source import Source
from pe_dense.runtime.thresholds import Thresholds, thresholds_of
from pe_dense.utils.atomic_write import write_bytes, write_json
from pe_dense.utils.errors import InputError, UserError

# Functions that draw a result on an image, by class of result. `pe_dense.visualization.results` adds them: drawing
# needs OpenCV and Matplotlib.
DRAWING: dict[type, Callable] = {}
_LARGE = 1 << 26  # pixels


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base class of results of one image.

    Attributes:
        source: the image; None for results of exported models.
        palette: colors of the classes by label, RGB; None for a palette of the drawing.
    """

    source: Source | None = field(default=None, repr=False)
    palette: Sequence[tuple[int, int, int]] | None = field(default=None, repr=False)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W) of the image; None if it is not known."""
        maps = (getattr(self, name, None) for name in ("labels", "ids", "depth"))
        shapes = (values.shape for values in maps if values is not None and values.ndim == 2)
        return getattr(self, "size", None) or next(shapes, None)

    def draw(self, image: np.ndarray | None = None, **options) -> np.ndarray:
        """Draw the result on its image.

        Args:
            image: (H, W, 3) uint8, RGB; by default the image that was predicted, read again if it is a file.
            options: of the kind of result: ``score_thr`` (0) for :class:`Detections`.

        Returns:
            (h, w, 3) uint8, RGB; small images are enlarged.

        Raises:
            InputError: if the pixels were not kept, or the result is not a picture.
            UserError: if the functions that draw are not imported.
        """
        if not DRAWING:
            raise UserError("drawing needs the package with PyTorch: import pe_dense.visualization.results first")
        if type(self) not in DRAWING:
            raise InputError(f"{type(self).__name__} cannot be drawn: use pe-dense visualize for feature maps")
        return DRAWING[type(self)](self, image, **options)

    def to_json(self) -> dict:
        """Return the result as values of JSON, without maps of pixels.

        Raises:
            InputError: for results that are arrays only.
        """
        raise InputError(f"{type(self).__name__} has no JSON form: save it as .npz")

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the result by name."""
        values = ((name, value) for name, value in vars(self).items() if isinstance(value, np.ndarray | CroppedMasks))
        return {name: np.asarray(value) for name, value in values}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the result to a file, atomically.

        Args:
            path: ``.json`` for :meth:`to_json`, ``.npz`` for :meth:`arrays`, ``.png`` or ``.jpg`` for :meth:`draw`.
            overwrite: replace an existing file.

        Returns:
            the path.

        Raises:
            FileExistsError: if the file exists and ``overwrite`` is not set.
            InputError: for another suffix.
        """
        from PIL import Image

        path = Path(path)
        kind, content = path.suffix.lower(), io.BytesIO()
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists: choose another name or pass overwrite=True")
        if kind == ".json":
            write_json(path, self.to_json(), overwrite=overwrite)
            return path
        if kind == ".npz":
            np.savez_compressed(content, **self.arrays())
        elif kind in (".png", ".jpg", ".jpeg"):
            Image.fromarray(self.draw()).save(content, format="PNG" if kind == ".png" else "JPEG", quality=92)
        else:
            raise InputError(f"{path}: a result is saved as .json, .npz, .png or .jpg")
        write_bytes(path, content.getbuffer(), overwrite=overwrite)
        return path


@dataclass(frozen=True)
class Detections(Result):
    """Objects of an image, best first.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the image.
        scores: (N,) float32, from 0 to 1.
        labels: (N,) int64.
        names: (N,) class names; empty if the file has no class names.
        masks: (N, H, W) bool at the size of the image: an array, or :class:`CroppedMasks`, which
            ``numpy.asarray`` converts to one; None without a mask head.
        ids: (N,) int64, numbers of objects that are the same in all frames of a video, from 1; 0 for objects that are
            not tracked (yet), None for images.
        classes: class names by label; empty if there are none.
        size: (H, W) of the image; None if it is not known.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | CroppedMasks | None = None
    ids: np.ndarray | None = None
    classes: tuple[str, ...] = field(default=(), repr=False)
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index) -> Detections:
        """Return some of the objects: a slice, an array of indices or an array (N,) bool."""
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            names=tuple(self.names[i] for i in chosen) if self.names else (),
            masks=None if self.masks is None else self.masks[chosen],
            ids=None if self.ids is None else self.ids[chosen],
        )

    def above(self, threshold: Thresholds) -> Detections:
        """Return the objects with a score of at least a threshold.

        Args:
            threshold: one for all classes, or ``{class name: threshold}``, in which ``"*"`` is that of all other
                classes, which are kept without it.
        """
        return self[self.scores >= thresholds_of(threshold, self.names or ("",) * len(self))]

    def crops(self) -> CroppedMasks | None:
        """Return the masks as crops."""
        return CroppedMasks.of(self.masks) if isinstance(self.masks, np.ndarray) else self.masks

    def mask_boxes(self) -> np.ndarray:
        """Return the boxes (N, 4) float32 around the pixels of the masks; the boxes of objects without any."""
        boxes, masks = self.boxes.astype(np.float32), self.crops()
        for index, box in enumerate(boxes if masks is not None else ()):
            crop, (row, column) = masks.crop(index)
            rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
            if len(rows):
                box[:] = column + columns[0], row + rows[0], column + columns[-1] + 1, row + rows[-1] + 1
        return boxes

    def to_json(self) -> dict:
        """See the base class: ``objects``, boxes as x1, y1, x2, y2, masks as COCO's compressed run lengths."""
        masks = self.crops()
        objects = []
        for index in range(len(self)):
            label = int(self.labels[index])
            item = dict(category=self.names[index]) if self.names else {}
            item |= dict(label=label, score=float(self.scores[index]), bbox=[float(x) for x in self.boxes[index]])
            if masks is not None:
                item["mask"] = run_lengths(*masks.crop(index), masks.size)
            if self.ids is not None:
                item["id"] = int(self.ids[index])
            objects.append(item)
        return dict(objects=objects)

    def to_coco(self, image_id: int = 1, first_id: int = 1, *, first_category: int = 1) -> list[dict]:
        """Return annotations of COCO's format: boxes as x, y, width, height, masks as compressed run lengths.

        Args:
            image_id: id of the image.
            first_id: id of the first annotation.
            first_category: id of the class with label 0.
        """
        masks = self.crops()
        annotations = []
        for index in range(len(self)):
            left, top, right, bottom = (float(value) for value in self.boxes[index])
            one = dict(
                id=first_id + index,
                image_id=image_id,
                category_id=int(self.labels[index]) + first_category,
                bbox=[left, top, right - left, bottom - top],
                area=(right - left) * (bottom - top),
                iscrowd=0,
                score=float(self.scores[index]),
            )
            if masks is not None:
                crop, corner = masks.crop(index)
                one |= dict(segmentation=run_lengths(crop, corner, masks.size), area=int(crop.sum()))
            annotations.append(one)
        return annotations

    def to_yolo(self, size: tuple[int, int] | None = None) -> str:
        """Return the text of a label file of YOLO's format, one line per object, in parts of the image's sides.

        A line is the label and center x, center y, width, height; or, with masks, the outline of the object. The parts
        of a mask are joined by lines without width. Objects whose mask is empty are left out.

        Args:
            size: (H, W) of the image, if the result does not have it.

        Raises:
            InputError: if the size is not known.
        """
        masks = self.crops()
        size = size or self.size or (None if masks is None else masks.size)
        if size is None:
            raise InputError("this result has no size of its image: call to_yolo((height, width))")
        return yolo_text(self.boxes, self.labels, masks, size)

    def to_supervision(self) -> Any:
        """Return the objects as ``supervision.Detections``, with class names in ``data["class_name"]``.

        Raises:
            UserError: if the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UserError("supervision is not installed: pip install supervision") from error
        return supervision.Detections(
            xyxy=np.asarray(self.boxes, np.float32).reshape(-1, 4),
            mask=None if self.masks is None else np.asarray(self.masks),
            confidence=np.asarray(self.scores, np.float32),
            class_id=np.asarray(self.labels, int),
            tracker_id=None if self.ids is None else np.asarray(self.ids, int),
            data=dict(class_name=np.array(self.names)) if self.names else {},
        )


@dataclass(frozen=True)
class LabelMap(Result):
    """Semantic segmentation of an image.

    Attributes:
        labels: (H, W), the class of each pixel of the image; int64, or uint8 or uint16 for an image predicted in tiles.
        classes: class names by label; empty if the file has none.
    """

    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def label_map(self) -> np.ndarray:
        """The same as ``labels``."""
        return self.labels

    def shares(self) -> dict[int, float]:
        """Return the share of pixels of each label that occurs, the most frequent first."""
        counts = sum(np.bincount(row_block.ravel(), minlength=len(self.classes)) for row_block in _bands(self.labels))
        order = [label for label in np.argsort(-counts, kind="stable") if counts[label]]
        return {int(label): float(counts[label] / self.labels.size) for label in order}

    def to_json(self) -> dict:
        """See the base class: ``classes`` that occur, with their share of pixels."""
        return dict(
            classes=[
                dict(name=self.classes[label] if self.classes else str(label), label=label, share=share)
                for label, share in self.shares().items()
            ]
        )


@dataclass(frozen=True)
class Segment:
    """A segment of a panoptic segmentation.

    Attributes:
        id: value of its pixels in the map.
        label, name: its class.
        is_thing: whether it is an object, not an area such as the sky.
        area: number of its pixels.
        bbox: x, y, width and height in pixels.
    """

    id: int
    label: int
    name: str
    is_thing: bool
    area: int
    bbox: tuple[int, int, int, int]


@dataclass(frozen=True)
class Segments(Result):
    """Panoptic segmentation of an image.

    Attributes:
        ids: (H, W) int32, the id of the segment of each pixel; 0 for none.
        segments: the segments.
        classes: class names by label.
        objects: objects with scores, if the model predicts them.
    """

    ids: np.ndarray
    segments: tuple[Segment, ...]
    classes: tuple[str, ...] = field(default=(), repr=False)
    objects: Detections | None = None

    def to_json(self) -> dict:
        """See the base class: ``segments_info`` as in COCO's panoptic format, with ``category``, and ``objects``."""
        found = dict(segments_info=[dict(item, category=self.classes[item["category_id"]]) for item in self.to_coco()])
        return found | (self.objects.to_json() if self.objects is not None else {})

    def to_coco(self) -> list[dict]:
        """Return ``segments_info`` of COCO's panoptic format; the id of a category is its label."""
        return [
            dict(
                id=one.id,
                category_id=one.label,
                isthing=int(one.is_thing),
                area=one.area,
                bbox=list(one.bbox),
                iscrowd=0,
            )
            for one in self.segments
        ]


@dataclass(frozen=True)
class DepthMap(Result):
    """Depth of an image.

    Attributes:
        depth: (H, W) float32, meters for each pixel of the image.
    """

    depth: np.ndarray

    def to_json(self) -> dict:
        """See the base class: minimum, median and maximum in meters."""
        step = max(round((self.depth.size / _LARGE) ** 0.5), 1)  # the median of a huge map is that of a sample
        depth = np.asarray(self.depth[::step, ::step])
        return dict(depth=dict(min=float(depth.min()), median=float(np.median(depth)), max=float(depth.max())))


@dataclass(frozen=True)
class FeatureMaps(Result):
    """Feature maps of an image.

    Attributes:
        maps: (C, h, w) float32 for each exported block, by block number.
    """

    maps: dict[int, np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """See the base class: ``block_<number>``."""
        return {f"block_{number}": values for number, values in self.maps.items()}


@dataclass(frozen=True)
class Embeddings(Result):
    """Embedding of an image or a text.

    Attributes:
        vector: (D,) float32, of unit length.
    """

    vector: np.ndarray


def _bands(values: np.ndarray, rows: int = 512) -> Iterator[np.ndarray]:
    """Yield bands of rows, so that a map on disk is not read at once."""
    return (np.asarray(values[start : start + rows]) for start in range(0, len(values), rows))
