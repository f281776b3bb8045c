"""Open a model of a run for the hub, and collect what its card states."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from torch import nn

from pe_dense.backbones import PE_CONFIGS
from pe_dense.engine.config import load_config
from pe_dense.export.select import backbone_of
from pe_dense.export.source import config_of_run, open_model
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.hub import HubMixin, check_license
from pe_dense.utils.package_weights import published_weights

_NOT_METRICS = {"time", "data_time", "step", "iter", "epoch", "memory"}
_TRAINING = {"loss", "lr", "grad_norm"}  # keys of records of the training


def open_publishable(run: str, checkpoint: str | None = None, part: str = "model") -> nn.Module:
    """Open a model that can be pushed.

    Args:
        run: see :func:`~pe_dense.export.source.open_model`.
        checkpoint: another checkpoint than the run's last one.
        part: 'model', 'tower' for the backbone alone, 'clip' for both towers of a CLIP.

    Raises:
        ConfigError: if the model has no form for the hub.
    """
    if checkpoint is not None and Path(run).exists() and part == "model":
        run = str(config_of_run(Path(run)))
    model, classes = open_model(run, checkpoint, part="image" if part == "clip" else part)
    if part == "tower":
        model = backbone_of(model)
    if not isinstance(model, HubMixin):
        raise ConfigError(
            f"{type(model).__name__} has no form for the hub: Mask R-CNN, DETA, probes, CLIP and backbones have; push "
            "its backbone by --part tower"
        )
    if classes is not None and part == "model":
        model.class_names = tuple(classes)
    return model


def describe(run: str, license_name: str | None = None) -> dict:
    """Collect what a model card states from the files of a run; what is not there is left out.

    Args:
        run: work dir; name of a published model, which is the base; or anything else, of which nothing is known.
        license_name: license of the weights.

    Returns:
        ``data``, ``metrics``, ``base_model`` and ``license``, each if known.

    Raises:
        InputError: if the license is not an identifier.
    """
    card: dict = {}
    if license_name is not None:
        check_license(license_name)
        card["license"] = license_name
    folder = Path(run)
    if run in PE_CONFIGS:
        card |= _base_model(published_weights(run))
    if not folder.is_dir():
        return card
    if metrics := last_metrics(folder):
        card["metrics"] = metrics
    if not list(folder.glob("*.py")):
        return card
    config = load_config(config_of_run(folder))
    backbone = config.get("model", {}).get("backbone", {})
    card |= _base_model((backbone.get("init_cfg") or {}).get("checkpoint"))
    dataset = config.get("train_dataloader", {}).get("dataset", {})
    while isinstance(dataset.get("dataset"), dict):  # wrappers that repeat or mix
        dataset = dataset["dataset"]
    if "type" in dataset:
        name = str(dataset["type"]).rpartition(".")[2]
        # The name of the folder alone: its path is of no use to others and may tell more than the data.
        root = Path(str(dataset.get("data_root") or "")).name
        card["data"] = f"`{name}`" + (f", `{root}`" if root else "")
    return card


def _base_model(weights: str | None) -> dict[str, str]:
    """Return the repository that the backbone's initial weights are from, if it is one."""
    found = re.match(r"hf://([^/@]+/[^/@]+)", weights or "")
    return dict(base_model=found[1]) if found else {}


def last_metrics(folder: Path) -> dict[str, float]:
    """Return the metrics of the last validation that a run logged; empty without any."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("*/vis_data/*.json")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and not _TRAINING & set(record):
                values = {
                    key: round(value, 4)
                    for key, value in record.items()
                    if key not in _NOT_METRICS and isinstance(value, int | float) and _is_measured(value)
                }
                found = values or found
    return found


def _is_measured(value: float) -> bool:
    """Return whether a metric is one; COCO's evaluation returns -1 for sizes of objects that the data do not have."""
    return math.isfinite(value) and value != -1
