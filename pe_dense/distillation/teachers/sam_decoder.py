"""Efficient mask decoder of SAM for many point prompts of one image and logits on a coarse grid.

Results equal those of the original decoder up to rounding. It is faster for the following reasons:

* Tokens of a point attend to the image independently of other points. In the first layer the image is the same for all
  points, so the points of a batch are queries to one image, whose keys and values are computed once.
* With few tokens and many pixels, projections of the image are applied to the tokens instead:
  ``q . (W x) = (W' q) . x`` and ``sum of a (W x) = W (sum of a x)``. With 8 tokens and 8 heads this halves the
  computation, and no projected map is stored. Biases are added where the attention weights of a head sum to one, or
  cancel in the softmax.
* The last attention is only computed for the mask tokens and the IoU token.
* The IoU is predicted before the masks, so only the best of the three masks of a point is computed.
* Bilinear resampling to a coarser grid reads few pixels (one in 16 of 256 x 256 logits for a grid of 32 x 32), and
  non-overlapping transposed convolutions can be evaluated for single pixels.

In shapes P is the number of points of a batch, T the number of tokens of a point, N the number of pixels of the image
embedding (h x w), C its channels, and D the channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CoarseAxis:
    """Resampling of one axis of a logit map to a coarser grid.

    The map is the output of two transposed convolutions with stride 2, so pixel i is computed from pixel i // 2 of the
    previous map.

    Args:
        weights: (G, F), bilinear weights (``align_corners=False``, no antialiasing) of the F pixels that are read.
        fine: (F,), indices of these pixels, increasing.
        middle: (M,), indices of their parents, increasing.
    """

    weights: Tensor
    fine: Tensor
    middle: Tensor

    @classmethod
    def of(cls, size: int, cells: int, device: torch.device) -> CoarseAxis:
        """Build the resampling from ``size`` pixels to ``cells`` cells."""
        # Resampling is linear, so applying it to unit vectors computes its matrix.
        matrix = F.interpolate(torch.eye(size)[None], size=cells, mode="linear", align_corners=False)[0].T
        fine = matrix.any(dim=0).nonzero()[:, 0]
        return cls(*(t.to(device) for t in (matrix[:, fine], fine, torch.unique(fine // 2))))


def transposed_conv_at(
    x: Tensor, conv: nn.ConvTranspose2d, parents: tuple[Tensor, Tensor], parities: tuple[Tensor, Tensor]
) -> Tensor:
    """Compute selected output pixels of a transposed convolution with kernel size 2 and stride 2.

    Args:
        x: (P, H, W, C), the input, or only the rows and columns of it that are needed.
        conv: transposed convolution with C input channels.
        parents: indices into x of the input pixels of R rows and K columns of the output.
        parities: whether they are the first (0) or second (1) output of their input pixel.

    Returns:
        (P, R, K, C').
    """
    out = x.new_empty(len(x), *map(len, parents), conv.out_channels)
    for child in product((0, 1), repeat=2):
        rows, columns = ((parity == side).nonzero()[:, 0] for parity, side in zip(parities, child, strict=True))
        if len(rows) and len(columns):
            source = x[:, parents[0][rows, None], parents[1][columns]]
            out[:, rows[:, None], columns] = (source @ conv.weight[:, :, child[0], child[1]]).to(out.dtype)
    return out.add_(conv.bias)


@dataclass(frozen=True)
class ImageEmbedding:
    """Inputs of the decoder for one image.

    Args:
        pixels: (1, N, C), last map of the encoder plus the "no mask" embedding.
        positions: (1, N, C), positional encoding.
        size: height h and width w of the map.
        high_res: (C', 2h, 2w) and (C'', 4h, 4w), projected high-resolution maps that are added in the upscaling.
    """

    pixels: Tensor
    positions: Tensor
    size: tuple[int, int]
    high_res: tuple[Tensor, Tensor]


def decode_points(
    prompt_encoder: nn.Module, decoder: nn.Module, image: ImageEmbedding, points: Tensor, grid: tuple[CoarseAxis, ...]
) -> tuple[Tensor, Tensor]:
    """Predict masks of point prompts.

    Args:
        prompt_encoder, decoder: modules of a ``SAM2Base``.
        image: image embedding of the size that these modules were built for.
        points: (P, 2), x and y of foreground points in pixels of the model input.
        grid: resampling of rows and of columns to the output grid.

    Returns:
        logits (P, rows, columns) of the mask with the highest predicted IoU of each point, and the predicted IoUs
        (P, 3) of its three masks.
    """
    tokens = _prompts(prompt_encoder, decoder, points)
    quality_token = int(decoder.pred_obj_scores)  # after the optional object score token, before the four mask tokens
    # The first mask token is for multiple prompts; the other three are for a single point.
    wanted = [quality_token, *range(quality_token + 2, quality_token + 1 + decoder.num_mask_tokens)]
    queries, pixels = _transform(decoder.transformer, image, tokens, wanted)
    quality = decoder.iou_prediction_head(queries[:, 0])[:, 1:]  # (P, 3)
    heads = decoder.output_hypernetworks_mlps[1:]
    kernels = torch.stack([head(query) for head, query in zip(heads, queries[:, 1:].unbind(1), strict=True)], dim=1)
    best = kernels[torch.arange(len(kernels), device=kernels.device), quality.argmax(1)]  # (P, C'')
    return _logits(decoder.output_upscaling, image, pixels, best, grid), quality


def _prompts(prompt_encoder: nn.Module, decoder: nn.Module, points: Tensor) -> Tensor:
    """Build tokens (P, T, C) from points (P, 2): output tokens, point embedding and the padding point of SAM."""
    labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
    prompts, _ = prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
    own = [decoder.obj_score_token.weight] if decoder.pred_obj_scores else []
    own = torch.cat([*own, decoder.iou_token.weight, decoder.mask_tokens.weight])
    return torch.cat([own.expand(len(points), -1, -1), prompts], dim=1)


def _transform(transformer: nn.Module, image: ImageEmbedding, tokens: Tensor, wanted: list[int]) -> tuple[Tensor, ...]:
    """Apply the two-way transformer; return tokens (P, len(wanted), C) and pixels (P, N, C)."""
    queries, pixels = tokens, image.pixels
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(queries, queries, queries)
        else:
            placed_queries = queries + tokens
            queries = queries + layer.self_attn(placed_queries, placed_queries, queries)
        queries = layer.norm1(queries)
        placed = pixels + image.positions
        queries = queries + _look_at_pixels(layer.cross_attn_token_to_image, queries + tokens, placed, pixels)
        queries = layer.norm2(queries)
        queries = layer.norm3(queries + layer.mlp(queries))
        seen = _look_at_tokens(layer.cross_attn_image_to_token, placed, queries + tokens, queries)
        pixels = layer.norm4(seen.add_(pixels))
    queries = queries[:, wanted]
    placed = pixels + image.positions
    seen = _look_at_pixels(transformer.final_attn_token_to_image, queries + tokens[:, wanted], placed, pixels)
    return transformer.norm_final_attn(queries + seen), pixels


def _look_at_pixels(attention: nn.Module, queries: Tensor, placed: Tensor, pixels: Tensor) -> Tensor:
    """Cross-attention from tokens (P, T, C) to pixels (P or 1, N, C), with keys ``placed`` and values ``pixels``."""
    if len(pixels) == 1:
        return attention(queries.flatten(0, 1)[None], placed, pixels).view_as(queries)
    heads = attention.num_heads
    to_keys = attention.k_proj.weight.unflatten(0, (heads, -1))  # (heads, D, C)
    to_values = attention.v_proj.weight.unflatten(0, (heads, -1))
    q = attention.q_proj(queries).unflatten(2, (heads, -1)).transpose(1, 2)  # (P, heads, T, D)
    asked = (q * q.shape[-1] ** -0.5 @ to_keys).flatten(1, 2)  # (P, heads T, C)
    weights = (asked @ placed.transpose(1, 2)).softmax(dim=-1)  # (P, heads T, N)
    seen = (weights @ pixels).unflatten(1, (heads, -1))  # (P, heads, T, C)
    seen = seen @ to_values.transpose(1, 2) + attention.v_proj.bias.view(heads, 1, -1)
    return attention.out_proj(seen.transpose(1, 2).flatten(2))


def _look_at_tokens(attention: nn.Module, placed: Tensor, placed_tokens: Tensor, tokens: Tensor) -> Tensor:
    """Cross-attention from pixels (P or 1, N, C) to tokens (P, T, C); returns (P, N, C)."""
    heads = attention.num_heads
    to_queries = attention.q_proj.weight.unflatten(0, (heads, -1))  # (heads, D, C)
    out = attention.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)  # (heads, D, C)
    k = attention.k_proj(placed_tokens).unflatten(2, (heads, -1)).transpose(1, 2)  # (P, heads, T, D)
    k = k * k.shape[-1] ** -0.5
    v = attention.v_proj(tokens).unflatten(2, (heads, -1)).transpose(1, 2)
    offset = k @ attention.q_proj.bias.view(heads, -1, 1)  # (P, heads, T, 1)
    scores = (k @ to_queries).flatten(1, 2) @ placed.transpose(1, 2)  # (P, heads T, N)
    weights = scores.add_(offset.flatten(1, 2)).unflatten(1, (heads, -1)).softmax(dim=2).flatten(1, 2)
    return weights.transpose(1, 2) @ (v @ out + attention.out_proj.bias / heads).flatten(1, 2)


def _logits(
    upscaling: nn.Sequential, image: ImageEmbedding, pixels: Tensor, kernels: Tensor, grid: tuple[CoarseAxis, ...]
) -> Tensor:
    """Upscale pixels (P, N, C) by 4, apply mask kernels (P, C'') and resample to the grid: (P, *grid)."""
    conv_1, norm, activation_1, conv_2, activation_2 = upscaling
    x = pixels.unflatten(1, image.size)  # (P, h, w, C)
    rows, columns = (axis.middle for axis in grid)
    x = transposed_conv_at(x, conv_1, (rows // 2, columns // 2), (rows % 2, columns % 2))
    x += image.high_res[0][:, rows[:, None], columns].permute(1, 2, 0)
    x = activation_1(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
    parents = tuple(torch.searchsorted(axis.middle, axis.fine // 2) for axis in grid)
    rows, columns = (axis.fine for axis in grid)
    x = transposed_conv_at(x, conv_2, parents, (rows % 2, columns % 2))
    x += image.high_res[1][:, rows[:, None], columns].permute(1, 2, 0)
    logits = (activation_2(x) @ kernels[:, None, :, None])[..., 0]
    return grid[0].weights @ logits.float() @ grid[1].weights.T
