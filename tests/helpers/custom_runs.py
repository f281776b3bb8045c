"""Train, test and predict on custom data with tiny models, by the tools' own command lines."""

import json

from helpers.tiny_run import two_blocks
from helpers.tool_runs import ROOT, call_tool
from pe_dense.engine.config import load_config
from pe_dense.engine.preflight import inner_datasets


def write_config(path, name, *, max_iters=2, image_size=64, **options):
    """Write a config of generated shapes with one block and a few iterations, without augmentation by chance."""
    config = load_config(ROOT / f"configs/{name}.py", dict(image_size=image_size))
    if "panoptic_head" not in config.model:  # whose head uses the last blocks of the tower
        config.model.backbone = dict(two_blocks(), global_blocks=(0,), type=config.model.backbone.type)
        config.model.backbone.arch.layers = 1
    config.train_cfg.update(max_iters=max_iters, val_interval=max_iters)
    config.param_scheduler = []
    config.custom_hooks = [hook for hook in config.get("custom_hooks") or () if "MaskAnnealing" not in hook.type]
    config.default_hooks.checkpoint.interval = max_iters
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for dataset in inner_datasets(loader):
            dataset.pop("generator", None)
    config.merge_from_dict(options)
    config.dump(path)
    return path


def shrink(config, max_iters=1):
    """Train a config of mmdet or mmseg for a few iterations on small images, without data workers.

    It is neither validated nor has a schedule of learning rates.
    """
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=10)
    config.default_hooks.checkpoint.update(interval=max_iters, by_epoch=False)
    config.param_scheduler = []
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        for step in loader.dataset.pipeline:
            if "Resize" in step.type:
                step.scale = (64, 64)
            elif step.type == "RandomCrop":
                step.crop_size = (64, 64)
    config.train_dataloader.batch_size = 2
    return config


def run(name, *arguments):
    """Run a tool in this process; it must succeed."""
    done = call_tool(name, *arguments)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done


def train_test_predict(config, data, folder, picture, *options, classes="data"):
    """Train, test and predict on a folder of data.

    Args:
        config: path of a config.
        data: data folder.
        folder: for the outputs.
        picture: image to predict on.
        options: of training and test.
        classes: what the prediction gets the classes from: 'data' for the option, 'checkpoint' for that of the run with
            the config as it is, 'run' for the run's folder alone.

    Returns:
        the metrics of the test, and the JSON file of the prediction for ``picture``.
    """
    work_dir = folder / "run"
    run("train", config, "--data", data, *options, "--work-dir", work_dir)
    run("test", config, work_dir, "--data", data, *options, "--work-dir", folder / "test")
    model = [work_dir] if classes == "run" else [config, work_dir]
    run("predict", *model, picture, *(["--data", data] if classes == "data" else []), "--out", folder / "drawn")
    (metrics,) = (path for path in (folder / "test").glob("*/*.json") if path.stem == path.parent.name)
    (drawn,) = (folder / "drawn").glob("*.json")
    return json.loads(metrics.read_text()), json.loads(drawn.read_text())
