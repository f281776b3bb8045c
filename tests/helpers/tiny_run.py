"""Tiny training runs: config and logged values."""

import json
from pathlib import Path

from helpers.tool_runs import CONFIG
from pe_dense.engine.config import load_config

# Of the optimizer's wrapper, without its precision and groups of parameters.
WRAPPER = ("optimizer", "clip_grad")


def two_blocks():
    """Return the config of a tower of two blocks with random weights, the first of them in windows of 64 px."""
    arch = dict(
        patch_size=8,
        width=128,
        layers=2,
        heads=4,
        mlp_ratio=4.0,
        image_size=64,
        ls_init_value=None,
        use_ln_post=False,
        pool_type="none",
    )
    windows = dict(window_size=8, global_blocks=[1], pos_embed="tile", rope_reference_grid=8)
    return dict(type="pe_dense.PETower", arch=arch, img_size=128, drop_path_schedule="linear", **windows)


def write_config(folder, *, name="tiny", max_iters=6, validate=False, **options):
    """Write the shapes config with two blocks, eight images, and data read where the model runs, without chance.

    It starts from random weights and computes in float32, with one learning rate; ``options`` change it further.
    AdamW's eps is raised, so that an update is a continuous function of the gradient: with 1e-8 the rounding of
    gradients that are zero in theory, as of the keys' biases, decides on whole steps.
    """
    config = load_config(CONFIG, {"data_root": str(folder / "shapes")})
    config.model.backbone = two_blocks()
    config.train_cfg.update(max_iters=max_iters, val_interval=max_iters)
    config.default_hooks.logger.interval = 1
    config.log_processor.window_size = 1
    config.optim_wrapper = dict(type="OptimWrapper", **{key: config.optim_wrapper[key] for key in WRAPPER})
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
