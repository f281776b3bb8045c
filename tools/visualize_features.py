#!/usr/bin/env python
"""Visualize backbone features: tools/visualize_features.py IMAGE... --arch PE-Spatial-G14-448 --out DIR

{modes}

--weights accepts any checkpoint of this project (detector, distilled student or probe) and loads its backbone.
"""

import argparse
from pathlib import Path

from pe_dense.apps.visualize import MODES, draw
from pe_dense.engine.arguments import number, path, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    modes = "\n".join(f"  --mode {mode:<15} {what}" for mode, what in MODES.items())
    parser = argparse.ArgumentParser(
        description=__doc__.format(modes=modes), formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--mode", choices=list(MODES), default="pca", help="figure (pca)")
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
        "--words",
        metavar="WORD,WORD",
        help="with --mode words: such as 'a dog, grass, sky; clouds'; separate synonyms by ';'",
    )
    parser.add_argument(
        "--patches",
        type=text,
        metavar="MODE",
        help="with --mode words: how patches are embedded: pooled, proxy, self, sclip, clearclip, naclip or naive "
        "(pooled); see docs/words.md",
    )
    parser.add_argument(
        "--background",
        type=number(0, 1),
        metavar="SCORE",
        help="with --mode words: pixels whose best probability is lower have no word (0)",
    )
    parser.add_argument(
        "--clusters", type=whole_number(2, 18), help="with --mode clusters: number of clusters, 2 to 18 (6)"
    )
    parser.add_argument(
        "--method", choices=["tokencut", "lost"], help="with --mode discovery: how the object is found (tokencut)"
    )
    parser.add_argument(
        "--tau",
        type=number(-1, 1),
        help="with --method tokencut: tokens are similar above this cosine; the best one depends on the tower (0.2)",
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
    with one_line_errors():
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
    run_main(main)
