"""Test-time augmentation of any config that describes it."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from pe_dense.engine.preflight import inner_datasets
from pe_dense.utils.errors import ConfigError


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
    if backbone.get("type") != "pe_dense.FrozenTower":
        backbone.pop("init_cfg", None)
