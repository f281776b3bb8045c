"""Read annotated objects of any format into the common form, with a split into training and validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, image_name
from pe_dense.datasets.formats import coco_json, depth_maps, labelme, semantic_masks, voc_xml, yolo
from pe_dense.datasets.formats.coco_layout import find_annotation_file
from pe_dense.datasets.formats.files import SPLITS, list_files
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.objects import ObjectData, ObjectSplit, labels_by_image, subset
from pe_dense.datasets.formats.splits import complete_splits
from pe_dense.utils.errors import ConfigError

FORMATS = (yolo, voc_xml, labelme, coco_json)  # in the order of recognition: their files are the most specific


def object_format(root: Path, findings: FolderFindings):
    """Return the module of a folder's format of objects; None if it has none.

    COCO's files with the names of the splits are preferred to other formats beside them, with a note.

    Raises:
        DataError: for several formats otherwise.
    """
    files = list_files(root)
    found = [module for module in FORMATS if module.recognize(root, files)]
    if len(found) < 2:
        return found[0] if found else None
    names = " and ".join(module.NAME for module in found)
    if coco_json in found and find_annotation_file(root, "train"):
        findings.note(f"contains annotations in several formats ({names}): {coco_json.NAME} is used")
        return coco_json
    raise DataError(
        f"{root} contains annotations in several formats ({names}): keep one of them in the folder, name COCO's files "
        "with --train-ann and --val-ann, or pass YOLO's data.yaml to --data"
    )


def data_root(folder: str | Path) -> tuple[Path, bool]:
    """Return the folder of a data set, and whether it is given by the path of YOLO's ``data.yaml``.

    Raises:
        ConfigError: if it does not exist, or is another file.
    """
    path = Path(folder)
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return path.parent, True
    if path.is_file():
        raise ConfigError(f"--data {path} is a file: name the folder of the data")
    if not path.is_dir():
        raise ConfigError(f"the data folder {path} does not exist ({path.absolute()})")
    return path, False


def read_objects(
    folder: str | Path,
    wanted: tuple[str, ...] = SPLITS,
    *,
    chosen: dict[str, str | Path | None] | None = None,
    images: str | Path | None = None,
    masks: bool | None = None,
    accept_boxes: bool = False,
    records: tuple[Path, ...] = (),
    write_to: Path | None = None,
    strict: bool = True,
) -> ObjectData:
    """Read the objects of a data folder.

    Args:
        folder: data folder, or YOLO's ``data.yaml``.
        wanted: splits to read; 'test' without such images is validation.
        chosen: annotation files given by options, by 'train' and 'val'; COCO's format only.
        images: folder of images given by an option; COCO's format only.
        masks: True if all objects need masks, None if not, False to leave them unchecked.
        accept_boxes: with ``masks``, accept data in which no object has a mask.
        records: files of an earlier split, see :func:`~pe_dense.datasets.formats.splits.choose_split`.
        write_to: file for a new split.
        strict: raise an error if there are problems; otherwise they are in ``findings``.

    Returns:
        the splits that were asked for.

    Raises:
        ConfigError: if the data are not valid.
    """
    root, is_yolo = data_root(folder)
    data = ObjectData(root, "")
    given = any((chosen or {}).values()) or images
    module = yolo if is_yolo else coco_json if given else object_format(root, data.findings)
    if module is None:
        others = [other.NAME for other in (depth_maps, semantic_masks) if other.recognize(root)]
        if others:
            raise DataError(
                f"{root} contains {others[0]}, not annotations of objects, which a detector needs: choose a config for "
                "those"
            )
        module = coco_json
    if module is coco_json:
        splits, data.format = coco_json.read(root, data.findings, wanted, chosen=chosen, images=images, masks=masks)
    else:
        splits, data.format = module.read(root, data.findings, wanted), module.NAME
    if strict or not splits:
        data.findings.check(root, data.format)
    if masks:
        _require_masks(root, data.format, splits, accept_boxes)
    data.splits = complete_splits(
        root,
        splits,
        wanted,
        data.findings,
        labels=_labels,
        select=_select,
        can_evaluate=lambda split: split.num_objects,
        records=records,
        write_to=write_to,
    )
    return data


def _require_masks(root: Path, name: str, splits: dict[str, ObjectSplit], accept_boxes: bool) -> None:
    total = sum(split.num_objects for split in splits.values())
    bare = total - sum(split.num_masks for split in splits.values())
    if bare and not (accept_boxes and bare == total):
        counts = ", ".join(
            f"{part} {split.num_objects - split.num_masks} of {split.num_objects}" for part, split in splits.items()
        )
        raise DataError(
            f"{root} ({name}) has {bare} of {total} objects with a box only, but this config needs polygons or masks "
            f"({counts}): for boxes alone choose a detector without masks, such as coco_deta_pe_b16"
        )


def _name_of(split: ObjectSplit) -> Callable[[dict], str]:
    """Return the function that returns the file name of an image's entry."""
    return partial(image_name, fields=LVIS_NAMES if split.federated else COCO_NAMES)


def _labels(split: ObjectSplit) -> dict[str, set[int]]:
    return labels_by_image(split.content, _name_of(split))


def _select(split: ObjectSplit, names: list[str]) -> ObjectSplit:
    return ObjectSplit(subset(split.content, names, _name_of(split)), split.images, federated=split.federated)
