"""A benchmark of tiny backbones and data."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from helpers.tiny_towers import tiny_tower
from pe_dense.evaluation import bench, tasks
from pe_dense.evaluation.clustering import evaluate_clusters
from pe_dense.evaluation.correspondence import evaluate_correspondence
from pe_dense.evaluation.knn_segmentation import evaluate_knn
from pe_dense.evaluation.linear_probe import evaluate_linear_depth, evaluate_linear_segmentation
from pe_dense.evaluation.navi import evaluate_navi
from pe_dense.evaluation.object_discovery import evaluate_discovery
from pe_dense.evaluation.propagation import evaluate_propagation
from pe_dense.evaluation.task import Task
from pe_dense.utils.rng import fork_rng, seed_all

SHAPES = dict(num_train=4, num_val=3, image_size=64)
SETTINGS = {
    "shapes_knn": ("shapes", partial(evaluate_knn, data="shapes", grid=8, memory=120, generator=SHAPES)),
    "shapes_clusters": (
        "shapes",
        partial(evaluate_clusters, data="shapes", grid=8, clusters=12, seeds=(0, 1), restarts=1, generator=SHAPES),
    ),
    "shapes_correspondence": (
        "pairs",
        partial(
            evaluate_correspondence,
            variant="padded",
            patches=8,
            per_class=None,
            generator=dict(num_pairs=4, image_size=64),
        ),
    ),
    "shapes_linear": (
        "shapes",
        partial(evaluate_linear_segmentation, data="shapes", grid=8, steps=4, generator=SHAPES),
    ),
    "shapes_depth": (
        "shapes",
        partial(evaluate_linear_depth, grid=8, depth_range=(0.5, 12.0), steps=4, generator=SHAPES),
    ),
    "shapes_tokencut": (
        "shapes",
        partial(evaluate_discovery, data="shapes", method="tokencut", grid=8, taus=(0.2, 0.4), generator=SHAPES),
    ),
    "shapes_lost": ("shapes", partial(evaluate_discovery, data="shapes", method="lost", grid=8, generator=SHAPES)),
    "shapes_propagation": (
        "videos",
        partial(evaluate_propagation, patches=8, generator=dict(num_videos=2, num_frames=4, image_size=64)),
    ),
    "shapes_navi": (
        "navi",
        partial(evaluate_navi, patches=8, step=1, grid=16, generator=dict(num_objects=1, num_views=3, image_size=64)),
    ),
}


@contextmanager
def second_of_two() -> Iterator[None]:
    """Within the context this is the second of two processes, and its random numbers are those after other tasks."""
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        with fork_rng():
            seed_all(5)
            yield
    finally:
        dist.destroy_process_group()


@contextmanager
def tiny_bench() -> Iterator[list[str]]:
    """Within the context there are four tasks, one of them without data, and every backbone is tiny.

    Yields:
        the names of the backbones that were opened, a list that grows.
    """
    small = {name: tasks.TASKS[name] for name in ("shapes_lost", "shapes_correspondence", "shapes_knn", "davis_s")}
    for name, (folder, evaluate) in SETTINGS.items():
        if name in small:
            task = small[name]
            small[name] = Task(name, task.title, task.metric, folder, evaluate, task.protocol)
    opened = []

    def open_named(name, device):
        opened.append(name)
        return tiny_tower(window_size=2 if name == "timm/windows" else None)

    with patch.object(tasks, "TASKS", small), patch.object(bench, "open_named", open_named):
        yield opened
