"""Tasks of the benchmark on published data sets, and their selection by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from pe_dense.datasets.davis import DavisDataset
from pe_dense.datasets.video_objects import VideoObjectsDataset
from pe_dense.evaluation.clustering import evaluate_clusters
from pe_dense.evaluation.correspondence import evaluate_correspondence
from pe_dense.evaluation.depth_probe import evaluate_depth_probe
from pe_dense.evaluation.knn_segmentation import evaluate_knn
from pe_dense.evaluation.navi import evaluate_navi
from pe_dense.evaluation.object_discovery import evaluate_discovery
from pe_dense.evaluation.propagation import evaluate_propagation
from pe_dense.evaluation.shapes_tasks import shapes_tasks
from pe_dense.evaluation.task import Task
from pe_dense.evaluation.words import evaluate_words
from pe_dense.utils.errors import ConfigError

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
_VIDEOS = {  # title, files, data set
    "davis": (
        "DAVIS 2017",
        dict(
            folder="davis",
            files=("ImageSets/2017/val.txt", "JPEGImages/480p", "Annotations/480p"),
            source="https://davischallenge.org/davis2017/code.html (TrainVal, 480p)",
        ),
        DavisDataset,
    ),
    "ytvos": (
        "YouTube-VOS",
        dict(
            folder="youtube_vos",
            files=("JPEGImages", "Annotations", "meta.json"),
            source="https://youtube-vos.org/dataset/vos/ (train split, or valid with masks of all frames)",
        ),
        VideoObjectsDataset,
    ),
    "mose": (
        "MOSE",
        dict(
            folder="mose",
            files=("JPEGImages", "Annotations"),
            source="https://henghuiding.com/MOSE/ (train split, whose masks are public)",
        ),
        VideoObjectsDataset,
    ),
}
_WORDS = {  # title, words, short side in windows as in ProxyCLIP, threshold of the background
    "voc": ("VOC21", "voc21.txt", 1.0, 0.2),
    "ade20k": ("ADE20k", "ade20k.txt", 4 / 3, 0.0),
    "cityscapes": ("Cityscapes", "cityscapes.txt", 2.0, 0.0),
}
_DEPTH = {  # title, files
    "nyu": (
        "NYUv2",
        dict(
            folder="nyu",
            files=("images/train", "annotations/train", "images/test", "annotations/test"),
            source="https://github.com/cleinc/bts, laid out by mmsegmentation's 2_dataset_prepare.md",
        ),
    ),
    "kitti": (
        "KITTI",
        dict(
            folder="kitti",
            files=("kitti_eigen_train.txt", "kitti_eigen_test.txt", "input", "data_depth_annotated"),
            source="https://www.cvlibs.net/datasets/kitti/eval_depth.php, lists of "
            "github.com/zhyever/Monocular-Depth-Estimation-Toolbox",
        ),
    ),
}
_OUTPUT = "output features after the final norm"
_TAU = f"{_OUTPUT}, best of six thresholds"


def _published() -> list[Task]:
    """Tasks on published data sets, in published protocols."""
    tasks = []

    def add(name: str, title: str, metric: str, evaluate: Callable, protocol: str, files: dict, **settings) -> None:
        task = dict(evaluate=partial(evaluate, **settings), protocol=protocol, **files)
        unit = "m" if evaluate is evaluate_depth_probe else "%"
        tasks.append(Task(name, title, metric, unit=unit, needs_text=evaluate is evaluate_words, **task))

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
    for data, (title, files, dataset) in _VIDEOS.items():
        for size, patches in (("s", 30), ("m", 60), ("l", 90)):
            protocol = f"DINOv3, short side of {patches} patches"
            settings = dict(dataset=dataset, patches=patches)
            add(f"{data}_{size}", f"{title}, {size.upper()}", "J&F", evaluate_propagation, protocol, files, **settings)
    for data, (title, files) in _DEPTH.items():
        config = f"{data}_dinov3_linear_pe"
        protocol = f"linear probe as DINOv3, trained as {config}: 38,400 steps of 16 images; RMSE, lower is better"
        add(f"{data}_depth", f"linear depth, {title}", "rmse", evaluate_depth_probe, protocol, files, config=config)
    for data, (title, words, short_side, threshold) in _WORDS.items():
        protocol = f"ProxyCLIP's windows at the native size, patches pooled one by one, words of {words}"
        settings = dict(data=data, words=words, short_side=short_side, threshold=threshold)
        add(f"{data}_words", f"words, {title}", "mIoU", evaluate_words, protocol, _SEGMENTATION[data], **settings)
    return tasks


TASKS: dict[str, Task] = {task.name: task for task in [*shapes_tasks(), *_published()]}


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
