"""Compare soft-NMS with a plain loop over the best remaining box: time and agreement.

    python benchmarks/soft_nms.py

Boxes lie around random objects, as many queries find them; 2,000 of 91 classes are what an image gives. The others are
more crowded (few objects give long chains of boxes that must wait for each other), the last as large as what test-time
augmentation merges. Both run in turns. "apart" is the largest difference of scores, where both keep the same boxes.
"""

import argparse
import os
import sys
from pathlib import Path

from utils import in_turns, summary, write_table

CASES = [(2000, 91, 150), (2000, 91, 20), (2000, 1, 2), (10_000, 91, 100)]  # boxes, classes, objects


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/soft_nms.json"))
    args = parser.parse_args()

    import torch

    import pe_dense  # noqa: F401
    from pe_dense.detection.deta import soft_nms

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from helpers.soft_nms_loop import crowded_boxes, soft_nms_loop

    torch.set_num_threads(args.threads)
    rows = []
    for case in CASES:
        data = crowded_boxes(*case)
        (kept, scores), (expected, expected_scores) = soft_nms(*data), soft_nms_loop(*data)
        same = sorted(kept.tolist()) == sorted(expected.tolist())
        apart = (scores[kept.argsort()] - expected_scores[expected.argsort()]).abs().max().item() if same else None
        runs = {"here": lambda data=data: soft_nms(*data), "loop": lambda data=data: soft_nms_loop(*data)}
        for way, values in summary(in_turns(runs, args.repeats), peer="loop").items():
            row = dict(zip(("boxes", "classes", "objects"), case, strict=True), way=way, **values)
            rows.append(row | {"same boxes": same, "apart": apart})
    write_table(rows, args.output, threads=args.threads)


if __name__ == "__main__":
    main()
