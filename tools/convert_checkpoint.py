#!/usr/bin/env python
"""Convert a published detector checkpoint to this project's format: tools/convert_checkpoint.py SRC DST

Published files can be passed wherever a checkpoint is expected; a converted file loads faster and can be edited.
"""

import argparse
from pathlib import Path

from pe_dense.engine.arguments import path, text
from pe_dense.utils.errors import one_line_errors, run_main

CONFIGS = Path(__file__).parents[1] / "configs"


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=text, metavar="SRC", help="path, or hf://<owner>/<repo>/<file>")
    parser.add_argument("destination", metavar="DST", type=path, help="output file (.pth)")
    parser.add_argument("--config", type=text, help="config of the model (default: the config of the published file)")
    return parser.parse_args()


def main():
    args = parse_args()
    with one_line_errors():
        if args.destination.exists():
            raise FileExistsError(f"{args.destination} exists; choose another name")

        from pe_dense.apis.convert import convert_checkpoint, published_config
        from pe_dense.engine.config import load_config
        from pe_dense.utils import read_checkpoint

        checkpoint = read_checkpoint(args.source)
        config = load_config(args.config or CONFIGS / published_config(checkpoint, args.source))
        count = convert_checkpoint(config, checkpoint, args.source, args.destination)
    print(f"{count} tensors for {config.filename}: {args.destination}")


if __name__ == "__main__":
    run_main(main)
