"""Soft-NMS against a plain loop over the best remaining box: time side by side, and whether they agree.

    python benchmarks/soft_nms.py

Boxes lie around random objects, as many queries find them; 2,000 of 91 classes are what an image gives. The others are
more crowded (few objects give long chains of boxes that must wait for each other), the last as large as what test-time
augmentation merges. Runs of both alternate, so that a busy machine disturbs them alike; times are medians.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

CASES = [(2000, 91, 150), (2000, 91, 20), (2000, 1, 2), (10_000, 91, 100)]  # boxes, classes, objects


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch

    import pe_dense  # noqa: F401
    from pe_dense.detection.deta import soft_nms

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from soft_nms_loop import crowded_boxes, soft_nms_loop

    torch.set_num_threads(args.threads)
    print(
        f"{'boxes':>7} {'classes':>7} {'objects':>7} {'loop ms':>9} {'here ms':>9} {'ratio':>6}  same kept, score apart"
    )
    for case in CASES:
        data = crowded_boxes(*case)
        times = {soft_nms_loop: [], soft_nms: []}
        for run in range(args.repeats + 1):
            for function, taken in times.items():
                start = time.perf_counter()
                function(*data)
                if run:  # the first one warms up
                    taken.append(time.perf_counter() - start)
        loop, here = (1000 * statistics.median(taken) for taken in times.values())
        (kept, scores), (expected, expected_scores) = soft_nms(*data), soft_nms_loop(*data)
        same = sorted(kept.tolist()) == sorted(expected.tolist())
        apart = float("nan")
        if same:
            apart = (scores[kept.argsort()] - expected_scores[expected.argsort()]).abs().max().item()
        print(
            f"{case[0]:>7} {case[1]:>7} {case[2]:>7} {loop:>9.1f} {here:>9.2f} {loop / here:>6.0f}  {same}, {apart:.1e}"
        )


if __name__ == "__main__":
    main()
