"""Tasks on generated data: small versions of the published ones, for every machine."""

from __future__ import annotations

from functools import partial

from pe_dense.datasets.synthetic import CLASSES
from pe_dense.evaluation.clustering import evaluate_clusters
from pe_dense.evaluation.correspondence import evaluate_correspondence
from pe_dense.evaluation.knn_segmentation import evaluate_knn
from pe_dense.evaluation.linear_probe import evaluate_linear_depth, evaluate_linear_segmentation
from pe_dense.evaluation.navi import evaluate_navi
from pe_dense.evaluation.object_discovery import evaluate_discovery
from pe_dense.evaluation.propagation import evaluate_propagation
from pe_dense.evaluation.task import Task
from pe_dense.evaluation.words import evaluate_words, evaluate_zero_shot

# All backbones see 16 x 16 patches, whatever the size of a patch: the native input of PE-Mini, and a size at which a
# forward pass of a ViT-T takes a tenth of a second on one core.
GRID = 16
SCENES = dict(num_train=128, num_val=80, difficulty="easy")
PAIRS = dict(num_pairs=48)
PERSPECTIVE = dict(SCENES, perspective=True)
VIDEOS = dict(num_videos=6, num_frames=16, same_surface=True)
SPHERES = dict(num_objects=24)
FORMS = dict(num_images=96)
MEMORY = 16_384  # patches
DEPTH_RANGE = (0.5, 12.0)  # meters
_WORDS = ", ".join(["background; empty background", *CLASSES])
_TEMPLATES = ("a photo of a {}.", "a picture of a {}", "a {}")
_SIZE = f"{GRID} x {GRID} patches"


def shapes_tasks() -> list[Task]:
    """Return the tasks on generated data."""
    scenes = dict(data="shapes", grid=GRID, generator=SCENES)
    knn = partial(evaluate_knn, memory=MEMORY, augment=False, **scenes)
    clusters = partial(evaluate_clusters, clusters=100, seeds=(0, 1), restarts=2, **scenes)
    pairs = partial(evaluate_correspondence, variant="padded", patches=GRID, per_class=None, generator=PAIRS)
    spheres = partial(evaluate_navi, patches=GRID, step=1, grid=48, generator=SPHERES)
    discovery = partial(evaluate_discovery, **scenes)
    videos = partial(evaluate_propagation, patches=GRID, generator=VIDEOS)
    linear = partial(evaluate_linear_segmentation, **scenes)
    depth = partial(evaluate_linear_depth, grid=GRID, depth_range=DEPTH_RANGE, generator=PERSPECTIVE)
    words = partial(evaluate_words, data="shapes", words=_WORDS, templates=_TEMPLATES, short_side=1.0, generator=SCENES)
    forms = partial(evaluate_zero_shot, templates=_TEMPLATES, generator=FORMS)
    tasks = []

    def add(name, title, metric, folder, evaluate, protocol, **options) -> None:
        tasks.append(Task(f"shapes_{name}", title, metric, folder, evaluate, protocol, **options))

    few = partial(knn, fraction=1 / 8)
    add("knn", "k-NN, shapes", "mIoU", "shapes", knn, f"{_SIZE}, k = 30, memory of 16,384 patches, no augmentation")
    add("knn_1_8", "k-NN, 1/8 of shapes", "mIoU", "shapes", few, "as shapes_knn, with 1/8 of the training images")
    add("clusters", "k-means, shapes", "mIoU", "shapes", clusters, f"{_SIZE}, K = 100, 2 seeds, 2 restarts")
    add("linear", "linear probe, shapes", "mIoU", "shapes", linear, f"{_SIZE}, DINOv3's head, 200 steps of 8 images")
    protocol = f"{_SIZE}, DINOv3's head, 200 steps of 8 images; share of pixels within a factor of 1.25"
    add("depth", "linear depth, shapes", "delta1", "shapes_perspective", depth, protocol)
    add("correspondence", "keypoints, shapes", "PCK", "shapes_pairs", pairs, f"{_SIZE}, PCK@0.1, as SD-DINO")
    protocol = f"{_SIZE}, as Probe3D, 48 x 48 points, recall at 2 cm"
    add("navi", "surface points, spheres", "R2cm", "shapes_navi", spheres, protocol)
    protocol = f"{_SIZE}, output features after the final norm"
    method = partial(discovery, method="tokencut")
    add("tokencut", "TokenCut, shapes", "CorLoc", "shapes", method, f"{protocol}, best of six thresholds")
    add("lost", "LOST, shapes", "CorLoc", "shapes", partial(discovery, method="lost"), protocol)
    protocol = f"as DINOv3, short side of {GRID} patches"
    add("propagation", "tracking, shapes", "J&F", "shapes_video_same_surface", videos, protocol)
    protocol = "open vocabulary, patches of the last layer pooled one by one"
    add("words", "words to label maps, shapes", "mIoU", "shapes", words, protocol, needs_text=True)
    protocol = "zero-shot classification of images of one shape"
    add("zeroshot", "zero-shot, shapes", "top-1", "shapes_forms", forms, protocol, needs_text=True)
    return tasks
