"""Base class and factory of inferencers: predict on image files and write visualizations."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from torch import nn

from pe_dense.backbones.build import backbone_class, choose_device
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.datasets.loading import array_results, read_pixels
from pe_dense.engine.config_check import check_config
from pe_dense.engine.preflight import check_weights, inner_datasets
from pe_dense.registry import INFERENCERS
from pe_dense.runtime.results import Result
from pe_dense.runtime.source import Source
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.errors import ConfigError, InputError, library_errors
from pe_dense.utils.image import ImageError
from pe_dense.utils.memory import keep_freed_memory
from pe_dense.utils.ordered_map import ordered_map, spare_cores
from pe_dense.utils.output_folder import output_names


def use_test_time_augmentation(config: Config) -> Config:
    """Enable test-time augmentation in a config.

    As in the OpenMMLab projects, a config defines ``tta_model``, which wraps the model and merges its predictions, and
    ``tta_pipeline``, which creates the views.

    Args:
        config: complete config, modified in place.

    Returns:
        the config.

    Raises:
        ConfigError: if the config does not define them.
    """
    missing = [name for name in ("tta_model", "tta_pipeline") if not config.get(name)]
    if missing:
        raise ConfigError(f"{config.filename} has no test-time augmentation: it lacks {' and '.join(missing)}")
    config.model = ConfigDict(config.pop("tta_model"), module=config.model)
    for dataset in inner_datasets(config.test_dataloader):
        dataset.pipeline = config.tta_pipeline
    return config


def drop_pretrained(model: dict) -> None:
    """Remove pretrained weights and LoRA from a model's config, since a checkpoint contains all weights.

    Loading them first would only cost time and perhaps a download. The weights of a frozen backbone, which are not
    saved in checkpoints, are kept. LoRA adapters are merged when the checkpoint is loaded.
    """
    model = model.get("module", model)
    model.pop("init_cfg", None)
    backbone = model.get("backbone", {})
    if backbone_class(backbone) is not FrozenTower:
        backbone.pop("init_cfg", None)
        backbone.pop("lora", None)


# Default inferencer of configs without `inferencer`.
DETECTION = dict(type="pe_dense.DetectionPredictor")
_MAX_WRITERS = 4  # threads that draw and encode images, each of which is in memory


# File of an image, name of its outputs, its pixels (H, W, 3) uint8, RGB, perhaps reduced, and its result.
ImageResult = tuple[Path, str, np.ndarray, Result]
Item = TypeVar("Item")


class Predictor(ABC):
    """Base class of inferencers, which predict on image files and draw the predictions.

    Attributes:
        endings: suffixes of the names of the files that :meth:`write` writes for an image.
        left_out: files that the last call of :meth:`predict_files` could not use, with the reason.
        tiles: how results of tiles are combined: 'objects' are merged, 'maps' are blended by :meth:`tile_scores`,
            :meth:`decide` and :meth:`map_result`; 'none' if images cannot be predicted in tiles.
        map_dtype: type of the values of combined maps.
        keep_scores: whether data samples need the scores that :meth:`tile_scores` returns, which take memory.
    """

    endings: Sequence[str] = ("",)
    tiles = "none"
    map_dtype: type[np.generic] = np.uint8
    keep_scores = False

    model: nn.Module

    def __init__(self) -> None:
        self.left_out: list[tuple[Path, str]] = []

    @property
    def network(self) -> nn.Module:
        """The model."""
        return self.model

    @property
    @abstractmethod
    def reader(self) -> BaseTransform:
        """The loading step of the pipeline."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names by label; empty if the model has no classes."""

    @abstractmethod
    def prepare(self, image: Path | np.ndarray, index: int) -> tuple[dict, np.ndarray]:
        """Read and transform an image.

        Args:
            image: a file, or pixels, (H, W, 3) uint8, RGB.
            index: number of the image.

        Returns:
            the model's input, and the image, (H, W, 3) uint8, RGB.

        Raises:
            ImageError: if the file cannot be used.
            InputError: for an array of another shape or dtype.
        """

    @abstractmethod
    def predict(self, batch: list[dict]) -> list:
        """Run the model on prepared images and return one data sample per image."""

    @abstractmethod
    def result(self, sample) -> Result:
        """Convert a data sample on the CPU to a typed result."""

    def tile_scores(self, sample) -> np.ndarray:
        """Return the scores (C, h, w) float32 of a data sample of a tile, which may be overwritten."""
        raise NotImplementedError

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Convert blended scores (C, h, w) to the values (h, w) of a map."""
        raise NotImplementedError

    def map_result(self, values: np.ndarray) -> Result:
        """Return the result of a combined map (H, W)."""
        raise NotImplementedError

    @abstractmethod
    def write(self, stem: Path, pixels: np.ndarray, result: Result) -> dict:
        """Write the visualization of an image, ``<stem>.png``, and any further outputs.

        Args:
            stem: output path without suffix.
            pixels: (H, W, 3) uint8, RGB, drawn on; of an image in tiles, reduced by a whole number.
            result: the prediction.

        Returns:
            fields of the JSON file in addition to ``image``, ``width`` and ``height``.
        """

    def predict_files(
        self,
        images: Sequence[Path],
        out_dir: Path,
        batch_size: int = 1,
        *,
        results: Iterator[ImageResult] | None = None,
    ) -> Iterator[Path]:
        """Write ``<name>.png`` (visualization), ``<name>.json`` and further outputs of :meth:`write` for each image.

        A file that cannot be used does not end the run: it is added to ``left_out`` and logged.

        Args:
            images: image files. Output names are numbered where they would collide with each other or with an image.
            out_dir: output folder, created if missing.
            batch_size: number of images per batch.
            results: results of the images instead of those of :meth:`predict_results`.

        Yields:
            path of the visualization of each image that could be used, in order.

        Raises:
            InputError: for a batch size below 1.
            WriteError: if an output cannot be written.
        """

        def write(predicted: ImageResult) -> Path:
            path, name, pixels, result = predicted
            stem = out_dir / name
            fields = self.write(stem, pixels, result)
            height, width = result.image_size or pixels.shape[:2]
            # :func:`pe_dense.utils.output_folder.is_output` recognizes outputs by the beginning of this file.
            write_json(f"{stem}.json", dict(image=str(path), width=width, height=height, **fields))
            return Path(f"{stem}.png")

        writers = spare_cores(_MAX_WRITERS)
        predicted = results or self.predict_results(images, out_dir, batch_size)
        yield from ordered_map(write, predicted, workers=writers, ahead=writers)

    def predict_results(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[ImageResult]:
        """Predict on image files, in batches; see :meth:`predict_files`.

        Yields:
            for each image that could be used: its file, the name of its outputs, its pixels (H, W, 3) uint8, RGB, and
            its result.
        """
        self.left_out = []
        named = list(zip(images, output_names(images, self.endings, out_dir), strict=True))

        def prepare(item: tuple[int, tuple[Path, str]]) -> tuple | Exception:
            index, (path, name) = item
            try:
                data, pixels = self.prepare(path, index)
            except (ImageError, FileNotFoundError) as error:
                return error
            return (path, name, pixels), data

        def usable() -> Iterator[tuple]:
            prepared = ordered_map(prepare, enumerate(named), ahead=batch_size)  # while the model runs
            for (path, _), item in zip(named, prepared, strict=True):
                if isinstance(item, Exception):
                    self.left_out.append((path, str(item)))
                    print_log(f"left out: {item}", "current", logging.WARNING)
                else:
                    yield item

        for (path, name, pixels), sample in predict_batches(self, usable(), batch_size):
            yield path, name, pixels, replace(self.result(sample.cpu()), source=Source(path))


def predict_batches(
    predictor: Predictor, prepared: Iterable[tuple[Item, dict]], batch_size: int = 1
) -> Iterator[tuple[Item, Any]]:
    """Run a model on prepared images in batches.

    Args:
        predictor: inferencer of the model, or anything with its :meth:`Predictor.predict`.
        prepared: anything that names an image, and the model's input, as of :meth:`Predictor.prepare`; a batch is
            requested when the results before it have been used.
        batch_size: number of images per batch; the last one may be smaller.

    Yields:
        what names the image, and its data sample. A sample is released before the next one is yielded, as its scores
        may be large.

    Raises:
        InputError: for a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, must be at least 1")
    images = iter(prepared)
    while batch := list(islice(images, batch_size)):
        names = [name for name, _ in batch]
        samples = list(predictor.predict([data for _, data in batch]))  # a tuple with test-time augmentation
        del batch
        for name in names:
            yield name, samples.pop(0)


