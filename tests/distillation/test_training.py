"""Training runs of SpatialAligner: logs, resuming and errors."""

import json
from copy import deepcopy
from itertools import count
from pathlib import Path

import pytest
import torch
from helpers.tiny_alignment import aligner_config, make_aligner, photos, write_core
from mmengine.config import Config
from PIL import Image

from pe_dense.engine import fsdp
from pe_dense.engine.build_runner import training_runner
from pe_dense.engine.hooks.nan_loss import NonFiniteLossError
from pe_dense.registry import OPTIMIZERS

_COUNT = count()
FOLDER = Path(__file__).parents[2] / "configs"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(photos(6)):
        pixels = (image.permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3_broken.png").write_bytes(b"not an image")
    return folder


def make_runner(tmp_path, images, name="run", max_iters=4, resume=None):
    config = Config(
        dict(
            default_scope="mmengine",
            runner_type="pe_dense.Runner",
            model=aligner_config(write_core(tmp_path)),
            train_dataloader=dict(
                batch_size=2,
                sampler=dict(type="InfiniteSampler", shuffle=True),
                dataset=dict(
                    type="pe_dense.ImageFolder", data_root=str(images), pipeline=[dict(type="pe_dense.PILToTensor")]
                ),
            ),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=1000),
            optim_wrapper=dict(
                type="OptimWrapper", accumulative_counts=2, optimizer=dict(type="pe_dense.Lamb", lr=1e-2)
            ),
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
                checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False),
            ),
            log_processor=dict(type="LogProcessor", window_size=1, by_epoch=False),
            custom_hooks=[dict(type="pe_dense.FiniteLossHook"), dict(type="pe_dense.SkippedImagesHook", interval=2)],
            visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")]),
            experiment_name=f"align_{tmp_path.name}_{next(_COUNT)}",
            randomness=dict(seed=0),
        )
    )
    return training_runner(config, work_dir=str(tmp_path / name), resume=resume, amp=False, launcher="none")


def logged(work_dir):
    logs = [path.read_text() for path in sorted(work_dir.glob("*/vis_data/scalars.json"))]
    records = [json.loads(line) for log in logs for line in log.splitlines()]
    return {record["step"]: record for record in records if "loss" in record}


def test_resumed_training_is_the_uninterrupted_one(tmp_path, images):
    """Masks and dropped paths depend on the step's seed; moments are in the checkpoint, teachers in their own files."""
    pytest.importorskip("timm")
    whole = make_runner(tmp_path, images, "whole", max_iters=8).train()
    make_runner(tmp_path, images, "parts", max_iters=4).train()
    again = make_runner(tmp_path, images, "parts", max_iters=8, resume="auto")
    resumed = again.train()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    start = torch.load(tmp_path / "core.pt")
    teacher = resumed.teachers["core"].tower.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in teacher.items()), "teachers stay at the start"
    records = logged(tmp_path / "parts")
    assert sorted(records) == list(range(1, 9))
    assert {"loss_core", "cosine", "effective_rank"} <= set(records[8])
    assert records[8]["loss_core"] < records[1]["loss_core"]


def test_unusable_images_are_named_and_counted_once(tmp_path, images):
    pytest.importorskip("timm")
    make_runner(tmp_path, images, max_iters=8).train()
    (log,) = (tmp_path / "run").glob("*/*.log")
    lines = [line for line in log.read_text().splitlines() if "Skipped image" in line]
    assert len(lines) == 1 and "Skipped image 1: " in lines[0] and "3_broken.png is not a readable image" in lines[0]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, images, monkeypatch):
    pytest.importorskip("timm")
    runner = make_runner(tmp_path, images, max_iters=8)
    loss = runner.model.loss

    def spoiled(images):
        if runner.iter == 5:
            runner.model.backbone.ln_pre.weight.data[0] = torch.nan
        return loss(images)

    monkeypatch.setattr(runner.model, "loss", spoiled)
    with pytest.raises(NonFiniteLossError, match=r"iteration 6: loss_core is NaN\. .* 2 images of the batch are "):
        runner.train()
    note = tmp_path / "run" / "non_finite_iter_6_rank_0.txt"
    assert [Path(line).parent for line in note.read_text().splitlines()] == [images, images]
    assert (tmp_path / "run" / "iter_4.pth").exists() and not (tmp_path / "run" / "iter_6.pth").exists()
    assert (tmp_path / "run" / "last_checkpoint").read_text().endswith("iter_4.pth")


def test_configs_come_to_the_published_recipe():
    for name in ("images_align_pe_g14", "images_distill_pe_b16"):
        config = Config.fromfile(FOLDER / f"{name}.py")
        counts = config.optim_wrapper.accumulative_counts
        assert 8 * config.train_dataloader.batch_size * counts == 12_288
        assert config.train_cfg.max_iters == 24_000 * counts
        assert config.default_hooks.checkpoint.interval % counts == 0
        optimizer = config.optim_wrapper.optimizer
        assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (5e-4, (0.9, 0.95), 0.05)
    config = Config.fromfile(FOLDER / "images_align_pe_g14.py")
    assert (config.model.image_size, config.model.mask_ratio, config.model.temperature) == (448, 0.75, 20.0)
    assert config.model.core.layer == 40
    backbone = config.model.backbone
    assert (backbone.drop_path_rate, backbone.drop_path_schedule) == (0.4, "constant")
    assert (config.model.sam.size, config.model.sam.image_size, config.model.sam.points_per_side) == ("l", 1024, 32)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("align_pe*.py")) + sorted(FOLDER.glob("distill_pe*.py")))
def test_students_have_their_teachers_grid_and_the_published_form(path):
    from mmengine.registry import MODELS

    from pe_dense.backbones import PE_CONFIGS, PETower, get_pe_config

    config = Config.fromfile(path)
    with torch.device("meta"):
        model = MODELS.build(config.model)
        size = path.stem.split("_")[3].upper()
        published = PETower(next(name for name in PE_CONFIGS if name.startswith(f"PE-Spatial-{size}-")))
        assert model.grid == published.grid_of(torch.empty(0, 3, model.image_size, model.image_size)) == (32, 32)
        assert get_pe_config(config.model.init_cfg.checkpoint.rpartition("/")[2]).width == published.out_channels
    ours = {key: value.shape for key, value in model.backbone.state_dict().items() if not key.endswith("gamma")}
    theirs = {key: value.shape for key, value in published.state_dict().items() if not key.endswith("gamma")}
    assert ours == theirs


def test_a_sharded_student_learns_the_same(tmp_path):
    """FSDP 2 and LAMB with one process: teachers are not sharded, and figures can be drawn."""
    pytest.importorskip("timm")
    core = write_core(tmp_path)
    images = photos()
    results = []
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        for sharded in (False, True):
            model = make_aligner(core).train()
            if sharded:
                model = fsdp.shard(model)
                assert not any(fsdp.is_sharded(module) for module in model.teachers["core"].modules())
            optimizer = OPTIMIZERS.build(dict(type="pe_dense.Lamb", params=model.parameters(), lr=1e-2))
            start = deepcopy(fsdp.full_state_dict(model.state_dict(), keep=True))
            for step in range(2):
                torch.manual_seed(step)
                optimizer.zero_grad()
                model(images, mode="loss")["loss_core"].backward()
                optimizer.step()
            learnt = fsdp.full_state_dict(model.state_dict(), keep=True)
            assert all(not torch.equal(learnt[name], start[name]) for name in learnt)
            with torch.no_grad():
                results.append((learnt, model.feature_maps(images)))
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(*results)
