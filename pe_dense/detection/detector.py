"""A trained detector as a function on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from pe_dense.engine.config import load_config
from pe_dense.engine.runner import load_model_state
from pe_dense.engine.test_time import drop_pretrained, use_test_time_augmentation
from pe_dense.io import read_checkpoint

Image = str | Path | np.ndarray


def load_detector(
    config: str | Path | Config,
    checkpoint: str | Path,
    *,
    device: str | None = None,
    options: dict | None = None,
    tta: bool = False,
) -> Detector:
    """Build a config's model with a checkpoint's weights.

    Args:
        config: path of a config, or one that was loaded, which stays as it is.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name.
        device: 'cuda', 'cpu', ...; a GPU where there is one by default.
        options: changes of a config given by its path (``dict(image_size=512)``), see
            :func:`~pe_dense.engine.config.load_config`.
        tta: detect in several views of each image (sizes, mirrored), as the config's ``tta_model`` and
            ``tta_pipeline`` say: slower and better.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: for files that are missing or do not fit.
        ValueError: for options beside a loaded config.
    """
    if isinstance(config, Config) and options:
        raise ValueError("options change a config that is given by its path; change the loaded one itself")
    config = deepcopy(config) if isinstance(config, Config) else load_config(config, options)
    content = read_checkpoint(checkpoint)
    init_default_scope(config.get("default_scope", "mmdet"))
    if tta:
        use_test_time_augmentation(config)
    drop_pretrained(config.model)
    model = MODELS.build(config.model)
    load_model_state(model, content, str(checkpoint))
    dataset = config.test_dataloader.dataset
    metainfo = (content.get("meta") or {}).get("dataset_meta") or dataset.get("metainfo")
    metainfo = metainfo or DATASETS.get(dataset.type).METAINFO
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Detector(model.to(device).eval(), dataset.pipeline, metainfo)


class Detector:
    """Detect objects in images.

    Args:
        model: a detector of mmdet's form.
        pipeline: transforms of the test data, from reading a file on.
        metainfo: of the data set, with ``classes``.
    """

    def __init__(self, model: torch.nn.Module, pipeline: Sequence[dict], metainfo: dict):
        self.model = model
        self.metainfo = dict(metainfo)
        steps = [step for step in pipeline if step["type"] not in ("LoadAnnotations", "LoadImageFromFile")]
        self._from_file = Compose([dict(type="LoadImageFromFile"), *steps])
        self._from_array = Compose([dict(type="mmdet.LoadImageFromNDArray"), *steps])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return tuple(self.metainfo["classes"])

    def __call__(self, images: Image | Sequence[Image], batch_size: int = 1) -> list:
        """Detect in some images.

        Args:
            images: paths, or uint8 arrays (H, W, 3) in RGB; one or several.
            batch_size: images that run together.

        Returns:
            one ``DetDataSample`` per image, with ``pred_instances``: boxes (N, 4) as x1, y1, x2, y2 in pixels of the
            image, scores (N,), labels (N,) and masks (N, H, W) where the model gives them, best first.

        Raises:
            ValueError: for an array of another form, or a batch size below 1.
        """
        images = [images] if isinstance(images, Image) else list(images)
        return [sample for batch in self.iter_batches(images, batch_size) for sample in batch]

    @torch.no_grad()
    def iter_batches(self, images: Sequence[Image], batch_size: int = 1) -> Iterator[list]:
        """As calling, but gives each batch's results as soon as they are there."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, must be at least 1")
        for start in range(0, len(images), batch_size):
            data = [self._prepare(image, start + i) for i, image in enumerate(images[start : start + batch_size])]
            yield self.model.test_step(pseudo_collate(data))

    def _prepare(self, image: Image, index: int) -> dict:
        if not isinstance(image, np.ndarray):
            return self._from_file(dict(img_path=str(image), img_id=index))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"Image {index} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3) in RGB")
        return self._from_array(dict(img=np.ascontiguousarray(image[..., ::-1]), img_id=index))
