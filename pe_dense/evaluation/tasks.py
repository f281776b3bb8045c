"""Tasks of the benchmark: their data, settings and protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from pe_dense.evaluation.clustering import evaluate_clusters
from pe_dense.evaluation.correspondence import evaluate_correspondence
from pe_dense.evaluation.knn_segmentation import evaluate_knn
from pe_dense.evaluation.navi import evaluate_navi
from pe_dense.evaluation.object_discovery import evaluate_discovery
from pe_dense.evaluation.propagation import evaluate_propagation
from pe_dense.evaluation.run import TaskRun
from pe_dense.utils.errors import ConfigError


@dataclass(frozen=True)
class Task:
    """A task of the benchmark.

    Attributes:
        name: its name on the command line.
        title: its name in the sheet.
        metric: key of the rows by which layers are compared, in percent; higher is better.
        folder: folder of the data below the data root.
        evaluate: returns a row per layer: ``layer``, the metric and further values.
        protocol: one line, for the sheet.
        files: files or folders in the folder that must exist; none for generated data.
        source: where to get the data.
    """

    name: str
    title: str
    metric: str
    folder: str
    evaluate: Callable[[TaskRun], list[dict]]
    protocol: str
    files: tuple[str, ...] = ()
    source: str = "generated"

    @property
    def generated(self) -> bool:
        """Whether the data are generated on first use."""
        return not self.files

    def missing(self, data_root: Path) -> str | None:
        """Return the first path that does not exist; None if the data are present or generated."""
        paths = [data_root / self.folder / file for file in self.files]
        return next((str(path) for path in paths if not path.exists()), None)


_SHAPES = dict(num_train=400, num_val=80)
_PAIRS = dict(num_pairs=64)
_VIDEOS = dict(num_videos=12, num_frames=24)
_GRID = 32  # patches along a side: 448 px for patches of 14 px, 512 px for 16 px

_VOC12 = dict(
    folder="VOCdevkit/VOC2012",
    source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, with SegmentationClassAug and trainaug.txt of SBD",
)
_SEGMENTATION = {
    "voc": _VOC12 | dict(files=("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation/val.txt")),
    "ade20k": dict(
        folder="ade20k",
        files=("images/training", "annotations/training", "images/validation", "annotations/validation"),
        source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    ),
    "cityscapes": dict(
        folder="cityscapes",
        files=("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"),
        source="https://www.cityscapes-dataset.com/downloads/, labelTrainIds by cityscapesscripts",
    ),
}
_BOXES = {
    "voc07": dict(
        folder="VOCdevkit/VOC2007",
        files=("Annotations", "JPEGImages", "ImageSets/Main/trainval.txt"),
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
    ),
    "voc12": dict(
        folder="VOCdevkit/VOC2012",
        files=("Annotations", "JPEGImages", "ImageSets/Main/trainval.txt"),
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    ),
    "coco20k": dict(
        folder="coco2014",
        files=("train2014", "annotations/instances_train2014.json", "coco_20k_filenames.txt"),
        source="https://cocodataset.org/#download (2014), coco_20k_filenames.txt from github.com/valeoai/LOST",
    ),
}
_SPAIR = dict(
    folder="SPair-71k",
    files=("PairAnnotation/test", "ImageAnnotation", "JPEGImages"),
    source="https://cvlab.postech.ac.kr/research/SPair-71k/",
)
_NAVI = dict(
    folder="navi_v1",
    files=(".",),
    source="https://github.com/google/navi, down-sampled by Probe3D's data_processing/resize_navi.py",
)
_DAVIS = dict(
    folder="davis",
    files=("ImageSets/2017/val.txt", "JPEGImages/480p", "Annotations/480p"),
    source="https://davischallenge.org/davis2017/code.html (TrainVal, 480p)",
)


def _generated() -> list[Task]:
    """Tasks on generated data: 256 patches per image, minutes on a CPU for a small backbone."""
    knn = partial(evaluate_knn, data="shapes", grid=16, memory=None, fraction=0.25, augment=False, generator=_SHAPES)
    clusters = partial(
        evaluate_clusters, data="shapes", grid=16, clusters=100, seeds=(0, 1), restarts=2, generator=_SHAPES
    )
    pairs = partial(evaluate_correspondence, variant="padded", side=256, per_class=None, generator=_PAIRS)
    discovery = partial(evaluate_discovery, data="shapes", grid=16, generator=_SHAPES)
    spheres = partial(evaluate_navi, side=256, step=1, grid=48, generator={})
    videos = partial(evaluate_propagation, short_side=256, generator=_VIDEOS)
    return [
        Task(
            "shapes_knn",
            "k-NN, shapes",
            "mIoU",
            "shapes",
            knn,
            "k = 30, a quarter of the training images, no augmentation",
        ),
        Task("shapes_clusters", "k-means, shapes", "mIoU", "shapes", clusters, "K = 100, 2 seeds"),
        Task("shapes_correspondence", "keypoints, shapes", "PCK", "shapes_pairs", pairs, "PCK@0.1, as SD-DINO"),
        Task(
            "shapes_navi",
            "surface points, spheres",
            "R2cm",
            "shapes_navi",
            spheres,
            "as Probe3D, grid of 48 x 48 points, recall at 2 cm",
        ),
        Task("shapes_tokencut", "TokenCut, shapes", "CorLoc", "shapes", partial(discovery, method="tokencut"), _TAU),
        Task("shapes_lost", "LOST, shapes", "CorLoc", "shapes", partial(discovery, method="lost"), _OUTPUT),
        Task("shapes_propagation", "tracking, shapes", "J&F", "shapes_video", videos, "as DINOv3, short side 256 px"),
    ]


_OUTPUT = "output features after the final norm"
_TAU = f"{_OUTPUT}, best of six thresholds"


def _published() -> list[Task]:
    """Tasks on published data sets, in published protocols."""
    tasks = []

    def add(name: str, title: str, metric: str, evaluate: Callable, protocol: str, files: dict, **settings) -> None:
        tasks.append(Task(name, title, metric, evaluate=partial(evaluate, **settings), protocol=protocol, **files))

    for data, title in (("voc", "VOC12"), ("ade20k", "ADE20k"), ("cityscapes", "Cityscapes")):
        settings = dict(data=data, grid=_GRID, memory=1024 * 10**4, epochs=2)
        protocol = "Hummingbird, k = 30, memory 1024 x 10^4, 2 epochs, exact search"
        add(f"{data}_knn", f"k-NN, {title}", "mIoU", evaluate_knn, protocol, _SEGMENTATION[data], **settings)
        for share in (8, 64, 128):
            name, title_ = f"{data}_knn_1_{share}", f"k-NN, 1/{share} of {title}"
            protocol = f"as {data}_knn, with 1/{share} of the training images"
            settings["fraction"] = 1 / share
            add(name, title_, "mIoU", evaluate_knn, protocol, _SEGMENTATION[data], **settings)
    protocol = "Leopart and NeCo, K = 500, 5 seeds, many-to-one by precision"
    settings = dict(data="voc", grid=_GRID, clusters=500)
    add("voc_clusters", "k-means, VOC12", "mIoU", evaluate_clusters, protocol, _SEGMENTATION["voc"], **settings)
    for name, variant, side, count, protocol in (
        ("spair", "whole", 800, 200, "Probe3D (as DINOv3): whole images, 800 px, 200 pairs of a class"),
        ("spair_padded", "padded", 840, 20, "SD-DINO: padded squares, 840 px, 20 pairs of a class"),
        ("spair_upsampled", "upsampled", None, 100, "EUPE: upsampled features, 100 pairs of a class"),
    ):
        title = f"SPair-71k, {protocol.partition(' ')[0].strip(':')}"
        settings = dict(variant=variant, side=side, per_class=count)
        add(name, title, "PCK", evaluate_correspondence, f"PCK@0.1, {protocol}", _SPAIR, **settings)
    protocol = "Probe3D: wild set, crops of 512 px, best 1,000 matches, recall at 2 cm"
    add("navi", "NAVI, recall at 2 cm", "R2cm", evaluate_navi, protocol, _NAVI)
    for data, title in (("voc07", "VOC07"), ("voc12", "VOC12"), ("coco20k", "COCO20k")):
        for method, label, protocol in (("tokencut", "TokenCut", _TAU), ("lost", "LOST", _OUTPUT)):
            settings = dict(data=data, method=method)
            add(
                f"{data}_{method}",
                f"{label}, {title}",
                "CorLoc",
                evaluate_discovery,
                protocol,
                _BOXES[data],
                **settings,
            )
    for size, patches in (("s", 30), ("m", 60), ("l", 90)):
        protocol = f"DINOv3, short side of {patches} patches"
        title = f"DAVIS 2017, {size.upper()}"
        add(f"davis_{size}", title, "J&F", evaluate_propagation, protocol, _DAVIS, patches=patches)
    return tasks


TASKS: dict[str, Task] = {task.name: task for task in [*_generated(), *_published()]}


def select_tasks(names: Sequence[str] | None, data_root: Path) -> tuple[list[Task], list[Task]]:
    """Choose tasks by name and split them by whether their data are present.

    Args:
        names: names, beginnings of names ('shapes', 'voc_knn') or 'all'; None for all.
        data_root: folder of all data.

    Returns:
        tasks to run, and tasks without data. Generated data are always present.

    Raises:
        ConfigError: for a name that is not a task.
    """
    chosen: dict[str, Task] = {}
    for name in names or ["all"]:
        found = [task for task in TASKS.values() if name in ("all", task.name) or task.name.startswith(f"{name}_")]
        if not found:
            close = get_close_matches(name, TASKS, n=3)
            hint = f" Did you mean {', '.join(close)}?" if close else ""
            raise ConfigError(f"--tasks {name} is not a task.{hint} Tasks: all, shapes, {', '.join(TASKS)}")
        chosen |= {task.name: task for task in found}
    present = [task for task in chosen.values() if task.missing(data_root) is None]
    return present, [task for task in chosen.values() if task not in present]
