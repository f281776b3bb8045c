"""Features that are computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pe_dense.utils.atomic_write import write_bytes


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
    one of the source's weights and settings. So nothing that is found can be out of date. It pays where the
    augmentation is fixed: random crops are never seen again, and would only fill the disk.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def get(self, images: Tensor, source: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Read features, or compute and keep them.

        Args:
            images: (B, ...).
            source: a hash of what computes.
            compute: gives (M, ...) for those M of the images that are not there yet.

        Returns:
            (B, ...), on the images' device.
        """
        paths = [self._path(digest([source, image])) for image in images]
        found = [_read(path) for path in paths]
        missing = [i for i, features in enumerate(found) if features is None]
        if missing:
            for i, features in zip(missing, compute(images[missing]), strict=True):
                _write(features, paths[i])
                found[i] = features
        return torch.stack([features.to(images.device) for features in found])

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.safetensors"


def _read(path: Path) -> Tensor | None:
    try:
        return load_file(path)["features"]
    except (FileNotFoundError, SafetensorError):  # not there, or damaged: computed again
        return None


def _write(features: Tensor, path: Path) -> None:
    write_bytes(path, save({"features": features.cpu().contiguous()}))
