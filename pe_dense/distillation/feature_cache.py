"""Cache of features on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pe_dense.utils.atomic_write import write_bytes

_NAME, _DIGEST = "features", "digest"


def digest(parts: Iterable[str | Tensor]) -> str:
    """Hash texts and tensors (values, shapes and types) to 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            part = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        else:
            part = part.encode()
        total.update(part)
    return total.hexdigest()


class FeatureCache:
    """One file per image and source of features.

    A file is named by a hash of the pixels that the source sees, which stand for the image and its augmentation, and by
    one of the source's weights and settings, so that a file is never out of date. It contains a hash of its features: a
    damaged or foreign file is computed again and replaced. Features with NaN or infinite values are not kept. The cache
    pays if the augmentation is fixed: random crops are never seen again, and would only fill the disk.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def get(self, images: Tensor, source: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Read features, or compute and write them.

        Args:
            images: (B, ...).
            source: a hash of what computes.
            compute: gives (M, ...) for the M images that are not in the cache.

        Returns:
            (B, ...), on the images' device.

        Raises:
            WriteError: if a file cannot be written: a full disk, a folder of its name, ...
        """
        paths = [self._path(digest([source, image])) for image in images]
        found = [_read(path) for path in paths]
        missing = [i for i, features in enumerate(found) if features is None]
        if len({(features.shape, features.dtype) for features in found if features is not None}) > 1:
            missing = list(range(len(images)))
        if missing:
            for i, features in zip(missing, compute(images[missing]), strict=True):
                _write(features, paths[i])
                found[i] = features
        return torch.stack([features.to(images.device) for features in found])

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.safetensors"


def _read(path: Path) -> Tensor | None:
    """Read features; None if there are none, or if the file is not what was written: they are computed again."""
    if not path.is_file():  # a folder or a pipe is refused when the file is written
        return None
    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(_DIGEST)
            features = file.get_tensor(_NAME)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError):
        return None
    if written != digest([features]):
        return None
    return features.clone()  # not mapped: the file may be replaced


def _write(features: Tensor, path: Path) -> None:
    features = features.detach().cpu().contiguous()
    if features.isfinite().all():
        write_bytes(path, save({_NAME: features}, metadata={_DIGEST: digest([features])}))
