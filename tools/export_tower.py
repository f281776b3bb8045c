#!/usr/bin/env python
"""Export a trained backbone in the published format: tools/export_tower.py CHECKPOINT OUT.pt|OUT.safetensors

With --text, the text tower too, of a run on captions (pe_dense.ContrastiveCLIP): a file for load_clip.
"""

import argparse

from pe_dense.engine.arguments import path, text
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=text, help="path, or work dir (its last checkpoint)")
    parser.add_argument("out", type=path, help="output file: .pt, .pth or .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing output file")
    parser.add_argument("--text", action="store_true", help="export image and text tower of a run on captions")
    parser.add_argument("--half", action="store_true", help="write float16")
    parser.add_argument(
        "--metadata", nargs="+", default=[], metavar="NAME=TEXT", help="texts for the header of a .safetensors file"
    )
    parser.add_argument(
        "--fold-layer-scale",
        action="store_true",
        help="fold LayerScale into the preceding projections, for architectures without LayerScale",
    )
    args = parser.parse_args()
    if args.text and args.fold_layer_scale:
        parser.error("--fold-layer-scale is for a single tower, not for --text")
    if bad := [item for item in args.metadata if not item.partition("=")[2]]:
        parser.error(f"--metadata {bad[0]}: not of the form NAME=TEXT")
    return args


def main():
    args = parse_args()
    with one_line_errors():
        if args.out.exists() and not args.overwrite:
            raise FileExistsError(f"{args.out} exists: choose another name or pass --overwrite")

        import torch

        from pe_dense.backbones.build import export_tower

        args.out.parent.mkdir(parents=True, exist_ok=True)
        options = dict(
            overwrite=args.overwrite,
            dtype=torch.float16 if args.half else None,
            metadata=dict(item.split("=", 1) for item in args.metadata),
        )
        if args.text:
            from pe_dense.language import export_clip

            names = export_clip(args.checkpoint, args.out, **options)
        else:
            names = export_tower(args.checkpoint, args.out, fold=args.fold_layer_scale, **options)
    fits = f"fits {' and '.join(names)}" if names else "load it with the architecture that it was trained with"
    print(f"Tower{'s' if args.text else ''}: {args.out} ({fits})")


if __name__ == "__main__":
    run_main(main)
