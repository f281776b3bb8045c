"""Open-vocabulary segmentation without training: patches of PE Core compared with words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from pe_dense.backbones import Backbone
from pe_dense.backbones.base import backbone_config
from pe_dense.backbones.text_space import embed_tokens, last_block_tokens
from pe_dense.engine.inferencer import Predictor
from pe_dense.language.clip import CLIP, load_clip
from pe_dense.language.dense import (
    SIMILARITIES,
    attention_weights,
    class_scores,
    gaussian_bias,
    label_map,
    mix_by_proxy,
    pad_symmetric,
    proxy_weights,
    suppress_small_classes,
)
from pe_dense.language.zero_shot import class_embeddings, get_templates, parse_words
from pe_dense.probing.sliding_window import complete_windows, windows_of
from pe_dense.registry import MODELS
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.image import read_image, write_png
from pe_dense.visualization.drawing import beside, with_legend

MODES = ("pooled", "proxy", "self", "naive")
BACKGROUND = "background"
_OPACITY = 0.6


def parse_synonyms(words: str | Sequence[str]) -> tuple[list[str], list[str], Tensor]:
    """Split class names into synonyms.

    Args:
        words: as of :func:`~pe_dense.language.zero_shot.parse_words`; synonyms of a class are separated by semicolons
            ("person; woman; man"), and the first one names the class.

    Returns:
        names of the K classes, the Q words, and the class (Q,) of each.

    Raises:
        ConfigError: if there is no word, or one is empty or given twice, in whatever class.
    """
    groups = [[part.strip() for part in word.split(";")] for word in parse_words(words)]
    queries = parse_words([part for group in groups for part in group])
    classes = [number for number, group in enumerate(groups) for _ in group]
    return [group[0] for group in groups], queries, torch.tensor(classes)


@MODELS.register_module()
class OpenVocabularySegmenter(BaseSegmentor):
    """Label pixels by the words that their patches are most similar to.

    An image is cut into windows; cosine similarities of patches and prompts are upsampled bilinearly, averaged where
    windows overlap and resized to the original size; a class takes the best probability of its synonyms. Every image is
    processed by itself, so that results do not depend on the batch.

    Args:
        clip: name, path or ``hf://`` name of a PE Core model as of :func:`~pe_dense.language.load_clip`, or the model.
        words: class names, as of :func:`parse_synonyms`.
        mode: how patches are embedded: 'pooled' (each token through the attention pooling by itself), 'proxy'
            (ProxyCLIP: the values of the pooling averaged by the similarities of another backbone's tokens), 'self'
            (other attention weights in the last block) or 'naive' (the projection alone, for comparison).
        templates: as of :func:`~pe_dense.language.zero_shot.get_templates`.
        proxy: for mode 'proxy', a :class:`~pe_dense.backbones.Backbone` or its config; by default the PE Spatial tower
            of the same size as the Core model.
        beta, gamma: as of :func:`~pe_dense.language.dense.proxy_weights`.
        similarity: for mode 'self', as of :func:`~pe_dense.language.dense.attention_weights`.
        gaussian_std: for mode 'self', add NACLIP's Gaussian of the distance with this deviation in patches.
        rotated, residual: for mode 'self', as of :func:`~pe_dense.backbones.text_space.last_block_tokens`.
        logit_scale: factor of cosines before the softmax over prompts.
        threshold: pixels whose best probability is lower get class 0, which is then the background.
        area_threshold: as of :func:`~pe_dense.language.dense.suppress_small_classes`; None to keep all classes.
        test_cfg: mmseg's: ``dict(mode='slide', crop_size=(336, 336), stride=(112, 112))``, or ``dict(mode='whole')`` by
            default.
        data_preprocessor: mmseg's; by default it normalizes BGR images for PE.

    Raises:
        ValueError: for an unknown mode or similarity, or words, templates or windows that are not usable.
        CheckpointError, FileNotFoundError: as :func:`~pe_dense.language.load_clip`.
    """

    def __init__(
        self,
        clip: str | CLIP,
        words: str | Sequence[str],
        mode: str = "pooled",
        templates: str | Sequence[str] = "imagenet",
        proxy: Backbone | dict | None = None,
        beta: float = 1.2,
        gamma: float = 3.0,
        similarity: str = "kk",
        gaussian_std: float | None = None,
        rotated: bool = False,
        residual: bool = False,
        logit_scale: float = 40.0,
        threshold: float = 0.0,
        area_threshold: float | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
    ):
        if mode not in MODES:
            raise InputError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        if similarity not in SIMILARITIES:
            raise InputError(f"similarity {similarity!r} is not one of {', '.join(SIMILARITIES)}")
        self_words = parse_synonyms(words)
        templates = get_templates(templates)
        if (threshold or area_threshold is not None) and self_words[0][0] != BACKGROUND:
            raise InputError(
                f"a threshold needs the background as the first class: begin the words with {BACKGROUND!r} (its "
                f"synonyms may follow: '{BACKGROUND}; wall; sky'), got {self_words[0][0]!r}"
            )
        pixel = [127.5, 127.5, 127.5]
        super().__init__(
            data_preprocessor
            or dict(
                type="mmseg.SegDataPreProcessor", mean=pixel, std=pixel, bgr_to_rgb=True, test_cfg=dict(size_divisor=1)
            )
        )
        self.clip = load_clip(clip) if isinstance(clip, str | Path) else clip
        self.test_cfg = complete_windows(test_cfg, ("whole", "slide"))
        self.mode, self.similarity, self.gaussian_std = mode, similarity, gaussian_std
        self.beta, self.gamma, self.rotated, self.residual = beta, gamma, rotated, residual
        self.logit_scale, self.threshold, self.area_threshold = logit_scale, threshold, area_threshold
        self.proxy = self._build_proxy(proxy) if mode == "proxy" else None
        self.class_names, queries, classes = self_words
        self.register_buffer("query_classes", classes, persistent=False)
        self.register_buffer("text_embeddings", class_embeddings(self.clip, queries, templates), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def _build_proxy(self, proxy: Backbone | dict | None) -> Backbone:
        if isinstance(proxy, Backbone):
            return proxy
        if proxy is None:
            size = self.clip.name.split("-")[2] if self.clip.name.startswith("PE-Core-") else None
            names = {"T16": "512", "S16": "512", "B16": "512", "L14": "448", "G14": "448"}
            if size not in names:
                raise InputError(f"no default proxy for {self.clip.name}: pass proxy=dict(type=...)")
            name = f"PE-Spatial-{size}-{names[size]}"
            proxy = backbone_config(name, init_cfg=dict(type="Pretrained", checkpoint=f"hf://facebook/{name}"))
        built = MODELS.build(proxy)
        built.init_weights()
        return built

    def train(self, mode: bool = True) -> OpenVocabularySegmenter:
        """Nothing is trained: the model stays in evaluation mode."""
        return super().train(False)

    def patch_embeddings(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embeddings (N, h * w, D) of patches, of unit length, and the grid h, w.

        Args:
            images: (N, 3, H, W), normalized for PE; sides are multiples of the patch size.
        """
        tower = self.clip.visual
        grid, prefix = tower.grid_of(images), tower.num_prefix_tokens
        mix = None
        if self.mode == "self":
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
        """Normalized maps (N, C, h, w) of the proxy, which sees the same images on the same grid."""
        size = tuple(side * self.proxy.patch_size for side in grid)
        if size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.proxy.mean, self.proxy.std))
        (features,) = self.proxy.forward_intermediates((images * 127.5 + 127.5 - mean) / std, [-1], norm=True)
        return features

    def similarities(self, images: Tensor) -> Tensor:
        """Cosine similarities of pixels and words.

        Args:
            images: (N, 3, H, W), normalized for PE, of any size.

        Returns:
            (N, Q, H, W).
        """
        windows = windows_of(images, self.test_cfg)

        def run(window: Tensor) -> Tensor:
            padded, (rows, columns) = pad_symmetric(window, self.clip.visual.patch_size)
            embeddings, grid = self.patch_embeddings(padded)
            maps = (embeddings @ self.text_embeddings.T).transpose(1, 2).unflatten(2, grid)
            maps = F.interpolate(maps, padded.shape[-2:], mode="bilinear", align_corners=False)
            return maps[..., rows, columns]

        return windows.merge(run(window) for window in windows.cut(images))

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Label maps and scores of the classes.

        Args:
            inputs: (N, 3, H, W).
            data_samples: with ``img_shape`` (H, W) of the image in its padded input and ``ori_shape``, the size of the
                result.

        Returns:
            the samples with ``pred_sem_seg`` (1, H, W) and ``seg_logits`` (K, H, W), probabilities.
        """
        samples = data_samples or [SegDataSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            height, width = sample.metainfo.get("img_shape", image.shape[-2:])[:2]
            maps = self.similarities(image[None, :, :height, :width])
            size = tuple(sample.metainfo.get("ori_shape", (height, width)))[:2]
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            scores = class_scores(maps, self.query_classes, self.logit_scale)
            if self.area_threshold is not None:
                scores = suppress_small_classes(scores, self.area_threshold)
            sample.pred_sem_seg = PixelData(data=label_map(scores, self.threshold))
            sample.seg_logits = PixelData(data=scores[0])
        return samples

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict:
        """Not available.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("OpenVocabularySegmenter is not trained: evaluate it by tools/test.py")

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Patch embeddings as maps (N, D, h, w)."""
        embeddings, grid = self.patch_embeddings(inputs)
        return embeddings.transpose(1, 2).unflatten(2, grid)

    def encode_decode(self, inputs: Tensor, batch_data_samples: Sequence | None = None) -> Tensor:
        """As :meth:`similarities`."""
        return self.similarities(inputs)

    def _forward(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        return self.similarities(inputs)


class OpenVocabularyPredictor(Predictor):
    """Draw the labels of words over image files, with a legend of those that occur.

    Beside the picture, ``<name>_labels.png`` contains the label of each pixel, and the JSON file the share of each
    class.

    Args:
        model: the segmenter.
        short_side: images are resized to this short side in pixels before they are segmented; None keeps their size.
    """

    endings = ("", "_labels")

    def __init__(self, model: OpenVocabularySegmenter, short_side: int | None = None):
        super().__init__()
        from mmseg.utils import get_palette

        self.model, self.short_side = model, short_side
        colors = get_palette("ade")
        self.palette = np.array([colors[i % len(colors)] for i in range(len(model.class_names))], np.uint8)

    def prepare(self, path: Path, index: int) -> tuple[dict, np.ndarray]:
        """As of the base class."""
        pixels = np.array(read_image(path))
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        if self.short_side is not None:
            factor = self.short_side / min(pixels.shape[:2])
            size = [max(round(side * factor), 1) for side in pixels.shape[:2]]
            image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=factor < 1)
        return dict(image=image[0], ori_shape=pixels.shape[:2]), pixels

    def predict(self, batch: list[dict]) -> list:
        """As of the base class."""
        device = self.model.text_embeddings.device
        samples = []
        for item in batch:
            sample = SegDataSample(metainfo=dict(ori_shape=item["ori_shape"], img_shape=item["image"].shape[-2:]))
            samples += self.model.predict(item["image"][None].to(device), [sample])
        return samples

    def write(self, stem: Path, pixels: np.ndarray, sample: SegDataSample) -> dict:
        """As of the base class."""
        labels = sample.pred_sem_seg.data[0].numpy()
        present, counts = np.unique(labels, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        gray = pixels.mean(axis=2, keepdims=True, dtype=np.float32)  # so that colors are those of the classes
        drawn = np.rint(gray + np.float32(_OPACITY) * (self.palette[labels] - gray)).astype(np.uint8)
        names = self.model.class_names
        entries = [(names[label], tuple(map(int, self.palette[label]))) for label in present[order]]
        write_png(f"{stem}.png", with_legend(beside(pixels, drawn), entries))
        write_png(f"{stem}_labels.png", labels.astype(np.uint8 if len(names) <= 256 else np.uint16))
        shares = zip(present[order], counts[order] / labels.size, strict=True)
        return dict(classes=[dict(name=names[label], label=int(label), share=float(share)) for label, share in shares])
