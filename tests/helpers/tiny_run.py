"""Tiny training runs: config and logged values."""

import json
from pathlib import Path

from helpers.tool_runs import CONFIG
from pe_dense.engine.config import load_config


def write_config(folder, *, name="tiny", max_iters=6, validate=False, **options):
    """Write the shapes config with two blocks, eight images, and data read where the model runs, without chance.

    ``options`` change it further. AdamW's eps is raised, so that an update is a continuous function of the gradient:
    with 1e-8 the rounding of gradients that are zero in theory, as of the keys' biases, decides on whole steps.
    """
    config = load_config(CONFIG, {"data_root": str(folder / "shapes")})
    config.model.backbone.arch.layers = 2
    config.model.backbone.global_blocks = [1]
    config.train_cfg.update(max_iters=max_iters, val_interval=max_iters)
    config.default_hooks.logger.interval = 1
    config.log_processor.window_size = 1
    config.optim_wrapper.optimizer.eps = 1e-2
    for split in ("train", "val", "test"):
        config[f"{split}_dataloader"].update(batch_size=2, num_workers=0)
        shrink(config[f"{split}_dataloader"].dataset)
    if not validate:
        for key in ("val_cfg", "val_dataloader", "val_evaluator"):
            config.pop(key)
    config.merge_from_dict(options)
    path = Path(folder) / f"{name}.py"
    config.dump(path)
    return path


def shrink(dataset):
    while "generator" not in dataset:
        dataset = dataset["dataset"]
    dataset["generator"] = dict(num_train=8, num_val=4)
    dataset["pipeline"] = [step for step in dataset["pipeline"] if step["type"] != "RandomFlip"]


def logged(work_dir, *keys):
    """Return the logged values, {step: values of keys}; those of a resumed run replace earlier ones."""
    steps = {}
    for path in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if all(key in record for key in keys):
                steps[record["step"]] = [record[key] for key in keys]
    return steps
