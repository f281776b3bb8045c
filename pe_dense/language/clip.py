"""PE Core with both towers: embed images, videos and texts in one space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pe_dense.backbones import PEConfig, PETower, save_state
from pe_dense.backbones.build import allowed_options, fitting_names, trained_model
from pe_dense.backbones.checkpoint import adapt_backbone_state
from pe_dense.backbones.pe_configs import PE_CONFIGS
from pe_dense.language.open_clip import LANDMARK, from_open_clip, to_open_clip
from pe_dense.language.text_tower import TEXT_CONFIGS, TextConfig, TextTower, check_has_text_tower, get_text_config
from pe_dense.utils import CheckpointError, match_state_dict, read_checkpoint
from pe_dense.utils.errors import InputError
from pe_dense.utils.hub import HubMixin
from pe_dense.utils.package_weights import published_weights
from pe_dense.utils.state_dict import checkpoint_meta, unwrap_state

LAYOUTS = ("pe", "open_clip")
_VISUAL = "visual."
_IMAGE, _TEXT = "visual.conv1.weight", "token_embedding.weight"  # parameters that every file with both towers has
_META = "clip"  # entry of a checkpoint's `meta` with the two configs
_OPEN_CLIP_FILE = "open_clip_model.safetensors"
_MAX_SIZE = 1 << 20  # of a number in a checkpoint's config


class CLIP(HubMixin, TextTower):
    """Image tower and text tower of PE Core, with the published parameter names.

    The image tower is the submodule ``visual``, the parameters of the text tower are at the top level. In shapes N is
    the batch, T the number of frames, S the image size, L the number of tokens, D the embedding's channels.

    Args:
        vision: architecture of the image tower, as of :class:`~pe_dense.backbones.PETower`; it needs a pooling.
        text: architecture of the text tower, as of :func:`~pe_dense.language.text_tower.get_text_config`. By default
            the one of the published model that ``vision`` names.
        vision_options: further arguments of :class:`~pe_dense.backbones.PETower`.
        text_with_cp: activation checkpointing of the text tower's blocks in training.

    Raises:
        ValueError: for a model without a text tower, or towers whose embeddings differ in size.
    """

    def __init__(
        self,
        vision: str | dict | PEConfig,
        text: str | dict | TextConfig | None = None,
        vision_options: dict | None = None,
        text_with_cp: bool = False,
    ):
        if text is None:
            if not isinstance(vision, str):
                raise InputError(
                    "an image tower given by fields needs the fields of its text tower: pass text=dict(...)"
                )
            text = vision
        super().__init__(text, text_with_cp)
        self.visual = PETower(vision, **(vision_options or {}))
        self.vision_config = config = self.visual.config
        if not self.visual.has_head or config.pool_type == "none":
            raise InputError(
                f"{self.visual.name} has no pooled embedding to compare with texts; models with both towers: "
                f"{', '.join(TEXT_CONFIGS)}"
            )
        size = config.output_dim or config.width
        if size != self.text_config.output_dim:
            raise InputError(
                f"image embeddings have {size} channels and text embeddings {self.text_config.output_dim}: the towers "
                "are not of one model"
            )
        self.name = vision if isinstance(vision, str) else "a CLIP given by fields"
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def image_size(self) -> int:
        """Image size in pixels that the model was trained with."""
        return self.visual.image_size

    pretrain_image_size = image_size  # name in the first published version

    @staticmethod
    def available_configs() -> list[str]:
        """Return the names of the published models."""
        return list(reversed(TEXT_CONFIGS))

    @classmethod
    def from_config(cls, name: str, pretrained: bool = False, checkpoint_path: str | Path | None = None) -> CLIP:
        """Build a published model, as in the published code; see also :func:`load_clip`.

        Args:
            name: one of :meth:`available_configs`.
            pretrained: load the published weights.
            checkpoint_path: path or ``hf://`` name of weights to load instead of the published ones.

        Raises:
            ValueError, CheckpointError, FileNotFoundError: as :func:`load_clip`.
        """
        check_has_text_tower(name)
        if pretrained:
            return load_clip(checkpoint_path or name, name)
        return cls(name)

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """Embed images.

        Args:
            image: (N, 3, H, W), normalized; sides are multiples of the patch size.
            normalize: scale embeddings to unit length.

        Returns:
            (N, D).

        Raises:
            ValueError: for another shape.
        """
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise InputError(
                f"image is a normalized batch (N, 3, H, W), got {image.dtype} of shape {tuple(image.shape)}"
            )
        embeddings = self.visual.forward_pooled(image)
        return F.normalize(embeddings, dim=-1) if normalize else embeddings

    def encode_video(self, video: Tensor, normalize: bool = False) -> Tensor:
        """Embed videos by the mean of their frames' embeddings.

        Args:
            video: (N, T, 3, H, W), normalized; the published evaluations use the 8 frames of
                :func:`~pe_dense.language.preprocessing.video_frame_indices`.
            normalize: scale the frames' embeddings to unit length before averaging. As in the published code, the mean
                is not normalized again.

        Returns:
            (N, D).

        Raises:
            ValueError: for another shape.
        """
        if video.dim() != 5 or not video.shape[1]:
            raise InputError(f"video is a batch (N, T, 3, H, W) with at least one frame, got {tuple(video.shape)}")
        frames = self.encode_image(video.flatten(0, 1), normalize)
        return frames.unflatten(0, video.shape[:2]).mean(dim=1)

    def forward(
        self, image: Tensor | None = None, text: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Compute normalized embeddings and the logit scale, as in the published code.

        Args:
            image: (N, 3, H, W), normalized, or None.
            text: (M, L) token ids, or None.

        Returns:
            image embeddings (N, D), text embeddings (M, D), each of unit length or None, and the factor of their
            cosine similarities, a scalar.
        """
        return (
            None if image is None else self.encode_image(image, normalize=True),
            None if text is None else self.encode_text(text, normalize=True),
            self.logit_scale.exp(),
        )

    def from_published(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Bring a file's state dict of both towers to this model's names and shapes, strictly.

        Args:
            state: in a layout of :func:`clip_state`.
            source: how errors name the file.

        Raises:
            CheckpointError: as :func:`load_clip`.
        """
        return _fit(self, clip_state(state, source), source)


def load_clip(
    source: str | Path,
    vision: str | dict | PEConfig | None = None,
    text: str | dict | TextConfig | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    vision_options: dict | None = None,
) -> CLIP:
    """Load both towers of a PE Core model, strictly.

    The file may be a checkpoint of a run of ``pe_dense.ContrastiveCLIP``, or have the published layout or
    open_clip's; it may wrap the state dict under ``state_dict``, ``weights`` or ``model``, and may prefix its keys by
    ``module.``.

    Args:
        source: name of a published model ('PE-Core-B16-224'), path of a file, or ``hf://`` name
            (``hf://timm/PE-Core-B-16`` for a repository in open_clip's layout).
        vision, text: as of :class:`CLIP`. By default the configs that :func:`save_clip` or the training run wrote into
            the file, or those of the published model with these shapes.
        device: where the model goes.
        dtype: of its parameters.
        vision_options: further arguments of the image tower's :class:`~pe_dense.backbones.PETower`.

    Returns:
        the model, in evaluation mode.

    Raises:
        ValueError: for a name without a text tower, or towers that do not fit together.
        CheckpointError: for a file without both towers, or that does not fit; names the keys.
        FileNotFoundError: if there is no such file.
    """
    source = str(source)
    if source in PE_CONFIGS or source.startswith("PE-") and not Path(source).exists():
        check_has_text_tower(source)
        vision, source = vision or source, published_weights(source)
    source = clip_file(source)
    checkpoint = read_checkpoint(source)
    state = clip_state(checkpoint, source)
    if vision is None:
        vision, text, options = _find_configs(checkpoint, state, source)
        vision_options = options | (vision_options or {})
    with torch.device("meta"):
        model = CLIP(vision, text, vision_options)
    state = _fit(model, state, source)
    model.load_state_dict(state, assign=True)
    return model.to(device=device, dtype=dtype).eval()


def clip_file(source: str) -> str:
    """Complete the name of a repository in open_clip's layout, ``hf://timm/PE-Core-B-16``, by that of its file."""
    return f"{source}/{_OPEN_CLIP_FILE}" if source.startswith("hf://timm/") and source.count("/") == 3 else source


def load_clip_weights(model: CLIP, source: str | Path) -> None:
    """Load the weights of a file into both towers; names and forms of files as of :func:`load_clip`.

    Raises:
        CheckpointError, FileNotFoundError: as :func:`load_clip`.
    """
    source = str(source)
    model.load_state_dict(_fit(model, clip_state(read_checkpoint(clip_file(source)), source), source))


def clip_state(checkpoint, source: str = "checkpoint") -> dict[str, Tensor]:
    """Find the state dict of both towers in a checkpoint, in the published layout.

    Args:
        checkpoint: content of a file.
        source: name of the file in errors.

    Returns:
        the state dict; of a model that contains both towers under one prefix, only theirs.

    Raises:
        CheckpointError: if there is no text tower or no image tower; says which models have both.
    """
    state = unwrap_state(checkpoint, source, ("state_dict", "weights", "model"))
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if LANDMARK in state:
        return from_open_clip(state, source)
    prefixes = [key.removesuffix(_TEXT) for key in state if key.endswith("." + _TEXT)]
    if len(prefixes) == 1 and prefixes[0] + _IMAGE in state:  # a checkpoint of a training run
        state = {key.removeprefix(prefixes[0]): value for key, value in state.items() if key.startswith(prefixes[0])}
    both = f"models with both towers: {', '.join(TEXT_CONFIGS)}"
    if _IMAGE not in state:
        only = (
            "only an image tower (a Lang or Spatial model?)" if "conv1.weight" in state else "no image tower 'visual.*'"
        )
        raise CheckpointError(f"{source} contains {only}; {both}")
    if _TEXT not in state:
        raise CheckpointError(f"{source} contains no text tower (no {_TEXT}); {both}")
    return state


def _fit(model: CLIP, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Check a state dict in the published layout against a model; resample the image tower's positions if necessary."""
    visual = {key.removeprefix(_VISUAL): value for key, value in state.items() if key.startswith(_VISUAL)}
    visual = adapt_backbone_state(model.visual, visual, source)
    state = {key: value for key, value in state.items() if not key.startswith(_VISUAL)}
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(_VISUAL)}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())
    match_state_dict(own, state, source, f"the text tower of {model.name}")
    return state | {_VISUAL + key: value for key, value in visual.items()}


def _find_configs(checkpoint, state: Mapping[str, Tensor], source: str) -> tuple:
    """Return the configs of both towers and options of the image tower.

    They are those in the file, or those of the published model with these shapes.
    """
    recorded = checkpoint_meta(checkpoint, source).get(_META)
    if recorded is not None:
        return *_recorded_configs(recorded, source), {}
    run = trained_model(checkpoint)
    if run and run.get("type") == "pe_dense.ContrastiveCLIP" and isinstance(run.get("backbone"), dict):
        options = allowed_options(run["backbone"], source)
        arch, text = options.pop("arch"), run.get("text")
        return arch, None if text is None else _recorded_text(text, source), options
    for name, text in TEXT_CONFIGS.items():
        config = PE_CONFIGS[name]
        conv1, positions = state["visual.conv1.weight"], state.get("positional_embedding")
        if (
            conv1.shape == (config.width, 3, config.patch_size, config.patch_size)
            and f"visual.transformer.resblocks.{config.layers - 1}.ln_1.weight" in state
            and f"visual.transformer.resblocks.{config.layers}.ln_1.weight" not in state
            and positions is not None
            and positions.shape == (text.context_length, text.width)
        ):
            return name, None, {}
    raise CheckpointError(
        f"{source} has the shapes of no published model: pass vision=dict(...) and text=dict(...) with the fields of "
        "its towers"
    )


def _recorded_configs(recorded, source: str) -> tuple[PEConfig, TextConfig]:
    """Read configs from an untrusted checkpoint: only known fields with plain, bounded values are accepted."""
    towers = [recorded.get(key) if isinstance(recorded, dict) else None for key in ("vision", "text")]
    try:
        _check_plain(*towers)
        return PEConfig(**towers[0]), get_text_config(towers[1])
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{source}: meta.{_META} does not describe two towers: {error}") from error


def _recorded_text(text, source: str) -> TextConfig:
    """Config of the text tower from the config of a run, which may come from anywhere."""
    try:
        if not isinstance(text, str):
            _check_plain(text)
        return get_text_config(text)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{source}: the config of its run does not describe a text tower: {error}") from error


def _check_plain(*towers) -> None:
    """Raise a user error unless all values are short words, or numbers of a limited size or a few of them."""

    def is_plain(value) -> bool:
        if isinstance(value, list | tuple):
            return len(value) < 100 and all(isinstance(number, int) and is_plain(number) for number in value)
        is_word = isinstance(value, str) and len(value) < 20
        return value is None or is_word or isinstance(value, int | float) and 0 <= value <= _MAX_SIZE

    if not all(isinstance(tower, dict) and all(map(is_plain, tower.values())) for tower in towers):
        raise InputError("its values are not plain numbers")


def export_clip(source: str | Path, path: str | Path, **options) -> list[str]:
    """Write both towers of a training run in the published layout.

    Args:
        source: checkpoint or work dir (its last checkpoint) of a run of ``pe_dense.ContrastiveCLIP``.
        path, options: see :func:`~pe_dense.backbones.save_state`, for errors too.

    Returns:
        names of the published models with these shapes.

    Raises:
        CheckpointError, FileNotFoundError: as :func:`load_clip`.
    """
    model = load_clip(source)
    save_state(model.state_dict(), path, **options)
    names = fitting_names(model.visual.state_dict())
    return [name for name in names if TEXT_CONFIGS.get(name) == model.text_config]


def save_clip(model: CLIP, path: str | Path, *, layout: str = "pe", overwrite: bool = False) -> Path:
    """Write both towers.

    A published model is written as its bare state dict. For other sizes, ``.pt`` and ``.pth`` files contain the state
    dict under ``state_dict``, which the published code reads as well, and the configs under ``meta``.

    Args:
        model: model to save.
        path: path ending in ``.safetensors``, ``.pt`` or ``.pth``.
        layout: 'pe' for the published layout, 'open_clip' for open_clip's.
        overwrite: replace an existing file.

    Returns:
        the path.

    Raises:
        FileExistsError, ValueError, WriteError: as :func:`~pe_dense.backbones.save_state`; ValueError for another
            layout too.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    state = to_open_clip(model.state_dict()) if layout == "open_clip" else model.state_dict()
    published = model.name in TEXT_CONFIGS and model.vision_config == PE_CONFIGS[model.name]
    path = Path(path)
    if published or layout == "open_clip" or path.suffix not in (".pt", ".pth"):
        return save_state(state, path, overwrite=overwrite)
    configs = dict(vision=asdict(model.vision_config), text=asdict(model.text_config))
    return save_state(state, path, overwrite=overwrite, meta={_META: configs})
