"""Imports of the MM libraries that wait until they are needed."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.registry import OPTIMIZERS

import pe_dense  # noqa: F401
from pe_dense.ops import late_imports

MODULE = """
import late_package.colors as colors
import late_package.shapes
from late_package.shapes import Shape, area

try:
    from late_absent import anything
except ImportError:
    anything = None

def double(value):
    return 2 * area(value)

def is_shape(value):
    return isinstance(value, Shape)

def inside():
    from late_package.colors import RED
    return RED

def attributes():
    return colors.RED, late_package.shapes.area(1)
"""
SUBCLASS = "from late_package.shapes import Shape\nclass Square(Shape):\n    pass\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with postponed imports, and names of the modules that it has imported."""
    package = tmp_path / "late_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "colors.py").write_text("RED = (255, 0, 0)\n")
    (package / "shapes.py").write_text("class Shape:\n    pass\n\ndef area(side):\n    return side**2\n")
    (tmp_path / "late_user.py").write_text(MODULE)
    (tmp_path / "late_subclass.py").write_text(SUBCLASS)
    monkeypatch.syspath_prepend(tmp_path)
    packages = ("late_package", "late_absent")
    monkeypatch.setattr(late_imports, "LATE", {"late_user": packages, "late_subclass": packages})
    import late_user

    yield late_user
    for name in [name for name in sys.modules if name.startswith("late_")]:
        del sys.modules[name]


def loaded():
    return {name for name in sys.modules if name.startswith("late_package")}


def test_an_import_waits_until_it_is_used(module):
    assert loaded() == set()
    assert module.double(3) == 18
    assert loaded() == {"late_package", "late_package.shapes"}
    assert module.attributes() == ((255, 0, 0), 1)


def test_a_missing_package_is_missing_at_once(module):
    assert module.anything is None


def test_imports_in_functions_are_usual_ones(module):
    assert module.inside() == (255, 0, 0)


def test_classes_as_usual(module):
    assert not module.is_shape(3)
    from late_package.shapes import Shape
    from late_subclass import Square

    assert issubclass(Square, Shape)
    assert module.is_shape(Square())


def test_every_module_exists_and_the_optimizer_of_transformers_is_registered():
    for name in late_imports.LATE:
        package, *parts = name.split(".")
        path = Path(find_spec(package).origin).parent.joinpath(*parts)
        assert path.is_dir() or path.with_suffix(".py").exists(), name
    assert OPTIMIZERS.get("Adafactor") is late_imports.adafactor
