"""What a run builds when it starts training or testing, with errors of libraries as user errors."""

from __future__ import annotations

from mmengine.runner import Runner

from pe_dense.utils.errors import library_errors


class CheckedBuilding(Runner):
    """MMEngine's runner, which reports arguments that a library refuses in one line.

    Loops, optimizers, schedulers and metrics are built by ``train``, ``val`` and ``test``, where other exceptions are
    bugs and keep their traceback.
    """

    def build_train_loop(self, loop):
        """As MMEngine's, with its data loader."""
        with library_errors("train_cfg and train_dataloader can't be used with these values"):
            return super().build_train_loop(loop)

    def build_val_loop(self, loop):
        """As MMEngine's, with data loader and metrics."""
        with library_errors("val_cfg, val_dataloader and val_evaluator can't be used with these values"):
            return super().build_val_loop(loop)

    def build_test_loop(self, loop):
        """As MMEngine's, with data loader and metrics."""
        with library_errors("test_cfg, test_dataloader and test_evaluator can't be used with these values"):
            return super().build_test_loop(loop)

    def build_optim_wrapper(self, optim_wrapper):
        """As MMEngine's."""
        with library_errors("optim_wrapper can't be built from these values"):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler):
        """As MMEngine's."""
        with library_errors("param_scheduler can't be built from these values"):
            return super().build_param_scheduler(scheduler)
