"""Collect the problems of a data folder, so that all of them are reported at once."""

from __future__ import annotations

import logging
from pathlib import Path

from mmengine.logging import print_log

from pe_dense.utils.errors import ConfigError

_SHOWN = 3  # places of each kind in a message


class DataError(ConfigError):
    """A data folder is not valid; the message counts the problems of each kind and names the first places."""


class FolderFindings:
    """Problems of the files of a folder, counted by kind and located.

    Attributes:
        errors: places by description of problems that make the data unusable.
        repairs: places by description of what was corrected, or left out, on reading.
        notes: remarks on how the data were understood.
    """

    def __init__(self) -> None:
        self.errors: dict[str, list[str]] = {}
        self.repairs: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def error(self, what: str, place: object) -> None:
        """Add a problem.

        Args:
            what: description without its place; equal ones are counted together.
            place: file, optionally with a line or an id.
        """
        self.errors.setdefault(what, []).append(str(place))

    def repair(self, what: str, place: object) -> None:
        """Add something that was corrected or left out, see :meth:`error`."""
        self.repairs.setdefault(what, []).append(str(place))

    def note(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self.notes:
            self.notes.append(text)

    def check(self, root: str | Path, name: str) -> None:
        """Raise an error that lists all problems, if there are any.

        Args:
            root: the data folder.
            name: its format.

        Raises:
            DataError: with the number of problems of each kind and the first places.
        """
        if self.errors:
            total = sum(map(len, self.errors.values()))
            raise DataError(
                f"{root} ({name}) has {total} problem{'s' if total > 1 else ''}: {'; '.join(_lines(self.errors))}"
            )

    def lines(self) -> list[str]:
        """Return one line for each kind of problem, repair and note."""
        return [
            *(f"problem: {line}" for line in _lines(self.errors)),
            *(f"repaired: {line}" for line in _lines(self.repairs)),
            *self.notes,
        ]

    def log(self, root: str | Path) -> None:
        """Log notes, and repairs as a warning."""
        for note in self.notes:
            print_log(f"{root}: {note}", "current")
        if self.repairs:
            print_log(f"{root}: repaired on reading: {'; '.join(_lines(self.repairs))}", "current", logging.WARNING)


def _lines(found: dict[str, list[str]]) -> list[str]:
    return [f"{what}: {len(places)} ({some_places(places)})" for what, places in found.items()]


def some_places(places: list[str]) -> str:
    """Format the first of some places."""
    return ", ".join(places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
