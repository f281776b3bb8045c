"""Imports run downwards through the package's floors, and no two modules import each other."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch
from torch import nn

from pe_dense.backbones import Backbone, PETower, get_pe_config

ROOT = Path(__file__).parents[1] / "pe_dense"
# A package imports from lower floors only, or from a package of its own floor that stands before it.
FLOORS = [
    ["registry", "utils"],
    ["ops", "backbones", "necks", "datasets", "runtime"],
    ["engine", "tiling", "visualization"],
    ["detection", "tracking", "probing", "distillation"],
    ["segmentation", "depth", "language", "evaluation", "apps"],
    ["apis", "export"],
    ["cli", "__main__"],
]
ORDER = {package: (floor, place) for floor, row in enumerate(FLOORS) for place, package in enumerate(row)}
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported_modules(path):
    """Yield the modules that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports(path):
    return {name for name in imported_modules(path) if name == "pe_dense" or name.startswith("pe_dense.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    imported = {name.split(".")[1] for name in own_imports(path) if "." in name}
    if package == "__init__":
        assert imported <= {"ops"}
        return
    assert package in ORDER, f"{package} is a new package: add it to FLOORS"
    above = {other for other in imported - {package} if ORDER[other] >= ORDER[package]}
    assert not above, f"{package} imports {above} from its own floor or above"


def test_modules_do_not_import_each_other():
    # A package's `__init__` lists names of its modules; a module that imports its own package would run half of it.
    graph = {name: own_imports(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


# Distributions of modules with other names.
DISTRIBUTIONS = {
    "PIL": "pillow", "mmcv": "onedl-mmcv", "mmdet": "onedl-mmdetection", "mmengine": "onedl-mmengine",
    "mmseg": "onedl-mmsegmentation", "skimage": "scikit-image", "yaml": "PyYAML", "clip_benchmark": "clip-benchmark",
    "faster_coco_eval": "faster-coco-eval",
}  # fmt: skip
# OpenCV comes with MMCV, in one of its builds, and Triton with PyTorch. The others are named in an error or a fallback.
UNDECLARED = {"cv2", "triton", "rasterio", "supervision", "mlflow"}


def test_imported_packages_are_declared():
    project = pytest.importorskip("tomllib").loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(item for extra in extras.values() for item in extra)]
    declared = {re.match(r"[\w-]+", item)[0] for item in declared}
    imported = {name.partition(".")[0] for path in FILES for name in imported_modules(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"pe_dense"} - UNDECLARED
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} - declared == set()


def test_importing_the_package_is_light():
    code = (
        "import sys, pe_dense; print([m for m in ('torch', 'mmcv', 'mmdet', 'mmengine', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_only_the_backbone_protocol_is_used():
    """No file outside of `backbones` uses attributes that only PETower has."""
    arch = dict(get_pe_config("PE-Core-T16-384").__dict__, layers=1)
    with torch.device("meta"):
        tower = PETower(arch)
    shared = set(dir(nn.Module)) | set(dir(Backbone)) | set(Backbone.__annotations__) | {"training", "init_cfg"}
    private = {name for name in set(dir(tower)) - shared if not name.startswith("_")} | {"resblocks"}
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] == "backbones":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in private and not isinstance(node.value, ast.Constant):
                owner = ast.unparse(node.value)
                if owner != "self" and any(word in owner for word in ("tower", "backbone", "student", "model")):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {owner}.{node.attr}")
    assert not found, found
