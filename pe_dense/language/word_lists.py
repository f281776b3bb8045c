"""Class names and their synonyms, from a text or a file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, tensor

from pe_dense.utils.errors import ConfigError

WORDS_FOLDER = Path(__file__).parent / "words"
_SEPARATORS = {",": "comma", ";": "semicolon"}


def parse_words(words: str | Iterable[str], separator: str = ",") -> list[str]:
    """Parse class names from a comma-separated string or a sequence.

    Args:
        words: such as "a cat, a dog".
        separator: ',' or ';', what separates the words of a string, and what errors about a sequence call it.

    Returns:
        the names without surrounding spaces.

    Raises:
        ConfigError: if there is none, one is empty or invisible, or two are equal (letter case and the width of
            characters are not distinguished).
    """
    if not isinstance(words, Iterable):
        raise ConfigError(f"words are a str or a sequence of str, got {words!r}")
    names = words.split(separator) if isinstance(words, str) else list(words)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ConfigError(f"a class name is a str, got {wrong[0]!r}")
    names = [" ".join(name.split()) for name in names]
    if not any(name.strip(" ;") for name in names):
        raise ConfigError("the list of words is empty: give class names separated by commas, such as 'a cat, a dog'")
    if "" in names:
        raise ConfigError(f"word {names.index('') + 1} of {len(names)} is empty: remove a {_SEPARATORS[separator]}")
    if hidden := [name for name in names if all(unicodedata.category(letter)[0] in "CZ" for letter in name)]:
        raise ConfigError(f"word {hidden[0]!r} has no visible character")
    lower = [unicodedata.normalize("NFKC", name).lower() for name in names]
    if double := sorted({name for name in lower if lower.count(name) > 1}):
        raise ConfigError(f"class names are given twice: {', '.join(double)}")
    return names


def read_words(path: str | Path) -> list[str]:
    """Read a file with one class a line; lines that begin with ``#`` are comments.

    Args:
        path: a file, or the name of one that comes with the package ('ade20k.txt').

    Raises:
        FileNotFoundError: if there is no such file; lists those of the package.
        ConfigError: if it is not a text in UTF-8, contains no class, or a line contains a comma.
    """
    found = Path(path) if Path(path).is_file() else WORDS_FOLDER / path
    if not found.is_file():
        known = ", ".join(sorted(file.name for file in WORDS_FOLDER.glob("*.txt")))
        raise FileNotFoundError(f"word file {path} does not exist; those of the package: {known}")
    try:
        lines = [line.strip() for line in found.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"word file {path} is not a text in UTF-8: {error}") from error
    classes = [(number, line) for number, line in enumerate(lines, start=1) if line and not line.startswith("#")]
    if not any(line.strip("; ") for _, line in classes):
        raise ConfigError(f"word file {path} contains no words: write one class a line")
    for number, line in classes:
        # A list of classes in one line would be one class, and synonyms separated by commas one long word.
        if "," in line:
            raise ConfigError(
                f"word file {path}, line {number}: {line[:80]!r} contains a comma: write one class a line, with "
                "semicolons between its synonyms"
            )
        if not all(part.strip() for part in line.split(";")):
            raise ConfigError(f"word file {path}, line {number}: {line[:80]!r} has an empty word: remove a semicolon")
    return [line for _, line in classes]


def parse_synonyms(words: str | Path | Sequence[str]) -> tuple[list[str], list[str], Tensor]:
    """Split class names into synonyms.

    Args:
        words: as of :func:`parse_words`, or a file as of :func:`read_words` (a str that ends in .txt, or a
            Path); synonyms of a class are separated by semicolons ("person; woman; man"), and the first one names the
            class.

    Returns:
        names of the K classes, the Q words, and the class (Q,) of each.

    Raises:
        ConfigError: if there is no word, or one is empty or given twice, in whatever class.
        FileNotFoundError: as :func:`read_words`.
    """
    if isinstance(words, Path):
        words = read_words(words)
    elif isinstance(words, str) and words.strip().lower().endswith(".txt"):
        words = read_words(words.strip())
    groups = [[part.strip() for part in word.split(";")] for word in parse_words(words)]
    queries = parse_words([part for group in groups for part in group], ";")
    classes = [number for number, group in enumerate(groups) for _ in group]
    return [group[0] for group in groups], queries, tensor(classes, device="cpu")
