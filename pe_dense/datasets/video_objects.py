"""YouTube-VOS (arXiv 1809.03327) and MOSE (arXiv 2302.01872): videos whose objects may enter after the first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pe_dense.datasets.davis import VOID, DavisDataset, find_frames, read_mask
from pe_dense.registry import DATASETS
from pe_dense.utils.errors import InputError


@DATASETS.register_module()
class VideoObjectsDataset(DavisDataset):
    """Videos whose objects are given in the frame that they enter in.

    The layout is that of YouTube-VOS and MOSE: ``JPEGImages/<video>/<frame>.jpg`` and
    ``Annotations/<video>/<frame>.png``.
    The first frame with an object is the first one of the item; frames without a mask are left out, as the data sets
    annotate all frames that they evaluate. An object that only occurs in the last two frames cannot be evaluated and is
    ignored.

    Args:
        data_root: folder of the data.
        ann_file: text file with one video name per line; '' for all folders of masks.
        **kwargs: arguments of :class:`~pe_dense.datasets.davis.DavisDataset`.

    Raises:
        ValueError: naming the video, if it has fewer than 3 frames with masks, no object, or frames of different sizes;
            or if a mask has no frame or another size.
    """

    def __init__(self, *, data_root: str, ann_file: str = "", data_prefix: dict | None = None, **kwargs):
        prefix = data_prefix or dict(img="JPEGImages", mask="Annotations")
        super().__init__(data_root=data_root, ann_file=ann_file, data_prefix=prefix, **kwargs)

    def list_videos(self) -> list[str]:
        """Return the names in the list, or of all folders of masks."""
        if self.ann_file:
            return super().list_videos()
        folder = Path(self.data_prefix["mask"])
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def _video(self, name: str) -> dict:
        frames, masks = (find_frames(Path(self.data_prefix[kind]) / name, name) for kind in ("img", "mask"))
        if extra := masks.keys() - frames.keys():
            raise InputError(f"video {name}: mask {min(extra)} has no frame, one of {len(extra)} such masks")
        stems = [stem for stem in frames if stem in masks]
        present = [self._objects_of(name, masks[stem]) for stem in stems]
        first = next((number for number, ids in enumerate(present) if ids), None)
        if first is None:
            raise InputError(f"video {name}: no mask in {Path(self.data_prefix['mask']) / name} has an object")
        stems, present = stems[first:], present[first:]
        if len(stems) < 3:
            raise InputError(
                f"video {name} has {len(stems)} frames with masks from the first object on, at least 3 are needed"
            )
        entries = {}
        for number, ids in enumerate(present[:-2]):
            entries |= {object_id: number for object_id in sorted(ids - entries.keys())}
        used = [masks[stem] for stem in stems]
        return dict(
            video=name,
            frames=[str(frames[stem]) for stem in stems],
            masks=[str(path) for path in used],
            size=self._check_size(name, {stem: frames[stem] for stem in stems}, used),
            object_ids=tuple(sorted(entries)),
            num_objects=len(entries),
            entries=entries,
        )

    def _objects_of(self, name: str, path: Path) -> set[int]:
        return set(np.unique(read_mask(path)).tolist()) - {0, VOID}


def entry_masks(video: dict) -> dict[int, np.ndarray]:
    """Read the masks of the frames after the first one in which objects enter.

    Args:
        video: an item of :class:`VideoObjectsDataset`.

    Returns:
        number of the frame and mask (H, W) uint8, only with the objects that enter.
    """
    entries = video.get("entries") or {}
    masks = {}
    for frame in sorted(set(entries.values()) - {0}):
        mask = read_mask(video["masks"][frame])
        entering = [object_id for object_id, number in entries.items() if number == frame]
        masks[frame] = np.where(np.isin(mask, entering), mask, 0).astype(np.uint8)
    return masks
