"""MMEngine's local visualization backend, with atomic writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend as _LocalVisBackend
from mmengine.visualization.vis_backend import force_init_env

from pe_dense.utils.atomic_write import report_write_errors, write_text
from pe_dense.utils.image import write_png


class LocalVisBackend(_LocalVisBackend):
    """As MMEngine's, but pictures and the config are written atomically and a full disk is reported.

    (MMEngine's writes pictures by ``cv2.imwrite``, which returns False on a full disk.)
    """

    @force_init_env
    def add_config(self, config: Config, **kwargs) -> None:
        """Write the config."""
        write_text(self._config_save_file, config.pretty_text)

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Write an RGB image (H, W, 3) uint8 as ``<name>_<step>.png``."""
        write_png(Path(self._img_save_dir) / f"{name}_{step}.png", image)

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        with report_write_errors(file_path):
            super()._dump(value_dict, file_path, file_format)


def is_local(backend) -> bool:
    """Whether a config of a backend is of MMEngine's local one."""
    return isinstance(backend, dict) and backend.get("type") in (
        "LocalVisBackend",
        "mmengine.LocalVisBackend",
        _LocalVisBackend,
    )
