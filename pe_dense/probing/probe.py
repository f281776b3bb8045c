"""Probe: a head on one or several feature maps of a frozen backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmseg.models import SegDataPreProcessor
from torch import Tensor

from pe_dense.backbones.frozen import FrozenTower
from pe_dense.probing.sliding_window import complete_windows, windows_of
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError, read_checkpoint
from pe_dense.utils.checkpoint import write_checkpoint
from pe_dense.utils.errors import InputError
from pe_dense.utils.hub import HubMixin
from pe_dense.utils.rng import fork_rng_at_initial_seed
from pe_dense.utils.state_dict import checkpoint_meta, match_state_dict, unwrap_state

FROZEN = "frozen_tower."  # prefix of the backbone's weights in files of the hub


class FrozenBackboneMixin(HubMixin):
    """Mixin for mmseg models with a :class:`FrozenTower` as backbone, which sets and checks input sizes.

    Test images are padded to a multiple of the patch size; images of a batch may differ in size.

    Raises:
        ValueError: if a sliding window or training size is not a multiple of the patch size, sliding windows leave
            gaps, or the backbone is not a :class:`FrozenTower`.
    """

    test_modes: tuple[str, ...] = ("whole", "slide")
    default_scope = "mmseg"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if not isinstance(self.backbone, FrozenTower):
            raise InputError(f"{type(self).__name__} needs a FrozenTower, got a {type(self.backbone).__name__}")
        self.test_cfg = complete_windows(self.test_cfg, self.test_modes)
        patch = self.backbone.patch_size
        for name, size in (
            ("test_cfg.crop_size", self.test_cfg.get("crop_size")),
            ("data_preprocessor.size", getattr(self.data_preprocessor, "size", None)),
        ):
            if any(side % patch for side in size or ()):
                raise InputError(f"{name} {tuple(size)} is not a multiple of the patch size {patch} of the backbone")
        self.data_preprocessor.test_cfg = dict(size_divisor=patch)
        if getattr(self.data_preprocessor, "size", None) is None:
            self.data_preprocessor.size_divisor = patch

    def init_weights(self) -> None:
        """Load the backbone; heads keep their initial weights, parts of which MMEngine would initialize again."""
        self.backbone.init_weights()

    def hub_state(self) -> dict[str, Tensor]:
        """Return the state dict with the weights of the backbone, which checkpoints do not contain."""
        tower = self.backbone.tower.state_dict()
        return dict(self.state_dict()) | {f"{FROZEN}{key}": value for key, value in tower.items()}

    def load_hub_state(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load the result of :meth:`hub_state`, which must match exactly."""
        tower = {key.removeprefix(FROZEN): value for key, value in state.items() if key.startswith(FROZEN)}
        match_state_dict(self.backbone.tower.state_dict(), tower, source, self.backbone.tower.name)
        self.backbone.tower.load_state_dict(tower)
        super().load_hub_state({key: value for key, value in state.items() if not key.startswith(FROZEN)}, source)

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list:
        """Predict as mmseg does; images of different sizes are passed as a list and predicted one by one."""
        if isinstance(inputs, Tensor):
            return super().predict(inputs, data_samples)
        pairs = zip(inputs, data_samples, strict=True)
        return [found for image, sample in pairs for found in self.predict(image, [sample])]


def sized(head: dict, tower: FrozenTower, num_taps: int) -> dict:
    """Add the sizes of the backbone to a head config: ``width``, channels of a map, and ``num_taps``."""
    return dict(head, width=tower.out_channels, num_taps=num_taps)


PROBES, HEAD, TAPS = "probes.", "decode_head.", "backbone.taps"


class LayerProbe(FrozenBackboneMixin):
    """Mixin for mmseg models with one head on a frozen backbone; it can also load a probe of a sweep checkpoint."""

    def _init_decode_head(self, decode_head: dict) -> None:
        with fork_rng_at_initial_seed():
            super()._init_decode_head(sized(decode_head, self.backbone, len(self.backbone.out_indices)))

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict with sliding windows.

        Unlike mmseg, this does not pad the output of each window to the whole image, which takes gigabytes per window
        for 150 classes.

        Args:
            inputs: (B, 3, H, W).
            batch_img_metas: not used.

        Returns:
            outputs (B, K, H, W).
        """
        windows = windows_of(inputs, self.test_cfg)
        outputs = (self.encode_decode(part, [dict(img_shape=part.shape[-2:])]) for part in windows.cut(inputs))
        return windows.merge(outputs)

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Extract the probe of the configured layer from the state dict of a sweep; return other state dicts as is."""
        if not is_sweep(state):
            return state
        if len(self.backbone.out_indices) > 1:
            raise CheckpointError(
                f"{source} has probes of single layers, but the config uses layers {list(self.backbone.out_indices)}"
            )
        return take_probe(state, self.backbone.out_indices[0], source=source)


