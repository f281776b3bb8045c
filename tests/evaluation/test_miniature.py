"""PE-Mini in the benchmark: the order of its layers and towers, on data of another seed than those of training."""

import pytest

from pe_dense.backbones import load_tower
from pe_dense.evaluation.knn_segmentation import evaluate_knn
from pe_dense.evaluation.propagation import evaluate_propagation
from pe_dense.evaluation.run import TaskRun
from pe_dense.evaluation.shapes_tasks import GRID

SCENES = dict(num_train=40, num_val=24, difficulty="easy", seed=5)
VIDEOS = dict(num_videos=3, num_frames=8, same_surface=True, seed=5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def by_layer(name, metric, evaluate, folder):
    tower = load_tower(f"PE-Mini-{name}", with_head=False if name == "Spatial" else None)
    return [row[metric] for row in evaluate(TaskRun(tower, folder, layers=(0, 2, 5)))]


def test_classes_are_in_the_last_layer_of_spatial(root):
    def knn(name):
        def evaluate(run):
            return evaluate_knn(run, data="shapes", grid=GRID, memory=8192, augment=False, generator=SCENES)

        return by_layer(name, "mIoU", evaluate, root / "shapes")

    spatial, core = knn("Spatial"), knn("Core")
    assert max(spatial[:2]) < spatial[2] - 10
    assert spatial[2] > core[2] + 10


def test_tracking_is_best_in_the_last_layer_of_spatial(root):
    def track(name):
        return by_layer(
            name, "J&F", lambda run: evaluate_propagation(run, patches=GRID, generator=VIDEOS), root / "videos"
        )

    spatial, core = track("Spatial"), track("Core")
    assert spatial[2] == max(spatial) > core[2]
