"""Estimate time and memory of the published recipes on many GPUs: the tables of docs/scale.md.

    python benchmarks/cost_model.py --rate 400     # TFLOP/s of a GPU, measured by benchmarks/tower.py --device cuda

Only the tower is counted, which is nearly all of the work of the G-size recipes: heads and data come on top.
"""

import argparse
from dataclasses import dataclass

GIB = 2**30
IMAGES = dict(lvis=100_170, coco=118_287, objects365=1_742_289)  # LVIS v1's own training images


@dataclass(frozen=True)
class Recipe:
    """A training run: total number of images, their size, and the cost per image in forward passes of the tower.

    A trained tower with activation checkpointing costs four (forward, recomputation, and two for backward), a frozen
    one costs one.
    """

    name: str
    images: float
    size: int
    passes: int
    window: int | None = None
    batch: int = 64
    layers: int = 50
    patch: int = 16


RECIPES = [
    Recipe("Mask R-CNN, LVIS, 75 epochs", 184_375 * 3 // 4 * 64, 1024, 4, window=32),
    Recipe("Mask R-CNN, COCO, 36 epochs", 184_375 * 36 // 100 * 64, 1024, 4, window=32),
    Recipe("Mask R-CNN, COCO, frozen, 15 epochs", 15 * IMAGES["coco"], 1024, 1, window=32),
    Recipe("DETA 1: Objects365, 1024 px", 12 * IMAGES["objects365"], 1024, 4, window=24, batch=256),
    Recipe("DETA 2: Objects365, 1536 px", 6 * IMAGES["objects365"], 1536, 4, window=24, batch=128),
    Recipe("DETA 3: COCO, 1728 px", 12 * IMAGES["coco"], 1728, 4, window=24),
    Recipe("DETA 4: COCO, 1824 px", 3 * IMAGES["coco"], 1824, 4, window=24),
    Recipe("ADE20k linear probe", 40_000 * 16, 448, 1, batch=16, patch=14),
    Recipe("Alignment: student", 24_000 * 12_288, 448, 4, batch=12_288, patch=14),
    Recipe("Alignment: core teacher", 24_000 * 12_288, 448, 1, batch=12_288, layers=41, patch=14),
]


def forward_flops(recipe: Recipe, width: int = 1536, hidden: int = 8960, global_blocks: int = 4) -> float:
    """Count the floating-point operations of a G tower's forward pass on one image, matrix products only."""
    tokens = (recipe.size // recipe.patch) ** 2
    linear = 2 * tokens * (4 * width**2 + 2 * width * hidden)
    everywhere = 4 * tokens**2 * width
    if recipe.window is None:
        return recipe.layers * (linear + everywhere)
    side = -(-(recipe.size // recipe.patch) // recipe.window) * recipe.window
    windowed = 4 * side**2 * recipe.window**2 * width
    return recipe.layers * linear + global_blocks * everywhere + (recipe.layers - global_blocks) * windowed


def state_memory(parameters: float, trained: bool, shards: int) -> float:
    """Compute GiB per GPU of float32 weights and, for training, gradients and AdamW's moments, sharded across GPUs."""
    return parameters * (16 if trained else 4) / shards / GIB


def activation_memory(recipe: Recipe, width: int = 1536, hidden: int = 8960) -> float:
    """Compute GiB of activations per image with activation checkpointing in bfloat16: all block inputs and one "
    "block."""
    tokens = (recipe.size // recipe.patch) ** 2
    kept = recipe.layers * tokens * width * 4  # the residual stream is float32 under autocast
    one_block = tokens * (10 * width + 2 * hidden) * 2 + tokens * 4 * width * 4
    return (kept + one_block) / GIB


def lora_memory(images: int, *, adapters: float, heads: float, parameters: float = 1.85e9) -> float:
    """Compute GiB of Mask R-CNN on a G tower with LoRA, 1024 px, activation checkpointing and bfloat16 autocast.

    The frozen weights are in float32, without gradients and moments. Adapters save the input of each linear layer of
    the block that is computed, of which the output of the GELU is not saved in full fine-tuning. 2 GiB per image are
    allowed for the activations of pyramid and heads, and 1.5 GiB for the CUDA context and fragmentation.
    """
    recipe = next(recipe for recipe in RECIPES if recipe.window == 32)
    state = state_memory(parameters, False, 1) + state_memory(adapters + heads, True, 1)
    of_gelu = (recipe.size // recipe.patch) ** 2 * 8960 * 2 / GIB
    return state + images * (activation_memory(recipe) + of_gelu + 2) + 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=400, help="TFLOP/s that each GPU reaches (400)")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64])
    args = parser.parse_args()
    header = ["recipe (G tower)", "images", "TFLOP an image, forward", "GPU hours"]
    header += [f"days on {gpus}" for gpus in args.gpus]
    header += ["images/s a GPU", "activations GiB an image"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for recipe in RECIPES:
        forward = forward_flops(recipe)
        work = forward * recipe.passes
        hours = recipe.images * work / (args.rate * 1e12) / 3600
        cells = [recipe.name, f"{recipe.images / 1e6:.2f} M", f"{forward / 1e12:.1f}", f"{hours:,.0f}"]
        cells += [f"{hours / 24 / gpus:.1f}" for gpus in args.gpus]
        cells += [f"{args.rate * 1e12 / work:.1f}", f"{activation_memory(recipe):.1f}" if recipe.passes > 1 else "-"]
        print("| " + " | ".join(cells) + " |")
    print("\n| GPUs | float32 weights, gradients, AdamW's moments of G, GiB a GPU |\n|---|---|")
    for shards in (1, *args.gpus):
        print(f"| {shards} (sharded) | {state_memory(1.85e9, True, shards):.1f} |")
    print("\n| images | Mask R-CNN on G with LoRA of rank 16, GiB on one GPU |\n|---|---|")
    for images in (1, 2, 3, 4):
        print(f"| {images} | {lora_memory(images, adapters=24.2e6, heads=33.5e6):.1f} |")


if __name__ == "__main__":
    main()
