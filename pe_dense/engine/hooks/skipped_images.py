"""Report the images of a data set that could not be used."""

from __future__ import annotations

import logging

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.registry import HOOKS


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Log and count the images that a data set skipped, each once, over all processes.

    Data sets report them with the next good image, under ``skipped``: see
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
        # All processes come here at the same step.
        gathered = set().union(*all_gather_object(sorted(self._new)))
        self._new.clear()
        for reason in sorted(gathered - self._known):
            self._known.add(reason)
            if is_main_process():
                runner.logger.log(logging.WARNING, f"Skipped image {len(self._known)}: {reason}")
