"""Split images into training and validation, stratified by class, and remember the split of a run."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mmengine.logging import print_log

from pe_dense.datasets.annotations import read_json
from pe_dense.datasets.formats.files import (
    SPLIT_NAMES,
    is_image,
    read_text,
    relative_name,
    split_named,
    stem,
    text_lines,
)
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.utils.atomic_write import write_json

SPLIT_FILE = "split.json"
FRACTION, SEED = 0.2, 0
Split = TypeVar("Split")


def distinct_splits(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Return the splits without 'test' if it is that of validation."""
    return {name: split for name, split in splits.items() if name != "test" or split is not splits.get("val")}


def folder_splits(names: Iterable[str], findings: FolderFindings, *, in_words: bool = False) -> dict[str, str]:
    """Return the split of each image by the folders that it is in.

    Args:
        names: paths of images relative to the data folder.
        findings: receives a note on images that are left out because only others are in folders of splits.
        in_words: read the words of the folders' names, too (``images_train``).

    Returns:
        split by name; 'all' for all images if no folder is named after a split.
    """
    found = {}
    for name in names:
        parts = name.split("/")[:-1]
        words = [word for part in parts for word in [part, *re.findall("[A-Za-z0-9]+", part)]] if in_words else parts
        found[name] = next((split for split in map(split_named, words) if split), "all")
    splits = {name: split for name, split in found.items() if split != "all"}
    return _report_unlisted(found, splits, "in no folder of a split", findings) if splits else found


