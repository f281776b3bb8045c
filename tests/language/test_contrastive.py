"""Contrastive training: losses, gathering over processes, runs, and what `load_clip` makes of their checkpoints."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import contrastive_processes
from helpers.contrastive_processes import batch, build, loss_and_gradients
from helpers.tiny_clip import TEXT, VISION, tiny_clip
from helpers.tiny_run import logged
from helpers.warm_process import run_ranks

from pe_dense.engine.build_runner import training_runner
from pe_dense.engine.config import load_config
from pe_dense.language import load_clip, save_clip
from pe_dense.language.contrastive import CaptionPreprocessor, ContrastiveCLIP, sigmoid_loss, softmax_loss
from pe_dense.language.zero_shot import evaluate_classification
from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import InputError

CONFIG = Path(__file__).parents[2] / "configs/shapes_clip_forms_pe_tiny.py"


def embeddings(seed):
    return F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_softmax_loss_is_clips():
    images, texts = embeddings(0), embeddings(1)
    logits = (7.0 * images @ texts.T).tolist()
    expected = 0.0
    for i in range(4):
        row, column = logits[i], [line[i] for line in logits]
        for scores in (row, column):
            expected += (math.log(sum(map(math.exp, scores))) - scores[i]) / 8
    loss, accuracy = softmax_loss(images, texts, torch.tensor(7.0))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert accuracy.item() == sum(row.index(max(row)) == i for i, row in enumerate(logits)) / 4
    same, right = softmax_loss(images, images, torch.tensor(100.0))
    assert same.item() < 1e-3 and right.item() == 1


def test_sigmoid_loss_is_siglips():
    images, texts = embeddings(0), embeddings(1)
    cosines = (images @ texts.T).tolist()
    expected = 0.0
    for i in range(4):
        for j in range(4):
            z = 1 if i == j else -1
            expected -= math.log(1 / (1 + math.exp(z * (-7.0 * cosines[i][j] + 3.0)))) / 4
    loss, _ = sigmoid_loss(images, texts, torch.tensor(7.0), torch.tensor(-3.0))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_ranks(contrastive_processes.__file__, folder, output=folder / "output.txt")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("loss", contrastive_processes.LOSSES)
def test_two_processes_compare_all_pairs(processes, loss):
    expected = loss_and_gradients(build(loss), batch())
    for name in ("loss", "accuracy"):
        torch.testing.assert_close(sum(result[loss][name] for result in processes) / 2, expected[name])
    assert any(name.startswith("clip.visual") for name in expected["gradients"])
    for name, gradient in expected["gradients"].items():
        for result in processes:
            largest = gradient.abs().max().item()
            torch.testing.assert_close(result[loss]["gradients"][name], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_logit_scale_is_limited():
    model = build("softmax")
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.logit_scale.fill_(6.0)
    assert model(**batch(), mode="loss")["logit_scale"].item() == pytest.approx(100)
    assert model.logit_scale.item() == pytest.approx(math.log(100))
    sigmoid = build("sigmoid")
    assert (sigmoid.logit_scale.exp().item(), sigmoid.logit_bias.item()) == (pytest.approx(10), -10)


def test_preprocessor():
    preprocess = CaptionPreprocessor(context_length=16)
    captions = ["a star", "a large red star and a ring"]
    images = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 255)]
    data = preprocess(dict(image=images, caption=captions, label=[3, 1]))
    assert data["text"].shape == (2, 9) and data["labels"].tolist() == [3, 1]
    assert data["images"].amax(dim=(1, 2, 3)).tolist() == [0, 1]
    clip = tiny_clip()
    torch.testing.assert_close(clip.encode_text(data["text"]), clip.encode_text(preprocess.tokenize(captions)))


def test_checkpointing_of_both_towers_changes_nothing():
    plain = loss_and_gradients(build("softmax").train(), batch())
    backbone = dict(type="pe_dense.PETower", arch=dict(VISION), with_cp=True)
    torch.manual_seed(0)
    model = ContrastiveCLIP(backbone, dict(TEXT), text_with_cp=True)
    model.load_state_dict(build("softmax").state_dict())
    saved = loss_and_gradients(model.train(), batch())
    for name, gradient in plain["gradients"].items():
        torch.testing.assert_close(saved["gradients"][name], gradient)


def test_starts_from_a_published_file(tmp_path):
    clip = tiny_clip()
    save_clip(clip, tmp_path / "clip.safetensors")
    model = build("softmax", init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "clip.safetensors")))
    model.init_weights()
    for name, value in clip.state_dict().items():
        assert torch.equal(model.clip.state_dict()[name], value)
    torch.save(clip.visual.state_dict(), tmp_path / "spatial.pt")
    model = build("softmax", init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "spatial.pt")))
    with pytest.raises(CheckpointError, match="only an image tower .*models with both towers: PE-Core"):
        model.init_weights()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(loss="hinge"), "loss 'hinge' is not one of softmax, sigmoid"),
        (dict(init_cfg=dict(type="Xavier")), "init_cfg must be"),
        (dict(image_size=30), "not a multiple of the patch size"),
    ],
)
def test_unusable_options(options, message):
    with pytest.raises(InputError, match=message):
        build(**(dict(loss="softmax") | options))


def test_towers_without_a_pooled_embedding_are_refused():
    with pytest.raises(InputError, match="has no text tower; models with a text tower"):
        ContrastiveCLIP(dict(type="pe_dense.PETower", arch="PE-Spatial-B16-512"))
    with pytest.raises(InputError, match="has no pooled embedding"):
        ContrastiveCLIP(dict(type="pe_dense.PETower", arch=dict(VISION, pool_type="none")), dict(TEXT))


def tiny_config(folder, **options):
    """The config of generated scenes with smaller towers, images and batches."""
    config = load_config(str(CONFIG), {})
    config.model.backbone.arch.update(width=32, layers=2, heads=2, attn_pooler_heads=2, output_dim=16)
    config.model.text = dict(context_length=48, width=32, heads=2, layers=1, output_dim=16)
    config.train_dataloader.update(batch_size=16, num_workers=0)
    config.train_dataloader.dataset.update(
        data_root=str(folder / "scenes"), generator=dict(num_train=32, num_val=1, image_size=64, difficulty="easy")
    )
    for split in ("val", "test"):
        config[f"{split}_dataloader"].update(batch_size=8, num_workers=0)
        config[f"{split}_dataloader"].dataset.update(
            data_root=str(folder / "forms"), generator=dict(num_images=16, image_size=64)
        )
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = 6
    config.log_processor.window_size = 1
    config.train_cfg.update(max_iters=12, val_interval=12)
    config.param_scheduler = config.load_from = None
    config.merge_from_dict(options)
    return config


def run(folder, name, resume=None, **options):
    config = tiny_config(folder, experiment_name=f"{folder.name}_{name}", **options)
    config.filename = str(CONFIG)
    runner = training_runner(config, work_dir=str(folder / name), resume=resume, amp=False, launcher="none")
    runner.train()
    return runner


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrastive")
    return folder, run(folder, "run")


def test_training_reduces_the_loss_and_evaluates_zero_shot(trained):
    folder, _ = trained
    losses = logged(folder / "run", "loss_contrastive")
    assert sum(losses[step][0] for step in (10, 11, 12)) < 0.97 * sum(losses[step][0] for step in (1, 2, 3))
    ((top1, top5),) = logged(folder / "run", "zero_shot/top1", "zero_shot/top5").values()
    assert 0 <= top1 <= top5 <= 1


def test_checkpoint_of_a_run_is_a_clip(trained):
    folder, runner = trained
    clip = load_clip(folder / "run/iter_12.pth")
    model = runner.model.eval()
    for name, value in model.clip.state_dict().items():
        assert torch.equal(clip.state_dict()[name], value)
    assert (clip.image_size, clip.context_length) == (64, 48)
    # The same figure as during training, by the tool's function.
    templates = runner.hooks[[type(hook).__name__ for hook in runner.hooks].index("ZeroShotHook")].templates
    result = evaluate_classification(clip, folder / "forms/labels.csv", templates)
    assert result["top1"] == pytest.approx(list(logged(folder / "run", "zero_shot/top1").values())[0][0])


def test_a_resumed_run_draws_the_same_pairs(trained):
    folder, runner = trained
    again = run(folder, "again", resume=str(folder / "run/iter_6.pth"))
    for name, value in runner.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dict(context_length=16, width=99999999, heads=1, layers=1, output_dim=8)", "not plain numbers"),
        ("dict(context_length=16, width=7, heads=2, layers=1, output_dim=8)", "describe a text tower: width 7"),
        ("7", "not plain numbers"),
        ("'PE-Spatial-B16-512'", "describe a text tower: PE-Spatial-B16-512 has no text tower"),
    ],
)
def test_configs_of_runs_are_not_trusted(text, message, tmp_path):
    backbone = dict(type="pe_dense.PETower", arch=VISION)
    config = f"model = dict(type='pe_dense.ContrastiveCLIP', backbone={backbone}, text={text})"
    state = {f"clip.{key}": value for key, value in tiny_clip().state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=config)), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        load_clip(tmp_path / "x.pth")
