"""Links, config names, paths and imports in the documentation exist."""

import importlib
import itertools
import re
from pathlib import Path

import pytest

from pe_dense.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
NOT_CONFIGS = {
    "_base_",
    "mmdet",
    "mmseg",
    "align_pe_spatial_*",
    "distill_pe_spatial_*",
    "vit_pe_*",
}  # removed names, models of timm


def headings(page):
    """Anchors of a page's headings, as GitHub generates them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def expand(name):
    """Names of a pattern with alternatives in braces."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(choice) for choice in itertools.product(*parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs(page):
    text = page.read_text()
    names = re.findall(r"(?:configs/|pe-dense (?:train|test) )(\w+)(?:\.py)?\b", text)
    names += re.findall(r"`((?:[\w*]|\{[\w,]+\})+_pe_(?:[\w*]|\{[\w,]+\})+)(?:\.py)?`", text)
    for pattern in set(names) - NOT_CONFIGS:
        for name in expand(pattern):
            assert list(ROOT.glob(f"configs/{name}.py")), pattern


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(page):
    text = "\n".join(re.findall(r"^```.*?^```", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    assert set(re.findall(r"^ *pe-dense ([\w-]+)", text, flags=re.MULTILINE)) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts(page):
    for path in re.findall(r"\b((?:tools|benchmarks|pe_dense|tests)/[\w/]+\.py)\b", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_imports(page):
    for module, names in re.findall(r"^\s*from (pe_dense[\w.]*) import (.+)$", page.read_text(), flags=re.MULTILINE):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"
