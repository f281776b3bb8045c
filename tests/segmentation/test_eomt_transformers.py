"""EoMT equals the implementation of `transformers` with the same random weights."""

import pytest
import torch

from pe_dense.backbones import TimmTower
from pe_dense.segmentation import EoMTHead

transformers = pytest.importorskip("transformers", reason="transformers is not installed; `make setup` installs it")

WIDTH, DEPTH, SIDE = 32, 4, 64
BLOCK = {
    "norm1": "norm1",
    "attn.proj": "attention.out_proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
HEAD = {
    "class_head": "class_predictor",
    "mask_head.0": "mask_head.fc1",
    "mask_head.2": "mask_head.fc2",
    "mask_head.4": "mask_head.fc3",
    **{
        f"upscale.{i}.{ours}": f"upscale_block.block.{i}.{theirs}"
        for i in range(2)
        for ours, theirs in (("conv1", "conv1"), ("conv2", "conv2"), ("norm", "layernorm2d"))
    },
}


def layers(state, names):
    """Weights and biases of layers under new names."""
    return {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in state
    }


def tower_state(state):
    """Weights of the tower under timm's names."""
    found = dict(
        cls_token=state["embeddings.cls_token"],
        reg_token=state["embeddings.register_tokens"],
        pos_embed=state["embeddings.position_embeddings.weight"][None],
    )
    found |= layers(state, {"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"})
    for i in range(DEPTH):
        theirs = f"layers.{i}"
        found |= layers(state, {f"blocks.{i}.{a}": f"{theirs}.{b}" for a, b in BLOCK.items()})
        for kind in ("weight", "bias"):
            parts = [state[f"{theirs}.attention.{part}_proj.{kind}"] for part in "qkv"]
            found[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
        for number in (1, 2):
            found[f"blocks.{i}.ls{number}.gamma"] = state[f"{theirs}.layer_scale{number}.lambda1"]
    return found


@pytest.fixture(scope="module")
def models():
    """The model of transformers with random weights, and ours with the same."""
    config = transformers.EomtConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=SIDE,
        patch_size=16,
        num_blocks=2,
        num_queries=5,
        num_labels=3,
        num_register_tokens=4,
    )
    torch.manual_seed(0)
    theirs = transformers.EomtForUniversalSegmentation(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.3))
    sizes = dict(depth=DEPTH, embed_dim=WIDTH, num_heads=2, mlp_ratio=2.0, patch_size=16)
    tower = TimmTower("vit_small_patch14_reg4_dinov2", img_size=SIDE, model_args=sizes).eval()
    head = EoMTHead(tower, num_things_classes=2, num_stuff_classes=1, num_queries=5, num_blocks=2).eval()
    state = {name: value.detach().clone() for name, value in theirs.state_dict().items()}
    tower.model.load_state_dict(tower_state(state))
    ours = layers(state, HEAD) | {"q.weight": state["query.weight"], "attn_mask_probs": state["attn_mask_probs"]}
    head.load_state_dict(ours)
    return theirs, tower, head


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["trained", "masked"])
def test_equal(models, share):
    """Without masks, as after the training, and with masked attention in all blocks with queries."""
    theirs, tower, head = models
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    theirs.attn_mask_probs.fill_(share)
    head.attn_mask_probs.fill_(share)
    with torch.no_grad():
        expected = theirs(pixel_values=images)
        classes, masks = head(tower, images)
    torch.testing.assert_close(masks[-1], expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(classes[-1], expected.class_queries_logits, rtol=1e-5, atol=1e-5)
    assert masks[-1].std() > 0.1 and (masks[-1] > 0).any() and (masks[-1] < 0).any()
