"""Merge LoRA adapters of state dicts from files, and convert names."""

import pytest
import torch

from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.lora_state import has_lora, match_lora, merge_lora, with_lora

PLAIN = {"head.weight": torch.ones(1), "net.fc.weight": torch.zeros(2, 3), "net.fc.bias": torch.tensor([5.0, 6.0])}
ADAPTED = {
    "head.weight": torch.ones(1),
    "net.lora_scaling": torch.tensor(0.5),
    "net.fc.base_layer.weight": torch.zeros(2, 3),
    "net.fc.base_layer.bias": torch.tensor([5.0, 6.0]),
    "net.fc.lora_A.default.weight": torch.tensor([[1.0, 2.0, 3.0]]),
    "net.fc.lora_B.default.weight": torch.tensor([[2.0], [4.0]]),
}


def test_merging():
    merged = merge_lora(ADAPTED, "file.pth")
    assert merged["net.fc.weight"].tolist() == [[1, 2, 3], [2, 4, 6]]
    assert merged["net.fc.bias"].tolist() == [5, 6]
    assert merged.keys() == PLAIN.keys()
    assert has_lora(ADAPTED) and not has_lora(merged)
    assert merge_lora(PLAIN, "file.pth") == PLAIN


def test_weights_keep_their_data_type():
    half = {**ADAPTED, "net.fc.base_layer.weight": torch.zeros(2, 3, dtype=torch.bfloat16)}
    assert merge_lora(half, "file.pth")["net.fc.weight"].dtype == torch.bfloat16


def test_names_of_a_model_with_adapters():
    named = with_lora(PLAIN, ADAPTED)
    assert named.keys() == ADAPTED.keys()
    assert named["net.fc.base_layer.bias"] is PLAIN["net.fc.bias"]
    assert named["net.fc.lora_A.default.weight"] is ADAPTED["net.fc.lora_A.default.weight"]


def test_a_run_is_resumed_with_the_same_adapters():
    assert match_lora(ADAPTED, ADAPTED, "a.pth", resume=True) == ADAPTED
    assert match_lora(ADAPTED, PLAIN, "a.pth", resume=False).keys() == PLAIN.keys()
    assert match_lora(PLAIN, ADAPTED, "a.pth", resume=False).keys() == ADAPTED.keys()
    with pytest.raises(ConfigError, match="a.pth was saved by a run with LoRA: to resume it, add --lora RANK"):
        match_lora(ADAPTED, PLAIN, "a.pth", resume=True)
    with pytest.raises(ConfigError, match="a.pth was saved by a run without LoRA: to resume it, leave --lora out"):
        match_lora(PLAIN, ADAPTED, "a.pth", resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net.fc.lora_A.default.weight": None}, "LoRA adapter of net.fc does not match its layer"),
        ({"net.fc.lora_B.default.weight": torch.ones(3, 1)}, "LoRA adapter of net.fc does not match its layer"),
        ({"net.fc.base_layer.weight": torch.ones(2)}, "LoRA adapter of net.fc does not match its layer"),
        ({"net.fc.base_layer.weight": None}, "the layer of the LoRA adapter net.fc is missing"),
        ({"net.lora_scaling": torch.tensor([1.0, 2.0])}, "net.lora_scaling is not a finite number"),
        ({"net.lora_scaling": torch.tensor(float("nan"))}, "net.lora_scaling is not a finite number"),
    ],
)
def test_damaged_files(change, message):
    state = {key: value for key, value in {**ADAPTED, **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=f"file.pth: .*{message}"):
        merge_lora(state, "file.pth")
