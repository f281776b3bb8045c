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
from pe_dense.backbones.build import choose_device, open_tower
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
    explorer = Explorer({name: _open(name, device) for name in towers}, max_size=max_size)
    try:
        server = ExplorerServer(explorer, host, port)
    except OSError as error:
        place = f"{shown}:{port}"
        raise ConfigError(f"cannot listen on {place} ({error.strerror}): use another --host or --port") from error
    if not is_loopback(host):
        _logger.warning("The page has no password, and other machines can reach it on %s", host)
    return server, f"http://{shown}:{server.address[1]}/"


def _open(name: str, device: torch.device) -> Backbone:
    arch, separator, weights = name.partition("=")
    if arch in PE_CONFIGS or arch.startswith(TIMM_PREFIX):
        return open_tower(arch, weights if separator else None, device=device)
    return open_tower(None, name, device=device)
