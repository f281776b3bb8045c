"""Logs of a run: text, scalars, images, test results and skipped images.

Logs are appended line by line. A line is written completely or not at all; an incomplete line that a killed process
left at the end of a log is removed when the run is resumed.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import LocalBackend, dump
from mmengine.hooks import Hook
from mmengine.hooks import LoggerHook as _LoggerHook
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend as _LocalVisBackend
from mmengine.visualization.vis_backend import force_init_env

from pe_dense.registry import HOOKS
from pe_dense.utils.atomic_write import WriteError, append_line, cut_part_of_line, write_json, write_text
from pe_dense.utils.image import write_png

_LOGS = ("*/*.log", "*/vis_data/*.json")  # in a work dir


def heal_logs(work_dir: str | Path) -> None:
    """Remove incomplete lines that killed runs left at the ends of their logs.

    Args:
        work_dir: folder of the runs; read-only logs are not changed.
    """
    for pattern in _LOGS:
        for path in Path(work_dir).glob(pattern):
            with contextlib.suppress(WriteError):
                cut_part_of_line(path)


class LogFileHandler(logging.Handler):
    """Write log messages to a file, each completely or not at all.

    ``logging.FileHandler`` prints a traceback for each message while the disk is full and leaves parts of them.

    Args:
        path: file to append to.

    Raises:
        WriteError: for a message that can't be written, also from the call that logs it.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        self.path = Path(path).absolute()

    @classmethod
    def replace_in(cls, logger: logging.Logger) -> None:
        """Replace the file handlers of a logger."""
        for index, handler in enumerate(logger.handlers):
            if type(handler) is logging.FileHandler:
                own = cls(handler.baseFilename)
                own.setFormatter(handler.formatter)
                own.setLevel(handler.level)
                own.filters = handler.filters
                logger.handlers[index] = own
                handler.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Append a message."""
        append_line(self.path, self.format(record))


class LocalVisBackend(_LocalVisBackend):
    """MMEngine's ``LocalVisBackend``, with atomic writes and an error on a full disk.

    MMEngine's class writes images with ``cv2.imwrite``, which returns False on a full disk, and scalars in parts.
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
        append_line(file_path, dump(value_dict, file_format=file_format))


def is_local(backend) -> bool:
    """Return whether the config of a visualization backend is of MMEngine's local one."""
    return isinstance(backend, dict) and backend.get("type") in (
        "LocalVisBackend",
        "mmengine.LocalVisBackend",
        _LocalVisBackend,
    )


class LoggerHook(_LoggerHook):
    """MMEngine's ``LoggerHook``, with atomic writes of a test's results and of the copies of logs in ``out_dir``."""

    def before_run(self, runner: Runner) -> None:
        """See MMEngine's ``LoggerHook``."""
        super().before_run(runner)
        if self.out_dir is not None and type(self.file_backend) is LocalBackend:
            self.file_backend = _AtomicBackend()

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Log the results and write them to ``<time of the run>.json``."""
        tags, text = runner.log_processor.get_log_after_epoch(
            runner, len(runner.test_dataloader), "test", with_non_scalar=True
        )
        runner.logger.info(text)
        write_json(Path(runner.log_dir) / self.json_log_path, self._process_tags(tags))


class _AtomicBackend(LocalBackend):
    """MMEngine's access to local files, with atomic writes of texts."""

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        write_text(filepath, obj)


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Log and count the images that a data set skipped, each once, over all processes.

    Data sets return them with the next usable image, under ``skipped``: see
    :class:`~pe_dense.datasets.image_folder.ImageFolder`.

    Args:
        interval: training steps between reports.
    """

    def __init__(self, interval: int = 50):
        self.interval = interval
        self._new: set[str] = set()
        self._known: set[str] = set()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Collect skipped images and report them every ``interval`` iterations and after the last one."""
        for reasons in data_batch["skipped"]:
            self._new.update(reasons.splitlines())
        if not self.every_n_train_iters(runner, self.interval) and not self.is_last_train_iter(runner):
            return
        # All processes reach this point in the same step.
        gathered = set().union(*all_gather_object(sorted(self._new)))
        self._new.clear()
        for reason in sorted(gathered - self._known):
            self._known.add(reason)
            if is_main_process():
                runner.logger.log(logging.WARNING, f"Skipped image {len(self._known)}: {reason}")
