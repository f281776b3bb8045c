"""Base class of backbones: the interface that all code outside :mod:`pe_dense.backbones` uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pe_dense.utils.checkpoint import read_checkpoint
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.hub import HubMixin

TIMM_PREFIX = "timm/"


class Backbone(HubMixin, BaseModule, ABC):
    """Base class of plain vision transformers that return feature maps of any of their blocks.

    Heads, probes, trackers, teachers, figures and demos use only these members, so adding a backbone takes one
    subclass. Names follow timm. In shapes N is the batch, H and W are an image's sides in pixels, h and w the sides of
    the grid of patches, P the number of prefix tokens (class token and registers), C is ``embed_dim``.

    Subclasses implement :meth:`iter_tokens`, :meth:`layer_id`, :meth:`fsdp_units`, :meth:`adapt_state_dict` and
    :meth:`prune_intermediate_layers`, and set the attributes below.

    Attributes:
        name: published name, or a description.
        label: short name for titles of figures and logs.
        embed_dim: channels of every feature map.
        num_layers: number of blocks.
        patch_size: side of a patch in pixels.
        num_prefix_tokens: tokens before those of the patches.
        image_size: native side of the input in pixels.
        mean, std: normalization of RGB values between 0 and 255, one value per channel.
        out_indices: blocks whose maps :meth:`forward` returns, from 0.
        pad_to_patch: pad images at the bottom and right to a multiple of the patch size instead of raising an error.
        lora: settings of LoRA adapters; None without adapters, see :func:`~pe_dense.backbones.lora.add_lora`.
    """

    name: str
    label: str
    embed_dim: int
    num_layers: int
    patch_size: int
    num_prefix_tokens: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    out_indices: tuple[int, ...]
    pad_to_patch: bool = False
    lora: dict | None = None

    @property
    def out_channels(self) -> int:
        """Number of channels of every feature map, equal to ``embed_dim``."""
        return self.embed_dim

    @abstractmethod
    def iter_tokens(
        self,
        images: Tensor,
        indices: Sequence[int],
        *,
        norm: bool = False,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the tokens of each requested block as soon as they are computed.

        Args:
            images: (N, 3, H, W), normalized.
            indices: block numbers from 0.
            norm: apply the backbone's final norm.
            mask: (N, h, w), bool: patches whose embedding is replaced by ``mask_token``.
            mask_token: (C,).

        Yields:
            (block number, tokens (N, P + h * w, C)) in increasing order of the blocks.

        Raises:
            RuntimeError: if weights were requested but are not loaded yet.
            ValueError: if masks are not supported.
        """

    @abstractmethod
    def layer_id(self, parameter_name: str) -> int:
        """Return the layer index of a parameter for layer-wise learning-rate decay.

        Args:
            parameter_name: a name of ``named_parameters()``.

        Returns:
            0 for the embedding, i + 1 for block i, ``num_layers`` + 1 for the layers after the blocks.

        Raises:
            KeyError: if there is no such parameter.
        """

    @abstractmethod
    def fsdp_units(self) -> Iterable[nn.Module]:
        """Return the modules that FSDP wraps as separate units: the transformer blocks."""

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters to exclude from weight decay; empty by default."""
        return set()

    @abstractmethod
    def adapt_state_dict(self, checkpoint: Mapping, source: str | Path) -> dict[str, Tensor]:
        """Convert a published file, or a checkpoint of a model that contains this backbone, to its state dict.

        Args:
            checkpoint: content of the file.
            source: name of the file in error messages.

        Returns:
            a state dict with exactly the keys and shapes of ``state_dict()``.

        Raises:
            CheckpointError: if the file has no such weights or they do not match; the message names file and model.
        """

    def load_pretrained(self, source: str | Path, content: Mapping | None = None, **options) -> None:
        """Load pretrained weights; keys and shapes must match exactly.

        Args:
            source: path or ``hf://`` name.
            content: the result of :func:`~pe_dense.utils.read_checkpoint` for ``source``, if it was already read.
            options: arguments of :meth:`adapt_state_dict`.

        Raises:
            FileNotFoundError, CheckpointError: if the file is missing or does not match the model.
        """
        content = read_checkpoint(source) if content is None else content
        state = self.adapt_state_dict(content, source, **options)
        # Parameters on the meta device have no memory to copy to, so the tensors of the file become the parameters.
        self.load_state_dict(state, assign=any(parameter.is_meta for parameter in self.parameters()))

    @abstractmethod
    def prune_intermediate_layers(self, last: int) -> None:
        """Remove the blocks after block ``last`` (numbered from 0), to save memory and computation."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the blocks in ``out_indices``.

        Args:
            images: (N, 3, H, W), normalized.

        Returns:
            one (N, C, h, w) per entry of ``out_indices``, in their order.
        """
        return tuple(self.forward_intermediates(images, self.out_indices))

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int],
        *,
        norm: bool = False,
        output_fmt: str = "NCHW",
        return_prefix_tokens: bool = False,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> list:
        """Compute features of several blocks, with the arguments and output formats of timm.

        Args:
            images: (N, 3, H, W), normalized.
            indices: block numbers from 0; negative ones count from the end.
            norm: apply the backbone's final norm.
            output_fmt: 'NCHW' for (N, C, h, w) or 'NLC' for (N, h * w, C).
            return_prefix_tokens: return (features, prefix tokens (N, P, C)) for each block.
            mask, mask_token: see :meth:`iter_tokens`.

        Returns:
            one entry per index, in the order of ``indices``.

        Raises:
            ValueError: if an index is out of range or the format is unknown.
        """
        features = dict(
            self.iter_intermediates(
                images,
                indices,
                norm=norm,
                output_fmt=output_fmt,
                return_prefix_tokens=return_prefix_tokens,
                mask=mask,
                mask_token=mask_token,
            )
        )
        return [features[index] for index in resolve_indices("indices", indices, self.num_layers)]

    def iter_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int],
        *,
        norm: bool = False,
        output_fmt: str = "NCHW",
        return_prefix_tokens: bool = False,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Iterator[tuple[int, Tensor | tuple[Tensor, Tensor]]]:
        """Like :meth:`forward_intermediates`, but yield one block at a time, so that only one map is in memory.

        Yields:
            (block number from 0, features) in increasing order of the blocks.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise InputError(f"output_fmt {output_fmt!r} is not 'NCHW' or 'NLC'")
        grid = self.grid_of(images)
        wanted = sorted(set(resolve_indices("indices", indices, self.num_layers)))
        for index, tokens in self.iter_tokens(images, wanted, norm=norm, mask=mask, mask_token=mask_token):
            prefix, features = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
            if output_fmt == "NCHW":
                features = features.transpose(1, 2).unflatten(2, grid)  # (N, C, h, w)
            yield index, (features, prefix) if return_prefix_tokens else features

    def forward_pooled(self, images: Tensor) -> Tensor:
        """Compute the pooled image embedding, without normalization.

        Args:
            images: (N, 3, H, W), normalized.

        Returns:
            (N, output channels).

        Raises:
            RuntimeError: if the backbone has no pooling.
        """
        raise RuntimeError(f"{self.name} has no pooled embedding")

    def attention_maps(
        self, images: Tensor, token: tuple[int, int] | None, indices: Sequence[int] = (-1,)
    ) -> dict[int, Tensor]:
        """Compute the attention weights of blocks from one token to all patches.

        Args:
            images: (N, 3, H, W), normalized.
            token: (row, column) of a patch; None for the class token.
            indices: block numbers from 0; negative ones count from the end.

        Returns:
            attention weights (N, heads, h, w) by block number, from 0.

        Raises:
            ValueError: if an index or token is out of range, or the backbone does not expose its attention.
        """
        raise InputError(f"attention maps are not available for {self.name}: use a PETower")

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block, which ``norm=True`` applies; ``nn.Identity`` if the backbone has none."""
        return nn.Identity()

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int], attn_mask: Tensor | None = None) -> Tensor:
        """Run one block on the tokens of an image and extra tokens in front of them, such as queries.

        The input of the first such block comes from :meth:`iter_tokens`. Extra tokens have no position: rotary
        embedding does not rotate them.

        Args:
            index: block number from 0.
            tokens: (N, E + P + h * w, C), E of them extra.
            grid: (h, w).
            attn_mask: (N, 1, T, T), bool, for T tokens: true where the token of a row attends to that of a column.

        Returns:
            (N, E + P + h * w, C).

        Raises:
            ValueError: if the backbone cannot run this block with extra tokens.
        """
        raise InputError(
            f"{self.name} does not run blocks with extra tokens: use a PETower, or a TimmTower such as DINOv2 or DINOv3"
        )

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Return the rows and columns of patches for images (N, 3, H, W).

        Raises:
            ValueError: if the sides are not multiples of the patch size and ``pad_to_patch`` is not set.
        """
        p = self.patch_size
        height, width = images.shape[-2:]
        if not self.pad_to_patch and (height % p or width % p):
            down = f"{max(height // p, 1) * p} x {max(width // p, 1) * p}"
            raise InputError(
                f"images of {height} x {width} px are not a multiple of the patch size {p}: resize them, for example "
                f"to {down}, or build the backbone with pad_to_patch=True"
            )
        return -(-height // p), -(-width // p)

    def pad_images(self, images: Tensor) -> Tensor:
        """Zero-pad images (N, 3, H, W) at the bottom and right to a multiple of the patch size."""
        (rows, columns), (height, width) = self.grid_of(images), images.shape[-2:]
        bottom, right = rows * self.patch_size - height, columns * self.patch_size - width
        return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def resolve_indices(argument: str, indices: Sequence[int] | None, num_layers: int) -> tuple[int, ...]:
    """Convert block indices to numbers from 0: negative ones count from the end, None selects all blocks.

    Raises:
        ValueError: if an index is out of range; the message states the allowed range.
    """
    if indices is None:
        return tuple(range(num_layers))
    if not len(indices) and argument == "out_indices":
        raise InputError("out_indices is empty: name at least one block")
    for index in indices:
        if not -num_layers <= index < num_layers:
            raise InputError(
                f"{argument}: block {index} is out of range for {num_layers} blocks; "
                f"allowed are {-num_layers}..{num_layers - 1}"
            )
    return tuple(index % num_layers for index in indices)


def parse_layers(text: str, layers: int | None = None) -> list[int]:
    """Parse 'all' or block numbers separated by commas to sorted block numbers from 0.

    Args:
        text: value of the option --layers.
        layers: number of blocks; None to check the form of the text only.

    Raises:
        ConfigError: if the text is neither.
        ValueError: if a number is out of range; the message states the allowed range.
    """
    if text == "all":
        return list(range(layers or 0))
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--layers must be 'all' or numbers separated by commas, such as -1 or 2,5,8, got {text!r}"
        ) from error
    return numbers if layers is None else sorted(set(resolve_indices("--layers", numbers, layers)))


def backbone_config(arch: str | dict, **options) -> dict:
    """Build the config of a backbone from its name.

    Args:
        arch: ``timm/<model name>`` for a :class:`~pe_dense.backbones.TimmTower`, otherwise the ``arch`` of a
            :class:`~pe_dense.backbones.PETower`.
        options: further arguments of the backbone class.
    """
    if isinstance(arch, str) and arch.startswith(TIMM_PREFIX):
        return dict(type="pe_dense.TimmTower", name=arch.removeprefix(TIMM_PREFIX), **options)
    return dict(type="pe_dense.PETower", arch=arch, **options)
