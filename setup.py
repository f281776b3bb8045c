"""Build step: a wheel contains `configs/` and `tools/` inside the package. All else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithFolders(build_py):
    """Copy the folders next to the package in a checkout. An editable installation uses them in place."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in ("configs", "tools"):
            target = Path(self.build_lib, "pe_dense", name)
            shutil.rmtree(target, ignore_errors=True)  # from an earlier build
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithFolders})
