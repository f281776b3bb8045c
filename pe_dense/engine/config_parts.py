"""Search and change the dicts in a config."""

from __future__ import annotations

from collections.abc import Collection, Iterator


def walk_dicts(part, skip: Collection[str] = ()) -> Iterator[dict]:
    """Iterate over all dicts in a part of a config, in lists, too, from the outside in.

    Args:
        part: a dict, a list or another value.
        skip: keys whose values are left out.
    """
    if isinstance(part, dict):
        yield part
        children = [value for key, value in part.items() if key not in skip]
    else:
        children = part if isinstance(part, list | tuple) else ()
    for child in children:
        yield from walk_dicts(child, skip)


def kind_of(item: dict) -> str:
    """Return the type of a dict without its scope."""
    kind = item.get("type")
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def set_below(part, name: str, value) -> int:
    """Set a value wherever a model's config has it, except in the RPN head, which is class-agnostic.

    Args:
        part: config to search.
        name: key of the value.
        value: new value.

    Returns:
        number of changed values.
    """
    found = [item for item in walk_dicts(part, skip=("rpn_head",)) if name in item]
    for item in found:
        item[name] = value
    return len(found)
