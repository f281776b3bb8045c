#!/usr/bin/env python
"""Push a trained model to the Hugging Face hub: tools/push.py RUN OWNER/REPO

Writes model.safetensors, config.json and a model card with the data, the last validation metrics and a usage snippet.
With --folder, the same files are written to a folder and nothing is uploaded. Logging in: `hf auth login` or HF_TOKEN.
"""

import argparse

from pe_dense.engine.arguments import path, text
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=text, help="work dir (its config and last checkpoint), or name of a published model"
    )
    parser.add_argument("repo", nargs="?", type=text, help="repository, <owner>/<name>")
    parser.add_argument("--folder", type=path, help="write to this folder instead of a repository")
    parser.add_argument("--checkpoint", type=text, help="another checkpoint than the run's last one")
    parser.add_argument("--part", choices=("model", "tower", "clip"), default="model", help="what to push (model)")
    parser.add_argument("--license", type=text, help="license of the weights, stated in the card")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    return parser.parse_args()


def push(args):
    """Upload or save the model; returns where it is."""
    from pe_dense.utils.errors import ConfigError

    if (args.repo is None) == (args.folder is None):
        raise ConfigError("name either a repository, <owner>/<name>, or a folder by --folder")
    if args.private and args.folder is not None:
        raise ConfigError("--private is for a repository: leave it out with --folder")
    from pe_dense.export.publish import describe, open_publishable
    from pe_dense.utils.hub import check_folder, check_repo

    if args.folder is None:
        check_repo(args.repo)
    else:
        check_folder(args.folder)
    card = describe(args.run, args.license)
    model = open_publishable(args.run, args.checkpoint, args.part)
    model.model_card = card
    if args.folder is None:
        return model.push_to_hub(args.repo, private=args.private or None)
    model.save_pretrained(args.folder)
    return args.folder


def main():
    args = parse_args()
    with one_line_errors():
        place = push(args)
    print(f"Model: {place}")


if __name__ == "__main__":
    run_main(main)
