"""Pair images with their label or depth maps by the names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pe_dense.datasets.formats.files import is_image, join, list_files, stem
from pe_dense.datasets.formats.findings import FolderFindings
from pe_dense.datasets.formats.splits import distinct_splits, folder_splits, listed_splits, split_lists
from pe_dense.utils.image import ImageError, image_size

IMAGE_WORDS = frozenset(("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "rgb", "photos", "dir"))
MASK_WORDS = frozenset(
    ("masks", "mask", "annotations", "annotation", "ann", "labels", "label", "gt", "gtfine", "groundtruth", "annot")
    + ("segmentationclass", "segmentationclasspng", "segmentation", "segmentations", "semantic", "seg", "labelmaps")
)
DEPTH_WORDS = frozenset(("depth", "depths", "depthmaps", "depthmap", "dense"))
_MASK_ENDING = re.compile(
    r"[-_. ](masks?|labels?|seg|segmentation|gt|L|gtFine_labelTrainIds|gtFine_labelIds|labelTrainIds|labelIds)$"
)
_DEPTH_ENDING = re.compile(r"[-_. ](depth|depths|depth_map|d)$")
_IMAGE_ENDING = re.compile(r"[-_. ](leftImg8bit|image|img|rgb|photo)$")
_OTHER_MAPS = re.compile(r"[-_. ](gtFine_color|gtFine_instanceIds|color|instanceIds|polygons)$")  # Cityscapes'


@dataclass
class MapData:
    """Images with maps of their pixels.

    Attributes:
        root: data folder.
        format: name of its format.
        splits: (image, map) files by split, relative to the root.
        classes: class names by label; empty for depth.
        palette: RGB color of each class.
        reader: arguments of the step that reads the maps.
        findings: what was found on reading.
        present: number of pixels of each label in each image; empty for depth.
    """

    root: Path
    format: str
    splits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    palette: list[tuple[int, int, int]] = field(default_factory=list)
    reader: dict = field(default_factory=dict)
    findings: FolderFindings = field(default_factory=FolderFindings)
    present: dict[str, dict[int, int]] = field(default_factory=dict)

    def describe(self) -> str:
        """Return one line with the format, the number of classes and the counts of each split."""
        classes = f"{len(self.classes)} classes; " if self.classes else ""
        counts = ", ".join(f"{name} {len(pairs)} images" for name, pairs in distinct_splits(self.splits).items())
        return f"{self.root}: {self.format}, {classes}{counts}"


def find_pairs(
    root: Path, words: frozenset[str], endings: Iterable[str], findings: FolderFindings
) -> dict[str, list[tuple[str, str]]]:
    """Find images and their maps.

    Maps are in a folder named after one of the words, beside or below that of the images (``images/train/a.jpg`` and
    ``masks/train/a.png``, ``train/rgb/a.jpg`` and ``train/depth/a.png``), or beside their image with an ending
    (``a.jpg`` and ``a_mask.png``). Splits are the folders' names, or lists of names in ``train.txt`` and ``val.txt``,
    in the root or in ``ImageSets/``.

    Args:
        root: data folder.
        words: words in the names of folders of maps.
        endings: endings of map files.
        findings: receives what has no counterpart, as repairs.

    Returns:
        (image, map) by split, 'all' without splits; empty if the folder has no maps.
    """
    files, endings = list_files(root), tuple(endings)
    images: dict[tuple, str] = {}
    maps: dict[tuple, list[str]] = {}
    for folder, names in files.items():
        parts = [re.findall("[a-z0-9]+", part.lower()) for part in folder.split("/")] if folder else []
        in_maps = any(word in words for part in parts for word in part)
        key = tuple(word for part in parts for word in part if word not in words | IMAGE_WORDS)
        known = {stem(name) for name in names if is_image(name)}
        ending = _DEPTH_ENDING if words is DEPTH_WORDS or "depth" in words else _MASK_ENDING
        for name in names:
            base, path = stem(name), join(folder, name)
            if _OTHER_MAPS.search(base):
                continue
            if name.lower().endswith(endings) and (in_maps or ending.sub("", base) in known - {base}):
                maps.setdefault((key, ending.sub("", base)), []).append(path)
                if ending.sub("", base) != base:
                    maps.setdefault((key, base), []).append(path)
            elif is_image(name) and not in_maps:
                if (key, base) in images:
                    findings.error("images of the same name with different endings", f"{path}, {images[key, base]}")
                images[key, base] = path
    pairs, used = [], set()
    for (key, base), image in images.items():
        found = maps.get((key, base)) or maps.get((key, _IMAGE_ENDING.sub("", base))) or []
        found = [path for path in found if stem(path) == base] or _preferred(found)
        if len(found) > 1:
            findings.error("images with several maps", f"{image}: {', '.join(found[:3])}")
        if found:
            pairs.append((image, found[0]))
            used.update(found)
    if not pairs:
        return {}
    paired = {image for image, _ in pairs}
    for image in images.values():
        if image not in paired:
            findings.repair("images without a map left out", image)
    for path in dict.fromkeys(path for paths in maps.values() for path in paths):
        if path not in used and "labelIds" not in path:
            findings.repair("maps without an image ignored", path)
    return _by_split(root, files, pairs, findings)


def has_image_size(
    root: Path, image: str, path: str, shape: tuple[int, ...], what: str, findings: FolderFindings
) -> bool:
    """Return whether a map has the size of its image; otherwise the reason is among the problems.

    Args:
        root: data folder.
        image, path: files of the image and of the map, relative to the root.
        shape: height and width of the map, first.
        what: name of such maps in messages.
        findings: receives an image that cannot be read, or a map of another size.
    """
    try:
        size = image_size(root / image)
    except (ImageError, FileNotFoundError):
        findings.error("images that cannot be read", image)
        return False
    if shape[1::-1] != size:
        sides = f"{path}: {shape[1]} x {shape[0]}, {image}: {size[0]} x {size[1]}"
        findings.error(f"{what} of another size than their image", sides)
    return shape[1::-1] == size


def _preferred(found: list[str]) -> list[str]:
    """Of Cityscapes' maps, those of the 19 classes of training."""
    return [path for path in found if "TrainIds" in path] or found


def _by_split(root: Path, files: dict, pairs: list, findings: FolderFindings) -> dict[str, list[tuple[str, str]]]:
    maps = dict(pairs)
    lists = split_lists(root, files, [folder for folder in files if folder == "" or "ImageSets" in folder])
    splits = folder_splits(maps, findings, in_words=True)
    if lists and set(splits.values()) == {"all"}:
        splits = listed_splits(root, lists, maps, findings, "a map")
    found: dict[str, list[tuple[str, str]]] = {}
    for image, split in splits.items():
        found.setdefault(split, []).append((image, maps[image]))
    return found
