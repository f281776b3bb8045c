"""The test-time augmentation config runs with a tiny detector and generated images."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import drop_pretrained

CONFIGS = Path(__file__).parents[2] / "configs"


def test_augmented_test_runs(tmp_path):
    """Only the sizes of model and images differ from the published config."""
    tiny = Config.fromfile(CONFIGS / "shapes_deta_pe_tiny.py")
    config = load_config(CONFIGS / "coco_deta_pe_g14_1824_tta.py", dict(image_size=128))
    drop_pretrained(tiny.model)
    init_default_scope("mmdet")
    detector = MODELS.build(tiny.model)
    detector.init_weights()
    torch.save(dict(state_dict=detector.state_dict()), tmp_path / "detector.pth")

    augmented = config.test_dataloader.dataset.pipeline
    config.test_dataloader = tiny.test_dataloader
    config.test_dataloader.merge(dict(batch_size=2, num_workers=0, persistent_workers=False))
    config.test_dataloader.dataset.merge(
        dict(data_root=str(tmp_path / "shapes"), generator=dict(num_train=1, num_val=3), pipeline=augmented)
    )
    config.test_evaluator = dict(
        tiny.test_evaluator, ann_file=str(tmp_path / "shapes" / "annotations" / "instances_val.json")
    )
    config.model.module = tiny.model
    config.model.min_sides = (0, 0, 8, 8)
    config.model.num_queries = 200
    runner = build_runner.testing_runner(
        config, str(tmp_path / "detector.pth"), work_dir=str(tmp_path / "work"), launcher="none"
    )
    metrics = runner.test()
    assert 0.0 <= metrics["coco/bbox_mAP"] <= 1.0
    assert torch.equal(runner.model.module.level_embed, detector.level_embed)
