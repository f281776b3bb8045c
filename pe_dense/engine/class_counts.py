"""Set the number of classes wherever a model's config has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmengine.config import Config


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


def _drop_weights(part) -> None:
    """Remove class weights of heads with ``num_classes``, which are those of other data."""
    if isinstance(part, dict):
        weights = part.get("class_weight")
        if isinstance(weights, list | tuple) and len(weights) == part.get("num_classes"):
            part["class_weight"] = None
        loss = part.get("loss_decode")
        for item in loss if isinstance(loss, list | tuple) else [loss]:
            if isinstance(item, dict) and isinstance(item.get("class_weight"), list | tuple):
                item["class_weight"] = None
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        _drop_weights(item)


def mask_heads(part) -> Iterator[dict]:
    """Iterate over the heads of mask transformers, which have things and stuff instead of classes."""
    if isinstance(part, dict):
        if "num_things_classes" in part:
            yield part
        for item in part.values():
            yield from mask_heads(item)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from mask_heads(item)


def set_below(part, name: str, value) -> int:
    """Set a value wherever a model's config has it, except in the RPN head, which is class-agnostic.

    Args:
        part: config to search; the complete model in the outermost call.
        name: key of the value.
        value: new value.

    Returns:
        number of changed values.
    """
    if isinstance(part, list | tuple):
        return sum(set_below(item, name, value) for item in part)
    if not isinstance(part, dict):
        return 0
    below = sum(set_below(item, name, value) for key, item in part.items() if key != "rpn_head")
    if name in part:
        part[name] = value
    return below + (name in part)


def fit_to_checkpoint(config: Config, checkpoint) -> None:
    """Set the classes and the depth range of a model that a checkpoint of custom data was trained with.

    Nothing is changed if the config names the classes of its data set, which are compared with the checkpoint's.

    Args:
        config: complete config, changed in place.
        checkpoint: content of the file; MMEngine's runs write the metainfo of their data to ``meta.dataset_meta``.
    """
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