def prepare_image(
    reader: Callable[[dict], dict], pipeline: Callable[[dict], dict], image: str | Path | np.ndarray, index: int
) -> tuple[dict, np.ndarray]:
    """Read an image and run the pipeline on it, see :meth:`Predictor.prepare`.

    Args:
        reader: loading step of the pipeline.
        pipeline: steps after the loading.
        image: a file, or pixels, (H, W, 3) uint8, RGB.
        index: number of the image.
    """
    if isinstance(image, np.ndarray):
        return transform(pipeline, array_results(reader, image, index), f"image {index}"), image
    results = read_pixels(reader, str(image), index)
    pixels = np.ascontiguousarray(results["img"][..., ::-1]).astype(np.uint8, copy=False)
    return transform(pipeline, results, image), pixels


def transform(pipeline: Callable[[dict], dict], results: dict, path: str | Path) -> dict:
    """Run a pipeline after image loading; errors state the image.

    Raises:
        ImageError: with the image's path and size.
    """
    height, width = results["ori_shape"]
    try:
        return pipeline(results)
    except Exception as error:  # an image of 1 px by 100,000 px raises various errors in OpenCV and Pillow
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise ImageError(
            f"{path} ({width} x {height} px) cannot be processed by this config's pipeline: "
            f"{type(error).__name__}: {reason}"
        ) from error


