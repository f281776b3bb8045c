#!/usr/bin/env python
"""Predict on images: tools/predict.py CONFIG CHECKPOINT IMAGE|FOLDER... --out DIR, or RUN IMAGE|FOLDER... --out DIR

A picture and a JSON file are written for each image, or with --format annotations in a common format. The config's
model determines the task: object detection, semantic segmentation or depth estimation. With --words, open-vocabulary
segmentation without training: CONFIG is a PE Core model (PE-Core-B16-224, a file or hf:// name), or the config of an
open-vocabulary segmenter, and CHECKPOINT is 'words' for its own weights.
"""

import argparse
from pathlib import Path

from pe_dense.engine.arguments import ConfigOptions, add_acceleration, number, path, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "config", type=text, help="config file; or the work dir of a run, whose config is used, without CHECKPOINT"
    )
    parser.add_argument(
        "checkpoint", type=text, help="path, work dir (its last checkpoint), or hf://<owner>/<repo>/<file>"
    )
    parser.add_argument(
        "images", nargs="*", type=text, metavar="IMAGE", help="image files, videos or folders of images"
    )
    parser.add_argument("--out", type=path, required=True, help="output folder")
    parser.add_argument(
        "--format",
        choices=("json", "coco", "yolo", "labelme", "masks"),
        default="json",
        help="json: a picture and a JSON file per image (default); the others are annotations to train on or to "
        "correct: COCO, YOLO, labelme, or label maps with classes.txt",
    )
    parser.add_argument(
        "--tower",
        type=text,
        metavar="NAME",
        help="backbone to put under the config, as in training: a PE tower or timm/<model name>; the config may be any "
        "of mmdet's and mmseg's: a path, mmdet::<folder>/<name> or mmseg::<folder>/<name>",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files in the output folder")
    parser.add_argument(
        "--score-thr",
        type=text,
        metavar="SCORE",
        help="detectors only: minimum score of the objects to draw, or to write with --format (0.3); by class: "
        "person=0.6,car=0.4, with 0.3 before or after them for the other classes",
    )
    parser.add_argument(
        "--tta", action="store_true", help="detectors only: test-time augmentation: multi-scale and horizontal flip"
    )
    parser.add_argument("--batch-size", type=whole_number(1, 100_000), default=1, help="images or tiles per batch (1)")
    parser.add_argument(
        "--tile",
        type=whole_number(32, 1 << 16),
        metavar="PX",
        help="predict in tiles of this side, for images that are larger than the model's input; memory depends on the "
        "tile, objects on seams are merged, label maps and depth are blended",
    )
    parser.add_argument(
        "--fps",
        type=number(0.01, 1000),
        help="frames per second: folders are then videos with an image for each frame, which are drawn as a video",
    )
    parser.add_argument("--overlap", type=number(0, 0.89), help="overlap of tiles as a part of their side (0.2)")
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (default: a GPU if available)")
    add_acceleration(parser)
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
    args = parser.parse_args()
    if names_run(args.config) and not names_checkpoint(args.checkpoint):
        args.images.insert(0, args.checkpoint)
        args.checkpoint = args.config
    if not args.images:
        parser.error("the following arguments are required: IMAGE")
    return args


def names_run(config):
    """Return whether the first argument is the work dir of a run, not a config or a folder with both towers of PE."""
    return contains(config, "*.py")


def names_checkpoint(name):
    """Return whether an argument after a work dir is a checkpoint, not an image or a folder of images."""
    path = Path(name)
    return name.startswith("hf://") or path.suffix in (".pth", ".pt", ".safetensors") or contains(name, "*.pth")


def contains(folder, pattern):
    """Return whether a path is a folder with such files."""
    try:
        return Path(folder).is_dir() and any(Path(folder).glob(pattern))
    except OSError:  # not a path that the system accepts: reported where it is used
        return False


def config_predictor(args):
    """Build the inferencer of the config's model."""
    from pe_dense.engine.config import load_config
    from pe_dense.engine.inferencer import config_of_run, load_predictor
    from pe_dense.engine.preflight import check_read
    from pe_dense.runtime.thresholds import check_thresholds

    if names_run(args.config):
        args.config = str(config_of_run(Path(args.config)))
    config = load_config(args.config, args.cfg_options, tower=args.tower)
    check_read(config, "predict", vars(args))
    if args.data or args.val_ann:
        from pe_dense.apis.custom_data import use_data

        use_data(config, args.data, ("test",), checkpoint=args.checkpoint, val_ann=args.val_ann)
    options = dict(tta=True) if args.tta else {}
    if args.score_thr is not None:
        options["score_thr"] = args.score_thr
    predictor = load_predictor(config, args.checkpoint, device=args.device, **options)
    check_thresholds(args.score_thr, predictor.classes)
    return predictor


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


def outputs(args, predictor, images, on_tile):
    """Return an iterator that writes the outputs of an image at each step, and what it writes."""
    results = None
    score_thr = 0.3 if args.score_thr is None else args.score_thr
    if args.tile is not None:
        from pe_dense.apis.tiles import tile_results
        from pe_dense.tiling import Tiling

        tiling = Tiling(args.tile, 0.2 if args.overlap is None else args.overlap)
        results = tile_results(predictor, images, args.out, tiling, args.batch_size, on_tile=on_tile)
    if args.format == "json":
        return predictor.predict_files(images, args.out, args.batch_size, results=results), "Pictures and JSON files"
    from pe_dense.apis.label_files import write_labels

    options = dict(score_thr=score_thr, batch_size=args.batch_size, results=results)
    return write_labels(predictor, images, args.out, args.format, **options), f"Annotations ({args.format})"


def open_videos(names, fps):
    """Find the frames of videos."""
    if not names:
        return []
    from pe_dense.apis.videos import Video

    return [Video.open(name, fps) for name in names]


def write_videos(args, predictor, videos):
    """Write the predictions of videos."""
    from rich.progress import Progress

    from pe_dense.apis.videos import write_predictions
    from pe_dense.utils.output_folder import output_names

    score_thr = 0.3 if args.score_thr is None else args.score_thr
    for video, name in zip(videos, output_names([video.path for video in videos]), strict=True):
        done = 0
        with Progress() as bar:
            task = bar.add_task(f"Predicting {name}", total=video.count)

            def on_frame(count):
                nonlocal done
                done = count
                bar.update(task, completed=count)  # noqa: B023 - called in this turn of the loop only

            try:
                write_predictions(
                    predictor,
                    video,
                    args.out / name,
                    args.batch_size,
                    score_thr=score_thr,
                    overwrite=args.overwrite,
                    on_frame=on_frame,
                )
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"{done} frames of {video.path}: {args.out / name}.mp4") from None
        print(f"Video and JSON lines of {done} frames: {args.out / name}.mp4, {args.out / name}.jsonl")


