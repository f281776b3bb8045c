"""Fit a model's config to its data: the number of classes wherever it has it, and whether it learns masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmengine.config import Config

from pe_dense.engine.config_parts import kind_of, set_below, walk_dicts

# Heads on regions whose `mask_head` may be None, by type without scope.
_OPTIONAL_MASKS = ("StandardRoIHead", "RoIHead", "CascadeRoIHead")


def set_num_classes(model: dict, count: int, num_things: int | None = None) -> int:
    """Set the number of classes in heads and losses, and the class weights that depend on it.

    Args:
        model: config of a model, changed in place.
        count: number of classes.
        num_things: for heads with things and stuff, the number of things; by default all classes are of the kind that
            the head has.

    Returns:
        number of heads and losses that were changed.
    """
    heads = list(mask_heads(model))
    _drop_weights(model)
    changed = set_below(model, "num_classes", count)
    for head in heads:
        old_things, old_stuff = head["num_things_classes"], head.get("num_stuff_classes", 0)
        things = num_things if num_things is not None else count if old_things or not old_stuff else 0
        weights = (head.get("loss_cls") or {}).get("class_weight")
        if isinstance(weights, list | tuple) and len(weights) == old_things + old_stuff + 1:
            head["loss_cls"]["class_weight"] = [weights[0]] * count + [weights[-1]]  # the last one is of the background
        head["num_things_classes"] = things
        if "num_stuff_classes" in head:
            head["num_stuff_classes"] = count - things
        changed += 1
    return changed


def _drop_weights(model: dict) -> None:
    """Remove class weights of heads with ``num_classes``, which are those of other data."""
    for part in walk_dicts(model):
        weights = part.get("class_weight")
        if isinstance(weights, list | tuple) and len(weights) == part.get("num_classes"):
            part["class_weight"] = None
        loss = part.get("loss_decode")
        for item in loss if isinstance(loss, list | tuple) else [loss]:
            if isinstance(item, dict) and isinstance(item.get("class_weight"), list | tuple):
                item["class_weight"] = None


def mask_heads(part) -> Iterator[dict]:
    """Iterate over the heads of mask transformers, which have things and stuff instead of classes."""
    return (item for item in walk_dicts(part) if "num_things_classes" in item)


def has_optional_masks(config: Config) -> bool:
    """Return whether a detector has a mask head that :func:`drop_masks` removes, unlike a mask transformer."""
    roi_head = config.model.get("roi_head") or {}
    return bool(roi_head.get("mask_head")) and kind_of(roi_head) in _OPTIONAL_MASKS


def drop_masks(config: Config) -> None:
    """Make a detector of boxes and masks one of boxes alone: the mask head, loaded masks and the metric of masks.

    Args:
        config: complete config with optional masks, changed in place.
    """
    config.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "tta_pipeline", "custom_hooks"):
        for step in walk_dicts(config.get(name)):
            if step.get("with_mask"):
                step["with_mask"] = False
    for name in ("val_evaluator", "test_evaluator"):
        for evaluator in walk_dicts(config.get(name)):
            if "segm" in (evaluator.get("metric") or ()):
                evaluator["metric"] = "bbox"
    saved = (config.get("default_hooks") or {}).get("checkpoint") or {}
    if isinstance(saved.get("save_best"), str):
        saved["save_best"] = saved["save_best"].replace("segm_", "bbox_")


def fit_to_checkpoint(config: Config, checkpoint) -> None:
    """Set the classes and the depth range of a model that a checkpoint of custom data was trained with.

    The mask head of a detector is removed if the checkpoint has none, since its data had boxes only. Classes are not
    changed if the config names those of its data set, which are compared with the checkpoint's.

    Args:
        config: complete config, changed in place.
        checkpoint: content of the file; MMEngine's runs write the metainfo of their data to ``meta.dataset_meta``.
    """
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    parts = {".".join(str(key).split(".")[:2]) for key in state or ()}
    if "roi_head.bbox_head" in parts and "roi_head.mask_head" not in parts and has_optional_masks(config):
        drop_masks(config)
    for key in ("meta", "dataset_meta"):
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    if not isinstance(checkpoint, Mapping) or (dataset.get("metainfo") or {}).get("classes"):
        return
    if isinstance(depth := checkpoint.get("max_depth"), int | float):
        set_below(config.model, "max_depth", float(depth))
    classes, things = checkpoint.get("classes"), checkpoint.get("thing_classes")
    if not isinstance(classes, list | tuple) or not classes:
        return
    is_panoptic = any(head["num_things_classes"] and head.get("num_stuff_classes") for head in mask_heads(config.model))
    if not is_panoptic:
        set_num_classes(config.model, len(classes))
    elif isinstance(things, list | tuple):
        set_num_classes(config.model, len(classes), len(things))
