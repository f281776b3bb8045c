import re

import pytest

from pe_dense.engine.config import load_config
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.package_files import find_config, package_folder


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    """In the current directory's configs/, then in the package's."""
    monkeypatch.chdir(tmp_path)
    packaged = package_folder("configs") / "shapes_maskrcnn_pe_tiny.py"
    assert find_config("shapes_maskrcnn_pe_tiny") == find_config("shapes_maskrcnn_pe_tiny.py") == packaged
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "shapes_maskrcnn_pe_tiny.py"
    own.write_text("model = dict()\n")
    assert find_config("shapes_maskrcnn_pe_tiny").resolve() == own
    assert load_config("shapes_maskrcnn_pe_tiny").model == {}
    assert find_config(packaged) == packaged
    file = tmp_path / "shapes_maskrcnn_pe_tiny"
    file.touch()
    assert find_config("shapes_maskrcnn_pe_tiny").resolve() == file


def test_unknown_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"config shapes_maskrcn_pe_tiny not found.*did you mean shapes_maskrcnn_pe_tiny"
    ):
        find_config("shapes_maskrcn_pe_tiny")
    with pytest.raises(ConfigError, match=r"absent\.py does not exist"):
        load_config("absent.py")


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("davis_sweep_pe_t16", "davis_sweep_pe.py with --cfg-options tower=PE-Spatial-T16-512"),
        ("ade20k_sweep_pe_g14.py", "ade20k_sweep_pe.py with --cfg-options tower=PE-Spatial-G14-448"),
        ("configs/distill_pe_spatial_s16.py", "images_distill_pe_s16.py"),
        ("align_pe_spatial_g14_shards", "shards_align_pe_g14.py"),
    ],
)
def test_a_removed_config(name, replacement):
    with pytest.raises(ConfigError, match=f"config {name} no longer exists: use {re.escape(replacement)}$"):
        load_config(name)
    assert find_config(replacement.split()[0]).is_file()
