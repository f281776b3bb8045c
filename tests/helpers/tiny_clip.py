"""Tiny CLIP models: random, or from recordings."""

import torch

from pe_dense.language import CLIP

VISION = dict(
    patch_size=8,
    width=32,
    layers=2,
    heads=2,
    mlp_ratio=2.0,
    image_size=32,
    use_cls_token=True,
    output_dim=16,
    attn_pooler_heads=8,
)
TEXT = dict(context_length=16, width=32, heads=2, layers=2, output_dim=16)


def tiny_clip(**changes):
    """Build a model with random weights and biases of a fixed seed; ``changes`` are fields of the image tower."""
    torch.manual_seed(0)
    model = CLIP(dict(VISION, **changes), TEXT).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def recorded_state(golden):
    """Return the state dict with a full-size token embedding; recordings only contain its used rows."""
    rows = golden["token_embedding_rows/weight"]
    weight = torch.zeros(golden.config["text"]["vocab_size"], rows.shape[1])
    weight[golden["token_embedding_rows/ids"]] = rows
    state = {key: value for key, value in golden.state.items() if key != "token_embedding.weight"}
    return state | {"token_embedding.weight": weight}
