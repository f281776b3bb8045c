"""Base inferencer that applies a trained probe to image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.models.segmentors import DepthEstimator

from pe_dense.datasets.annotations import compare_with_checkpoint
from pe_dense.datasets.loading import image_reader, without_loading
from pe_dense.engine.class_counts import fit_to_checkpoint
from pe_dense.engine.inferencer import Predictor, prepare_image
from pe_dense.engine.runner import load_model_state
from pe_dense.probing.sweep import LayerSweep
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.state_dict import checkpoint_classes


class ProbePredictor(Predictor):
    """Base class of inferencers that predict on image files and draw the results.

    Args:
        config: config of a probe.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name of a probe, or of a sweep that contains a
            probe of this layer.
        device: 'cuda', 'cpu', ...; by default a GPU if available.

    Attributes:
        metainfo: metainfo of the data set that the probe was trained on.

    Raises:
        ConfigError: for the config of a sweep.
        CheckpointError: if the checkpoint does not match the config.
    """

    def __init__(self, config: Config, checkpoint: str, device: str | None = None):
        super().__init__()
        content = read_checkpoint(checkpoint)
        fit_to_checkpoint(config, content)
        classes = (config.test_dataloader.dataset.get("metainfo") or {}).get("classes")
        compare_with_checkpoint(content, classes, checkpoint, "the config's data set")
        init_default_scope(config.get("default_scope", "mmseg"))
        model = MODELS.build(config.model)
        if isinstance(model, LayerSweep):
            raise ConfigError(
                f"{config.filename} is the config of a sweep over layers: use the config of a single layer"
            )
        load_model_state(model, content, str(checkpoint))
        dataset = config.test_dataloader.dataset
        with DATASETS.switch_scope_and_registry(None) as registry:  # data sets are registered in the default scope
            usual = dataset.get("metainfo") or registry.get(dataset.type).METAINFO
        # The classes of NYU are scene types, which a depth head does not predict.
        has_classes = "classes" in usual and not isinstance(model, DepthEstimator)
        num_classes = model.decode_head.num_classes if has_classes else None
        self.metainfo = dict(checkpoint_classes(content, str(checkpoint), num_classes) or usual)
        self.model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self._reader = image_reader(dataset.pipeline)
        self._pipeline = Compose(without_loading(dataset.pipeline))

    @property
    def reader(self) -> BaseTransform:
        """See the base class."""
        return self._reader

    @property
    def classes(self) -> tuple[str, ...]:
        """See the base class."""
        return () if isinstance(self.model, DepthEstimator) else tuple(self.metainfo.get("classes") or ())

    def prepare(self, image: Path | np.ndarray, index: int) -> tuple[dict, np.ndarray]:
        """See :meth:`Predictor.prepare`."""
        return prepare_image(self._reader, self._pipeline, image, index)

    @torch.no_grad()
    def predict(self, batch: list[dict]) -> list:
        """See :meth:`Predictor.predict`."""
        return self.model.test_step(pseudo_collate(batch))
