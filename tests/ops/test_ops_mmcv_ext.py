"""Import hook of the replacements of ``mmcv._ext`` and ``panopticapi``, and the error of missing operators."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pe_dense
from pe_dense.ops import ReplacementFinder, install_replacements

REPOSITORY = Path(pe_dense.__file__).parents[1]


def run_python(code: str, *first_on_path: Path) -> str:
    path = os.pathsep.join(map(str, [*first_on_path, REPOSITORY]))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_of_the_package_costs_nothing():
    heavy = run_python(
        "import sys, pe_dense\nprint([name for name in ('torch', 'torchvision', 'mmcv') if name in sys.modules])"
    )
    assert heavy == "[]"


@pytest.mark.parametrize(("compiled", "expected"), [(True, "mmcv/_ext.py"), (False, "pe_dense/ops/mmcv_ext.py")])
def test_compiled_operators_win(tmp_path, compiled, expected):
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").touch()
    if compiled:
        (package / "_ext.py").touch()
    found = run_python(
        "from pe_dense.ops import is_replaced\nimport mmcv._ext\nprint(mmcv._ext.__file__, is_replaced())",
        tmp_path,
    )
    path, is_replaced = found.rsplit(" ", 1)
    assert Path(path).as_posix().endswith(expected)
    assert is_replaced == str(not compiled)


def test_earlier_finder_wins():
    found = run_python(
        "import sys, types\n"
        "from importlib.machinery import ModuleSpec\n"
        "import pe_dense\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return ModuleSpec(name, self, origin='compiled') if name == 'mmcv._ext' else None\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module): pass\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import importlib.util\n"
        "sys.modules['mmcv'] = types.ModuleType('mmcv')\n"
        "sys.modules['mmcv'].__path__ = []\n"
        "print(importlib.util.find_spec('mmcv._ext').origin)"
    )
    assert found == "compiled"


def test_installing_twice_changes_nothing():
    before = list(sys.meta_path)
    install_replacements()
    assert sys.meta_path == before
    assert sum(isinstance(finder, ReplacementFinder) for finder in before) == 1


def test_finder_answers_for_replaced_modules_only():
    finder = ReplacementFinder()
    assert finder.find_spec("mmcv._ext") is not None
    others = ("mmcv", "mmcv.ops", "_ext", "mmcv._ext.x", "panopticapi.combine", "panopticapi.utils.x")
    assert [finder.find_spec(name) for name in others] == [None] * 6


@pytest.mark.parametrize("installed", [True, False])
def test_an_installed_panopticapi_wins(tmp_path, installed):
    package = tmp_path / "panopticapi"
    if installed:
        package.mkdir()
        for name in ("__init__", "utils", "evaluation"):
            (package / f"{name}.py").write_text("rgb2id = VOID = 'installed'")
    found = run_python(
        "import pe_dense, panopticapi\nfrom panopticapi.utils import rgb2id\nfrom panopticapi.evaluation import VOID\n"
        "print(panopticapi.__file__, rgb2id == 'installed', VOID == 'installed')",
        tmp_path,
    )
    expected = package / "__init__.py" if installed else REPOSITORY / "pe_dense/ops/panopticapi.py"
    assert found == f"{expected} {installed} {installed}"


def test_unknown_operator_raises_when_called():
    import mmcv._ext as ext

    operator = ext.three_nn_forward
    assert operator.__name__ == "three_nn_forward"
    with pytest.raises(NotImplementedError, match=r"'three_nn_forward'.*--no-build-isolation.*FORCE_CUDA=1"):
        operator(torch.zeros(1), b=1)


@pytest.mark.parametrize("name", ["__path__", "__wrapped__", "_private"])
def test_names_of_python_are_not_operators(name):
    import mmcv._ext as ext

    with pytest.raises(AttributeError, match=name):
        getattr(ext, name)


def test_environment_reports_say_not_compiled():
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    assert get_compiler_version().startswith("not compiled")
    assert get_compiling_cuda_version().startswith("not compiled")


def test_mm_libraries_import():
    import mmdet.models
    import mmseg.models

    assert mmdet.models.MaskRCNN and mmseg.models.EncoderDecoder


def test_mmcv_without_stand_in_for_rotated_regions():
    from mmcv.ops import RoIAlignRotated

    layer = RoIAlignRotated(2, 1.0)
    with pytest.raises(NotImplementedError, match="roi_align_rotated_forward"):
        layer(torch.zeros(1, 2, 3, 3), torch.zeros(1, 6))


def test_page_lists_every_operator():
    """Each name of `mmcv.ops` has its state in docs/operators.md, and only provided ones are under that heading."""
    import mmcv.ops

    from pe_dense.ops import mmcv_ext

    page = (REPOSITORY / "docs" / "operators.md").read_text()
    provided, missing = page.partition("## Written in PyTorch")[0], page.partition("## Missing")[2]
    names = set(re.findall(r"`(\w+)`", page))
    assert set(mmcv.ops.__all__) <= names
    # A file of mmcv.ops belongs under the heading that its compiled functions decide; some have parts of both kinds.
    wrong = []
    for path in Path(mmcv.ops.__file__).parent.glob("*.py"):
        text = path.read_text()
        loaded = set(re.findall(r"ext_module\.(\w+)\(", text))
        public = set(re.findall(r"^(?:def|class) (\w+)", text, flags=re.MULTILINE)) & set(mmcv.ops.__all__)
        expected = provided if loaded <= set(mmcv_ext.__all__) else missing
        if loaded and path.stem not in ("nms", "group_points", "bias_act", "filtered_lrelu", "upfirdn2d"):
            wrong += [name for name in public if f"`{name}`" not in expected]
    assert wrong == []
