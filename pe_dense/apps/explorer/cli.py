"""`tools/explore.py` behind its arguments."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http.server import ThreadingHTTPServer

import torch
from mmengine.logging import MMLogger

from pe_dense.apps.explorer.explorer import SMALLEST_SIZE, Explorer
from pe_dense.apps.explorer.server import is_loopback, make_server
from pe_dense.backbones import VARIANTS, PETower
from pe_dense.backbones.build import choose_device, open_tower
from pe_dense.utils.errors import ConfigError

_logger = logging.getLogger(__name__)


def start(
    towers: Sequence[str], *, host: str, port: int, max_size: int, device: str | None
) -> tuple[ThreadingHTTPServer, str]:
    """Load towers and make the page's server.

    Args:
        towers: each a published name, ``<name>=<weights>``, or the checkpoint of a run.
        host, port: where to listen.
        max_size: longest side in pixels at which photos may be run.
        device: of the towers; a GPU where there is one by default.

    Returns:
        the server, and the page's address.

    Raises:
        ConfigError: for a size that is too small, a tower named twice, or a device, host or port that can't be had.
        ValueError, FileNotFoundError: as :func:`~pe_dense.backbones.build.open_tower`.
    """
    shown = f"[{host}]" if ":" in host else host
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port} is not within 0..{2**16 - 1}")
    if max_size < SMALLEST_SIZE:
        raise ConfigError(f"--max-size {max_size} is below {SMALLEST_SIZE}")
    if len(set(towers)) < len(towers):
        raise ConfigError(f"a tower is named twice: {', '.join(towers)}")
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    device = choose_device(device)
    explorer = Explorer({name: _open(name, device) for name in towers}, max_size=max_size)
    try:
        server = make_server(explorer, host, port)
    except OSError as error:
        place = f"{shown}:{port}"
        raise ConfigError(f"can't listen on {place} ({error.strerror}): name another --host or --port") from error
    if not is_loopback(host):
        _logger.warning("Other machines can reach this page on %s and use it", host)
    return server, f"http://{shown}:{server.server_address[1]}/"


def _open(name: str, device: torch.device) -> PETower:
    arch, separator, weights = name.partition("=")
    if arch in VARIANTS:
        return open_tower(arch, weights if separator else None, device=device)
    return open_tower(None, name, device=device)
