"""Find the file that sets each top-level key of a config."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mmengine.config import Config

from pe_dense.engine.config import load_config
from pe_dense.utils.package_files import find_config

_CHANGING_METHODS = frozenset(("merge", "update", "pop", "setdefault", "append", "extend", "insert", "clear"))


def key_sources(path: str | Path) -> dict[str, list[Path]]:
    """Find the files that set each top-level key of a config.

    Args:
        path: a config in Python, with bases imported under ``with read_base():``.

    Returns:
        for each key the file that assigned it last, then those that changed a part of it, in the order of inheritance.
    """
    path = Path(path)
    sources: dict[str, list[Path]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.With):
            for imported in node.body:
                if isinstance(imported, ast.ImportFrom):
                    sources |= _imported(path, imported)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    sources.pop(target.id, None)
        elif isinstance(node, ast.FunctionDef):
            sources[node.name] = [path]
        else:
            for name, is_new in _changes(node):
                files = [] if is_new else sources.get(name, [])
                sources[name] = [*(file for file in files if file != path), path]
    return sources


def _imported(path: Path, node: ast.ImportFrom) -> dict[str, list[Path]]:
    folder = path.parents[max(node.level, 1) - 1]
    base = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
    if not node.level or not base.is_file():  # a config of an installed package
        return {}
    found = key_sources(base)
    names = {alias.name: alias.asname or alias.name for alias in node.names}
    return found if "*" in names else {names[name]: files for name, files in found.items() if name in names}


def _changes(node: ast.stmt):
    """Names that a statement assigns (True) or changes a part of (False)."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for item in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                yield _root(item), isinstance(item, ast.Name) and not isinstance(node, ast.AugAssign)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        method = node.value.func
        if isinstance(method, ast.Attribute) and method.attr in _CHANGING_METHODS:
            yield _root(method), False


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def describe_config(path: str | Path, options: dict | None = None) -> str:
    """Text of a config with all bases and options resolved, with the source of each top-level key as a comment.

    Args:
        path: a config file, or a bare name as in :func:`~pe_dense.utils.package_files.find_config`.
        options: as in :func:`~pe_dense.engine.config.load_config`.

    Returns:
        Python code that :meth:`mmengine.config.Config.fromfile` can read.

    Raises:
        ConfigError: for a file that is missing or not a config, or an option with an unknown name or a wrong value.
    """
    path = find_config(path)
    config = load_config(path, options)
    before = load_config(path).to_dict() if options else config.to_dict()
    sources = key_sources(path) if path.suffix == ".py" else {}
    lines = []
    code = Config(config.to_dict(), format_python_code=True).pretty_text
    for line in code.splitlines():
        name = re.match(r"(\w+)\s*=", line)
        if name and name[1] in config:
            files = [_short(file, path) for file in sources.get(name[1], [])]
            if options and config.to_dict()[name[1]] != before.get(name[1]):
                files.append("--cfg-options")
            comment = f"# set by {files[0] if files else path}"
            lines.append(comment + (f", changed by {', '.join(files[1:])}" if files[1:] else ""))
        lines.append(line)
    return "\n".join(lines)


def _short(file: Path, config: Path) -> str:
    """A base file's path from the folder above that of the config, as ``configs/_base_/coco.py``."""
    folder = config.resolve().parent.parent
    file = file.resolve()
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
