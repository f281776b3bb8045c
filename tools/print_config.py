#!/usr/bin/env python
"""Print a config with all bases and options resolved, and the file that sets each top-level key.

tools/print_config.py configs/coco_deta_pe_g14_1824.py
tools/print_config.py configs/ade20k_sweep_pe.py --cfg-options tower=PE-Spatial-B16-512

The output is a valid config.
"""

import argparse

from pe_dense.engine.arguments import ConfigOptions, text
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=text, help="config file")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        metavar="NAME=VALUE",
        help="override config values: data_root=FOLDER, image_size=512, tower=PE-Core-B16-224, ...",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    with one_line_errors():
        from pe_dense.engine.config import describe_config

        print(describe_config(args.config, args.cfg_options))


if __name__ == "__main__":
    run_main(main)
