"""A probe: a head on one tap, or on several together, of a frozen tower."""

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
from pe_dense.utils.rng import fork_rng_at_initial_seed
from pe_dense.utils.state_dict import checkpoint_meta, unwrap_state


class FrozenBackboneMixin:
    """Mixin for mmseg's models on a :class:`FrozenTower`: sizes follow from the tower, and are checked.

    Images to test are filled up to whole patches; those of a batch may differ in size.

    Raises:
        ValueError: for a window or training size that is no multiple of the patch, windows with gaps, or another
            backbone.
    """

    test_modes: tuple[str, ...] = ("whole", "slide")

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
                raise InputError(f"{name} {tuple(size)} is no multiple of the tower's patches of {patch} px")
        self.data_preprocessor.test_cfg = dict(size_divisor=patch)
        if getattr(self.data_preprocessor, "size", None) is None:
            self.data_preprocessor.size_divisor = patch

    def init_weights(self) -> None:
        """Load the tower; heads start from what they were made with (MMEngine would draw parts of them anew)."""
        self.backbone.init_weights()

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list:
        """As mmseg's; images of different sizes come in a list and are each predicted by themselves."""
        if isinstance(inputs, Tensor):
            return super().predict(inputs, data_samples)
        pairs = zip(inputs, data_samples, strict=True)
        return [found for image, sample in pairs for found in self.predict(image, [sample])]


def sized(head: dict, tower: FrozenTower, num_taps: int) -> dict:
    """A head's config with what follows from the tower: ``width``, channels of a map, and ``num_taps``."""
    return dict(head, width=tower.out_channels, num_taps=num_taps)


PROBES, HEAD, TAPS = "probes.", "decode_head.", "backbone.taps"


class LayerProbe(FrozenBackboneMixin):
    """Mixin for mmseg's models: one head on the tower's taps, which also finds its weights in a sweep's checkpoint."""

    def _init_decode_head(self, decode_head: dict) -> None:
        with fork_rng_at_initial_seed():
            super()._init_decode_head(sized(decode_head, self.backbone, len(self.backbone.out_indices)))

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """As mmseg's, which fills each window's output up to the whole image: for 150 classes, gigabytes a window.

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
        """Take the probe of this config's layer out of a sweep's state; that of a probe stays as it is."""
        if not is_sweep(state):
            return state
        if len(self.backbone.out_indices) > 1:
            raise CheckpointError(
                f"{source} holds probes of single layers, the config's is on {list(self.backbone.out_indices)} together"
            )
        return take_probe(state, self.backbone.out_indices[0], source=source)


def probe_name(layer: int, setting: int) -> str:
    """How a sweep calls the probe of a layer, trained by one of its settings (numbered from 0)."""
    return f"{layer}-{setting}"


def is_sweep(state: Mapping[str, Tensor]) -> bool:
    """Whether a state is a sweep's."""
    return any(key.startswith(PROBES) for key in state)


def take_probe(state: Mapping[str, Tensor], layer: int, setting: int | None = None, source="the sweep") -> dict:
    """Take one probe out of a sweep's state.

    Args:
        state: of a sweep's model.
        layer: block number from 0.
        setting: number of its learning rate and weight decay; needed where the sweep has several.
        source: how errors name the state.

    Returns:
        the state of a single probe.

    Raises:
        CheckpointError: if there is no such probe, or several.
    """
    names = {key.split(".")[1] for key in state if key.startswith(PROBES)}
    if bad := sorted(name for name in names if not re.fullmatch(r"[0-9]{1,4}-[0-9]{1,4}", name)):
        raise CheckpointError(f"{source} has probes that are not named <layer>-<setting>: {', '.join(bad[:4])[:200]}")
    names = sorted(names, key=_numbers)
    if not names:
        raise CheckpointError(f"{source} holds no probes of a sweep")
    wanted = [name for name in names if _numbers(name)[0] == layer and setting in (None, _numbers(name)[1])]
    if len(wanted) != 1:
        what = f"layer {layer}" + ("" if setting is None else f", setting {setting}")
        raise CheckpointError(
            f"{source} holds {len(wanted)} probes of {what}, one is needed; it has (layer-setting) {', '.join(names)}. "
            "pe_dense.probing.save_probe writes one of them alone"
        )
    prefix = f"{PROBES}{wanted[0]}."
    taken = {key: value for key, value in state.items() if not key.startswith(PROBES)}
    taken |= {HEAD + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return taken | {TAPS: torch.tensor([layer])}


def save_probe(
    sweep: str | Path, path: str | Path, *, layer: int, setting: int | None = None, overwrite: bool = False
) -> Path:
    """Write one probe of a sweep's checkpoint alone, for the config of a single layer.

    Args:
        sweep: checkpoint or folder of the run.
        path: the file to write (.pth).
        layer, setting: as of :func:`take_probe`.
        overwrite: replace a file that exists.

    Returns:
        the path.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        CheckpointError: as :func:`take_probe`.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or pass overwrite=True")
    content = read_checkpoint(sweep)
    state = take_probe(unwrap_state(content, str(sweep)), layer, setting, str(sweep))
    write_probe(path, state, dict(checkpoint_meta(content, str(sweep)), layer=layer))
    return path


def write_probe(path: Path, state: Mapping[str, Tensor], meta: dict) -> None:
    """Write a probe's state and what is to be known of it."""
    write_checkpoint(path, dict(state_dict={key: value.cpu() for key, value in state.items()}, meta=meta))


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("-")))


@MODELS.register_module()
class ProbePreprocessor(SegDataPreProcessor):
    """As mmseg's, but images to test may differ in size: they then come as a list.

    Padding them to one size, as for training, would let results depend on an image's companions.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """As mmseg's; in testing ``inputs`` may be a list of (1, 3, H, W)."""
        images = data["inputs"]
        if training or len({tuple(image.shape) for image in images}) == 1:
            return super().forward(data, training)
        samples = data.get("data_samples") or [None] * len(images)
        parts = [
            super(ProbePreprocessor, self).forward(dict(inputs=[image], data_samples=[sample]), training)
            for image, sample in zip(images, samples, strict=True)
        ]
        return dict(inputs=[part["inputs"] for part in parts], data_samples=[part["data_samples"][0] for part in parts])
