#!/usr/bin/env python
"""Explore backbone features in a local web page: tools/explore.py PE-Spatial-B16-512 work_dirs/demo

Upload two images, choose backbone and layer, and click a point to see the similar regions of both images. Two backbones
can be compared side by side. With a PE Core model, images are compared with words that you type. Images stay on this
machine.
"""

import argparse
import signal

from pe_dense.engine.arguments import add_towers, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_towers(parser)
    parser.add_argument(
        "--host", type=text, default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=whole_number(0, 65_535), default=8765, help="port, 0 for any free one (8765)")
    parser.add_argument(
        "--max-size",
        type=whole_number(64, 16_384),
        default=1024,
        help="maximum length of the longer image side in pixels (1024)",
    )
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (default: a GPU if available)")
    return parser.parse_args()


def main():
    args = parse_args()
    # Explicit handlers, since SIGINT is ignored in a process that a shell script starts in the background. Both signals
    # are the regular way to end the server, so the exit code is 0.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        with one_line_errors():
            from pe_dense.apps.explorer.cli import start

            server, url = start(args.towers, host=args.host, port=args.port, max_size=args.max_size, device=args.device)
        print(f"{url}   (Ctrl+C ends)", flush=True)
        server.run()
    except KeyboardInterrupt:
        pass
    print()


if __name__ == "__main__":
    run_main(main)
