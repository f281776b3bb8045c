"""Implementation of `tools/explore.py`: load backbones and create the server."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import MMLogger

from pe_dense.apps.explorer.app import is_loopback
from pe_dense.apps.explorer.explorer import MIN_SIZE, Explorer
from pe_dense.apps.explorer.server import ExplorerServer
from pe_dense.backbones import PE_CONFIGS
from pe_dense.backbones.base import TIMM_PREFIX, Backbone
from pe_dense.backbones.build import RANDOM, choose_device, open_tower
from pe_dense.language.both_towers import open_both_towers
from pe_dense.language.clip import CLIP, clip_file, clip_state
from pe_dense.language.text_tower import TEXT_CONFIGS
from pe_dense.utils import CheckpointError, read_checkpoint
from pe_dense.utils.errors import ConfigError

_logger = logging.getLogger(__name__)


def start(
    towers: Sequence[str], *, host: str, port: int, max_size: int, device: str | None
) -> tuple[ExplorerServer, str]:
    """Load backbones and create the server of the page.

    Args:
        towers: for each backbone the name of a published one, ``<name>=<weights>``, or the checkpoint of a run.
        host, port: address to listen on.
        max_size: upper limit in pixels of the longer side at which images are run.
        device: device of the backbones; a GPU by default, if there is one.

    Returns:
        the server, and the URL of the page.

    Raises:
        ConfigError: if the maximum size or the port is out of range, a backbone is given twice, or the address is not
            available.
        ValueError, FileNotFoundError: as in :func:`~pe_dense.backbones.build.open_tower` and
            :func:`~pe_dense.backbones.build.choose_device`.
    """
    shown = f"[{host}]" if ":" in host else host
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port} is out of range: it must be 0 to {2**16 - 1}")
    if max_size < MIN_SIZE:
        raise ConfigError(f"--max-size {max_size} is too small: it must be at least {MIN_SIZE}")
    if len(set(towers)) < len(towers):
        raise ConfigError(f"each backbone may be given once, got {', '.join(towers)}")
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    device = choose_device(device)
    opened = {name: _open(name, device) for name in towers}
    clips = {name: clip for name, (_, clip) in opened.items() if clip}
    explorer = Explorer({name: tower for name, (tower, _) in opened.items()}, clips, max_size=max_size)
    try:
        server = ExplorerServer(explorer, host, port)
    except OSError as error:
        place = f"{shown}:{port}"
        raise ConfigError(f"cannot listen on {place} ({error.strerror}): use another --host or --port") from error
    if not is_loopback(host):
        _logger.warning("The page has no password, and other machines can reach it on %s", host)
    return server, f"http://{shown}:{server.address[1]}/"


def _open(name: str, device: torch.device) -> tuple[Backbone, CLIP | None]:
    """Load a backbone, with its text tower if there is one."""
    arch, separator, weights = name.partition("=")
    known = arch in PE_CONFIGS or arch.startswith(TIMM_PREFIX)
    arch, weights = (arch, weights if separator else None) if known else (None, name)
    if _has_text_tower(arch, weights):
        clip = open_both_towers(arch, weights, device=device)
        return clip.visual, clip
    return open_tower(arch, weights, device=device), None


def _has_text_tower(arch: str | None, weights: str | None) -> bool:
    if arch is not None and arch not in TEXT_CONFIGS:
        return False
    if weights in (None, RANDOM):
        return arch is not None
    try:
        clip_state(read_checkpoint(clip_file(weights)), weights)
    except CheckpointError:  # without one; if it cannot be read at all, `open_tower` says so
        return False
    return True
