"""MMEngine's runner, with strict and safe loading and with data looked at before training."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner as _Runner
from torch import Tensor
from torch.utils.data import DataLoader

from pe_dense.engine.data import check_images, empty_error
from pe_dense.io import CheckpointError, read_checkpoint, require_match
from pe_dense.registry import RUNNERS


def model_state(model, checkpoint, source: str) -> dict[str, Tensor]:
    """Find a whole model's state in a checkpoint and bring it to the model's names, strictly.

    A model may have a method ``from_published(state, source)`` that maps the layouts of released files to its own.

    Args:
        model: a model, on any device.
        checkpoint: a state dict, or a dict with one under ``state_dict`` or ``model``.
        source: how errors name the file.

    Returns:
        exactly the model's keys, in its shapes.

    Raises:
        CheckpointError: for a file of something else, or keys that do not fit (both sides named).
    """
    state = checkpoint
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise CheckpointError(f"{source} holds a {type(state).__name__}, not the state of a model")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if hasattr(model, "from_published"):
        state = model.from_published(state, source)
    require_match(model.state_dict(), state, source, f"this config's {type(model).__name__}")
    return state


def load_model_state(model, checkpoint, source: str) -> None:
    """Load what :func:`model_state` finds into a model, wrapped for distributed training or not."""
    model = model.module if is_model_wrapper(model) else model
    model.load_state_dict(model_state(model, checkpoint, source))


@RUNNERS.register_module()
class Runner(_Runner):
    """As MMEngine's, but checkpoints must fit and are read safely, and missing images are named before training."""

    def load_checkpoint(self, filename: str, map_location="cpu") -> dict:
        """Load a model's checkpoint; see :func:`load_model_state` for what is refused.

        Args:
            filename: path or ``hf://`` name.
            map_location: as in :func:`torch.load`.

        Returns:
            the file's content.
        """
        checkpoint = read_checkpoint(filename, map_location=map_location)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        load_model_state(self.model, checkpoint, str(filename))
        self._has_loaded = True
        self.logger.info(f"Loaded {filename}")
        return checkpoint

    @staticmethod
    def build_dataloader(dataloader, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        """As MMEngine's, but data sets must hold images, and the images must exist.

        Raises:
            ConfigError: see :mod:`pe_dense.engine.data`.
        """
        try:
            loader = _Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        except ValueError as error:
            if "need at least one array" in str(error):  # how MMEngine meets an empty list of images
                raise empty_error(dataloader["dataset"]) from error
            raise
        check_images(loader.dataset)
        return loader
