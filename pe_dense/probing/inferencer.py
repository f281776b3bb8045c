"""A trained probe on image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from pe_dense.datasets.annotations import compare_with_checkpoint
from pe_dense.engine.runner import load_model_state
from pe_dense.probing.sweep import LayerSweep
from pe_dense.utils import read_checkpoint
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import output_names
from pe_dense.utils.state_dict import checkpoint_classes

_MAPS = ("pe_dense.LoadLabelMap", "pe_dense.LoadDepthMap", "LoadAnnotations", "LoadDepthAnnotation")


class ProbePredictor:
    """Predict for image files and draw; a base class.

    Args:
        config: of a probe.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name; of a probe, or of a sweep that has one of
            this layer.
        device: 'cuda', 'cpu', ...; a GPU where there is one by default.

    Attributes:
        metainfo: of the data that the probe was trained on.

    Raises:
        ConfigError: for a sweep's config.
        CheckpointError: if the checkpoint does not fit.
    """

    def __init__(self, config: Config, checkpoint: str, device: str | None = None):
        content = read_checkpoint(checkpoint)
        classes = (config.test_dataloader.dataset.get("metainfo") or {}).get("classes")
        compare_with_checkpoint(content, classes, checkpoint, "the config's data set")
        init_default_scope(config.get("default_scope", "mmseg"))
        model = MODELS.build(config.model)
        if isinstance(model, LayerSweep):
            raise ConfigError(f"{config.filename} is of many probes: draw one of them by the config of a single layer")
        load_model_state(model, content, str(checkpoint))
        dataset = config.test_dataloader.dataset
        usual = dataset.get("metainfo") or DATASETS.get(dataset.type).METAINFO
        num_classes = model.decode_head.num_classes if "classes" in usual else None
        self.metainfo = dict(checkpoint_classes(content, str(checkpoint), num_classes) or usual)
        self.model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self._pipeline = Compose([step for step in dataset.pipeline if step["type"] not in _MAPS])

    @torch.no_grad()
    def iter_batches(self, images: Sequence[Path], batch_size: int = 1) -> Iterator[list]:
        """Give each batch's data samples as soon as they are there."""
        for start in range(0, len(images), batch_size):
            batch = [self._pipeline(dict(img_path=str(path))) for path in images[start : start + batch_size]]
            yield self.model.test_step(pseudo_collate(batch))

    def predict_files(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[Path]:
        """Write ``<name>.png`` with the prediction beside the image, the map itself, and ``<name>.json``.

        Args:
            images: files that can be read.
            out_dir: made if missing; equal names of different folders get a number.
            batch_size: images that run together.

        Yields:
            the picture of each image, in order.
        """
        out_dir.mkdir(parents=True, exist_ok=True)
        samples = (sample for batch in self.iter_batches(images, batch_size) for sample in batch)
        for path, name, sample in zip(images, output_names(images), samples, strict=True):
            pixels = mmcv.imread(str(path), channel_order="rgb")
            told = self.write(out_dir / name, pixels, sample.cpu())
            height, width = pixels.shape[:2]
            content = dict(image=str(path), width=width, height=height, **told)
            write_json(out_dir / f"{name}.json", content)
            yield out_dir / f"{name}.png"

    def write(self, stem: Path, pixels: np.ndarray, sample) -> dict:
        """Write an image's picture and map.

        Args:
            stem: path without an ending.
            pixels: (H, W, 3) uint8, RGB.
            sample: with the prediction.

        Returns:
            what to tell of it in JSON.
        """
        raise NotImplementedError
