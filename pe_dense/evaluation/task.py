"""A task of the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pe_dense.evaluation.run import TaskRun


@dataclass(frozen=True)
class Task:
    """A task of the benchmark.

    Attributes:
        name: its name on the command line.
        title: its name in the sheet.
        metric: key of the rows by which layers are compared.
        folder: folder of the data below the data root.
        evaluate: returns a row per layer: ``layer``, the metric and further values.
        protocol: one line, for the sheet.
        files: files or folders in the folder that must exist; none for generated data.
        source: where to get the data.
        unit: of the metric: '%', or 'm' for an error in meters, which is better if it is lower.
        needs_text: the task compares images with words, so that the backbone must have a text tower.
    """

    name: str
    title: str
    metric: str
    folder: str
    evaluate: Callable[[TaskRun], list[dict]]
    protocol: str
    files: tuple[str, ...] = ()
    source: str = "generated"
    unit: str = "%"
    needs_text: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values of the metric are better."""
        return self.unit == "%"

    def text(self, value: float) -> str:
        """Write a value of the metric: one decimal of percent, three of meters."""
        return f"{value:.1f}" if self.unit == "%" else f"{value:.3f}"

    @property
    def generated(self) -> bool:
        """Whether the data are generated on first use."""
        return not self.files

    def missing(self, data_root: Path) -> str | None:
        """Return the first path that does not exist; None if the data are present or generated."""
        paths = [data_root / self.folder / file for file in self.files]
        return next((str(path) for path in paths if not path.exists()), None)
