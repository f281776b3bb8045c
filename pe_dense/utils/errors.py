"""Errors that are the user's to mend, told in a line instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A config, an option or the data that they name can't be used."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one clear message where its input is at fault.

    What is said before the work begins (wrong names, missing files, settings that contradict each other) comes as
    ``error: ...`` and exit status 2. ``PE_DENSE_TRACEBACK=1`` shows where it was raised.
    """
    try:
        yield
    except (ValueError, FileNotFoundError, FileExistsError, KeyError, NotImplementedError) as error:
        if os.environ.get("PE_DENSE_TRACEBACK"):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {message}", file=sys.stderr)  # noqa: T201 - this is the program's last word
        raise SystemExit(2) from None
