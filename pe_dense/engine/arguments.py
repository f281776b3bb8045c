"""Types and actions of the tools' command-line arguments."""

from __future__ import annotations

import argparse
import ast
import math
import re
from pathlib import Path

from pe_dense.utils.errors import ConfigError


class OptionText(str):
    """Text of a ``NAME=VALUE`` option, parsed by the type of the value that it replaces."""

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


def add_towers(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument ``towers``: one or more backbones, each optionally with other weights."""
    parser.add_argument(
        "towers",
        nargs="+",
        type=text,
        metavar="TOWER",
        help="published backbone (PE-Spatial-B16-512) or timm model (timm/NAME), optionally with other weights "
        "(NAME=FILE or NAME=random), or the checkpoint or work dir of a training run",
    )


def whole_number(lowest: int, highest: int):
    """Create an argument type: an integer in a range, both ends included."""

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
    """Create an argument type: a finite number in a range, both ends included."""

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
    """Check an argument that is text: not empty and without NUL characters."""
    if not value.strip() or "\0" in value:
        raise argparse.ArgumentTypeError(f"{value!r} is empty or blank")
    return value


def path(value: str) -> Path:
    """Check an argument that is a path: not empty."""
    return Path(text(value))


_INT = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)
_WORDS = {"none": None, "null": None, "true": True, "false": False}
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_LONGEST, _DEEPEST = 100_000, 20


def parse(name: str, text: str):
    """Parse the text of a value of unknown type.

    Numbers, ``True``, ``False`` and ``None`` in any case; lists in ``[...]`` or with commas between items, tuples in
    ``(...)``, dicts as in Python; text in quotation marks is always text; everything else is text.

    Args:
        name: name of the option, for errors.
        text: text after the equals sign.

    Raises:
        ConfigError: if brackets do not match, or the value is too long or too deeply nested.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"option {name}: a value of {len(text)} characters is too long, at most {_LONGEST}")
    return _parse(name, text, 0)


def _parse(name: str, text: str, depth: int):
    text = text.strip()
    if depth > _DEEPEST:
        raise ConfigError(f"option {name}: brackets are nested more than {_DEEPEST} deep")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    items = _split(name, text)
    if len(items) > 1:
        return [_parse(name, item, depth + 1) for item in items if item.strip()]
    if text[:1] == "{":
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise ConfigError(f"option {name}: {text[:80]} is not a Python dict") from error
    if text[:1] in ("[", "(") and text[-1:] == _PAIRS[text[0]]:
        parsed = [_parse(name, item, depth + 1) for item in _split(name, text[1:-1]) if item.strip()]
        return tuple(parsed) if text[0] == "(" else parsed
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text) and len(text) < 100:
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _split(name: str, text: str) -> list[str]:
    """Split at the commas that are outside of brackets and quotation marks."""
    items, start, closing, quote = [], 0, [], ""
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and text[start:place].strip(" [({") == "":
            quote = char
        elif char in _PAIRS:
            closing.append(_PAIRS[char])
        elif char in _PAIRS.values():
            if not closing or closing.pop() != char:
                raise ConfigError(f"option {name}: the brackets of {text[:80]} do not match")
        elif char == "," and not closing:
            items.append(text[start:place])
            start = place + 1
    if closing:
        raise ConfigError(
            f"option {name}: the brackets of {text[:80]} do not match; quote a value with spaces for the shell: "
            f"'{name}=[1, 2]'"
        )
    return [*items, text[start:]]


def add_acceleration(parser: argparse.ArgumentParser, *, dtype: bool = True) -> None:
    """Add ``--compile`` and ``--dtype``, see :func:`pe_dense.engine.acceleration.accelerate`."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the blocks of the backbone, which takes about a minute in the first run; without a compiler they "
        "run as usual",
    )
    if dtype:
        parser.add_argument(
            "--dtype",
            choices=["float32", "bfloat16", "auto"],
            default="float32",
            help="of the backbone's blocks (float32): bfloat16 is faster on GPUs and on CPUs with AMX or AVX512-BF16, "
            "and changes results slightly; auto: bfloat16 on those",
        )