def probe_name(layer: int, setting: int) -> str:
    """Return the name of a layer's probe in a sweep, trained with one of the settings (numbered from 0)."""
    return f"{layer}-{setting}"


def is_sweep(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is that of a sweep."""
    return any(key.startswith(PROBES) for key in state)


def take_probe(state: Mapping[str, Tensor], layer: int, setting: int | None = None, source="the sweep") -> dict:
    """Extract one probe from the state dict of a sweep.

    Args:
        state: state dict of a sweep model.
        layer: block number from 0.
        setting: index of the learning rate and weight decay; required if the sweep has several settings.
        source: name of the state dict in error messages.

    Returns:
        the state dict of a single probe.

    Raises:
        CheckpointError: if no probe or several probes match.
    """
    names = {key.split(".")[1] for key in state if key.startswith(PROBES)}
    if bad := sorted(name for name in names if not re.fullmatch(r"[0-9]{1,4}-[0-9]{1,4}", name)):
        raise CheckpointError(f"{source} has probes that are not named <layer>-<setting>: {', '.join(bad[:4])[:200]}")
    names = sorted(names, key=_numbers)
    if not names:
        raise CheckpointError(f"{source} contains no probes of a sweep")
    wanted = [name for name in names if _numbers(name)[0] == layer and setting in (None, _numbers(name)[1])]
    if len(wanted) != 1:
        what = f"layer {layer}" + ("" if setting is None else f", setting {setting}")
        raise CheckpointError(
            f"{source} contains {len(wanted)} probes of {what}, expected 1; available (layer-setting): "
            f"{', '.join(names)}. Use pe_dense.probing.save_probe to extract one"
        )
    prefix = f"{PROBES}{wanted[0]}."
    taken = {key: value for key, value in state.items() if not key.startswith(PROBES)}
    taken |= {HEAD + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return taken | {TAPS: torch.tensor([layer])}


def save_probe(
    sweep: str | Path, path: str | Path, *, layer: int, setting: int | None = None, overwrite: bool = False
) -> Path:
    """Save one probe of a sweep checkpoint to a file, for use with the config of a single layer.

    Args:
        sweep: checkpoint or work dir of the sweep.
        path: output file (.pth).
        layer, setting: see :func:`take_probe`.
        overwrite: replace an existing file.

    Returns:
        the path of the file.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        CheckpointError: see :func:`take_probe`.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or pass overwrite=True")
    content = read_checkpoint(sweep)
    state = take_probe(unwrap_state(content, str(sweep)), layer, setting, str(sweep))
    write_probe(path, state, dict(checkpoint_meta(content, str(sweep)), layer=layer))
    return path


def write_probe(path: Path, state: Mapping[str, Tensor], meta: dict) -> None:
    """Write the state dict of a probe and its metadata."""
    write_checkpoint(path, dict(state_dict={key: value.cpu() for key, value in state.items()}, meta=meta))


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("-")))


@MODELS.register_module()
class ProbePreprocessor(SegDataPreProcessor):
    """mmseg's data preprocessor with support for test batches of images of different sizes, returned as a list.

    Padding them to one size, as in training, would make results depend on the other images of the batch.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch as mmseg does; in testing ``inputs`` may be a list of (1, 3, H, W) tensors."""
        images = data["inputs"]
        if training or len({tuple(image.shape) for image in images}) == 1:
            return super().forward(data, training)
        samples = data.get("data_samples") or [None] * len(images)
        parts = [
            super(ProbePreprocessor, self).forward(dict(inputs=[image], data_samples=[sample]), training)
            for image, sample in zip(images, samples, strict=True)
        ]
        return dict(inputs=[part["inputs"] for part in parts], data_samples=[part["data_samples"][0] for part in parts])
