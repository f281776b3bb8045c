"""Contrastive training of image and text towers on captions: CLIP's softmax and SigLIP's sigmoid loss."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from pe_dense.backbones.base import Backbone
from pe_dense.distillation.preprocessor import ImagePreprocessor, colors_of, resize
from pe_dense.language.clip import CLIP, load_clip_weights
from pe_dense.language.preprocessing import END_OF_TEXT, get_text_tokenizer
from pe_dense.language.zero_shot import class_embeddings, classification_accuracy, get_templates
from pe_dense.registry import HOOKS, METRICS, MODELS
from pe_dense.utils.errors import InputError

LOSSES = ("softmax", "sigmoid")
MAX_LOGIT_SCALE = math.log(100)
# Initial logarithm of the logit scale, and the bias (CLIP, arXiv 2103.00020; SigLIP, arXiv 2303.15343).
_INITIAL = dict(softmax=(math.log(1 / 0.07), 0.0), sigmoid=(math.log(10), -10.0))


class _Gather(torch.autograd.Function):
    """Concatenate tensors of all processes; gradients are summed over processes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(get_world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        torch.distributed.all_reduce(grad)
        return grad.narrow(0, get_rank() * ctx.rows, ctx.rows)


def gather(x: Tensor) -> Tensor:
    """Concatenate the rows (N, D) of all W processes to (W * N, D), in the order of ranks, with gradients.

    The gradient of a row is the sum of those of all processes' losses. If losses are means over local rows and
    gradients of parameters are averaged over processes, as DDP does, they are those of one process with all rows.
    """
    return x if get_world_size() == 1 else _Gather.apply(x)


def softmax_loss(images: Tensor, texts: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compute CLIP's loss: cross-entropy of each image among all texts, and of each text among all images.

    Source: CLIP (arXiv 2103.00020), figure 3.

    Args:
        images, texts: embeddings (N, D) of unit length of this process's pairs.
        scale: factor of cosine similarities.

    Returns:
        the loss, a mean over this process's pairs, and the share of its images whose text is the most similar one.
    """
    target = get_rank() * len(images) + torch.arange(len(images), device=images.device)
    to_texts, to_images = scale * images @ gather(texts).T, scale * texts @ gather(images).T
    loss = (F.cross_entropy(to_texts, target) + F.cross_entropy(to_images, target)) / 2
    return loss, (to_texts.detach().argmax(dim=1) == target).float().mean()


def sigmoid_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute SigLIP's loss: each pair of an image and a text is classified by itself.

    Source: SigLIP (arXiv 2303.15343), equation 1: the sum over all pairs, divided by the number of images.

    Args:
        images, texts, scale: see :func:`softmax_loss`.
        bias: added to scaled similarities.

    Returns:
        see :func:`softmax_loss`.
    """
    target = get_rank() * len(images) + torch.arange(len(images), device=images.device)
    logits = scale * images @ gather(texts).T + bias
    signs = F.one_hot(target, logits.shape[1]) * 2 - 1
    loss = -F.logsigmoid(signs * logits).sum(dim=1).mean()
    return loss, (logits.detach().argmax(dim=1) == target).float().mean()


@MODELS.register_module()
class CaptionPreprocessor(ImagePreprocessor):
    """Data preprocessor of images with captions: RGB values in [0, 1], and token ids.

    Args:
        context_length: tokens of a text; longer captions are truncated.
    """

    def __init__(self, context_length: int, **options):
        super().__init__(**options)
        self.tokenize = get_text_tokenizer(context_length)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data: ``image`` as for :class:`~pe_dense.distillation.preprocessor.ImagePreprocessor`, with ``caption`` (B
                texts) in training and ``label`` (B class numbers) in validation.
            training: not used.

        Returns:
            ``images`` (B, 3, H, W); with captions ``text`` (B, L), as long as the longest; with labels ``labels`` (B,).
        """
        batch = super().forward(data, training)
        if "caption" in data:
            text = self.tokenize(data["caption"])
            # What follows the first end-of-text token has no effect.
            length = int((text == END_OF_TEXT).int().argmax(dim=1).max()) + 1
            batch["text"] = self.cast_data(text[:, :length])
        if "label" in data:
            batch["labels"] = self.cast_data(torch.as_tensor(data["label"]))
        return batch


class ContrastiveModel(BaseModel):
    """Base class of models that are trained to match images with their captions.

    Subclasses have an image tower ``backbone``, a ``text_tower`` with a ``logit_scale`` and :meth:`encode_image`.

    Args:
        image_size: side S of the image tower's input in pixels.
        context_length: of the text tower.
        loss: 'softmax' (CLIP) or 'sigmoid' (SigLIP); all processes' pairs are compared with each other.
        init_cfg, data_preprocessor: see MMEngine's ``BaseModel``.

    Raises:
        ValueError: for another loss, or an ``init_cfg`` of another form.
    """

    backbone: Backbone
    text_tower: nn.Module
    logit_scale: nn.Parameter

    def __init__(
        self,
        image_size: int,
        context_length: int,
        loss: str = "softmax",
        init_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
    ):
        if loss not in LOSSES:
            raise InputError(f"loss {loss!r} is not one of {', '.join(LOSSES)}")
        if init_cfg is not None and (set(init_cfg) != {"type", "checkpoint"} or init_cfg["type"] != "Pretrained"):
            raise InputError(f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {init_cfg}")
        default = dict(type="pe_dense.CaptionPreprocessor", context_length=context_length)
        super().__init__(data_preprocessor or default, init_cfg)
        self.image_size, self.context_length = image_size, context_length
        self.loss_type = loss
        self.initial_scale, bias = _INITIAL[loss]
        # SigLIP's bias is used in training only: published models have none.
        self.logit_bias = nn.Parameter(torch.tensor(bias)) if loss == "sigmoid" else None
        self.classes: Tensor | None = None

    def init_weights(self) -> None:
        """Load the weights of ``init_cfg``, if it is set.

        Raises:
            CheckpointError, FileNotFoundError: if the file is missing or does not match.
        """
        if not self._is_init:
            self.load_initial(self.init_cfg["checkpoint"] if self.init_cfg else None)
            self._is_init = True

    @abstractmethod
    def load_initial(self, checkpoint: str | None) -> None:
        """Load a path or ``hf://`` name; None to keep random weights."""

    @abstractmethod
    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Embed images (B, 3, S, S), normalized for the backbone: (B, D), of unit length if ``normalize``."""

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Embed token ids (B, L): (B, D), of unit length if ``normalize``."""
        return self.text_tower.encode_text(text, normalize)

    def forward(
        self, images: Tensor, text: Tensor | None = None, labels: Tensor | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[dict]:
        """Compute losses, predictions or embeddings.

        Args:
            images: (B, 3, H, W), RGB in [0, 1]; resized to the model's size.
            text: (B, L), token ids of the captions, for losses.
            labels: (B,), class numbers, for predictions.
            mode: 'loss', 'predict' or 'tensor'.

        Returns:
            the losses; for each image its ``scores`` (K,) of the classes of :meth:`set_classes` and its ``label``; or
            embeddings (B, D) of unit length.
        """
        # A frozen backbone is wrapped, see FrozenTower.
        images = resize(images, self.image_size, colors_of(getattr(self.backbone, "tower", self.backbone)))
        if mode == "loss":
            return self.loss(images, text)
        embeddings = self.encode_image(images, normalize=True)
        if mode == "tensor":
            return embeddings
        if self.classes is None:
            raise InputError("zero-shot classification needs classes: add dict(type='pe_dense.ZeroShotHook')")
        scores = (embeddings.float() @ self.classes.T).cpu()
        return [dict(scores=row, label=int(label)) for row, label in zip(scores, labels, strict=True)]

    def loss(self, images: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Compute the loss, in-batch accuracy and logit scale of images (B, 3, S, S), normalized, and token ids (B, L).

        The logit scale is limited to 100, as in CLIP.
        """
        with torch.no_grad():
            self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        images, texts = self.encode_image(images), self.encode_text(text)
        with torch.autocast(images.device.type, enabled=False):
            images, texts = (F.normalize(values.float(), dim=-1) for values in (images, texts))
            scale = self.logit_scale.float().exp()
            if self.logit_bias is None:
                loss, accuracy = softmax_loss(images, texts, scale)
            else:
                loss, accuracy = sigmoid_loss(images, texts, scale, self.logit_bias.float())
        return dict(loss_contrastive=loss, accuracy=accuracy, logit_scale=scale.detach())

    def set_classes(self, names: Sequence[str], templates: str | Sequence[str] = "photo") -> None:
        """Embed the classes of zero-shot classification; see :func:`~pe_dense.language.zero_shot.class_embeddings`."""
        self.classes = class_embeddings(self, names, templates).float()


@MODELS.register_module()
class ContrastiveCLIP(ContrastiveModel):
    """Train both towers of a :class:`~pe_dense.language.CLIP`, which :func:`~pe_dense.language.load_clip` then loads.

    Args:
        backbone: config of the image tower, a :class:`~pe_dense.backbones.PETower` with its pooling.
        text: see :class:`~pe_dense.language.CLIP`; by default the published one of the backbone's ``arch``.
        image_size: side of its input in pixels; the backbone's by default.
        text_with_cp: activation checkpointing of the text tower's blocks.
        loss, data_preprocessor: see :class:`ContrastiveModel`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with weights of both towers; random weights by default.

    Raises:
        ValueError: as :class:`~pe_dense.language.CLIP` and :class:`ContrastiveModel`.
    """

    def __init__(
        self,
        backbone: dict,
        text: str | dict | None = None,
        image_size: int | None = None,
        text_with_cp: bool = False,
        loss: str = "softmax",
        init_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
    ):
        options = dict(backbone)
        if options.pop("type") not in ("pe_dense.PETower", "PETower"):
            raise InputError(f"the image tower of a CLIP is a pe_dense.PETower, got {backbone['type']}")
        clip = CLIP(options.pop("arch"), text, options, text_with_cp)
        super().__init__(image_size or clip.image_size, clip.context_length, loss, init_cfg, data_preprocessor)
        self.clip = clip
        nn.init.constant_(clip.logit_scale, self.initial_scale)
        clip.visual.grid_of(torch.empty(0, 3, self.image_size, self.image_size))

    @property
    def backbone(self) -> Backbone:
        """The image tower."""
        return self.clip.visual

    @property
    def text_tower(self) -> CLIP:
        """The text tower, which a CLIP is."""
        return self.clip

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the factor of similarities."""
        return self.clip.logit_scale

    def load_initial(self, checkpoint: str | None) -> None:
        """See :class:`ContrastiveModel`."""
        if checkpoint is not None:
            load_clip_weights(self.clip, checkpoint)

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """See :class:`ContrastiveModel`."""
        return self.clip.encode_image(images, normalize)


@HOOKS.register_module()
class ZeroShotHook(Hook):
    """Embed the class names of the validation or test data before each evaluation.

    Args:
        templates: prompts, as of :func:`~pe_dense.language.zero_shot.get_templates`.

    Raises:
        ValueError: as that function.
    """

    priority = "LOW"  # after hooks that swap in averaged weights

    def __init__(self, templates: str | Sequence[str] = "photo"):
        self.templates = get_templates(templates)

    def before_val_epoch(self, runner: Runner) -> None:
        """Embed the classes of the validation data."""
        self._embed(runner, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        """Embed the classes of the test data."""
        self._embed(runner, runner.test_dataloader.dataset)

    def _embed(self, runner: Runner, dataset) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.set_classes(dataset.metainfo["classes"], self.templates)


@METRICS.register_module()
class ZeroShotMetric(BaseMetric):
    """Accuracy of zero-shot classification: see :func:`~pe_dense.language.zero_shot.classification_accuracy`."""

    default_prefix = "zero_shot"

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep scores and labels of a batch, as :class:`ContrastiveModel` predicts them."""
        self.results += [(sample["scores"], sample["label"]) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute top-1 and top-5 accuracy and the mean of the classes' recalls."""
        scores, labels = zip(*results, strict=True)
        return classification_accuracy(torch.stack(scores), torch.tensor(labels))
