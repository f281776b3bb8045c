"""Predict on image files in tiles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from pe_dense.engine.inferencer import ImageResult, Predictor
from pe_dense.runtime.source import Source
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.tiling import Tiling, open_windows, predict_tiles
from pe_dense.tiling.readers import WindowReader
from pe_dense.utils.image import ImageError
from pe_dense.utils.output_folder import output_names
from pe_dense.visualization.results import DRAWN_SIDE


def tile_results(
    predictor: Predictor,
    images: Sequence[Path],
    out_dir: Path,
    tiling: Tiling,
    batch_size: int = 1,
    *,
    score_thr: Thresholds = 0.0,
    on_tile: Callable[[int, int], None] | None = None,
) -> Iterator[ImageResult]:
    """Predict on image files in tiles; see :meth:`pe_dense.engine.inferencer.Predictor.predict_results`.

    Args:
        predictor: inferencer of a model.
        images: image files; those that cannot be used are listed in ``predictor.left_out``.
        out_dir: output folder, which also takes temporary files; created if missing.
        tiling, batch_size, score_thr, on_tile: see :func:`pe_dense.tiling.predict_tiles`.

    Yields:
        file, name of the outputs, pixels of which the longer side is at most 4096, and result.

    Raises:
        ConfigError: for a model that does not predict in tiles.
    """
    predictor.left_out = []
    out_dir.mkdir(parents=True, exist_ok=True)
    for path, name in zip(images, output_names(images, predictor.endings, out_dir), strict=True):
        try:
            reader = open_image(predictor, path)
        except (ImageError, FileNotFoundError) as error:
            predictor.left_out.append((path, str(error)))
            print_log(f"left out: {error}", "current", logging.WARNING)
            continue
        result = predict_tiles(
            predictor, reader, tiling, batch_size, score_thr=score_thr, folder=out_dir, on_tile=on_tile
        )
        pixels, _ = reader.overview(DRAWN_SIDE)
        reader.close()
        yield path, name, pixels, replace(result, source=Source(path))


def open_image(predictor: Predictor, image: Path | np.ndarray) -> WindowReader:
    """Open an image with the options of an inferencer's pipeline; see :func:`pe_dense.tiling.open_windows`."""
    options = {
        name: getattr(predictor.reader, name)
        for name in ("ignore_orientation", "white_level")
        if hasattr(predictor.reader, name)
    }
    return open_windows(image, **options)