def split_lists(root: Path, files: Mapping[str, Sequence[str]], folders: Sequence[str]) -> dict[str, Path]:
    """Find the lists of the images of each split, ``train.txt`` and so on.

    Args:
        root: data folder.
        files: its files, see :func:`~pe_dense.datasets.formats.files.list_files`.
        folders: where to look, relative to the root; the first one with a list is used.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for split, words in SPLIT_NAMES.items():
            for word in words:
                if f"{word}.txt" in files[folder]:
                    found.setdefault(split, root / folder / f"{word}.txt")
    return found


def listed_splits(
    root: Path, lists: Mapping[str, Path], images: Collection[str], findings: FolderFindings, without: str
) -> dict[str, str]:
    """Return the split of each image that a list names, in the order of the lists.

    A line is the path, the name, or the name without its ending, of an image. In VOC's lists of a class, lines that end
    in -1 do not count.

    Args:
        root: data folder.
        lists: files by split.
        images: paths of the annotated images relative to the data folder.
        findings: receives images in several splits as problems, listed names without such an image as repairs, and a
            note on the images in no list, which are left out.
        without: what a listed image lacks that is not among ``images``, for the message.

    Raises:
        DataError: if no image is listed.
    """
    named: dict[str, list[str]] = {}
    for image in images:
        path = PurePosixPath(image)
        for key in {image, path.name, path.stem, path.with_suffix("").as_posix()}:
            named.setdefault(key, []).append(image)
    found: dict[str, str] = {}
    for split, path in lists.items():
        for number, line in text_lines(read_text(path, findings, root)):
            entry, *flag = line.split()
            if flag and flag[-1] == "-1":
                continue
            entry = entry.replace("\\", "/")
            keys = (line, entry, PurePosixPath(entry).name, stem(entry) if is_image(entry) else entry)
            fitting = next((named[key] for key in keys if key in named), [])
            place = f"{relative_name(path, root)} line {number}: {entry}"
            if not fitting:
                findings.repair(f"listed images without {without} left out", place)
            elif len(fitting) > 1:
                findings.error("listed names of several images", f"{place} ({', '.join(fitting[:2])})")
            elif found.setdefault(fitting[0], split) != split:
                findings.error("images in several splits", f"{place} (also in {found[fitting[0]]})")
    if not found and not findings.errors:
        raise DataError(f"{root}: none of the images is listed in {', '.join(map(str, lists.values()))}")
    names = ", ".join(dict.fromkeys(path.name for path in lists.values()))
    return _report_unlisted(images, found, f"not in {names}", findings)


def _report_unlisted(images: Collection[str], found: dict[str, str], where: str, findings: FolderFindings):
    """Add a note on the images that are left out, and return the splits of the others."""
    if rest := [name for name in images if name not in found]:
        findings.note(f"{len(rest)} of {len(images)} images are {where} and are left out, such as {rest[0]}")
    return found


def complete_splits(
    root: Path,
    splits: Mapping[str, Split],
    wanted: Sequence[str],
    findings: FolderFindings,
    *,
    labels: Callable[[Split], Mapping[str, Iterable[Hashable]]],
    select: Callable[[Split, list[str]], Split],
    can_evaluate: Callable[[Split], object] = bool,
    records: Sequence[Path] = (),
    write_to: Path | None = None,
) -> dict[str, Split]:
    """Make the splits that are wanted of those that a data folder has.

    Without images for validation or test, those of 'all', or else of 'train', are split. Validation and test stand in
    for each other where one is missing.

    Args:
        root: data folder.
        splits: by name; 'all' for images without a split.
        wanted: names of the splits to return.
        findings: receives a note on a new split.
        labels: returns the classes that occur in each image of a split, by name.
        select: returns the part of a split that consists of the named images.
        can_evaluate: returns whether a test split has annotations; otherwise that of validation is used.
        records: files of an earlier split, see :func:`choose_split`; that of the data folder comes last.
        write_to: file for a new split.

    Raises:
        DataError: if there are no images, none for training where 'train' is wanted, or too few to split.
    """
    splits = dict(splits)
    if not splits:
        raise DataError(f"{root} has no annotated images")
    if not {"val", "test"} & set(splits):
        whole = splits.pop("all") if "all" in splits else splits["train"]
        chosen = choose_split(labels(whole), (*records, root / SPLIT_FILE), findings, write_to=write_to)
        splits.update({part: select(whole, names) for part, names in chosen.items()})
    if "train" in wanted and "train" not in splits:
        raise DataError(f"{root} has no images for training")
    if "val" in wanted and "val" not in splits:
        splits["val"] = splits["test"]
        print_log(f"{root} has no images for validation: validating on those for testing", "current")
    if "val" in splits and not ("test" in splits and can_evaluate(splits["test"])):
        splits["test"] = splits["val"]
    return {split: splits[split] for split in wanted if split in splits}


def stratified_split(labels: Mapping[str, Iterable[Hashable]], fraction: float = FRACTION, seed: int = SEED) -> set:
    """Choose the validation images so that each class keeps its share.

    Classes are taken from the rarest to the most frequent, and the images of each are distributed by what the class
    still lacks in validation (iterative stratification, Sechidis et al., ECML 2011). A class in a single image stays in
    training. The result depends on the names, the classes and the seed only.

    Args:
        labels: classes that occur in each image; may be empty.
        fraction: part of the images for validation.
        seed: of the order in which images are taken.

    Returns:
        names of the validation images: at least one, and not all of them.

    Raises:
        DataError: if there are fewer than two images.
    """
    names = sorted(labels)
    if len(names) < 2:
        raise DataError(
            f"{len(names)} image is too few for a split into training and validation: at least 2 are needed"
        )
    random.Random(seed).shuffle(names)
    wanted = min(max(round(fraction * len(names)), 1), len(names) - 1)
    counts = Counter(label for name in names for label in set(labels[name]))
    by_class: dict[Hashable, list[str]] = {label: [] for label in counts}
    for name in names:
        for label in set(labels[name]):
            by_class[label].append(name)
    lacking = {label: min(round(fraction * count), count - 1) for label, count in counts.items()}
    chosen: dict[str, bool] = {}
    total = 0
    for label in sorted(counts, key=lambda label: (counts[label], str(label))):
        for name in by_class[label]:
            if name in chosen:
                continue
            take = lacking[label] > 0 and total < wanted
            chosen[name] = take
            if take:
                total += 1
                for other in set(labels[name]):
                    lacking[other] -= 1
    rest = [name for name in names if name not in chosen]  # images without objects, then any
    rest += [name for name in reversed(names) if chosen.get(name) is False]
    for name in rest:
        if total >= wanted:
            break
        chosen[name] = True
        total += 1
    return {name for name, take in chosen.items() if take}


def choose_split(
    labels: Mapping[str, Iterable[Hashable]],
    records: Sequence[Path],
    findings: FolderFindings,
    *,
    write_to: Path | None = None,
) -> dict[str, list[str]]:
    """Return the split of a data set that has none: that of a file, or else a new one.

    Args:
        labels: classes that occur in each image, by name.
        records: files that may have the split, the first existing one is used: the run's, the data folder's.
        findings: receives a note.
        write_to: file to write a new split to; None writes nothing.

    Returns:
        names of 'train', 'val' and, if the file has them, 'test', in the order of ``labels``.

    Raises:
        DataError: if a file is not a split of these images.
    """
    path = next((record for record in records if record.is_file()), None)
    if path is None:
        val = stratified_split(labels)
        split = {"train": [name for name in labels if name not in val], "val": [name for name in labels if name in val]}
        where = f", written to {write_to}" if write_to else ""
        findings.note(
            f"no validation images: {len(split['val'])} of {len(labels)} images chosen (seed {SEED}, stratified by "
            f"class{where})"
        )
        if write_to:
            write_json(write_to, dict(seed=SEED, fraction=FRACTION, **split), indent=1)
        return split
    content = read_json(path)
    named = {part: content.get(part, []) for part in ("train", "val", "test")} if isinstance(content, dict) else {}
    if not named or not all(isinstance(names, list) for names in named.values()) or not named["val"]:
        raise DataError(f"{path} is not a split: it must be an object with the lists 'train' and 'val' of image names")
    owner = {name: part for part, names in named.items() for name in names if isinstance(name, str)}
    if not owner.keys() & labels.keys():
        raise DataError(
            f"{path} lists other images than the data, such as {next(iter(owner), None)!r} (the data have "
            f"{next(iter(labels), None)!r}): remove it, or choose another --work-dir"
        )
    if new := [name for name in labels if name not in owner]:
        findings.note(f"{len(new)} images that {path} does not list are used for training, such as {new[0]}")
    split = {part: [name for name in labels if owner.get(name, "train") == part] for part in ("train", "val", "test")}
    if empty := [part for part in ("train", "val") if not split[part]]:
        raise DataError(f"{path} leaves no image for {empty[0]}")
    findings.note(f"split of {path}")
    return {part: names for part, names in split.items() if names}
