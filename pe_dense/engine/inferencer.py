"""Draw the predictions of a config's model on image files."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from pe_dense.backbones.build import backbone_class, choose_device
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.engine.config_check import check_config
from pe_dense.engine.preflight import check_weights, inner_datasets
from pe_dense.registry import INFERENCERS
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.errors import ConfigError, InputError, library_errors
from pe_dense.utils.image import ImageError, output_names


def use_test_time_augmentation(config: Config) -> Config:
    """Have a config test several views of each image and merge what they give.

    As in the OpenMMLab projects, a config describes it by ``tta_model``, which wraps the model, and ``tta_pipeline``,
    which makes the views.

    Args:
        config: a whole config; it is changed.

    Returns:
        the config.

    Raises:
        ConfigError: for a config without them.
    """
    missing = [name for name in ("tta_model", "tta_pipeline") if not config.get(name)]
    if missing:
        raise ConfigError(f"{config.filename} has no test-time augmentation: it lacks {' and '.join(missing)}")
    config.model = ConfigDict(config.pop("tta_model"), module=config.model)
    for dataset in inner_datasets(config.test_dataloader):
        dataset.pipeline = config.tta_pipeline
    return config


def drop_pretrained(model: dict) -> None:
    """Leave out the weights that a model's config starts from: a checkpoint brings them all.

    Loading them first would only cost time and perhaps a download. The weights of a frozen tower, which are in no
    checkpoint, stay.
    """
    model = model.get("module", model)
    model.pop("init_cfg", None)
    backbone = model.get("backbone", {})
    if backbone_class(backbone) is not FrozenTower:
        backbone.pop("init_cfg", None)


# Of configs that name none.
DETECTION = dict(type="pe_dense.DetectionPredictor")


class Predictor(ABC):
    """A trained model that draws its predictions on image files; a base class.

    Attributes:
        endings: of the names of the files that :meth:`write` writes for an image.
        left_out: of the last call of :meth:`predict_files`, the files that could not be used, with the reason.
    """

    endings: Sequence[str] = ("",)

    def __init__(self) -> None:
        self.left_out: list[tuple[Path, str]] = []

    @abstractmethod
    def prepare(self, path: Path, index: int) -> tuple[dict, np.ndarray]:
        """Read and transform an image.

        Returns:
            the model's input, and the image, (H, W, 3) uint8, RGB.

        Raises:
            ImageError: if the file cannot be used.
        """

    @abstractmethod
    def predict(self, batch: list[dict]) -> list:
        """Run the model on prepared images; gives a data sample for each."""

    @abstractmethod
    def write(self, stem: Path, pixels: np.ndarray, sample) -> dict:
        """Write the picture of an image, ``<stem>.png``, and what else there is to show.

        Args:
            stem: path without an ending.
            pixels: (H, W, 3) uint8, RGB.
            sample: with the prediction.

        Returns:
            what to write to the JSON file, beside ``image``, ``width`` and ``height``.
        """

    def predict_files(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[Path]:
        """Write ``<name>.png`` with the prediction drawn, ``<name>.json``, and what :meth:`write` adds, for each image.

        A file that cannot be used does not end the run: it is added to ``left_out``, and logged.

        Args:
            images: files. Two never share an output, and no output replaces one of them: names get numbers.
            out_dir: made if missing.
            batch_size: images that run together.

        Yields:
            the picture of each image that could be used, in order.

        Raises:
            InputError: for a batch size below 1.
            WriteError: if an output cannot be written.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, must be at least 1")
        self.left_out = []
        named = list(zip(images, output_names(images, self.endings, out_dir), strict=True))
        for start in range(0, len(named), batch_size):
            usable = []
            for index, (path, name) in enumerate(named[start : start + batch_size], start):
                try:
                    usable.append((path, name, *self.prepare(path, index)))
                except (ImageError, FileNotFoundError) as error:
                    self.left_out.append((path, str(error)))
                    print_log(f"left out: {error}", "current", logging.WARNING)
            if not usable:
                continue
            samples = self.predict([data for _, _, data, _ in usable])
            for (path, name, _, pixels), sample in zip(usable, samples, strict=True):
                stem = out_dir / name
                told = self.write(stem, pixels, sample.cpu())
                height, width = pixels.shape[:2]
                # The beginning of this file is how :func:`pe_dense.utils.image.is_output` recognizes its pictures.
                write_json(f"{stem}.json", dict(image=str(path), width=width, height=height, **told))
                yield Path(f"{stem}.png")


def transform(pipeline: Callable[[dict], dict], results: dict, path: Path) -> dict:
    """Run the part of a pipeline after reading; its errors name the image.

    Raises:
        ImageError: with the image's path and size.
    """
    height, width = results["ori_shape"]
    try:
        return pipeline(results)
    except Exception as error:  # an image of 1 px by 100,000 px breaks OpenCV and Pillow in ways of their own
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise ImageError(
            f"{path} ({width} x {height} px) cannot be processed by this config's pipeline: "
            f"{type(error).__name__}: {reason}"
        ) from error


def load_predictor(config: Config, checkpoint: str, *, device: str | None = None, **options) -> Predictor:
    """Build what a config's ``inferencer`` names, a detector's by default, with a checkpoint's weights.

    Args:
        config: a whole config.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name.
        device: 'cuda', 'cpu', ...; a GPU where there is one by default.
        options: of the inferencer.

    Raises:
        ConfigError: for a method that works on videos, or an option that the inferencer does not have.
        CheckpointError, FileNotFoundError: for files that are missing or do not fit.
    """
    if "train_dataloader" not in config:
        raise ConfigError(f"{config.filename} has nothing to draw on single images: run it by tools/test.py")
    check_config(config)
    choose_device(device)
    drop_pretrained(config.model)
    check_weights(config)
    inferencer = dict(config.get("inferencer") or DETECTION)
    known = signature(INFERENCERS.get(inferencer["type"])).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"{config.filename} is drawn by {inferencer['type']}, which has no {', '.join(unknown)}")
    with library_errors(f"{config.filename}: the model can't be built from these values"):
        return INFERENCERS.build(dict(inferencer, config=config, checkpoint=checkpoint, device=device, **options))
