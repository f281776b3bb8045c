"""Inferencer for open-vocabulary segmentation, and the check before its test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.utils import get_palette

from pe_dense.backbones import Backbone
from pe_dense.backbones.build import choose_device
from pe_dense.datasets.annotations import some
from pe_dense.datasets.loading import image_reader, without_loading
from pe_dense.engine.inferencer import Predictor
from pe_dense.engine.runner import load_model_state
from pe_dense.language.open_vocabulary import OpenVocabularySegmenter
from pe_dense.probing.sliding_window import complete_windows
from pe_dense.registry import HOOKS, INFERENCERS
from pe_dense.segmentation import SegmentationPredictor
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import ConfigError


@INFERENCERS.register_module()
class OpenVocabularyPredictor(SegmentationPredictor):
    """Open-vocabulary segmentation inferencer: draws and writes what :class:`SegmentationPredictor` does.

    Args:
        config: config of an :class:`~pe_dense.language.OpenVocabularySegmenter`.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name of a model with both towers; None if
            ``model.clip`` is the name of a file.
        device: 'cuda', 'cpu', ...; by default a GPU if available.
        words: classes to segment instead of the config's, as of
            :func:`~pe_dense.language.word_lists.parse_synonyms`.
        native_except: scale the windows and the short side of the images to the native size of the model (see
            :func:`native_windows`), except for the config values with these names;
            by default all are the config's.

    Attributes:
        metainfo: names and colors of the classes.

    Raises:
        CheckpointError: if the checkpoint has no text tower or does not match the config.
        ConfigError: as :func:`~pe_dense.language.word_lists.parse_synonyms`.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | None,
        device: str | None = None,
        words: str | Path | Sequence[str] | None = None,
        native_except: Collection[str] | None = None,
    ):
        Predictor.__init__(self)  # the base class reads a probe's checkpoint
        device = choose_device(device)
        init_default_scope(config.get("default_scope", "mmseg"))
        if native_except is not None and "model.test_cfg.stride" not in native_except:
            config.model.test_cfg.pop("stride", None)  # might be larger than a window that the user sets
        model = MODELS.build(config.model if words is None else dict(config.model, words=words))
        if checkpoint is not None:
            load_model_state(model, read_checkpoint(checkpoint), str(checkpoint))
        dataset = config.test_dataloader.dataset
        if native_except is not None:
            _use_native_size(model, dataset.pipeline, native_except)
        self.model = model.to(device).eval()
        colors = get_palette("ade")
        if words is None:  # the data set's own colors
            with DATASETS.switch_scope_and_registry(None) as registry:
                usual = dataset.get("metainfo") or registry.get(dataset.type).METAINFO
            colors = usual.get("palette") or colors
        palette = [colors[i % len(colors)] for i in range(model.num_classes)]
        self.metainfo = dict(classes=model.class_names, palette=palette)
        self._reader = image_reader(dataset.pipeline)
        self._pipeline = Compose(without_loading(dataset.pipeline))

    def predict(self, batch: list[dict]) -> list:
        """See :meth:`Predictor.predict`."""
        self.model.keep_scores = self.keep_scores
        return super().predict(batch)

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """See :meth:`Predictor.decide`."""
        labels = scores.argmax(0)
        if self.model.threshold:
            labels[scores.max(0) < self.model.threshold] = 0
        return labels


def native_windows(tower: Backbone, crop_size: Sequence[int] | None = None) -> tuple[dict, int]:
    """Scale the windows of PE Core L's protocols (336 px, steps of 112 px, short side 448 px) to a model's native size.

    Args:
        tower: image tower with ``image_size`` and ``patch_size``.
        crop_size: (height, width) of windows instead of the native size.

    Returns:
        the ``test_cfg`` with windows of the native size and a stride of a third of them, and a short side of images of
        4/3 of the native size, both rounded to patches.
    """

    def rounded(size: float) -> int:
        return max(1, round(size / tower.patch_size)) * tower.patch_size

    crop_size = tuple(crop_size or (tower.image_size,) * 2)
    stride = tuple(min(side, rounded(side / 3)) for side in crop_size)
    return dict(mode="slide", crop_size=crop_size, stride=stride), rounded(tower.image_size * 4 / 3)


def _use_native_size(model: OpenVocabularySegmenter, pipeline: Sequence[dict], kept: Collection[str]) -> None:
    """Set windows and short side by the model's native size, except for config values that are kept."""
    crop_size = model.test_cfg.get("crop_size") if "model.test_cfg.crop_size" in kept else None
    windows, short_side = native_windows(model.clip.visual, crop_size)
    windows = {key: value for key, value in windows.items() if f"model.test_cfg.{key}" not in kept}
    model.test_cfg = complete_windows(model.test_cfg | windows, ("whole", "slide"))
    if not any(name.startswith("test_dataloader.") for name in kept):
        (resize,) = [step for step in pipeline if step["type"] == "Resize"]
        resize["scale"] = (resize["scale"][0], short_side)


@HOOKS.register_module()
class WordsCheckHook(Hook):
    """Log the words of an open-vocabulary test, and compare the number of their classes with the data set's.

    Raises:
        ConfigError: if the numbers of classes differ, before the test.
    """

    def before_run(self, runner) -> None:
        """Check the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        names = runner.test_loop.dataloader.dataset.metainfo["classes"]
        if len(names) != model.num_classes:
            raise ConfigError(
                f"model.words has {model.num_classes} classes, the test data set {len(names)}: {some(names)}. Give one "
                "item or line for each of them, in this order; a class's synonyms are separated by semicolons"
            )
        runner.logger.info(
            f"{model.num_classes} classes by {len(model.queries)} words, {len(model.templates)} prompts of each, mode "
            f"{model.mode}; words: {runner.cfg.model.words}"
        )
