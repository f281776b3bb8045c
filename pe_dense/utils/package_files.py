"""Find the configs and command-line tools of the package, in a checkout and in an installed wheel."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import pe_dense
from pe_dense.utils.errors import ConfigError

_TOWERS = {
    "g14": "PE-Spatial-G14-448",
    "l14": "PE-Spatial-L14-448",
    "b16": "PE-Spatial-B16-512",
    "s16": "PE-Spatial-S16-512",
    "t16": "PE-Spatial-T16-512",
}
_LIBRARIES = ("mmdet", "mmseg")
# Removed and renamed configs, and what replaces them.
_REPLACED = {
    "align_pe_spatial_g14_shards": "shards_align_pe_g14.py",
    **{
        f"{method}_pe_spatial_{size}": f"images_{method}_pe_{size}.py"
        for method, sizes in (("align", "g14 l14 b16 t16"), ("distill", "l14 b16 s16 t16"))
        for size in sizes.split()
    },
    **{
        f"{data}_sweep_pe_{size}": f"{data}_sweep_pe.py with --cfg-options tower={tower}"
        for data in ("ade20k", "nyu", "davis")
        for size, tower in _TOWERS.items()
    },
}


def package_folder(name: str) -> Path:
    """Return a folder (``configs``, ``tools``) that is inside the package in a wheel, and next to it in a checkout."""
    package = Path(pe_dense.__file__).parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def find_config(name: str | Path) -> Path:
    """Find a config file by path or by bare name.

    Args:
        name: path of a file; or a name without folder, with or without ``.py``, that is looked up in the current
            directory's ``configs/``, then among the configs that come with the package; or ``mmdet::<folder>/<name>``
            and ``mmseg::<folder>/<name>`` for the configs that come with mmdet and mmseg.

    Returns:
        the file's path; for a path that does not exist the path itself.

    Raises:
        ConfigError: if a bare name without ``.py``, or a config of another package, is not found; for a removed config,
            with its replacement.
    """
    if "::" in str(name):
        return _find_in_library(str(name))
    path = Path(name)
    if path.is_file():
        return path
    if path.name != str(name) or path.suffix not in ("", ".py"):
        _refuse_removed(path)
        return path
    folders = [Path("configs"), package_folder("configs")]
    for folder in folders:
        found = folder / f"{path.stem}.py"
        if found.is_file():
            return found
    _refuse_removed(path)
    if path.suffix:
        return path
    known = sorted({file.stem for folder in folders for file in folder.glob("*.py")})
    close = get_close_matches(path.name, known, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ConfigError(
        f"config {name} not found: it is neither a file nor a config in {' or '.join(map(str, folders))}{hint}"
    )


def _find_in_library(name: str) -> Path:
    """Find ``<library>::<folder>/<name>`` among the configs of an installed mmdet or mmseg."""
    library, _, inner = name.partition("::")
    if library not in _LIBRARIES:
        raise ConfigError(f"config {name}: before '::' must be {' or '.join(_LIBRARIES)}, got {library!r}")
    spec = find_spec(library)
    folder = Path(spec.origin).parent / ".mim" / "configs" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise ConfigError(f"config {name}: the installed {library} comes without configs")
    path = folder / inner
    if path.suffix != ".py":
        path = path.with_name(f"{path.name}.py")
    if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
        return path
    known = [file.relative_to(folder).as_posix() for file in sorted(folder.glob("*/*.py")) if file.parts[-2][0] != "_"]
    close = [file for file in known if Path(file).name == path.name] or get_close_matches(inner, known, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(f'{library}::{file}' for file in close)}?" if close else ""
    raise ConfigError(f"config {name} not found among the configs of {library}{hint}")


def _refuse_removed(path: Path) -> None:
    if path.suffix in ("", ".py") and path.stem in _REPLACED:
        raise ConfigError(f"config {path} no longer exists: use {_REPLACED[path.stem]}")
