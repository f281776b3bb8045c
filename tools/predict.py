#!/usr/bin/env python
"""Draw a trained model's predictions on images: tools/predict.py CONFIG CHECKPOINT IMAGE|FOLDER... --out DIR

The config's model determines the task: object detection, semantic segmentation or depth estimation. With --words,
open-vocabulary segmentation without training: CONFIG is a PE Core model (PE-Core-B16-224, a file or hf:// name), or the
config of an open-vocabulary segmenter, and CHECKPOINT is 'words' for its own weights.
"""

import argparse
from pathlib import Path

from pe_dense.engine.arguments import ConfigOptions, number, path, text, whole_number


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=text, help="config file")
    parser.add_argument(
        "checkpoint", type=text, help="path, work dir (its last checkpoint), or hf://<owner>/<repo>/<file>"
    )
    parser.add_argument("images", nargs="+", type=text, metavar="IMAGE", help="image files or folders")
    parser.add_argument("--out", type=path, required=True, help="output folder for visualizations and JSON files")
    parser.add_argument(
        "--tower",
        type=text,
        metavar="NAME",
        help="backbone to put under the config, as in training: a PE tower or timm/<model name>; the config may be any "
        "of mmdet's and mmseg's: a path, mmdet::<folder>/<name> or mmseg::<folder>/<name>",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files in the output folder")
    parser.add_argument(
        "--score-thr", type=number(0, 1), help="detectors only: minimum score of the objects to draw (0.3)"
    )
    parser.add_argument(
        "--tta", action="store_true", help="detectors only: test-time augmentation: multi-scale and horizontal flip"
    )
    parser.add_argument("--batch-size", type=whole_number(1, 100_000), default=1, help="batch size (1)")
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (default: a GPU if available)")
    parser.add_argument(
        "--data",
        type=text,
        metavar="FOLDER",
        help="folder of the custom data set that the model was trained on, for its class names",
    )
    parser.add_argument("--val-ann", type=text, metavar="FILE", help="annotation file with the classes, with --data")
    parser.add_argument(
        "--words",
        type=text,
        metavar="WORD,WORD",
        help="classes to segment, such as 'dog, sofa, grass', or a .txt file with one a line; synonyms are separated "
        "by ';'; for a threshold, put 'background; wall' first",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        metavar="NAME=VALUE",
        help="override config values: image_size=512, ...",
    )
    return parser.parse_args()


def config_predictor(args):
    """Build the inferencer of the config's model."""
    from pe_dense.engine.config import load_config
    from pe_dense.engine.inferencer import load_predictor
    from pe_dense.engine.preflight import check_read

    config = load_config(args.config, args.cfg_options, tower=args.tower)
    check_read(config, "predict", vars(args))
    if args.data or args.val_ann:
        from pe_dense.detection.custom_dataset import use_data

        use_data(config, args.data, splits=("val",), val_ann=args.val_ann)
    options = dict(tta=True) if args.tta else {}
    if args.score_thr is not None:
        options["score_thr"] = args.score_thr
    return load_predictor(config, args.checkpoint, device=args.device, **options)


def open_vocabulary_predictor(args):
    """Build the open-vocabulary segmentation inferencer for ``--words``."""
    from pe_dense.utils.errors import ConfigError

    given = dict(tta=args.tta, score_thr=args.score_thr, data=args.data, val_ann=args.val_ann, tower=args.tower)
    if unused := [name for name, value in given.items() if value]:
        raise ConfigError(f"--words does not go with --{unused[0].replace('_', '-')}")
    from pe_dense.apis.model import words_predictor
    from pe_dense.engine.preflight import check_read

    checkpoint = None if args.checkpoint == "words" else args.checkpoint
    return words_predictor(
        args.config,
        checkpoint,
        args.words,
        options=args.cfg_options,
        device=args.device,
        check=lambda config: check_read(config, "predict", vars(args)),
    )


def main():
    args = parse_args()
    from pe_dense.utils.errors import one_line_errors

    with one_line_errors():
        from pe_dense.utils.errors import ConfigError
        from pe_dense.utils.image import check_output_folder, find_images

        if args.checkpoint == "words" and args.words is None and not Path("words").exists():
            raise ConfigError("CHECKPOINT 'words' stands for a model without training: name its classes by --words")
        check_output_folder(args.out, "--out")
        for source in args.images:
            if args.out.resolve() == Path(source).resolve():
                raise ConfigError(f"--out {args.out} is the folder of the images: name another one")
        images = find_images(args.images, exclude=[args.out], skip_outputs=True)
        if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
            raise FileExistsError(f"{args.out} is not empty: name another folder or pass --overwrite")

        predictor = open_vocabulary_predictor(args) if args.words is not None else config_predictor(args)
        from rich.progress import track

        pictures = predictor.predict_files(images, args.out, args.batch_size)
        done = sum(1 for _ in track(pictures, total=len(images), description="Predicting"))
    for _, reason in predictor.left_out:
        print(f"left out: {reason}")
    print(f"Pictures and JSON files of {done} of {len(images)} images: {args.out}")
    return 1 if predictor.left_out else 0


if __name__ == "__main__":
    raise SystemExit(main())
