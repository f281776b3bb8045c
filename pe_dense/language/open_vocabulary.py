"""Training-free open-vocabulary segmentation: compare patches of PE Core with words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from pe_dense.backbones import Backbone
from pe_dense.backbones.base import TIMM_PREFIX, backbone_config
from pe_dense.backbones.pe_configs import spatial_name
from pe_dense.backbones.text_space import embed_tokens, last_block_tokens
from pe_dense.backbones.timm import TIMM_HUB
from pe_dense.engine.runner import load_model_state
from pe_dense.language.clip import CLIP, load_clip
from pe_dense.language.dense import (
    BACKGROUND,
    CORE_MODES,
    OWN_ATTENTION,
    SIMILARITIES,
    attention_weights,
    class_scores,
    gaussian_bias,
    label_map,
    mix_by_proxy,
    pad_symmetric,
    proxy_weights,
    refine,
    suppress_small_classes,
    upsampled_bands,
)
from pe_dense.language.value_checks import check_range, check_whole, checked_windows
from pe_dense.language.word_lists import parse_synonyms
from pe_dense.language.zero_shot import class_embeddings, get_templates
from pe_dense.probing.sliding_window import windows_of
from pe_dense.registry import MODELS
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.package_weights import published_weights

MODES = (*CORE_MODES, "tokens")


@MODELS.register_module()
class OpenVocabularySegmenter(BaseSegmentor):
    """Label pixels by the words that their patches are most similar to.

    An image is cut into windows; cosine similarities of patches and prompts are upsampled bilinearly, averaged where
    windows overlap and resized to the original size; a class takes the best probability of its synonyms. Every image is
    processed by itself, so that results do not depend on the batch.

    Args:
        clip: name, path or ``hf://`` name of a PE Core model as of :func:`~pe_dense.language.load_clip`, whose weights
            are loaded at once; the arguments of a :class:`~pe_dense.language.CLIP` as a dict, whose weights
            :meth:`init_weights` or a checkpoint loads; a model; or, for mode 'tokens', the config of a registered one.
        words: class names, as of :func:`~pe_dense.language.word_lists.parse_synonyms`.
        mode: how patches are embedded: 'pooled' (each token through the attention pooling by itself), 'proxy'
            (ProxyCLIP: the values of the pooling averaged by the similarities of another backbone's tokens), 'self'
            (other attention weights in the last block; 'sclip', 'clearclip' and 'naclip' are published settings of
            it), 'tokens' (by ``clip.patch_embeddings(images)``, which returns (N, h * w, D) and the grid (h, w)) or
            'naive' (the projection alone, for comparison).
        templates: as of :func:`~pe_dense.language.zero_shot.get_templates`.
        proxy: for mode 'proxy', a :class:`~pe_dense.backbones.Backbone`, its config, or the name of a published one or
            of one of timm (``timm/<model name>``); by default the PE Spatial tower of the same size as the Core model.
        beta, gamma: as of :func:`~pe_dense.language.dense.proxy_weights`.
        similarity: for mode 'self', as of :func:`~pe_dense.language.dense.attention_weights`; 'kk' by default.
        gaussian_std: for mode 'self', add NACLIP's Gaussian of the distance with this deviation in patches.
        residual: for mode 'self', as of :func:`~pe_dense.backbones.text_space.last_block_tokens`; False by default.
        rotated: for mode 'self', compare queries and keys after the rotation by their positions, which favors nearby
            tokens; by default before it.
        logit_scale: factor of cosines before the softmax over prompts.
        threshold: pixels whose best probability is lower get class 0, which is then the background.
        area_threshold: as of :func:`~pe_dense.language.dense.suppress_small_classes`; None to keep all classes.
        refine_steps: steps of :func:`~pe_dense.language.dense.refine` (PAMR) on the cosines at the image's original
            size; 10 in NACLIP.
        refine_dilations: its distances in pixels.
        test_cfg: mmseg's: ``dict(mode='slide', crop_size=(336, 336), stride=(112, 112))``, or ``dict(mode='whole')`` by
            default.
        data_preprocessor: mmseg's; by default it normalizes BGR images for PE.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, weights that :meth:`init_weights` loads.

    Raises:
        ValueError: for an unknown mode or similarity, or words, templates or windows that are not usable.
        CheckpointError, FileNotFoundError: as :func:`~pe_dense.language.load_clip`.
    """

    def __init__(
        self,
        clip: str | dict | nn.Module,
        words: str | Sequence[str],
        mode: str = "pooled",
        templates: str | Sequence[str] = "imagenet",
        proxy: str | dict | Backbone | None = None,
        beta: float = 1.2,
        gamma: float = 3.0,
        similarity: str | None = None,
        gaussian_std: float | None = None,
        residual: bool | None = None,
        rotated: bool = False,
        logit_scale: float = 40.0,
        threshold: float = 0.0,
        area_threshold: float | None = None,
        refine_steps: int = 0,
        refine_dilations: Sequence[int] = (8, 16),
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        if mode not in MODES:
            raise InputError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        if similarity is not None and similarity not in SIMILARITIES:
            raise InputError(f"similarity {similarity!r} is not one of {', '.join(SIMILARITIES)}")
        check_whole("refine_steps", refine_steps, 0)
        for distance in refine_dilations or (0,):
            check_whole("refine_dilations", distance, 1)
        for name, value, range_ in (
            ("threshold", threshold, (0, 1)),
            ("area_threshold", area_threshold, (0, 1)),
            ("logit_scale", logit_scale, (1e-3, 1e4)),
            ("gaussian_std", gaussian_std, (1e-2, 1e4)),
            ("beta", beta, (-1e4, 1e4)),
            ("gamma", gamma, (-1e4, 1e4)),
        ):
            check_range(name, value, *range_)
        self_words = parse_synonyms(words)
        if (threshold or area_threshold is not None) and self_words[0][0] != BACKGROUND:
            raise InputError(
                f"a threshold needs the background as the first class: begin the words with {BACKGROUND!r} (its "
                f"synonyms may follow: '{BACKGROUND}; wall; sky'), got {self_words[0][0]!r}"
            )
        templates = get_templates(templates)
        pixel = [127.5, 127.5, 127.5]
        super().__init__(
            data_preprocessor or dict(type="pe_dense.ProbePreprocessor", mean=pixel, std=pixel, bgr_to_rgb=True),
            init_cfg,
        )
        self.test_cfg = checked_windows(test_cfg)
        self.clip = _build_clip(clip)
        if mode == "tokens" and not hasattr(self.clip, "patch_embeddings"):
            raise InputError(
                f"mode 'tokens' needs a model with a trained head on tokens, {type(self.clip).__name__} has none: set "
                f"model.clip to the config of one, or use another mode: {', '.join(CORE_MODES)}"
            )
        if mode != "tokens" and not isinstance(self.clip, CLIP):
            raise InputError(f"mode {mode!r} needs a PE Core model, {type(self.clip).__name__} supports mode 'tokens'")
        own = OWN_ATTENTION.get(mode, OWN_ATTENTION["self"])
        given = (similarity, gaussian_std, residual)
        chosen = [value if value is not None else usual for value, usual in zip(given, own, strict=True)]
        self.similarity, self.gaussian_std, self.residual = chosen
        if mode in OWN_ATTENTION and self.similarity == "none" and self.gaussian_std is None:
            raise InputError("similarity 'none' needs gaussian_std, such as 5: without both, tokens have no weights")
        self.mode, self.beta, self.gamma, self.rotated = mode, beta, gamma, rotated
        self.logit_scale, self.threshold, self.area_threshold = logit_scale, threshold, area_threshold
        self.refine_steps, self.refine_dilations = refine_steps, tuple(refine_dilations)
        self.keep_scores = True  # predictions contain the probabilities of all classes
        self.proxy = self._build_proxy(proxy) if mode == "proxy" else None
        self.class_names, self.queries, classes = self_words
        self.templates, self._texts = templates, None
        self.register_buffer("query_classes", classes, persistent=False)
        self.eval()

    def _build_proxy(self, proxy: str | dict | Backbone | None) -> Backbone:
        if isinstance(proxy, Backbone):
            return proxy
        if proxy is None:
            proxy = spatial_name(self.clip.name)
            if proxy is None:
                raise InputError(
                    f"no default proxy for {self.clip.name}: set proxy to the name of a backbone, such as "
                    "PE-Spatial-B16-512, or to its config"
                )
        if isinstance(proxy, str):
            source = TIMM_HUB if proxy.startswith(TIMM_PREFIX) else published_weights(proxy)
            proxy = backbone_config(proxy, init_cfg=dict(type="Pretrained", checkpoint=source))
        built = MODELS.build(proxy)
        built.init_weights()
        return built

    @property
    def num_classes(self) -> int:
        """Number of classes K, synonyms counted once."""
        return len(self.class_names)

    @property
    def text_embeddings(self) -> Tensor:
        """Embeddings (Q, D) of the words, of unit length, computed on first use and again after weights are loaded."""
        if self._texts is None:
            # A trained head may compare patches with a part of the text embeddings, as LiT does.
            embed = getattr(self.clip, "patch_text_embeddings", partial(class_embeddings, self.clip))
            self._texts = embed(self.queries, self.templates)
        self._texts = self._texts.to(self.query_classes.device)
        return self._texts

    def _load_from_state_dict(self, *args) -> None:
        self._texts = None  # of the old weights
        super()._load_from_state_dict(*args)

    def init_weights(self) -> None:
        """Load the file of ``init_cfg``, if it is set.

        Raises:
            CheckpointError, FileNotFoundError: if it is missing or does not fit.
        """
        if self.init_cfg is not None:
            source = self.init_cfg["checkpoint"]
            load_model_state(self, read_checkpoint(source), source)

    def from_published(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Bring the state dict of a file of both towers, or of a run that trained them, to the names of this model.

        Args:
            state: as of :meth:`CLIP.from_published`, or in the form that the model of mode 'tokens' reads.
            source: how errors name the file.

        Raises:
            CheckpointError: for a file without a text tower, or one that does not fit.
        """
        if hasattr(self.clip, "from_published"):
            state = self.clip.from_published(state, source)
        kept = {
            key: value for key, value in self.state_dict().items() if key.startswith("proxy.")
        }  # it has its own file
        return {f"clip.{key}": value for key, value in state.items()} | kept

    def train(self, mode: bool = True) -> OpenVocabularySegmenter:
        """Keep the model in evaluation mode: nothing is trained."""
        return super().train(False)

    def patch_embeddings(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Compute embeddings (N, h * w, D) of patches, of unit length, and the grid h, w.

        Args:
            images: (N, 3, H, W), normalized for PE; sides are multiples of the patch size.
        """
        if self.mode == "tokens":
            tower = getattr(self.clip, "backbone", None)
            embeddings, grid = self.clip.patch_embeddings(_normalize_for(getattr(tower, "tower", tower), images))
            return F.normalize(embeddings, dim=-1), grid
        tower = self.clip.visual
        grid, prefix = tower.grid_of(images), tower.num_prefix_tokens
        mix = None
        if self.mode in OWN_ATTENTION:
            bias = None
            if self.gaussian_std is not None:
                bias = gaussian_bias(grid, self.gaussian_std, prefix).to(images)

            def weights(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
                return attention_weights(queries, keys, values, self.similarity, bias)

            tokens = last_block_tokens(tower, images, weights, rotated=self.rotated, residual=self.residual)
            tokens = tokens[:, prefix:]
        else:
            (tokens,) = tower.forward_intermediates(images, [-1], output_fmt="NLC")
        if self.mode == "proxy":
            features = self._proxy_features(images, grid)
            weights = proxy_weights(features, self.beta, self.gamma)

            def mix(values: Tensor) -> Tensor:
                return mix_by_proxy(values, grid, weights, features.shape[-2:])

        embeddings = embed_tokens(tower, tokens, naive=self.mode == "naive", mix=mix)
        return F.normalize(embeddings, dim=-1), grid

    def _proxy_features(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute normalized maps (N, C, h, w) of the proxy for the same images on the same grid."""
        size = tuple(side * self.proxy.patch_size for side in grid)
        if size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        (features,) = self.proxy.forward_intermediates(_normalize_for(self.proxy, images), [-1], norm=True)
        return features

    def similarities(self, images: Tensor) -> Tensor:
        """Compute cosine similarities of pixels and words.

        Args:
            images: (N, 3, H, W), normalized for PE, of any size.

        Returns:
            (N, Q, H, W).
        """
        windows, texts = windows_of(images, self.test_cfg), self.text_embeddings
        patch_size = (self.clip if self.mode == "tokens" else self.clip.visual).patch_size

        def run(window: Tensor) -> Tensor:
            padded, (rows, columns) = pad_symmetric(window, patch_size)
            embeddings, grid = self.patch_embeddings(padded)
            maps = (embeddings @ texts.T).transpose(1, 2).unflatten(2, grid)
            maps = F.interpolate(maps, padded.shape[-2:], mode="bilinear", align_corners=False)
            return maps[..., rows, columns]

        return windows.merge(run(window) for window in windows.cut(images))

    @torch.no_grad()
    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Predict label maps and class scores.

        Args:
            inputs: (N, 3, H, W), or a list of (1, 3, H, W) of several sizes.
            data_samples: with ``img_shape`` (H, W) of the image in its padded input and ``ori_shape``, the size of the
                result.

        Returns:
            the samples with ``pred_sem_seg`` (1, H, W) and, if ``keep_scores`` is set, ``seg_logits`` (K, H, W),
            probabilities.
        """
        samples = data_samples or [SegDataSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            height, width = sample.metainfo.get("img_shape", image.shape[-2:])[:2]
            image = image.reshape(1, *image.shape[-3:])[..., :height, :width]
            size = tuple(sample.metainfo.get("ori_shape", (height, width)))[:2]
            whole = self.refine_steps or self.area_threshold is not None  # these look at all of the image
            bands = upsampled_bands(self.similarities(image), size, **dict(limit=sys.maxsize) if whole else {})
            kept = image.new_empty(self.num_classes, *size) if self.keep_scores else None
            labels = []
            for maps in bands:
                found, scores = self._decide(image, maps)
                if kept is not None:  # in place, since the scores of all classes take most of the memory
                    top = sum(part.shape[1] for part in labels)
                    kept[:, top : top + found.shape[1]] = scores
                labels.append(found)
            sample.pred_sem_seg = PixelData(data=torch.cat(labels, 1))
            if kept is not None:
                sample.seg_logits = PixelData(data=kept)
        return samples

    def _decide(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels (1, H, W) and scores (K, H, W) of maps (1, Q, H, W)."""
        if self.refine_steps:
            image = F.interpolate(image, maps.shape[-2:], mode="bilinear", align_corners=False)
            maps = refine(image, maps, self.refine_steps, self.refine_dilations)
        scores = class_scores(maps, self.query_classes, self.logit_scale)
        if self.area_threshold is not None:
            scores = suppress_small_classes(scores, self.area_threshold)
        return label_map(scores, self.threshold), scores[0]

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict:
        """Raise an error, since the model is not trained.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("OpenVocabularySegmenter is not trained: evaluate it by tools/test.py")

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Return patch embeddings as maps (N, D, h, w)."""
        embeddings, grid = self.patch_embeddings(inputs)
        return embeddings.transpose(1, 2).unflatten(2, grid)

    def encode_decode(self, inputs: Tensor, batch_data_samples: Sequence | None = None) -> Tensor:
        """Return :meth:`similarities`."""
        return self.similarities(inputs)

    def _forward(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        return self.similarities(inputs)


def _normalize_for(backbone: Backbone | None, images: Tensor) -> Tensor:
    """Change the normalization of images (N, 3, H, W) from PE's to that of a backbone; None for PE's."""
    if backbone is None:
        return images
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    return (images * 127.5 + 127.5 - mean) / std


def _build_clip(clip: str | dict | nn.Module) -> nn.Module:
    """The model of both towers: given, loaded from a file, or built from a config."""
    if isinstance(clip, str | Path):
        return load_clip(clip)
    if not isinstance(clip, Mapping):
        return clip
    if "type" in clip:
        model = MODELS.build(clip)
        if isinstance(model, BaseModule):
            model.init_weights()  # of a frozen backbone, which a run's checkpoint does not contain
        return model
    if unknown := sorted(set(clip) - {"vision", "text", "vision_options"}):
        raise InputError(f"clip has no {', '.join(unknown)}: it has vision, text and vision_options, or a type")
    if "vision" not in clip:
        raise InputError("clip lacks vision: a published model such as PE-Core-L14-336, or the fields of a tower")
    return CLIP(**clip)
