#!/usr/bin/env python
"""Export a trained backbone in the published format: tools/export_tower.py CHECKPOINT OUT.pt|OUT.safetensors"""

import argparse

from pe_dense.engine.arguments import path, text


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=text, help="path, or work dir (its last checkpoint)")
    parser.add_argument("out", type=path, help="output file: .pt, .pth or .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing output file")
    parser.add_argument(
        "--fold-layer-scale",
        action="store_true",
        help="fold LayerScale into the preceding projections, for architectures without LayerScale",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.utils.errors import one_line_errors

    with one_line_errors():
        if args.out.exists() and not args.overwrite:
            raise FileExistsError(f"{args.out} exists: choose another name or pass --overwrite")

        from pe_dense.backbones.build import export_tower

        args.out.parent.mkdir(parents=True, exist_ok=True)
        names = export_tower(args.checkpoint, args.out, fold=args.fold_layer_scale, overwrite=args.overwrite)
    fits = f"fits {' and '.join(names)}" if names else "load it with the architecture that it was trained with"
    print(f"Tower: {args.out} ({fits})")


if __name__ == "__main__":
    main()
