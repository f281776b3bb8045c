"""Class names and synonyms: from a text, a sequence or a file."""

import pytest

from pe_dense.language.word_lists import parse_synonyms, parse_words, read_words
from pe_dense.utils.errors import ConfigError


def test_words():
    assert parse_words(" a cat,a  dog ") == ["a cat", "a dog"]
    for words, message in (
        ("", "the list of words is empty"),
        (" , ", "the list of words is empty"),
        ("cat,,dog", "word 2 of 3 is empty"),
        ("cat, dog, Cat", "class names are given twice: cat"),
        ("cat, ｃａｔ", "class names are given twice: cat"),
        (5, "words are a str or a sequence of str, got 5"),
        ("cat,\u200b", r"word '\\u200b' has no visible character"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_words(words)


def test_synonyms():
    names, queries, classes = parse_synonyms("background; sky;wall, dog ,person; man")
    assert names == ["background", "dog", "person"] and classes.tolist() == [0, 0, 0, 1, 2, 2]
    assert queries == ["background", "sky", "wall", "dog", "person", "man"]


def test_file_of_any_editor(tmp_path):
    """Byte-order mark, Windows line ends, blank lines and comments, also indented ones."""
    path = tmp_path / "Words.TXT"
    path.write_bytes("\ufeffcircle\r\n\r\n star ; five-pointed star\r\n# comment\r\n  # comment\r\n\r\n".encode())
    assert read_words(path) == ["circle", "star ; five-pointed star"]
    for source in (f" {path} ", path):
        names, queries, _ = parse_synonyms(source)
        assert names == ["circle", "star"] and queries == ["circle", "star", "five-pointed star"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "words.txt contains no words"),
        (b"\n # comment\n", "words.txt contains no words"),
        (b";\n;;\n", "words.txt contains no words"),
        (b"cat\ndog;\n", "words.txt, line 2: 'dog;' has an empty word: remove a semicolon"),
        (b"cat, dog\n", "words.txt, line 1: 'cat, dog' contains a comma: write one class a line"),
        (b"caf\xe9\n", "words.txt is not a text in UTF-8"),
        (b"cat\nCat\n", "class names are given twice: cat"),
    ],
)
def test_files_that_are_not_usable(tmp_path, content, message):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        parse_synonyms(str(tmp_path / "words.txt"))


def test_error_names_the_separator():
    for words, separator in (("cat;, dog", "semicolon"), ("cat,, dog", "comma")):
        with pytest.raises(ConfigError, match=f"is empty: remove a {separator}"):
            parse_synonyms(words)
    for words in (";", " ; , ;"):
        with pytest.raises(ConfigError, match="the list of words is empty"):
            parse_synonyms(words)
