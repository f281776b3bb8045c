"""Split images into training and validation, stratified by class, and remember the split of a run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from pe_dense.datasets.annotations import read_json
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.utils.atomic_write import write_json

SPLIT_FILE = "split.json"
FRACTION, SEED = 0.2, 0


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
