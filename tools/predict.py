#!/usr/bin/env python
"""Draw a trained model's predictions on images: tools/predict.py CONFIG CHECKPOINT IMAGE|FOLDER... --out DIR

Objects, classes of pixels or depth, as the config's model has it.
"""

import argparse
from pathlib import Path

from mmengine.config import DictAction


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="path, work dir (its last checkpoint), or hf://<owner>/<repo>/<file>")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files or folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and JSON files")
    parser.add_argument("--overwrite", action="store_true", help="replace files in that folder")
    parser.add_argument("--score-thr", type=float, help="of detectors: draw objects from this score on (0.3)")
    parser.add_argument(
        "--tta", action="store_true", help="of detectors: look at several sizes, mirrored too: slower and better"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images that run together (1)")
    parser.add_argument("--device", help="cuda, cuda:1, cpu, ... (a GPU where there is one)")
    parser.add_argument("--data", metavar="FOLDER", help="data of your own that it was trained on, for their classes")
    parser.add_argument("--val-ann", metavar="FILE", help="annotation file with the classes, with --data")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="NAME=VALUE",
        help="change values: image_size=512, ...",
    )
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f"--batch-size is {args.batch_size}, must be at least 1")
    return args


def main():
    args = parse_args()
    import pe_dense.engine  # noqa: F401  sets OMP_WAIT_POLICY, which must precede the import of torch
    from pe_dense.utils.errors import one_line_errors

    with one_line_errors():
        from pe_dense.utils.image import find_images, split_readable

        images, unreadable = split_readable(find_images(args.images))
        for path in unreadable:
            print(f"left out {path}: not a readable image")
        if not images:
            raise FileNotFoundError("none of the files is a readable image")
        if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
            raise FileExistsError(f"{args.out} is not empty: name another folder or pass --overwrite")

        from pe_dense.engine.config import load_config
        from pe_dense.engine.inferencer import load_predictor

        config = load_config(args.config, args.cfg_options)
        if args.data or args.val_ann:
            from pe_dense.detection.custom_dataset import use_data

            use_data(config, args.data, splits=("val",), val_ann=args.val_ann)
        options = dict(tta=True) if args.tta else {}
        if args.score_thr is not None:
            options["score_thr"] = args.score_thr
        predictor = load_predictor(config, args.checkpoint, device=args.device, **options)
    from rich.progress import track

    pictures = predictor.predict_files(images, args.out, args.batch_size)
    for _ in track(pictures, total=len(images), description="Predicting"):
        pass
    print(f"Pictures and JSON files: {args.out}")
    return 1 if unreadable else 0


if __name__ == "__main__":
    raise SystemExit(main())
