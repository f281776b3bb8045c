"""Compare time, memory and accuracy of principal components with PyTorch's and the exact ones.

    python benchmarks/pca.py

Features are 16 maps of 64 x 64 tokens with 1536 channels, correlated in space, with a mean far from zero and variances
that decrease as 1 / rank^1.4. All rows compute three components of the same low-pass filtered maps:

  here         fit_basis: block Lanczos iteration, smoothing what was projected
  pca_lowrank  low_pass of the maps, then torch.pca_lowrank of the tokens (randomized, as called by default)
  covariance   low_pass of the maps, the covariance matrix in float32 and scipy's eigh for its top three

"colors" is the whole of feature_rgb. Rows run in turns; "times_faster" is against pca_lowrank. "apart" is the largest
sine of the angles to the eigenvectors of the covariance in float64. Memory is of a process of its own, beyond the maps.
"""

import argparse
import os
from pathlib import Path

from utils import in_turns, peak_memory, summary, write_table

WAYS = ("here", "pca_lowrank", "covariance", "colors")


def make_run(way: str, sizes: tuple[int, int, int], threads: int):
    """Return a function that computes components (3, C), or colors, of generated maps."""
    import torch

    torch.set_num_threads(threads)
    return way_of(way, make_features(*sizes))


def way_of(way: str, features):
    import torch

    from pe_dense.visualization import feature_rgb, fit_basis, low_pass

    if way == "here":
        return lambda: fit_basis(features).components
    if way == "colors":
        return lambda: feature_rgb(features)
    if way == "covariance":
        return lambda: top(covariance(low_pass(features)))

    def lowrank():
        torch.manual_seed(0)
        tokens = low_pass(features).movedim(1, -1).flatten(0, 2)  # (N * H * W, C)
        return torch.pca_lowrank(tokens)[2][:, :3].T

    return lowrank


def covariance(maps):
    """Compute the covariance (C, C) of maps (N, C, H, W), not divided by the number of tokens."""
    tokens = maps.movedim(1, -1).flatten(0, 2)
    centerd = tokens - tokens.mean(dim=0)
    return centerd.T @ centerd


def top(matrix):
    """Compute the eigenvectors (3, C) of the largest eigenvalues."""
    import torch
    from scipy.linalg import eigh

    size = len(matrix)
    return torch.from_numpy(eigh(matrix.numpy(), subset_by_index=(size - 3, size - 1))[1][:, ::-1].copy()).T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--channels", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/visual.json"))
    args = parser.parse_args()

    import torch

    from pe_dense.visualization import low_pass

    torch.set_num_threads(args.threads)
    sizes = (args.images, args.channels, args.side)
    features = make_features(*sizes)
    exact = top(covariance(low_pass(features).double()))
    runs = {way: way_of(way, features) for way in WAYS}
    apart = {way: f"{sine(run().double(), exact):.1e}" for way, run in runs.items() if way != "colors"}
    rows = [
        dict(
            way=way,
            **values,
            **{"peak MB": round(peak_memory(make_run, way, sizes, args.threads)), "apart": apart.get(way)},
        )
        for way, values in summary(in_turns(runs, args.repeats), peer="pca_lowrank").items()
    ]
    print(f"{args.images} x {args.side} x {args.side} tokens of {args.channels} channels\n")
    write_table(rows, args.output, **{k: v for k, v in vars(args).items() if k not in ("output", "repeats")})


def make_features(images, channels, side):
    """Generate maps (N, C, H, W) with the memory format of a tower's output: channels of a token are contiguous."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    coarse = torch.randn(images, channels, side // 4, side // 4)
    maps = F.interpolate(coarse, size=(side, side), mode="bilinear").flatten(2).transpose(1, 2)  # (N, H * W, C)
    scale = torch.arange(1, channels + 1).float() ** -0.7
    directions = torch.linalg.qr(torch.randn(channels, channels)).Q.T * scale[:, None]
    tokens = maps @ directions + 3 * torch.randn(channels)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def sine(components, exact):
    import torch

    cosines = (components * exact).sum(dim=1).abs().clamp(max=1)
    return torch.sqrt(1 - cosines**2).max().item()


if __name__ == "__main__":
    main()
