"""Cache of teacher features on disk."""

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
    """Hash strings and tensors (values, shapes and dtypes) to 32 hexadecimal digits."""
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
    """Content-addressed cache of features, with one file per image and source.

    The file name is a hash of the input pixels (after augmentation) and of the weights and settings of the source, so
    files cannot be outdated. Each file contains a hash of its features: corrupt or foreign files are recomputed and
    replaced. Features with NaN or infinite values are not stored. The cache is only useful with a fixed augmentation:
    random crops do not recur and would only fill the disk.

    Args:
        folder: cache folder, created when the first file is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def get(self, images: Tensor, source: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Read features from the cache, or compute and store them.

        Args:
            images: (B, ...).
            source: hash of weights and settings of the source.
            compute: function that computes features (M, ...) for the M images that are not in the cache.

        Returns:
            (B, ...), on the device of ``images``.

        Raises:
            WriteError: if a file cannot be written, for example because the disk is full.
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
    """Read features; None if the file does not exist or is corrupt, in which case they are recomputed."""
    if not path.is_file():  # a folder or pipe of this name raises an error on writing
        return None
    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(_DIGEST)
            features = file.get_tensor(_NAME)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError):
        return None
    if written != digest([features]):
        return None
    return features.clone()  # copy from the memory map, because the file may be replaced


def _write(features: Tensor, path: Path) -> None:
    features = features.detach().cpu().contiguous()
    if features.isfinite().all():
        write_bytes(path, save({_NAME: features}, metadata={_DIGEST: digest([features])}))
