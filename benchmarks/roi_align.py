"""Compare the gradient of RoIAlign by matrix products with torchvision's operator on a CPU.

    python benchmarks/roi_align.py
    python benchmarks/roi_align.py --sides 32 64 128 --channels 256 --regions 64 512

Random boxes are pooled to 7 x 7 and 14 x 14 bins, as for the boxes and masks of Mask R-CNN. `chosen` is what
:func:`pe_dense.ops.roi_align.roi_align_backward` uses for maps of that size.
"""

import argparse
from pathlib import Path

from utils import in_turns, summary, write_table


def make_runs(side: int, channels: int, regions: int, images: int, bins: int) -> dict:
    """Return both functions for the same gradient and boxes: 4 to 28 px on the map, as a pyramid assigns them."""
    import torch

    from pe_dense.ops.roi_align import average_backward

    generator = torch.Generator().manual_seed(0)
    extent = (4 + 24 * torch.rand(regions, 2, generator=generator)).clamp(max=side)
    corner = torch.rand(regions, 2, generator=generator) * (side - extent)
    image = torch.arange(regions) % images
    rois = torch.cat([image[:, None], corner, corner + extent], dim=1)
    grad = torch.randn(regions, channels, bins, bins, generator=generator)
    shape = torch.Size([images, channels, side, side])
    return {
        "products": lambda: average_backward(grad, rois, shape, 1.0, 0, True),
        "torchvision": lambda: torch.ops.torchvision._roi_align_backward(grad, rois, 1.0, bins, bins, *shape, 0, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 16, 32, 64, 128], help="of the maps in px")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--regions", type=int, nargs="+", default=[64, 256], help="in all images together")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--bins", type=int, nargs="+", default=[7, 14])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/roi_align.json"))
    args = parser.parse_args()

    import torch
    import torchvision  # noqa: F401  (registers the operator)

    from pe_dense.ops.roi_align import MAX_PIXELS_OF_PRODUCTS

    torch.set_num_threads(args.threads)
    table = []
    for side in args.sides:
        for regions in args.regions:
            for bins in args.bins:
                runs = make_runs(side, args.channels, regions, args.images, bins)
                rows = summary(in_turns(runs, args.repeats), peer="torchvision")
                table.append(
                    {
                        "map px": side,
                        "regions": regions,
                        "bins": bins,
                        **{f"{name} ms": row["ms"] for name, row in rows.items()},
                        "times faster": rows["products"]["times_faster"],
                        "chosen": "products" if side * side <= MAX_PIXELS_OF_PRODUCTS else "torchvision",
                    }
                )
    write_table(table, args.output, channels=args.channels, images=args.images, threads=args.threads)


if __name__ == "__main__":
    main()
