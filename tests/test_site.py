"""The site of the documentation builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = dict(os.environ, NO_MKDOCS_2_WARNING="1")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    pages = {str(path.relative_to(tmp_path / "site").parent) for path in (tmp_path / "site").rglob("index.html")}
    assert {".", "tutorial", "notebooks/train_a_detector", "api/pe_dense.backbones"} <= pages
    reference = (tmp_path / "site" / "api" / "pe_dense.backbones" / "index.html").read_text()
    assert 'id="pe_dense.backbones.PETower"' in reference and ":class:" not in reference
    home = (tmp_path / "site" / "index.html").read_text()
    assert 'href="tutorial/"' in home and not re.search(r'href="docs/|href="LICENSE', home)
