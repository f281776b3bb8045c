"""Predict on an image tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pe_dense.engine.inferencer import Predictor, predict_batches
from pe_dense.runtime.results import Detections, Result
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.tiling.grid import Tiling
from pe_dense.tiling.maps import MapBlender
from pe_dense.tiling.objects import ObjectMerger
from pe_dense.tiling.readers import WindowReader
from pe_dense.utils.errors import ConfigError


def predict_tiles(
    predictor: Predictor,
    image: WindowReader,
    tiling: Tiling,
    batch_size: int = 1,
    *,
    score_thr: Thresholds = 0.0,
    folder: Path | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Result:
    """Predict on an image tile by tile.

    Objects are merged across seams, see :class:`~pe_dense.tiling.objects.ObjectMerger`; scores of classes and depth are
    blended, see :class:`~pe_dense.tiling.maps.MapBlender`.

    Args:
        predictor: inferencer of a detector, or of semantic segmentation, words or depth.
        image: the image.
        tiling: size and overlap of the tiles.
        batch_size: number of tiles per batch.
        score_thr: lowest score of the objects of a tile; those of lower scores are not merged.
        folder: for temporary files; the system's by default.
        on_tile: called after each tile with the number of tiles so far and of all tiles.

    Returns:
        the result of the whole image: :class:`~pe_dense.runtime.Detections` with cropped masks, or a label map (uint8
        or uint16) or depth map (float32), which is a ``numpy.memmap`` of a temporary file if it is large.

    Raises:
        ConfigError: for a panoptic model.
    """
    if predictor.tiles == "none":
        raise ConfigError(f"tiles are for objects, label maps and depth: {type(predictor).__name__} predicts the whole")
    grid = tiling.grid(image.height, image.width)
    merger, blender = ObjectMerger(grid), None
    if predictor.tiles == "maps":
        blender = MapBlender(grid, predictor.decide, predictor.map_dtype, folder)
        predictor.keep_scores = True
    prepared = (
        (tile, predictor.prepare(image.read(tile.rows, tile.columns), number)[0]) for number, tile in enumerate(grid)
    )
    # Without enumerate, which would keep the scores of a tile during the prediction of the next one.
    for tile, sample in predict_batches(predictor, prepared, batch_size):
        if blender is not None:
            blender.add(tile, predictor.tile_scores(sample))
        else:
            found = predictor.result(sample.cpu())
            assert isinstance(found, Detections)
            merger.add(tile, found.above(score_thr))
        del sample
        if on_tile is not None:
            on_tile(tile.row * len(grid.columns) + tile.column + 1, len(grid))
    return merger.finish() if blender is None else predictor.map_result(blender.result)
