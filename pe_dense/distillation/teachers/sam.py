"""SAM 2.1 as teacher, with mask logits as token features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pe_dense.distillation.preprocessor import SAM_MEAN_STD, resize
from pe_dense.distillation.teachers.base import Teacher
from pe_dense.distillation.teachers.sam_decoder import CoarseAxis, ImageEmbedding, decode_points
from pe_dense.registry import MODELS
from pe_dense.utils import match_state_dict, read_checkpoint
from pe_dense.utils.errors import InputError
from pe_dense.utils.state_dict import unwrap_state

SIZES = ("t", "s", "b+", "l")


def build_sam(
    size: str, checkpoint: str | Path | None, *, image_size: int = 1024, overrides: Sequence[str] = (), seed: int = 0
) -> nn.Module:
    """Build SAM 2.1 from the config of the ``sam2`` package.

    Args:
        size: 't', 's', 'b+' or 'l'.
        checkpoint: path or ``hf://`` name of the weights (``hf://facebook/sam2.1-hiera-large`` finds its file);
            None for random weights.
        image_size: side of the input in pixels, a multiple of 32.
        overrides: overrides of the package config, in Hydra syntax (``model.image_encoder.trunk.embed_dim=16``).
        seed: seed of random weights.

    Returns:
        a ``SAM2Base`` model, in evaluation mode, without gradients.

    Raises:
        ValueError: if the size is unknown, the image size is not a multiple of 32, or the package is not installed.
        CheckpointError, FileNotFoundError: if weights are missing or do not match the model.
    """
    if size not in SIZES:
        raise InputError(f"unknown SAM 2.1 size {size!r}; available sizes are {', '.join(SIZES)}")
    if image_size % 32 or image_size <= 0:
        raise InputError(f"image_size of SAM must be a multiple of 32, got {image_size}")
    try:
        from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES, build_sam2
    except ImportError as error:
        raise InputError(
            "SAM 2.1 requires the package sam2, which is not installed: "
            "SAM2_BUILD_CUDA=0 pip install 'pe_dense[distill]'"
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_sam2(
            f"configs/sam2.1/sam2.1_hiera_{size}.yaml",
            device="cpu",
            hydra_overrides_extra=[f"++model.image_size={image_size}", *overrides],
            apply_postprocessing=False,
        )
    if checkpoint is not None:
        name = _file_of(str(checkpoint), HF_MODEL_ID_TO_FILENAMES)
        content = read_checkpoint(name)
        state = unwrap_state(content, name, ["model"])
        match_state_dict(model.state_dict(), state, name, f"SAM 2.1 of size {size}")
        model.load_state_dict(state)
    return model.requires_grad_(False).eval()


def _file_of(checkpoint: str, known: dict[str, tuple[str, str]]) -> str:
    """Append the file name if only a hub repository is given."""
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(@[^/]+)?", checkpoint)
    return f"{checkpoint}/{known[match[1]][1]}" if match and match[1] in known else checkpoint


@MODELS.register_module()
class SAMTeacher(Teacher):
    """SAM teacher: mask logits of a grid of point prompts, as features of tokens.

    SAM predicts a mask for each point of the grid; the feature of a token is the vector of the logits of all masks at
    its position. Tokens of the same object therefore have similar features.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2 and appendix B.3.1: 32 x 32 points at 1024 px, one map of
    logits per point, without filtering by predicted IoU, stability or overlap. SAM predicts three masks per point. With
    thresholds of 0 and without NMS, its mask generator keeps all of them, ordered by predicted IoU; here the best mask
    of each point is used, as ``sam2`` itself does wherever it needs one mask per point.

    The decoder logits, at a quarter of the image resolution, are resampled bilinearly to the token grid. Upsampling
    them to the image first and then downsampling to the token grid is equivalent for 32 x 32 tokens at 1024 px. For
    other grids a kink of the upsampled logits may lie between two pixels that the second step averages; then results
    differ by up to a sixteenth of the second differences of the decoder logits, along rows plus along columns.

    Args:
        size: size of SAM 2.1, 't', 's', 'b+' or 'l'.
        checkpoint: path or ``hf://`` name of the weights; None for random weights (tests).
        image_size: side of the input in pixels, a multiple of 32.
        points_per_side: number of points along a side of the image; its square is the number of channels C.
        points_per_batch: number of points that are decoded together. By default a map of all of them takes 128 MB (32
            points at 1024 px), on a CPU 16 MB (4 points), where larger allocations are slow because the system maps
            their memory every time.
        dtype: 'bfloat16' for autocast.
        overrides: see :func:`~pe_dense.distillation.teachers.sam.build_sam`.
        cache: see :class:`Teacher`.

    Raises:
        ValueError: see :func:`~pe_dense.distillation.teachers.sam.build_sam`; also for numbers of points below 1.
        CheckpointError, FileNotFoundError: if weights are missing or do not match the model.
    """

    def __init__(
        self,
        size: str,
        checkpoint: str | None,
        image_size: int = 1024,
        points_per_side: int = 32,
        points_per_batch: int | None = None,
        dtype: str = "float32",
        overrides: Sequence[str] = (),
        cache: str | None = None,
    ):
        super().__init__(dtype, cache)
        if points_per_side < 1 or (points_per_batch is not None and points_per_batch < 1):
            raise InputError(
                f"numbers of points must be at least 1, got points_per_side={points_per_side}, "
                f"points_per_batch={points_per_batch}"
            )
        sam = build_sam(size, checkpoint, image_size=image_size, overrides=overrides)
        # Only the image modules; the video memory modules are not needed.
        self.encoder = sam.image_encoder
        self.prompt_encoder = sam.sam_prompt_encoder
        self.decoder = sam.sam_mask_decoder
        self.register_buffer("no_memory", sam.no_mem_embed.detach().view(1, -1))
        self.image_size = image_size
        self.overrides = tuple(overrides)
        self.points_per_side = points_per_side
        self.points_per_batch = points_per_batch

    def tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`Teacher.forward`. Images are processed one by one to limit memory."""
        images = resize(images, self.image_size, SAM_MEAN_STD)
        device = images.device
        low_res = self.prompt_encoder.mask_input_size
        axes = tuple(CoarseAxis.of(*sizes, device) for sizes in zip(low_res, grid, strict=True))
        points = self.points().to(device).split(self.points_per_batch or self._fitting(device))
        with torch.autocast(device.type, self.dtype, enabled=self.dtype is not torch.float32):
            tokens = []
            for image in images:
                embedding = self.embed(image[None])
                logits = [decode_points(self.prompt_encoder, self.decoder, embedding, part, axes)[0] for part in points]
                tokens.append(torch.cat(logits).flatten(1).T)  # (h w, C)
        return torch.stack(tokens)

    def _fitting(self, device: torch.device) -> int:
        """Return the default number of points per batch for the memory budget of the device."""
        height, width = self.prompt_encoder.image_embedding_size
        budget = 2**24 if device.type == "cpu" else 2**27
        return max(1, budget // (4 * height * width * self.prompt_encoder.embed_dim))

    def points(self) -> Tensor:
        """Return the grid of points, (C, 2): x and y of cell centers in pixels of the input of SAM, row by row."""
        cells = (torch.arange(self.points_per_side) + 0.5) / self.points_per_side * self.image_size
        return torch.cartesian_prod(cells, cells).flip(1)

    def embed(self, image: Tensor) -> ImageEmbedding:
        """Encode an image (1, 3, S, S), resized and normalized for SAM."""
        fine, middle, coarse = self.encoder(image)["backbone_fpn"]
        pixels = coarse.flatten(2).transpose(1, 2) + self.no_memory + self.prompt_encoder.no_mask_embed.weight
        return ImageEmbedding(
            pixels=pixels,
            positions=self.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2),
            size=tuple(coarse.shape[-2:]),
            high_res=(self.decoder.conv_s1(middle)[0], self.decoder.conv_s0(fine)[0]),
        )

    def settings(self) -> str:
        """See :class:`Teacher`."""
        return f"{self.image_size} {self.overrides} {self.points_per_side} {self.dtype}"
