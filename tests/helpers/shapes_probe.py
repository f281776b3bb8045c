"""Short shapes configs of probes of PE-Mini-Spatial."""

from pathlib import Path

from pe_dense.engine.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
GENERATOR = dict(num_train=6, num_val=5, image_size=64)


def small_config(name, folder, **options):
    """Return a shapes config with four steps of two images, and data in ``folder``."""
    config = load_config(CONFIGS / f"{name}.py", {"data_root": str(folder / "shapes")})
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.generator = GENERATOR
        loader.dataset.pipeline = [step for step in loader.dataset.pipeline if step.type != "Resize"]
    config.model.data_preprocessor.size = (64, 64)
    config.train_cfg.update(max_iters=4, val_interval=2)
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = 2
    config.log_processor.window_size = 1
    config.log_level = "WARNING"
    config.merge_from_dict(options)
    return config
