#!/usr/bin/env python
"""Visualize backbone features: tools/visualize_features.py IMAGE... --arch PE-Spatial-G14-448 --out DIR

  --mode pca             principal components as colors (the default); videos give MP4
  --mode correspondence  mutual nearest neighbors between the first image and each of the others
  --mode similarity      cosine similarity of all tokens to the token at --point of the first image
  --mode attention       attention map of the token at --point, from the backbone's queries and keys

--weights accepts any checkpoint of this project (detector, distilled student or probe) and loads its backbone.
"""

import argparse
from pathlib import Path

from pe_dense.engine.arguments import path, text, whole_number


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=text, metavar="IMAGE", help="image files, folders of them, or videos")
    parser.add_argument("--arch", type=text, metavar="NAME", help="published backbone, such as PE-Spatial-B16-512")
    parser.add_argument(
        "--weights",
        type=text,
        metavar="SOURCE",
        help="file, work dir, hf:// name, or 'random' for a smoke test (hf://facebook/<arch>); the checkpoint of a "
        "training run stores its architecture, so --arch is not needed",
    )
    parser.add_argument(
        "--layers",
        type=text,
        default="-1",
        metavar="N,N|all",
        help="block indices from 0, negative indices from the end, or all (-1)",
    )
    parser.add_argument("--mode", choices=["pca", "correspondence", "similarity", "attention"], default="pca")
    parser.add_argument(
        "--mask",
        nargs="+",
        type=text,
        metavar="FILE|auto",
        help="restrict the figure to the foreground: one mask per image, or auto",
    )
    parser.add_argument(
        "--point",
        type=text,
        metavar="X,Y|cls",
        help="pixel of the first image (default: its center); cls, the class token, for attention",
    )
    parser.add_argument(
        "--size",
        type=whole_number(1, 16_384),
        help="longer side of the resized images in pixels (default: the backbone's)",
    )
    parser.add_argument(
        "--per-image", action="store_true", help="compute PCA per image instead of jointly over all images"
    )
    parser.add_argument(
        "--out", type=path, default=Path("work_dirs/features"), help="output folder (work_dirs/features)"
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files in the output folder")
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (default: a GPU if available)")
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.utils.errors import one_line_errors

    with one_line_errors():
        from pe_dense.visualization.cli import draw

        left_out: list[tuple[Path, str]] = []
        options = {key: value for key, value in vars(args).items() if key != "images"}
        drawn = 0
        for drawn, file in enumerate(draw(args.images, left_out=left_out, **options), start=1):  # noqa: B007
            print(file)
    for _, reason in left_out:
        print(f"left out: {reason}")
    if left_out:
        print(f"Left out, since they cannot be used: {len(left_out)} files")
    if drawn:
        print(f"Pictures: {args.out}")
    return 1 if left_out else 0


if __name__ == "__main__":
    raise SystemExit(main())
