#!/usr/bin/env python
"""Report on a folder of custom data before training: tools/data.py FOLDER

The format is recognized; counts by class and split, image sizes, images without objects and all problems are printed,
and a sheet of annotated samples is drawn. The exit status is 1 if training would refuse the data.
"""

import argparse

from pe_dense.engine.arguments import number, path, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=text, help="data folder, or YOLO's data.yaml")
    parser.add_argument(
        "--task",
        choices=["objects", "semantic", "panoptic", "depth", "classes"],
        help="annotations to read if the folder has several (default: recognized)",
    )
    parser.add_argument(
        "--depth-scale",
        type=number(1e-9, 1e6),
        metavar="METERS",
        help="meters per unit of integer depth maps (0.001, or that of depth.json)",
    )
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="PNG file of annotated samples (<folder's name>_samples.png)"
    )
    parser.add_argument("--samples", type=whole_number(0, 400), default=16, help="number of samples; 0 draws none (16)")
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing file of samples")
    return parser.parse_args()


def main():
    args = parse_args()
    with one_line_errors():
        return run(args)


def run(args):
    from pathlib import Path

    from pe_dense.apis.data_report import report_data
    from pe_dense.utils.errors import ConfigError

    folder = Path(args.folder)
    name = (folder if folder.is_dir() else folder.parent).resolve().name
    out = args.out or Path(f"{name}_samples.png")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out} must be a PNG file")
    if args.samples and out.exists() and not args.overwrite:
        raise FileExistsError(f"{out} exists: name another file with --out or pass --overwrite")
    report = report_data(folder, args.task, depth_scale=args.depth_scale)
    print("\n".join(report.lines))
    if args.samples and report.data is not None:
        import numpy as np

        from pe_dense.utils.image import write_png
        from pe_dense.visualization.contact_sheet import draw_contact_sheet

        if (sheet := draw_contact_sheet(report.data, args.samples)) is not None:
            write_png(out, np.asarray(sheet))
            print(f"samples: {out}")
    return 1 if report.has_problems else 0


if __name__ == "__main__":
    run_main(main)