def predict(args):
    """Predict and write; return the exit status."""
    from pe_dense.engine.acceleration import accelerate
    from pe_dense.runtime.thresholds import parse_thresholds
    from pe_dense.utils.errors import ConfigError
    from pe_dense.utils.image import find_images
    from pe_dense.utils.output_folder import check_output_folder
    from pe_dense.utils.paths import check_path
    from pe_dense.utils.video import is_video

    if args.checkpoint == "words" and args.words is None and not Path("words").exists():
        raise ConfigError("CHECKPOINT 'words' stands for a model without training: name its classes by --words")
    if args.overlap is not None and args.tile is None:
        raise ConfigError("--overlap is that of tiles: add --tile PX")
    if args.score_thr is not None:
        args.score_thr = parse_thresholds(args.score_thr)
    check_output_folder(args.out, "--out")
    for source in args.images:
        check_path(source)
        if args.out.resolve() == Path(source).resolve():
            raise ConfigError(f"--out {args.out} is the folder of the images: name another one")
    named = [name for name in args.images if is_video(name) or (args.fps and Path(name).is_dir())]
    if named and (args.tile is not None or args.format != "json"):
        raise ConfigError(f"{named[0]} is a video: --tile and --format are for images")
    videos = open_videos(named, args.fps)
    others = [name for name in args.images if name not in named]
    images = find_images(others, exclude=[args.out], skip_outputs=True) if others else []
    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        raise FileExistsError(f"{args.out} is not empty: name another folder or pass --overwrite")

    predictor = open_vocabulary_predictor(args) if args.words is not None else config_predictor(args)
    accelerate(predictor.network, compiled=args.compile, dtype=args.dtype)
    if videos:
        write_videos(args, predictor, videos)
    if not images:
        return 0
    from rich.progress import Progress

    done = 0
    with Progress() as bar:
        task = bar.add_task("Predicting", total=len(images))
        written, what = outputs(
            args, predictor, images, lambda tile, tiles: bar.update(task, completed=done + tile / tiles)
        )
        try:
            for _ in written:
                done += 1
                bar.update(task, completed=done)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{what} of {done} of {len(images)} images: {args.out}") from None
        finally:
            written.close()
    for _, reason in predictor.left_out:
        print(f"left out: {reason}")
    print(f"{what} of {done} of {len(images)} images: {args.out}")
    return 1 if predictor.left_out else 0


def main():
    args = parse_args()
    with one_line_errors():
        return predict(args)


if __name__ == "__main__":
    run_main(main)
