#!/usr/bin/env python
"""Write a released detector in this project's layout: tools/convert_checkpoint.py CONFIG SRC DST

Released files load as they are wherever a checkpoint is asked for; a converted one starts faster and can be edited.
"""

import argparse
from pathlib import Path


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the model that the file is for")
    parser.add_argument("source", help="path, or hf://<owner>/<repo>/<file>")
    parser.add_argument("destination", type=Path, help="the file to write (.pth)")
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.engine.errors import one_line_errors

    with one_line_errors():
        from pe_dense.engine.config import load_config
        from pe_dense.engine.convert import convert_checkpoint

        count = convert_checkpoint(load_config(args.config), args.source, args.destination)
    print(f"{count} tensors: {args.destination}")


if __name__ == "__main__":
    main()
