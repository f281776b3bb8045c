"""What the benchmarks' rows are compared with: the table at the top of the report of `run_all.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Comparison:
    """Rows of a benchmark's table and the rows that they are compared with.

    Args:
        what: what is measured.
        ours, peer: value of `column` in the rows of either side, or, without `column`, names of two columns of times.
        peer_name: what the peer is.
        column: column that tells the sides apart.
        only: values of other columns, of rows that belong to the comparison.
        value: column of the time.
        reason: why rows may be slower than the peer.
    """

    what: str
    ours: str
    peer: str
    peer_name: str
    column: str | None = None
    only: dict = field(default_factory=dict)
    value: str = "ms"
    reason: str = ""

    def ratios(self, rows: list[dict]) -> list[float]:
        """Compute how many times faster than the peer each row is."""
        rows = [row for row in rows if all(row.get(key) == value for key, value in self.only.items())]
        if self.column is None:
            return [row[self.peer] / row[self.ours] for row in rows]
        ours, peers = ([row[self.value] for row in rows if row[self.column] == side] for side in (self.ours, self.peer))
        return [theirs / mine for mine, theirs in zip(ours, peers, strict=True)]


def _pair(what: str, column: str, ours: str, peer: str, peer_name: str | None = None, **options) -> Comparison:
    return Comparison(what, ours, peer, peer_name or peer, column, **options)


ROTARY = "timm's tower has no rotary positions, which take 8 % of our step in bfloat16"
NEAREST = "the index of the nearest centroid takes as long as the matrix product in PyTorch"
MODEL = "most of the time is the model itself, which mmdet runs, too: docs/scale.md, Prediction"
CHAINS = "boxes of two objects alone, whose scores depend on each other in long chains; images do not give them"
BY_FILE = {
    "tower": [
        _pair("tower, forward", "tower", "pe_dense", "timm", only=dict(task="forward")),
        _pair("tower, forward and backward", "tower", "pe_dense", "timm", only=dict(task="training")),
    ],
    "training_step": [
        _pair(
            f"small tower, training step, {dtype}", "row", f"pe_dense:{dtype}", f"timm:{dtype}", "timm", reason=ROTARY
        )
        for dtype in ("float32", "bfloat16")
    ],
    "detector_step": [
        _pair(f"demo's detector, iteration, {dtype}", "row", f"pe_dense:{dtype}", f"torchvision:{dtype}", "torchvision")
        for dtype in ("float32", "bfloat16")
    ],
    "roi_align": [Comparison("RoIAlign, gradient", "products ms", "torchvision ms", "torchvision")],
    "detection": [
        _pair(f"Mask R-CNN, {kind}", "row", "window order kept", "partition in every block", only=dict(kind=kind))
        for kind in ("tower forward", "detector forward")
    ],
    "annotations": [
        _pair(f"annotations, {row} process", "row", row, "mmdet", value="CPU seconds") for row in ("first", "later")
    ],
    "predict": [
        _pair(
            f"predict, {row}",
            "row",
            row,
            f"{row}, {other}",
            other,
            value="CPU ms",
            reason=MODEL if row == "files" else "",
        )
        for row, other in (("pictures", "mmdet"), ("files", "mmdet"), ("features", "timm"))
    ],
    "soft_nms": [_pair("soft-NMS", "way", "here", "loop", "a loop over the boxes", reason=CHAINS)],
    "deform_attn": [
        _pair(
            f"deformable attention, {work}", "what", "pe_dense: embedding bags", "mmcv's formula", only=dict(work=work)
        )
        for work in ("forward", "forward and backward")
    ],
    "mask_transformers": [
        _pair(f"EoMT, {task}", "method", "EoMT", "Mask2Former", only=dict(task=task))
        for task in ("training", "prediction")
    ],
    "metrics": [
        Comparison(f"{metric}, {kind}", "seconds", "package_seconds", package, only=dict(metric=metric, type=kind))
        for metric, package in (("LVISMetric", "lvis"), ("CocoMetric", "pycocotools"))
        for kind in ("bbox", "segm")
    ],
    "probing": [
        _pair(f"probes of {layers}, training step", "step", layers, f"{layers}, mmseg's loss", "mmseg's loss")
        for layers in ("one layer", "12 layers")
    ],
    "propagation": [_pair("label propagation", "way", "here", "patch by patch")],
    "evaluation": [
        _pair("k-NN segmentation", "way", "in blocks", "all at once", "all similarities at once"),
        _pair("TokenCut", "way", "symmetric", "SciPy, generalized"),
        _pair("k-means", "way", "PyTorch", "SciPy", reason=NEAREST),
        _pair("keypoints", "way", "together", "one by one"),
    ],
    "visual": [_pair("principal components", "way", "here", "pca_lowrank", "torch.pca_lowrank")],
    "alignment": [_pair("SAM 2.1's features", "way", "direct", "generator", "SAM2AutomaticMaskGenerator")],
}


def comparison_table(folder: Path, since: float) -> Iterator[str]:
    """Yield the lines of a Markdown table of the comparisons whose results in a folder were written since a time."""
    yield "| | compared with | times faster |"
    yield "|---|---|---|"
    for name, comparisons in BY_FILE.items():
        path = folder / f"{name}.json"
        if not path.exists() or path.stat().st_mtime < since:
            continue
        rows = json.loads(path.read_text())["rows"]
        for comparison in comparisons:
            ratios = comparison.ratios(rows)
            shown = " .. ".join(f"{ratio:.2f}" for ratio in dict.fromkeys((min(ratios), max(ratios))))
            reason = f" ({comparison.reason})" if min(ratios) < 0.97 and comparison.reason else ""
            yield f"| {comparison.what} | {comparison.peer_name} | {shown}{reason} |"
