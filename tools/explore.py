#!/usr/bin/env python
"""A local page to explore towers' features: tools/explore.py PE-Spatial-B16-512 work_dirs/demo

Drop photos, choose tower and layer, click a point to see what is alike in both photos; two towers stand side by side.
Photos stay on this machine.
"""

import argparse
import signal


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "towers",
        nargs="+",
        metavar="TOWER",
        help="a published tower (PE-Spatial-B16-512), one with other weights (PE-Spatial-B16-512=FILE, ...=random), or "
        "a checkpoint or folder of a run",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8765, help="0 for any free one (8765)")
    parser.add_argument("--max-size", type=int, default=1024, help="longest side in pixels to run photos at (1024)")
    parser.add_argument("--device", help="cuda, cuda:1, cpu, ... (a GPU where there is one)")
    return parser.parse_args()


def main():
    args = parse_args()
    import pe_dense.engine  # noqa: F401  sets OMP_WAIT_POLICY, which must precede the import of torch
    from pe_dense.utils.errors import one_line_errors

    with one_line_errors():
        from pe_dense.apps.explorer.cli import start

        server, url = start(args.towers, host=args.host, port=args.port, max_size=args.max_size, device=args.device)
    # Also where a shell that runs it in the background has Ctrl+C ignored, and for service managers.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    print(f"{url}   (Ctrl+C ends)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