def load_predictor(config: Config, checkpoint: str | None, *, device: str | None = None, **options) -> Predictor:
    """Build the inferencer of a config (a detector's by default) and load a checkpoint.

    Args:
        config: complete config.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name; None for a model that loads its file itself.
        device: 'cuda', 'cpu', ...; a GPU if available by default.
        options: options of the inferencer.

    Raises:
        ConfigError: for a method that works on videos, or an option that the inferencer does not have.
        CheckpointError, FileNotFoundError: if a file is missing or does not match.
    """
    if "train_dataloader" not in config and not config.get("inferencer"):
        raise ConfigError(f"{config.filename} has nothing to draw on single images: run it by tools/test.py")
    check_config(config)
    choose_device(device)
    keep_freed_memory()
    drop_pretrained(config.model)
    check_weights(config)
    inferencer = dict(config.get("inferencer") or DETECTION)
    known = signature(INFERENCERS.get(inferencer["type"])).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"{config.filename} is drawn by {inferencer['type']}, which has no {', '.join(unknown)}")
    with library_errors(f"{config.filename}: the model can't be built from these values"):
        return INFERENCERS.build(dict(inferencer, config=config, checkpoint=checkpoint, device=device, **options))


def config_of_run(path: Path) -> Path:
    """Find the config that a run wrote into its work dir.

    Args:
        path: the work dir or a checkpoint in it.

    Raises:
        ConfigError: if there is not exactly one.
    """
    folder = path if path.is_dir() else path.parent
    found = sorted(folder.glob("*.py"))
    if len(found) != 1:
        raise ConfigError(f"{folder} has {len(found)} configs, not the one of a run: name the config before {path}")
    return found[0]
