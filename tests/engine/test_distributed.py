"""Two processes without a GPU: DDP, FSDP, and checkpoints that both can load."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import distributed_runs
from helpers.tiny_run import logged, write_config
from helpers.warm_process import ROOT, free_port

from pe_dense.detection import load_detector
from pe_dense.utils import read_checkpoint

OPTIONS = {
    # A block after the last tap has no gradient, in either process.
    "model.backbone.arch.layers": 3,
    "model.backbone.out_indices": [1],
    "model.backbone.with_cp": True,
    "model.backbone.drop_path_rate": 0.2,
    "optim_wrapper.constructor": "pe_dense.LayerDecayOptimWrapperConstructor",
    "optim_wrapper.paramwise_cfg": dict(decay_rate=0.8),
    "default_hooks.checkpoint.interval": 3,
}


def train(*runs):
    """Train several times with two processes; return what they print."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [(free_port(), [*map(str, options), "--launcher", "pytorch"]) for options in runs]
    command = [*torchrun, distributed_runs.__file__, json.dumps(arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun then ends the processes that wait for each other; killed, it would leave them
        process.wait(60)
        raise
    assert process.returncode == 0, output[-6000:]
    return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run six steps with DDP; three with FSDP and, resumed, three more; two steps of both with LoRA."""
    folder = tmp_path_factory.mktemp("distributed")
    longer = write_config(folder, name="longer", max_iters=6, **OPTIONS)
    validated = write_config(folder, name="validated", max_iters=3, validate=True, **OPTIONS)
    adapted = write_config(folder, name="adapted", max_iters=2, **OPTIONS)
    whole, sharded = folder / "whole", folder / "sharded"
    output = train(
        [longer, "--work-dir", whole],
        [validated, "--work-dir", sharded, "--fsdp"],
        [longer, "--work-dir", sharded, "--fsdp", "--resume"],
        [adapted, "--work-dir", folder / "lora", "--lora", 2],
        [adapted, "--work-dir", folder / "sharded_lora", "--lora", 2, "--fsdp"],
    )
    return SimpleNamespace(config=longer, whole=whole, sharded=sharded, folder=folder, output=output)


def test_parameters_are_shared_out(runs):
    here, total = re.search(r"Sharded across 2 processes: ([\d,]+) of ([\d,]+)", runs.output).groups()
    here, total = int(here.replace(",", "")), int(total.replace(",", ""))
    assert total / 2 <= here < total * 0.51  # process 0 has the larger half of uneven tensors


def test_sharded_training_equals_whole_training(runs):
    keys = ("loss", "loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mask", "grad_norm", "lr")
    whole, sharded = logged(runs.whole, *keys), logged(runs.sharded, *keys)
    assert list(whole) == list(sharded) == [1, 2, 3, 4, 5, 6]
    for step, values in whole.items():
        assert sharded[step] == pytest.approx(values, rel=1e-5, abs=1e-5), f"step {step}"


def test_sharded_validation_collects_the_images_of_both(runs):
    assert logged(runs.sharded, "coco/bbox_mAP", "coco/segm_mAP")
    assert "images have no result" not in runs.output  # what the metric says of images that it was not given


@pytest.mark.parametrize("name", ["iter_3.pth", "iter_6.pth"])
def test_checkpoints_of_sharded_and_whole_models_are_the_same(runs, name):
    whole, sharded = read_checkpoint(runs.whole / name), read_checkpoint(runs.sharded / name)
    assert list(whole["state_dict"]) == list(sharded["state_dict"])
    torch.testing.assert_close(sharded["state_dict"], whole["state_dict"], rtol=1e-5, atol=1e-6)
    a, b = whole["optimizer"], sharded["optimizer"]
    assert a["param_groups"] == b["param_groups"]
    assert len({group["lr"] for group in a["param_groups"]}) == 5  # embedding, three blocks, everything else
    torch.testing.assert_close(b["state"], a["state"], rtol=1e-3, atol=1e-5)


def test_one_process_reads_a_sharded_run(runs):
    detector = load_detector(runs.config, runs.sharded, device="cpu")
    state = read_checkpoint(runs.sharded / "iter_6.pth")["state_dict"]
    for name, parameter in detector.model.named_parameters():
        assert torch.equal(parameter, state[name]), name


def test_adapters_train_alike_whole_and_sharded(runs):
    states = [read_checkpoint(runs.folder / name / "iter_2.pth")["state_dict"] for name in ("lora", "sharded_lora")]
    torch.testing.assert_close(states[1], states[0], rtol=1e-5, atol=1e-6)
    ups = [value for key, value in states[0].items() if ".lora_B." in key]
    assert len(ups) == 3 * 4
    assert all(up.any() for up in ups[:8]) and not any(up.any() for up in ups[8:])  # the last block has no gradient
