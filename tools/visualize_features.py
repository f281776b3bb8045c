#!/usr/bin/env python
"""Draw what a tower sees: tools/visualize_features.py IMAGE... --arch PE-Spatial-G14-448 --out DIR

  --mode pca             principal components as colors (the default); videos give MP4
  --mode correspondence  parts of the first image joined to those of the others that are mutually nearest
  --mode similarity      how alike all tokens are to the one at --point of the first image
  --mode attention       where the token at --point looks, by the tower's own queries and keys

--weights takes any checkpoint of this project (a detector's, an aligned student's, a probe's) and draws its tower.
"""

import argparse
from pathlib import Path

from pe_dense.engine.arguments import path, text, whole_number


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=text, metavar="IMAGE", help="image files, folders of them, or videos")
    parser.add_argument("--arch", type=text, metavar="NAME", help="published tower, such as PE-Spatial-B16-512")
    parser.add_argument(
        "--weights",
        type=text,
        metavar="SOURCE",
        help="file, run's folder, hf:// name, or 'random' for trying out (hf://facebook/<arch>); the checkpoint of a "
        "run tells its tower, so that --arch is not needed",
    )
    parser.add_argument(
        "--layers", default="-1", metavar="N,N|all", help="blocks from 0, negatives from the end, or all (-1)"
    )
    parser.add_argument("--mode", choices=["pca", "correspondence", "similarity", "attention"], default="pca")
    parser.add_argument(
        "--mask",
        nargs="+",
        type=text,
        metavar="FILE|auto",
        help="look at the foreground only: a mask per image, or auto",
    )
    parser.add_argument(
        "--point", metavar="X,Y|cls", help="pixel of the first image (its middle), or for attention the class token"
    )
    parser.add_argument(
        "--size", type=whole_number(1, 16_384), help="longer side in pixels that images are run at (the tower's own)"
    )
    parser.add_argument("--per-image", action="store_true", help="components of each image by itself, not of all")
    parser.add_argument("--out", type=path, default=Path("work_dirs/features"), help="folder (work_dirs/features)")
    parser.add_argument("--overwrite", action="store_true", help="replace files in that folder")
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (a GPU where there is one)")
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.utils.errors import one_line_errors

    with one_line_errors():
        from pe_dense.visualization.cli import draw

        for file in draw(args.images, **{key: value for key, value in vars(args).items() if key != "images"}):
            print(file)
    print(f"Pictures: {args.out}")


if __name__ == "__main__":
    main()
