#!/usr/bin/env python
"""Memory and time of predicting a large image in tiles: benchmarks/tiles.py RUN [--size W H] [--tile PX]

The image, generated noise with filled ellipses, is a file; memory is what the process holds at most while it predicts,
above what it held with the model loaded. A label map or depth map is part of it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

import pe_dense


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="work dir of a run, or with --words a PE Core model")
    parser.add_argument("--words", help="classes of open-vocabulary segmentation")
    parser.add_argument("--size", type=int, nargs=2, default=(12000, 9000), metavar=("W", "H"))
    parser.add_argument("--tile", type=int, default=1024, help="side of a tile in pixels (1024)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--format", choices=("png", "tif"), default="png", help="of the file (png)")
    args = parser.parse_args()
    model = pe_dense.load(args.run, device="cpu", words=args.words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scene.{args.format}"
        write_scene(path, *args.size)
        model.predict(np.zeros((args.tile, args.tile, 3), np.uint8), tile=args.tile)  # loads libraries
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before, start = held("VmRSS"), time.perf_counter()
        (result,) = model.predict(path, args.batch_size, tile=args.tile)
        seconds, peak = time.perf_counter() - start, held("VmHWM")
        count = f", {len(result)} objects" if hasattr(result, "boxes") else ""
        print(f"{type(result).__name__} of {args.size[0]} x {args.size[1]} px ({args.format}){count}: {seconds:.0f} s")
        print(f"memory with the model {before:.2f} GB, at most {peak - before:.2f} GB above it")


def write_scene(path, width, height):
    """Write noise and ellipses, band by band for a TIFF."""
    rng = np.random.default_rng(0)
    pixels = np.repeat(rng.integers(0, 60, (height, width, 1), np.uint8), 3, 2)
    for _ in range(width * height // 40_000):
        center = tuple(int(value) for value in rng.integers(0, (width, height)))
        axes = tuple(int(value) for value in rng.integers(10, 150, 2))
        cv2.ellipse(pixels, center, axes, float(rng.integers(180)), 0, 360, rng.integers(60, 256, 3).tolist(), -1)
    cv2.imwrite(str(path), pixels)


def held(name):
    """Return a memory field of this process in GB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1e6


if __name__ == "__main__":
    main()
