"""Types and actions of the tools' command-line arguments."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


class OptionText(str):
    """The text of a ``NAME=VALUE`` option. What it stands for depends on the value that it replaces."""

    __slots__ = ()


class ConfigOptions(argparse.Action):
    """Collect ``NAME=VALUE`` arguments in a dict of names and :class:`OptionText`."""

    def __call__(self, parser, namespace, values, option_string=None):
        options = dict(getattr(namespace, self.dest, None) or {})
        for item in values:
            name, equals, text = item.partition("=")
            if not equals or not all(part.strip() == part != "" for part in name.split(".")):
                parser.error(
                    f"argument {option_string}: {item!r} is not of the form NAME=VALUE; quote a value with spaces or "
                    "brackets: 'NAME=[1, 2]'"
                )
            if options.get(name, text) != text:
                parser.error(f"argument {option_string}: {name} is given twice, as {options[name]} and as {text}")
            options[name] = OptionText(text)
        setattr(namespace, self.dest, options)


def whole_number(lowest: int, highest: int):
    """Make an argument type: an integer of a range, both ends included."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or "_" in text or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return value

    return convert


def number(lowest: float, highest: float):
    """Make an argument type: a finite number of a range, both ends included."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if "_" in text or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {lowest:g} to {highest:g}")
        return value

    return convert


def text(value: str) -> str:
    """An argument type: text, such as a path, that is not empty and has no NUL character."""
    if not value.strip() or "\0" in value:
        raise argparse.ArgumentTypeError(f"{value!r} is empty or blank")
    return value


def path(value: str) -> Path:
    """An argument type: a path that is not empty."""
    return Path(text(value))
