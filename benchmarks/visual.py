"""Principal components of features: time side by side with PyTorch's, and how far each is from the exact ones.

    python benchmarks/visual.py

Features are 16 maps of 64 x 64 tokens with 1536 channels, correlated in space, with a mean far from zero and variances
that fall as 1 / rank^1.4. All are given the same maps and find three components of their low-pass:

  here        fit_basis: block Lanczos iteration, smoothing what was projected
  lowrank     low_pass of the maps, then torch.pca_lowrank of the tokens (randomised, as called by default)
  covariance  low_pass of the maps, the covariance matrix in float32 and scipy's eigh for its top three

On a 2-core CPU: here 0.49 s, lowrank 4.9 s, covariance 4.1 s, colours 0.60 s.

"colours" is the whole of feature_rgb. Runs alternate, so that a busy machine disturbs them alike; times are medians
and minima by the clock, and medians of the processor's seconds of all threads. "apart" is the largest sine of the
angles to the eigenvectors of the covariance in float64.
"""

import argparse
import os
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--channels", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else the processor's seconds count waiting, too
    import torch
    from scipy.linalg import eigh

    from pe_dense.visual import feature_rgb, fit_basis, low_pass

    torch.set_num_threads(args.threads)
    features = make_features(args.images, args.channels, args.side)

    def tokens():
        return low_pass(features).movedim(1, -1).flatten(0, 2)  # (N * H * W, C)

    def covariance(dtype):
        centred = tokens().to(dtype)
        centred = centred - centred.mean(dim=0)
        return centred.T @ centred

    def top(matrix):
        size = len(matrix)
        return torch.from_numpy(eigh(matrix.numpy(), subset_by_index=(size - 3, size - 1))[1][:, ::-1].copy()).T

    def lowrank():
        torch.manual_seed(0)
        return torch.pca_lowrank(tokens())[2][:, :3].T

    exact = top(covariance(torch.float64))
    methods = {
        "here": lambda: fit_basis(features).components,
        "lowrank": lowrank,
        "covariance": lambda: top(covariance(torch.float32)),
        "colours": lambda: feature_rgb(features),
    }
    times = {name: [] for name in methods}
    found = {}
    for run in range(args.repeats + 1):
        for name, method in methods.items():
            start, busy = time.perf_counter(), time.process_time()
            found[name] = method()
            if run:  # the first one warms up
                times[name].append((time.perf_counter() - start, time.process_time() - busy))
    print(f"{args.images} x {args.side} x {args.side} tokens of {args.channels}, {args.threads} threads")
    print(f"{'':<11} {'median s':>9} {'least s':>9} {'CPU s':>9} {'apart':>9}")
    for name, taken in times.items():
        apart = "" if name == "colours" else f"{sine(found[name].double(), exact):9.1e}"
        clock, busy = zip(*taken, strict=True)
        print(
            f"{name:<11} {statistics.median(clock):>9.2f} {min(clock):>9.2f} {statistics.median(busy):>9.2f} {apart:>9}"
        )


def make_features(images, channels, side):
    """Maps (N, C, H, W) in the order of memory that a tower gives them: channels of a token lie together."""
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
