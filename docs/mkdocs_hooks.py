"""Hooks of mkdocs (mkdocs.yml): add the README, the notebooks and the API reference to the pages of the site."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
NOTEBOOKS = ("features_and_pictures", "train_a_detector", "probes_and_words")
# Modules of the public API; of a package, the names in its `__all__`.
API = (
    "pe_dense.apis.model", "pe_dense.runtime.results", "pe_dense.backbones", "pe_dense.necks", "pe_dense.detection",
    "pe_dense.detection.deta", "pe_dense.segmentation", "pe_dense.depth", "pe_dense.tracking", "pe_dense.probing",
    "pe_dense.distillation", "pe_dense.language", "pe_dense.visualization", "pe_dense.datasets",
    "pe_dense.datasets.synthetic", "pe_dense.engine.hooks", "pe_dense.export", "pe_dense.runtime",
    "pe_dense.utils.errors",
)  # fmt: skip
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s]+)\)")
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod|exc):`~?(?:[^`<>]*\.)?([^`.<>]+)`")


def on_files(files, config):
    """Add the pages that are not in docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in NOTEBOOKS:
        content = notebook_page(ROOT / "notebooks" / f"{name}.ipynb")
        files.append(File.generated(config, f"notebooks/{name}.md", content=content))
    for module in API:
        files.append(File.generated(config, f"api/{module}.md", content=api_page(module)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Adapt links to the places of the pages on the site; files that are not on it are named without a link."""
    source = next((key for key, target in PAGES.items() if target == page.file.src_uri), f"docs/{page.file.src_uri}")
    places = {f"docs/{file.src_uri}": file.src_uri for file in files} | PAGES

    def replace(match: re.Match) -> str:
        path, hash_, anchor = match["target"].partition("#")
        if not path or "://" in match["target"] or match["target"].startswith("mailto:"):
            return match[0]
        place = places.get(os.path.normpath(os.path.join(os.path.dirname(source), path)))
        if place is None:
            return match["text"]
        relative = os.path.relpath(place, os.path.dirname(page.file.src_uri) or ".")
        return f"{match['image']}[{match['text']}]({relative}{hash_}{anchor})"

    return _LINK.sub(replace, markdown)


def notebook_page(path: Path) -> str:
    """Convert a notebook without outputs to Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join([*parts, f"Notebook: `notebooks/{path.name}`"]) + "\n"


def api_page(module: str) -> str:
    """Write the directives of a module's public names for mkdocstrings."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = public_names(tree)
    doc = ast.get_docstring(tree) or ""
    return "\n\n".join([f"# {module}", _ROLE.sub(r"`\1`", doc), *(f"::: {module}.{name}" for name in names)]) + "\n"


def public_names(tree: ast.Module) -> list[str]:
    """Return the names in ``__all__``, or without it the public classes and functions."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return sorted(ast.literal_eval(node.value))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


class ReadRoles(griffe.Extension):
    """Convert the roles of reStructuredText in docstrings (``:class:`~a.B```) to code."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Change the docstring of an object that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
