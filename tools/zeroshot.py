#!/usr/bin/env python
"""Zero-shot classification of images and videos: tools/zeroshot.py MODEL IMAGE|VIDEO|FOLDER... --words "a cat, a dog"

MODEL is the name of a PE Core model (PE-Core-B16-224), a file with both encoders, or hf://<owner>/<repo>/<file>.
Instead of --words, --labels and --captions evaluate classification and retrieval on the images of a CSV file.
"""

import argparse

from pe_dense.engine.arguments import path, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=text, help="name, path or hf:// name of a PE Core model")
    parser.add_argument("images", nargs="*", type=text, metavar="IMAGE", help="image files, image folders or videos")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--words",
        type=text,
        metavar="WORD,WORD",
        help="classes, such as 'a cat, a dog', or a .txt file with one a line; synonyms are separated by ';'",
    )
    task.add_argument(
        "--labels", type=path, metavar="CSV", help="evaluate classification: a file with the columns file and label"
    )
    task.add_argument(
        "--data",
        dest="labels",
        type=path,
        metavar="FOLDER",
        help="evaluate classification on a folder with a folder of images for each class",
    )
    task.add_argument(
        "--captions", type=path, metavar="CSV", help="evaluate retrieval: a file with the columns file and caption"
    )
    parser.add_argument(
        "--data-root", type=path, metavar="FOLDER", help="folder that the files of the CSV are relative to (the CSV's)"
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        default=["photo"],
        type=text,
        metavar="NAME|TEMPLATE",
        help="photo, imagenet (80 prompts), vild, none, or templates such as 'a sketch of a {}.' (photo)",
    )
    parser.add_argument("--top", type=whole_number(1, 1000), default=5, help="number of classes printed per image (5)")
    parser.add_argument("--json", type=path, metavar="FILE", help="write all probabilities or metrics to this file")
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing JSON file")
    parser.add_argument("--batch-size", type=whole_number(1, 100_000), default=16, help="batch size (16)")
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (default: a GPU if available)")
    return parser.parse_args()


def main():
    args = parse_args()
    with one_line_errors():
        return run(args)


def run(args):
    from pathlib import Path

    from pe_dense.language.word_lists import parse_synonyms
    from pe_dense.language.zero_shot import get_templates
    from pe_dense.utils.errors import ConfigError
    from pe_dense.utils.image import find_images
    from pe_dense.utils.video import is_video

    # Everything that can be wrong on the command line is checked before weights are read.
    templates = get_templates(args.templates)
    if args.json and args.json.is_dir():
        raise ConfigError(f"--json {args.json} is a folder: name a file")
    if args.json and args.json.exists() and not args.overwrite:
        raise FileExistsError(f"{args.json} exists: name another file or pass --overwrite")
    if args.words is not None:
        words, queries, classes = parse_synonyms(args.words)
        if args.data_root is not None:
            raise ConfigError("--data-root belongs to --labels and --captions: leave it out")
        if not args.images:
            raise ConfigError("no images: name image files, videos or folders")
        files = []
        for source in args.images:
            files += [Path(source)] if is_video(source) and Path(source).is_file() else find_images([source])
    elif args.images:
        raise ConfigError("--labels and --captions name the files themselves: leave the images out")

    from pe_dense.backbones.build import choose_device
    from pe_dense.language import load_clip
    from pe_dense.language.dense import class_scores
    from pe_dense.language.zero_shot import class_embeddings, encode_files, evaluate_classification, evaluate_retrieval
    from pe_dense.utils.atomic_write import write_json

    model = load_clip(args.model, device=choose_device(args.device))
    left_out: list[tuple[Path, str]] = []
    if args.words is not None:
        embeddings, scale = class_embeddings(model, queries, templates), model.logit_scale.detach().exp()
        results, failed = {}, []
        batches = encode_files(model, files, batch_size=args.batch_size, left_out=failed)
        for numbers, images in batches:
            scores = class_scores((images @ embeddings.T)[..., None, None], classes, scale)
            for number, row in zip(numbers, scores[..., 0, 0].tolist(), strict=True):
                ranked = sorted(zip(words, row, strict=True), key=lambda pair: -pair[1])
                results[str(files[number])] = dict(ranked)
                shown = ", ".join(f"{word} {probability:.1%}" for word, probability in ranked[: args.top])
                print(f"{files[number]}: {shown}")
        left_out = [(files[number], reason) for number, reason in failed]
    else:
        options = dict(batch_size=args.batch_size, left_out=left_out, root=args.data_root)
        if args.labels:
            results = evaluate_classification(model, args.labels, templates, **options)
        else:
            results = evaluate_retrieval(model, args.captions, **options)
        for name, value in results.items():
            print(f"{name}: {value:.2%}")
    for _, reason in left_out:
        print(f"left out: {reason}")
    if left_out:
        print(f"Left out, since they cannot be read: {len(left_out)} files")
    if args.json:
        write_json(args.json, results, indent=1, overwrite=args.overwrite)
    return 1 if left_out else 0


if __name__ == "__main__":
    run_main(main)
