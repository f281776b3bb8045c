"""Linear depth probes on published data sets, on generated images in the layouts of NYU and KITTI."""

import numpy as np
import pytest
from helpers.depth_folders import write_kitti, write_nyu
from helpers.tiny_bench import second_of_two
from helpers.tiny_towers import ARCH, tiny_tower
from PIL import Image

from pe_dense.engine.config import load_config
from pe_dense.evaluation import depth_probe
from pe_dense.evaluation.depth_probe import evaluate_depth_probe
from pe_dense.evaluation.run import TaskRun
from pe_dense.evaluation.tasks import TASKS
from pe_dense.utils.errors import ConfigError


@pytest.fixture(autouse=True)
def _pairs_instead_of_16(monkeypatch):
    def small(*arguments):
        config = load_config(*arguments)
        config.train_dataloader.batch_size = 2
        return config

    monkeypatch.setattr(depth_probe, "load_config", small)


def rows_of(name, root, layers=(0, 2), **options):
    tower = tiny_tower(arch=dict(ARCH, patch_size=16, image_size=64))
    run = TaskRun(tower, root, layers, **options)
    return evaluate_depth_probe(run, **TASKS[f"{name}_depth"].evaluate.keywords, steps=1)


def test_nyu(tmp_path):
    """Untrained heads predict 5 m where it is 7 m; workers, processes and other layers change nothing."""
    depth = np.full((480, 640), 9.0)
    depth[45:471, 41:601] = 7.0
    write_nyu(tmp_path, depth)
    rows = rows_of("nyu", tmp_path, figure=tmp_path / "figure.png")
    assert [row["layer"] for row in rows] == [0, 2] and rows[0]["rmse"] != rows[1]["rmse"]
    for row in rows:
        assert row["rmse"] == pytest.approx(2.0, rel=0.1) and row["abs_rel"] == pytest.approx(2 / 7, rel=0.1)
    assert min(Image.open(tmp_path / "figure.png").size) > 100
    with second_of_two():
        (other,) = rows_of("nyu", tmp_path, layers=(2,), workers=1, batch_size=1)
    assert other == pytest.approx(rows[1], rel=1e-6)


def test_kitti(tmp_path):
    depth = np.full((375, 1242), 70.0)
    depth[23 + 143 : 23 + 349, 13 + 43 : 13 + 1172] = 30.0
    write_kitti(tmp_path, depth)
    (row,) = rows_of("kitti", tmp_path, layers=(2,))
    assert row["rmse"] == pytest.approx(10.0, rel=0.1)
    next((tmp_path / "data_depth_annotated").rglob("*.png")).unlink()
    with pytest.raises(ConfigError, match=r"KITTIDepthDataset: 1 of 2 depth maps that .* lists do not exist"):
        rows_of("kitti", tmp_path)
