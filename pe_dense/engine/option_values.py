"""Convert the text of options into values."""

from __future__ import annotations

import ast
import re

from pe_dense.utils.errors import ConfigError

_INT = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)
_WORDS = {"none": None, "null": None, "true": True, "false": False}
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_LONGEST, _DEEPEST = 100_000, 20


def parse(name: str, text: str):
    """Read a value that is not known to be text.

    Numbers, ``True``, ``False`` and ``None`` in any case; lists in ``[...]`` or with commas between items, tuples in
    ``(...)``, dicts as in Python; quotation marks make text; everything else is text as it stands.

    Args:
        name: of the option, for errors.
        text: after the equals sign.

    Raises:
        ConfigError: for brackets that do not match, and for absurdly long or nested values.
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
