"""State dicts from files: one check for towers, detectors, probes and resumed runs."""

import pytest
import torch

from pe_dense.backbones import PETower, load_weights
from pe_dense.backbones.build import export_tower
from pe_dense.utils import CheckpointError, match_state_dict
from pe_dense.utils.state_dict import check_state_dict, checkpoint_classes, unwrap_state

WANTED = {"a": torch.zeros(2, 3), "steps": torch.tensor(3)}
TINY = dict(patch_size=14, width=32, layers=2, heads=2, mlp_ratio=2.0, image_size=56, use_cls_token=True, output_dim=8)
SPOILED = {
    "key": ({3: torch.zeros(2)}, r"key 3 is a int, not a string"),
    "value": ({"a": 1.0}, r"a is a float, not a tensor"),
    "nested": ({"a": {"b": torch.zeros(1)}}, r"a is a dict, not a tensor"),
    "meta": ({"a": torch.zeros(2, 3, device="meta")}, "a is a tensor without data"),
    "sparse": ({"a": torch.zeros(2, 3).to_sparse()}, r"a is a sparse tensor \(sparse_coo\)"),
    "quantized": ({"a": torch.quantize_per_tensor(torch.zeros(2, 3), 1.0, 0, torch.qint8)}, "a is a quantized tensor"),
    "complex": ({"a": torch.zeros(2, 3, dtype=torch.complex64)}, "a is a complex tensor"),
    "expanded": ({"a": torch.zeros(1).expand(10**6, 10**6)}, "larger than its memory"),
    "list": ([torch.zeros(1)], "contains a list, not a state dict"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_types(name):
    state, reason = SPOILED[name]
    with pytest.raises(CheckpointError, match=rf"^w\.pt .*{reason}") as error:
        check_state_dict(state, "w.pt")
    assert "\n" not in str(error.value)
    if isinstance(state, dict):
        with pytest.raises(CheckpointError, match=reason):
            unwrap_state({"state_dict": state}, "w.pt")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), r"1 of another data type: a int64 for float32"),
        (torch.zeros(2, 3, dtype=torch.bool), r"a bool for float32"),
        (torch.tensor(0.0), r"a \(\) for \(2, 3\)"),
        (torch.full((2, 3), torch.nan), "a has NaN or infinite values"),
        (torch.full((2, 3), -torch.inf, dtype=torch.float16), "a has NaN or infinite values"),
    ],
)
def test_values(value, reason):
    with pytest.raises(CheckpointError, match=reason):
        match_state_dict(WANTED, {**WANTED, "a": value}, "w.pt", "the model")
    match_state_dict(WANTED, {**WANTED, "a": torch.ones(2, 3, dtype=torch.bfloat16)}, "w.pt", "the model")


def test_many_problems_are_one_line():
    with pytest.raises(CheckpointError, match=r"k5 is a int, not a tensor; and 94 more$"):
        check_state_dict({f"k{i}": i for i in range(100)}, "w.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conv1.weight", torch.zeros(32, 3, 7, 9)),
        ("conv1.weight", torch.tensor(1.0)),
        ("conv1.weight", torch.zeros(32, 3, 0, 0)),
        ("conv1.weight", torch.zeros(32, 3, 7, 7, dtype=torch.int32)),
        ("positional_embedding", torch.tensor(1.0)),
        ("positional_embedding", torch.zeros(17)),
        ("positional_embedding", torch.zeros(0, 32)),
        ("positional_embedding", torch.zeros(12, 32)),
        ("positional_embedding", torch.zeros(2, 17, 32)),
        ("positional_embedding", torch.full((10, 32), torch.nan)),
        ("ln_pre.bias", torch.full((32,), torch.inf)),
    ],
)
def test_corrupted_towers(tmp_path, key, value):
    torch.save({**PETower(TINY).state_dict(), key: value}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"w\.pt.*({key}|position embedding)"):
        load_weights(PETower(TINY), tmp_path / "w.pt")


def test_classes_of_a_checkpoint():
    def checkpoint(**metainfo):
        return dict(meta=dict(dataset_meta=metainfo))

    good = checkpoint(classes=("cat", "dog"), palette=[(0, 0, 0), (1, 2, 3)])
    assert checkpoint_classes(good, "a.pth", 2)["classes"] == ("cat", "dog")
    assert checkpoint_classes({}, "a.pth", 2) is None
    for content, count, reason in [
        (good, 3, "names 2 classes, but its model has 3"),
        (checkpoint(classes="ab"), 2, "classes is a str"),
        (checkpoint(classes=["a", 1]), 2, "not a list of names"),
        (checkpoint(classes=["a", "b"], palette=[(0, 0, 0)]), 2, "palette is not a list of 2 colors"),
        (dict(meta=3), 2, "meta is a int, not a dict"),
        (dict(meta=dict(dataset_meta=[1])), 2, "dataset_meta is a list"),
    ]:
        with pytest.raises(CheckpointError, match=rf"a\.pth.*{reason}"):
            checkpoint_classes(content, "a.pth", count)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("ln_pre.bias", torch.full((32,), torch.nan), "ln_pre.bias has NaN"),
        ("positional_embedding", torch.zeros(17, 16), r"positional_embedding is of shape \(17, 16\)"),
        ("positional_embedding", torch.zeros(12, 32), "position embedding of 12 entries"),
        ("ln_pre.bias", torch.zeros(64), r"ln_pre.bias is of shape \(64,\), not \(32,\)"),
        ("transformer.resblocks.1.mlp.c_proj.weight", torch.zeros(64, 32), r"c_proj.weight is of shape \(64, 32\)"),
        (
            "transformer.resblocks.1.attn.in_proj_weight",
            torch.zeros(96, 32, dtype=torch.int64),
            "in_proj_weight is int64",
        ),
    ],
)
def test_corrupted_towers_are_not_exported(tmp_path, key, value, reason):
    torch.save({**PETower(TINY).state_dict(), key: value}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"w\.pt.*{reason}"):
        export_tower(tmp_path / "w.pt", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()
