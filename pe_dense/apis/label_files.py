"""Write predictions as annotations: data sets in COCO's and YOLO's format, labelme files and label maps."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pe_dense.apis.tiles import open_image
from pe_dense.engine.inferencer import ImageResult, Predictor
from pe_dense.runtime.masks import CroppedMasks, outlines
from pe_dense.runtime.results import Detections, LabelMap, Result, Segments
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.tiling import open_windows
from pe_dense.tiling.readers import WindowReader
from pe_dense.utils.atomic_write import atomic_write, write_json, write_text
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import is_upright, write_png

BACKGROUND = "background"  # class of the pixels without an object in label maps of objects
NO_LABEL = 255  # pixels without a segment in label maps of panoptic models


class LabelWriter(ABC):
    """Base class of the formats of annotations.

    Images are copied, so that a folder of annotations is complete; those with an EXIF orientation are written upright
    as PNG, since boxes are in pixels of the upright image and many programs ignore the orientation.

    Args:
        folder: output folder.
        classes: class names by label.
        open_image: opens an image as the model reads it.

    Attributes:
        name: name of the format in errors.
        images: folder of the images in the output folder.
        kinds: types of results that the format can represent.
    """

    name = ""
    images = "images"
    kinds: tuple[type, ...] = (Detections,)

    def __init__(self, folder: Path, classes: Sequence[str], open_image: Callable[[Path], WindowReader] = open_windows):
        self.folder, self.classes, self._open_image = folder, tuple(classes), open_image

    def add(self, stem: str, image: Path, pixels: np.ndarray, result: Result) -> None:
        """Write an image and its annotations.

        Args:
            stem: name of the files without suffix.
            image: file of the image.
            pixels: (H, W, 3) uint8, RGB, perhaps reduced.
            result: the prediction.

        Raises:
            ConfigError: if the format cannot represent the kind of result.
            WriteError: if a file cannot be written.
        """
        if not isinstance(result, self.kinds):
            raise ConfigError(
                f"--format {self.name} is for {_named(self.kinds)}, this model predicts {_named([type(result)])}: "
                f"choose {_formats_of(type(result))}"
            )
        size = result.image_size or pixels.shape[:2]
        copied = self._copy(stem, image, pixels, size)
        self.write(stem, copied, size, result)

    @abstractmethod
    def write(self, stem: str, image: Path, size: tuple[int, int], result: Result) -> None:
        """Write the annotations of an image.

        Args:
            stem: name of the files without suffix.
            image: the copied image.
            size: (H, W).
            result: the prediction.
        """

    @abstractmethod
    def finish(self) -> None:
        """Write the files that describe all images; also called after an interruption."""

    def _copy(self, stem: str, image: Path, pixels: np.ndarray, size: tuple[int, int]) -> Path:
        folder = self.folder / self.images
        if not is_upright(image):
            copy = folder / f"{stem}.png"
            reduced = pixels.shape[:2] != size
            write_png(copy, self._open_image(image).read(*map(slice, (0, 0), size)) if reduced else pixels)
            return copy
        copy = folder / f"{stem}{image.suffix.lower()}"
        with image.open("rb") as source, atomic_write(copy) as target:
            shutil.copyfileobj(source, target)
        return copy


class CocoWriter(LabelWriter):
    """COCO: ``images/`` and ``annotations/instances_train.json``, with scores, and masks as run lengths."""

    name = "coco"
    kinds = (Detections, Segments)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._images: list[dict] = []
        self._annotations: list[dict] = []

    def write(self, stem: str, image: Path, size: tuple[int, int], result: Result) -> None:
        """See the base class."""
        found = objects_of(result)
        number, (height, width) = len(self._images) + 1, size
        self._images.append(dict(id=number, file_name=image.name, height=height, width=width))
        self._annotations += found.to_coco(number, len(self._annotations) + 1)

    def finish(self) -> None:
        """See the base class."""
        categories = [dict(id=label, name=name) for label, name in enumerate(self.classes, 1)]
        content = dict(images=self._images, annotations=self._annotations, categories=categories)
        write_json(self.folder / "annotations" / "instances_train.json", content)


class YoloWriter(LabelWriter):
    """YOLO: ``data.yaml``, ``images/`` and ``labels/`` with boxes, or with outlines if there are masks."""

    name = "yolo"
    kinds = (Detections, Segments)

    def write(self, stem: str, image: Path, size: tuple[int, int], result: Result) -> None:
        """See the base class."""
        write_text(self.folder / "labels" / f"{stem}.txt", objects_of(result).to_yolo(size))

    def finish(self) -> None:
        """See the base class."""
        import yaml

        content = yaml.safe_dump(
            dict(path=".", train=self.images, names=dict(enumerate(self.classes))), allow_unicode=True, sort_keys=False
        )
        write_text(
            self.folder / "data.yaml",
            f"# Predicted labels. Add 'val: ...' for the images of a validation split.\n{content}",
        )


class LabelmeWriter(LabelWriter):
    """labelme: a JSON file beside each image, with rectangles, or polygons if there are masks, and ``classes.txt``.

    The polygons of the parts of a mask share a group.
    """

    name = "labelme"
    images = "."
    kinds = (Detections, Segments)

    def write(self, stem: str, image: Path, size: tuple[int, int], result: Result) -> None:
        """See the base class."""
        found, shapes = objects_of(result), []
        masks = found.crops()
        for index in range(len(found)):
            left, top, right, bottom = (float(value) for value in found.boxes[index])
            parts, kind = [[[left, top], [right, bottom]]], "rectangle"
            if masks is not None:
                parts, kind = [part.tolist() for part in outlines(*masks.crop(index))], "polygon"
            for points in parts:
                shapes.append(
                    dict(
                        label=found.names[index],
                        points=points,
                        group_id=index + 1 if len(parts) > 1 else None,
                        description="",
                        shape_type=kind,
                        flags={},
                        score=float(found.scores[index]),
                    )
                )
        content = dict(version="5.5.0", flags={}, shapes=shapes, imagePath=image.name, imageData=None)
        write_json(self.folder / f"{stem}.json", content | dict(imageHeight=size[0], imageWidth=size[1]))

    def finish(self) -> None:
        """See the base class."""
        write_text(self.folder / "classes.txt", "".join(f"{name}\n" for name in self.classes))


class MaskWriter(LabelWriter):
    """Label maps: ``images/``, ``masks/<name>.png`` with the index of the class, and ``classes.txt``.

    Objects with masks are painted in the order of their scores, the best last; index 0 is then the background.
    """

    name = "masks"
    kinds = (LabelMap, Segments, Detections)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._background = False

    def write(self, stem: str, image: Path, size: tuple[int, int], result: Result) -> None:
        """See the base class."""
        if isinstance(result, Detections):
            if result.masks is None:
                raise ConfigError("--format masks needs masks, but this model predicts boxes: choose coco or yolo")
            self._background = True
            labels, masks = np.zeros(size, np.int64), result.crops()
            for index in reversed(range(len(result))):
                crop, (row, column) = masks.crop(index)
                labels[row : row + crop.shape[0], column : column + crop.shape[1]][crop] = result.labels[index] + 1
        elif isinstance(result, Segments):
            labels = np.full(size, NO_LABEL, np.int64)
            for segment in result.segments:
                labels[result.ids == segment.id] = segment.label
        else:
            labels = np.asarray(result.labels)
        small = len(self.classes) + self._background <= NO_LABEL
        write_png(self.folder / "masks" / f"{stem}.png", labels.astype(np.uint8 if small else np.uint16))

    def finish(self) -> None:
        """See the base class."""
        names = [BACKGROUND, *self.classes] if self._background else self.classes
        write_text(self.folder / "classes.txt", "".join(f"{name}\n" for name in names))


FORMATS: dict[str, type[LabelWriter]] = {
    writer.name: writer for writer in (CocoWriter, YoloWriter, LabelmeWriter, MaskWriter)
}
_KINDS = {Detections: "objects", LabelMap: "label maps", Segments: "panoptic segments"}


def _named(kinds: Sequence[type]) -> str:
    return " and ".join(_KINDS.get(kind, "depth maps") for kind in kinds)


def _formats_of(kind: type) -> str:
    return " or ".join([*(name for name, writer in FORMATS.items() if kind in writer.kinds), "json"])


def write_labels(
    predictor: Predictor,
    images: Sequence[Path],
    folder: Path,
    format: str,
    *,
    score_thr: Thresholds = 0.3,
    batch_size: int = 1,
    results: Iterator[ImageResult] | None = None,
) -> Iterator[Path]:
    """Predict on image files and write the results as annotations.

    Files that cannot be used are listed in ``predictor.left_out``. The files that describe all images are written at
    the end, or when the iterator is closed or interrupted, for the images until then.

    Args:
        predictor: inferencer of a model.
        images: image files.
        folder: output folder, created if missing.
        format: one of :data:`FORMATS`.
        score_thr: lowest score of objects, see :meth:`~pe_dense.runtime.Detections.above`.
        batch_size: number of images per batch.
        results: results of the images, if they are not predicted as a whole.

    Yields:
        each image that could be used, after its annotations are written.

    Raises:
        ConfigError: for a format that cannot represent the results.
        WriteError: if a file cannot be written.
    """
    writer = FORMATS[format](Path(folder), predictor.classes, partial(open_image, predictor))
    done = 0
    try:
        for path, name, pixels, result in results or predictor.predict_results(images, folder, batch_size):
            writer.add(name, path, pixels, result.above(score_thr) if isinstance(result, Detections) else result)
            done += 1
            yield path
    finally:
        if done:
            writer.finish()


def objects_of(result: Detections | Segments) -> Detections:
    """Return the objects of a result: those of a panoptic segmentation are its segments of things, with score 1."""
    if isinstance(result, Detections):
        return result
    things = [segment for segment in result.segments if segment.is_thing]
    boxes = np.array([segment.bbox for segment in things], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    crops, corners = [], []
    for segment in things:
        left, top, width, height = segment.bbox
        crops.append(result.ids[top : top + height, left : left + width] == segment.id)
        corners.append((top, left))
    return Detections(
        boxes,
        np.ones(len(things), np.float32),
        np.array([segment.label for segment in things], np.int64),
        tuple(segment.name for segment in things),
        CroppedMasks(crops, corners, result.ids.shape),
        classes=result.classes,
        size=result.ids.shape,
    )
