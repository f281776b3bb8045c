"""Measure the training-free evaluations beside the operators of the published implementations.

    python benchmarks/evaluation.py [--device cuda]

- k-NN: search in blocks, and all similarities at once, as a plain use of `topk`; 4,096 queries.
- TokenCut: the symmetric eigenproblem, and SciPy's generalized one, which TokenCut's code calls.
- k-means: one run of 20 iterations, and SciPy's `kmeans2`.
- keypoints: all keypoints of a pair at once, and one after another, as in the code of SD-DINO.

All in turns on random features of a ViT-B's width; results must agree. Memory is that of one run in a process of its
own.
"""

import argparse
from pathlib import Path

from utils import in_turns, peak_memory, summary, write_table

WIDTH = 768
CASES = {
    "k-NN, 50,000 patches in memory": ("in blocks", "all at once"),
    "TokenCut, 28 x 28 patches": ("symmetric", "SciPy, generalized"),
    "k-means, 20,000 points, 100 clusters": ("PyTorch", "SciPy"),
    "keypoints, 60 x 60 patches, 20 points": ("together", "one by one"),
}


def make_run(case, way, device):
    import torch
    import torch.nn.functional as F

    from pe_dense.evaluation.clustering import kmeans
    from pe_dense.evaluation.correspondence import match_keypoints
    from pe_dense.evaluation.knn_segmentation import knn_labels
    from pe_dense.evaluation.object_discovery import tokencut

    torch.manual_seed(0)
    ours = way == CASES[case][0]
    if case.startswith("k-NN"):
        keys = F.normalize(torch.randn(50_000, WIDTH, device=device), dim=1)
        labels, queries = torch.rand(50_000, 21, device=device), torch.randn(4096, WIDTH, device=device)
        return lambda: knn_labels(queries, keys, labels) if ours else _knn_at_once(queries, keys, labels)
    if case.startswith("TokenCut"):
        features = torch.randn(28 * 28, 32, device=device) + 0.4
        return lambda: torch.from_numpy(tokencut(features, (28, 28)).scores if ours else _scipy_cut(features)).abs()
    if case.startswith("k-means"):
        points = torch.randn(20_000, 50, device=device) + 20 * torch.randn(100, 50, device=device).repeat(200, 1)
        if ours:
            return lambda: kmeans(points, 100, iterations=20, restarts=1)
        return lambda: _scipy_kmeans(points)
    source, target = torch.randn(2, WIDTH, 60, 60, device=device)
    places = torch.rand(20, 3) * 839
    places[:, 2] = 1
    settings = dict(side=840, variant="padded", unit=(100.0, 100.0))
    if ours:
        return lambda: match_keypoints(source, target, places, places, **settings).predicted
    return lambda: torch.cat(
        [match_keypoints(source, target, place[None], place[None], **settings).predicted for place in places]
    )


def _knn_at_once(queries, keys, labels):
    import torch
    import torch.nn.functional as F

    top = (F.normalize(queries, dim=1) @ keys.T).topk(30, dim=1)
    return torch.einsum("qk,qkc->qc", (top.values / 0.02).softmax(1), labels[top.indices])


def _scipy_cut(features):
    import numpy as np
    import torch
    import torch.nn.functional as F
    from scipy.linalg import eigh

    unit = F.normalize(features, dim=1)
    weights = torch.where(unit @ unit.T > 0.2, 1.0, 1e-5).double().cpu().numpy()
    degrees = np.diag(weights.sum(1))
    return eigh(degrees - weights, degrees, subset_by_index=[1, 2])[1][:, 0].reshape(28, 28)


def _scipy_kmeans(points):
    import torch
    from scipy.cluster.vq import kmeans2

    return torch.from_numpy(kmeans2(points.cpu().numpy(), 100, iter=20, minit="points", seed=0)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/evaluation.json"))
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    rows = []
    for case, ways in CASES.items():
        runs = {way: make_run(case, way, args.device) for way in ways}
        results = {way: run().double().cpu() for way, run in runs.items()}
        apart = (results[ways[0]] - results[ways[1]]).abs().max().item()
        for way, values in summary(in_turns(runs, args.repeats, args.device), ways[1]).items():
            memory = peak_memory(make_run, case, way, args.device, device=args.device)
            # Random starts differ, so the numbers of clusters cannot be compared.
            differ = "-" if case.startswith("k-means") else f"{apart:.0e}"
            rows.append(dict(case=case, way=way, **values, mb=round(memory), apart=differ))
    write_table(rows, args.out, device=args.device, threads=args.threads, torch=torch.__version__)


if __name__ == "__main__":
    main()
