"""Run an exported model on images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pe_dense.runtime.image import Picture, Placed, interpolate, normalized, paste_masks, place, read_picture
from pe_dense.runtime.results import DepthMap, Detections, Embeddings, FeatureMaps, LabelMap, Result
from pe_dense.utils.errors import InputError, UserError, first_line

TASKS = ("features", "segmentation", "depth", "detection", "image_embedding", "text_embedding")
_OF_IMAGES = ("size", "mean", "std", "resize", "antialias", "stride")  # metadata of all tasks but texts


class OnnxModel:
    """An ONNX file that ``pe-dense export`` wrote, with its preprocessing and the conversion of its outputs.

    Only onnxruntime, numpy and Pillow are imported, so that a program can be deployed without PyTorch.

    Args:
        path: the file; a second file with weights, ``<name>.data``, must be in the same folder.
        providers: onnxruntime's execution providers, names or pairs of a name and its options; the CPU by default.
        threads: threads per operator; onnxruntime's choice by default.

    Attributes:
        metadata: entries of the file: ``task``, ``size``, ``mean``, ``std``, ``classes``, ``precision``, ...
        task: kind of result, one of :data:`TASKS`.
        classes: class names; empty if there are none.
        context_length: number of token ids of a text; None for models of images.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file is damaged, or was not written by pe_dense, or a provider is not available.
        UserError: if onnxruntime is not installed.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str | tuple] = ("CPUExecutionProvider",), threads: int = 0
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("onnxruntime is not installed: pip install onnxruntime") from error
        path = Path(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder: name the .onnx file")
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        available = onnxruntime.get_available_providers()
        for provider in providers:
            name = provider if isinstance(provider, str) else provider[0]
            if name not in available:  # onnxruntime would run on the CPU instead
                raise InputError(f"provider {name} is not available in this onnxruntime, only {', '.join(available)}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised; warnings are about how float16 runs on a CPU
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # the exceptions of onnxruntime have no common base class
            # The message about a missing second file is about offsets.
            missing = "xternal data" in str(error) and not path.with_name(f"{path.name}.data").exists()
            hint = f" without {path.name}.data, which must be beside it" if missing else ""
            raise InputError(f"{path} cannot be loaded{hint}: {first_line(error)}") from error
        self.metadata = {key: _value(value) for key, value in self.session.get_modelmeta().custom_metadata_map.items()}
        self.task = self.metadata.get("task")
        needed = ("with_preprocessing", *(() if self.task == "text_embedding" else _OF_IMAGES))
        if self.task not in TASKS or not set(needed) <= set(self.metadata):
            raise InputError(f"{path} has no metadata of pe_dense: write it by `pe-dense export`")
        self.path = path
        self.classes: tuple[str, ...] = tuple(self.metadata.get("classes", ()))
        inputs = self.session.get_inputs()
        batch = inputs[0].shape[0]
        self._batch = batch if isinstance(batch, int) else None
        self.context_length: int | None = inputs[0].shape[1] if self.task == "text_embedding" else None
        self._inputs = [value.name for value in inputs]
        self._outputs = [value.name for value in self.session.get_outputs()]

    def predict(self, images: Picture | Sequence[Picture]) -> list[Result]:
        """Run the model on images.

        Args:
            images: paths, Pillow images or arrays (H, W, 3) uint8 in RGB; one or several.

        Returns:
            one result per image: :class:`Detections`, :class:`LabelMap`, :class:`DepthMap`, :class:`FeatureMaps` or
            :class:`Embeddings`. Boxes, masks and maps of pixels are in pixels of the image.

        Raises:
            InputError: for a file or an array that is not an image, a model of texts, or if onnxruntime fails.
            FileNotFoundError: if there is no such file.
        """
        if self.task == "text_embedding":
            raise InputError("this is a text tower: call embed_tokens with token ids")
        images = list(images) if isinstance(images, list | tuple) else [images]
        if self.metadata["with_preprocessing"]:
            return [self._predict_raw(read_picture(image)) for image in images]
        return [result for batch in self._batches(images) for result in self._predict_batch(batch)]

    def embed_tokens(self, tokens: np.ndarray) -> list[Embeddings]:
        """Embed texts with an exported text tower.

        Args:
            tokens: (N, context length) token ids, as of :func:`pe_dense.language.get_text_tokenizer`.

        Raises:
            InputError: for another kind of model, or ids of another shape.
        """
        if self.task != "text_embedding":
            raise InputError(f"this file is a model for {self.task}, not a text tower")
        tokens = np.asarray(tokens, np.int64)
        if tokens.ndim != 2 or tokens.shape[1] != self.context_length:
            raise InputError(f"tokens are (N, {self.context_length}), got {tokens.shape}")
        step = self._batch or max(len(tokens), 1)
        vectors = []
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            padded = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)]) if self._batch else part
            vectors += list(self._run({self._inputs[0]: padded})["embeddings"][: len(part)])
        return [Embeddings(vector) for vector in vectors]

    def _batches(self, images: Sequence[Picture]) -> Iterator[list[tuple[np.ndarray, Placed]]]:
        """Yield inputs (3, H, W) of one size with their places: as many as the batch of the file, 1 if it is dynamic.

        With dynamic sizes, images differ; a batch ends where the size changes.
        """
        batch: list[tuple[np.ndarray, Placed]] = []
        for image in images:
            pixels = read_picture(image)
            where, size = self._place(pixels)
            options = dict(antialias=self.metadata["antialias"])
            array = normalized(pixels, where, size, self.metadata["mean"], self.metadata["std"], **options)
            if batch and (len(batch) == (self._batch or 1) or batch[0][0].shape != array.shape):
                yield batch
                batch = []
            batch.append((array, where))
        if batch:
            yield batch

    def _place(self, pixels: np.ndarray) -> tuple[Placed, tuple[int, int]]:
        size, resize, stride = (self.metadata[name] for name in ("size", "resize", "stride"))
        return place(*pixels.shape[:2], tuple(size), resize, stride)

    def _predict_batch(self, batch: Sequence[tuple[np.ndarray, Placed]]) -> list[Result]:
        padded = [*batch, *[batch[-1]] * ((self._batch or len(batch)) - len(batch))]
        feeds = {self._inputs[0]: np.stack([array for array, _ in padded])}
        if len(self._inputs) > 1:
            feeds[self._inputs[1]] = np.array([[where.rows, where.columns] for _, where in padded], np.int64)
        outputs = self._run(feeds)
        return [
            self._result({name: value[index] for name, value in outputs.items()}, where)
            for index, (_, where) in enumerate(batch)
        ]

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(self._outputs, self.session.run(None, feeds), strict=True))
        except Exception as error:  # see __init__; for example too little memory, or a token id beyond the vocabulary
            shapes = ", ".join(f"{name} {value.shape}" for name, value in feeds.items())
            raise InputError(f"{self.path} failed on {shapes}: {first_line(error)}") from error

    def _predict_raw(self, pixels: np.ndarray) -> Result:
        """Run a graph with preprocessing; it returns boxes in pixels of the image, maps in those of its input."""
        outputs = self._run({self._inputs[0]: pixels})
        where, _ = self._place(pixels)
        return self._result({name: value[0] for name, value in outputs.items()}, where)

    def _result(self, outputs: dict[str, np.ndarray], where: Placed) -> Result:
        if self.task == "detection":
            return self._detections(outputs, where)
        if self.task == "segmentation":
            labels = outputs["labels"][: where.rows, : where.columns]
            return LabelMap(_nearest(labels, where.height, where.width), self.classes)
        if self.task == "depth":
            return DepthMap(interpolate(outputs["depth"][: where.rows, : where.columns], where.height, where.width))
        if self.task == "features":
            return FeatureMaps({int(name.rpartition("_")[2]): value for name, value in outputs.items()})
        return Embeddings(outputs["embeddings"])

    def _detections(self, outputs: dict[str, np.ndarray], where: Placed) -> Detections:
        found = outputs["scores"] > 0
        boxes, labels = outputs["boxes"][found], outputs["labels"][found]
        if not self.metadata["with_preprocessing"]:
            ratio = np.array([where.width / where.columns, where.height / where.rows] * 2, np.float32)
            boxes = boxes * ratio
        masks = outputs.get("masks")
        if masks is not None:
            masks = masks[found]
            if masks.dtype == bool:  # at the size of the input
                masks = masks[:, : where.rows, : where.columns]
                masks = _nearest(masks.transpose(1, 2, 0), where.height, where.width).transpose(2, 0, 1)
            else:
                masks = paste_masks(masks, boxes, where.height, where.width)
        names = tuple(self.classes[label] for label in labels) if self.classes else ()
        size = (where.height, where.width)
        return Detections(boxes, outputs["scores"][found], labels, names, masks, classes=self.classes, size=size)


def _value(text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize the first two axes to the nearest entries."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * (old / new), old - 1).astype(int)
        for new, old in zip((height, width), values.shape, strict=False)
    )
    return values[rows[:, None], columns]
