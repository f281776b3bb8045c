"""DAVIS 2017 data set (arXiv 1704.00675): videos with object masks."""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from PIL import Image

from pe_dense.registry import DATASETS
from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import EXTENSIONS, ImageError, decode, image_size

VOID = 255  # unlabeled pixels; DAVIS's semi-supervised evaluation counts them as background


def voc_color(number: int) -> tuple[int, int, int]:
    """Return the RGB color of a label or object id below 2^24, as in PASCAL VOC and DAVIS; 0 is black."""
    color = [0, 0, 0]
    for source in range(24):  # bits 0, 1, 2, 3, ... of a number go to red, green, blue, red, ..., highest first
        color[source % 3] |= (number >> source & 1) << (7 - source // 3)
    return tuple(color)


@cache
def palette() -> np.ndarray:
    """Return the colors (256, 3) uint8 of object ids, see :func:`voc_color`; read-only."""
    colors = np.array([voc_color(number) for number in range(256)], np.uint8)
    colors.flags.writeable = False
    return colors


def read_mask(path: str | Path) -> np.ndarray:
    """Read the object ids (H, W) uint8 of a mask; void pixels are background.

    Raises:
        InputError: if the image is not a palette or grayscale image, or cannot be read.
    """
    numbers = _read_numbers(path)
    numbers[numbers == VOID] = 0
    return numbers


def _read_numbers(path: str | Path) -> np.ndarray:
    try:
        image = decode(path, ignore_orientation=True)
    except (ImageError, FileNotFoundError) as error:
        raise InputError(f"mask {path} can't be read: {error}") from error
    if image.mode not in ("P", "L"):
        raise InputError(
            f"mask {path} is an image of mode {image.mode}; it must have a palette (P) or be gray (L), its values the "
            "objects"
        )
    return np.array(image)


def write_mask(path: Path, numbers: np.ndarray) -> None:
    """Write object ids (H, W) uint8 with DAVIS's palette.

    Raises:
        FileExistsError: if the file exists.
    """
    image = Image.fromarray(numbers)
    image.putpalette(palette().tobytes())
    with atomic_write(path, overwrite=False) as file:
        image.save(file, format="PNG")


@DATASETS.register_module()
class DavisDataset(BaseDataset):
    """Videos with object masks: each item is a video with its frames and masks.

    All masks are checked when the data set is loaded (about 5 ms each), so that invalid ones are reported before a long
    run starts.

    Args:
        data_root: folder of the data.
        ann_file: text file with one video name per line.
        data_prefix: ``img`` and ``mask``, the folders of frames and masks. Each contains one folder per video; a mask
            has the name of its frame.
        with_truth: whether all frames must have a mask; otherwise only the first frame must, as in DAVIS's test sets.
        **kwargs: arguments of MMEngine's ``BaseDataset``.

    Raises:
        ValueError: naming the video, if it has no frames, fewer than 3 frames or frames of different sizes; if its
            first mask is missing or empty; or if a mask is missing, has no frame, differs in size from the frames or
            contains objects that the first mask does not.
    """

    def __init__(
        self,
        *,
        data_root: str = "data/davis",
        ann_file: str = "ImageSets/2017/val.txt",
        data_prefix: dict | None = None,
        with_truth: bool = True,
        **kwargs,
    ):
        self.with_truth = with_truth
        prefix = data_prefix or dict(img="JPEGImages/480p", mask="Annotations/480p")
        super().__init__(data_root=data_root, ann_file=ann_file, data_prefix=prefix, test_mode=True, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the videos: ``video``, ``frames`` and ``masks`` (paths), ``size`` (H, W), ``object_ids``."""
        names = self.list_videos()
        if not names:
            raise InputError(f"{self.ann_file or self.data_prefix['mask']} lists no video")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"{self.ann_file} lists videos more than once: {', '.join(repeated)}")
        self._metainfo["videos"] = tuple(names)
        self._void: list[Path] = []
        videos = [self._video(name) for name in names]
        if self._void:
            print_log(
                f"{len(self._void)} masks have pixels of value {VOID}, which is void and counts as background; first: "
                f"{self._void[0]}",
                "current",
                logging.WARNING,
            )
        return videos

    def list_videos(self) -> list[str]:
        """Return the names in the list of videos."""
        lines = (line.strip() for line in Path(self.ann_file).read_text().splitlines())
        return [name for name in lines if name]

    def _video(self, name: str) -> dict:
        frames, masks = (find_frames(Path(self.data_prefix[kind]) / name, name) for kind in ("img", "mask"))
        stems = list(frames)
        if extra := masks.keys() - frames.keys():
            raise InputError(f"video {name}: mask {min(extra)} has no frame, one of {len(extra)} such masks")
        if stems[0] not in masks:
            raise InputError(f"video {name}: the first frame, {stems[0]}, has no mask; tracking starts from it")
        if self.with_truth:
            if len(stems) < 3:
                raise InputError(
                    f"video {name} has {len(stems)} frames, at least 3 are needed, because the first and the last "
                    "are not evaluated"
                )
            if missing := [stem for stem in stems if stem not in masks]:
                raise InputError(
                    f"video {name}: {len(missing)} of {len(stems)} frames have no mask, the first is {missing[0]}; "
                    "without masks to compare with, say with_truth=False"
                )
        used = [masks[stem] for stem in (stems if self.with_truth else stems[:1])]
        size = self._check_size(name, frames, used)
        objects = self._object_ids(name, used)
        return dict(
            video=name,
            frames=[str(path) for path in frames.values()],
            masks=[str(path) for path in used],
            size=size,
            object_ids=objects,
            num_objects=len(objects),
        )

    def _check_size(self, name: str, frames: dict[str, Path], masks: list[Path]) -> tuple[int, int]:
        """Return the size (H, W) of all frames and masks."""
        size = _common_size(name, frames)
        for path in masks:
            if (found := _size_of(path, f"mask {path}")) != size:
                raise InputError(f"video {name}: mask {path} has size {found}, the frames have {size}")
        return size

    def _object_ids(self, name: str, masks: list[Path]) -> tuple[int, ...]:
        """Return the object ids of the first mask, which may have gaps; check that the other masks have no others."""
        ids: set[int] = set()
        for path in masks:
            numbers = _read_numbers(path)
            present = set(np.unique(numbers).tolist()) - {0}
            if VOID in present:
                self._void.append(path)
            present.discard(VOID)
            if path is masks[0]:
                ids = present
                if not ids:
                    void = f": its only value apart from 0 is {VOID}, which is void; number objects from 1"
                    raise InputError(
                        f"video {name}: the first mask, {path}, has no object to track{void if self._void else ''}"
                    )
            elif extra := sorted(present - ids):
                raise InputError(
                    f"video {name}: mask {path} has object {extra[0]}, the first mask has objects "
                    f"{', '.join(map(str, sorted(ids)))} only"
                )
        return tuple(sorted(ids))


def find_frames(folder: Path, name: str) -> dict[str, Path]:
    """List the images of a video in the order of their numbers, by their names without the ending.

    Raises:
        InputError: if there are none, or two have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"video {name}: folder {folder} does not exist")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=_by_number):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        if path.stem in files:
            raise InputError(f"video {name}: {files[path.stem]} and {path.name} have the same frame name")
        files[path.stem] = path
    if not files:
        raise InputError(f"video {name}: folder {folder} contains no image ({', '.join(EXTENSIONS)})")
    return files


def _by_number(path: Path) -> tuple:
    """Sort 2.jpg before 10.jpg."""
    parts = re.split(r"([0-9]+)", path.stem)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), path.name


def _size_of(path: Path, what: str) -> tuple[int, int]:
    try:
        return image_size(path, ignore_orientation=True)[::-1]
    except (ImageError, FileNotFoundError) as error:
        raise InputError(f"{what} can't be read: {error}") from error


def _common_size(name: str, frames: dict[str, Path]) -> tuple[int, int]:
    sizes = {}
    for stem, path in frames.items():
        sizes.setdefault(_size_of(path, f"video {name}: frame {path}"), stem)
    if len(sizes) > 1:
        found = ", ".join(f"{height} x {width} from frame {stem} on" for (height, width), stem in sizes.items())
        raise InputError(f"video {name} has frames of {len(sizes)} sizes: {found}")
    return next(iter(sizes))
