"""Feature maps of uploaded images for the explorer: computed once per image and size, drawn on request."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pe_dense.apps.explorer.jobs import check_canceled
from pe_dense.backbones.base import Backbone
from pe_dense.language.dense import BACKGROUND, CORE_MODES, word_maps
from pe_dense.language.text_tower import TEXT_CONFIGS
from pe_dense.utils.image import read_image
from pe_dense.visualization.colors import feature_rgb
from pe_dense.visualization.drawing import enlarge, fit_image, mark, overlay_heatmap
from pe_dense.visualization.features import center_of, iter_intermediates, prepare, token_at
from pe_dense.visualization.figures import WordMaps
from pe_dense.visualization.pca import Basis, fit_basis
from pe_dense.visualization.similarity import cosine_similarity, nearest_tokens

if TYPE_CHECKING:  # imported where they are used, as the clusters are: their tokenizer and mmseg take seconds
    from pe_dense.language.clip import CLIP
    from pe_dense.language.open_vocabulary import OpenVocabularySegmenter

DISPLAY_SIDE = 480  # px, longer side of the pictures on the page
MIN_SIZE = 64  # px
_MAX_IMAGES = 32
_MAX_TEXTS = 1024  # cached embeddings of words


class InvalidRequest(ValueError):
    """A request names a backbone, layer, size, image, point or words that cannot be used."""


class WordPictures(NamedTuple):
    """An image compared with words: the names, the image at display size, its maps, and words that were truncated."""

    names: list[str]
    photo: Image.Image
    maps: WordMaps
    truncated: list[str]


class Explorer:
    """Backbones, uploaded images and their cached feature maps.

    Two threads may use it concurrently: one for :meth:`add_image` and :meth:`image`, one for :meth:`colors`,
    :meth:`similarity` and :meth:`words`.

    Args:
        towers: backbones by the names that the page shows.
        clips: by the same names, the models with a text tower, of which the backbones are the image towers.
        max_size: upper limit of the longer image side in pixels.
        cache_bytes: memory limit of the feature maps in bytes; the least recently used are dropped.
    """

    def __init__(
        self,
        towers: Mapping[str, Backbone],
        clips: Mapping[str, CLIP] | None = None,
        *,
        max_size: int = 1024,
        cache_bytes: int = 4 << 30,
    ):
        self.towers = dict(towers)
        self.clips = dict(clips or {})
        self.max_size = max_size
        self.cache_bytes = cache_bytes
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._images_lock = Lock()
        self._maps: OrderedDict[tuple, list[Tensor]] = OrderedDict()
        self._texts: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._segmenters: dict[tuple, OpenVocabularySegmenter] = {}
        self._basis = lru_cache(64)(self._fit)
        self._clusters = lru_cache(64)(self._fit_clusters)

    def describe(self) -> dict:
        """Backbones and limits for the page's controls, as values that JSON can represent."""
        towers = []
        for name, tower in self.towers.items():
            words = dict(patches=list(CORE_MODES)) if name in self.clips else dict(no_words=_no_words(name))
            towers.append(
                dict(name=name, layers=tower.num_layers, patch=tower.patch_size, size=tower.image_size) | words
            )
        return dict(towers=towers, min_size=MIN_SIZE, max_size=self.max_size)

    def add_image(self, data: bytes) -> str:
        """Decode and store an image file.

        Args:
            data: content of the file, in one of :data:`pe_dense.utils.image.FORMATS`.

        Returns:
            the image's id, a hash of the content.

        Raises:
            ImageError: if the file cannot be decoded, or has too many pixels.
        """
        image = read_image(io.BytesIO(data), "the file")
        if max(image.size) > 2 * self.max_size:
            image = fit_image(image, 2 * self.max_size)
        name = hashlib.sha256(data).hexdigest()[:16]
        with self._images_lock:
            self._images[name] = image
            self._images.move_to_end(name)
            while len(self._images) > _MAX_IMAGES:
                self._images.popitem(last=False)
        return name

    def image(self, name: str) -> Image.Image:
        """Return an uploaded image at display size.

        Raises:
            InvalidRequest: if there is no image with this id, or it was dropped for newer ones.
        """
        return fit_image(self._image(name), DISPLAY_SIDE)

    def colors(self, tower: str, layer: int, size: int, image: str, together: Sequence[str]) -> Image.Image:
        """Draw the first three principal components of an image's features as RGB.

        Args:
            tower: name of a backbone.
            layer: layer number from 0.
            size: longer side in pixels at which images are run.
            image: id of the image to draw.
            together: ids of all images that the components are fitted on; ``image`` is always one of them.

        Raises:
            InvalidRequest: for an unknown backbone, layer, size or image.
        """
        features = self._features(tower, layer, size, image)
        basis = self._basis(tower, layer, size, tuple(sorted({image, *together})))
        return enlarge(feature_rgb(features, basis=basis)[0], self.image(image).size)

    def similarity(
        self, tower: str, layer: int, size: int, image: str, source: str, point: tuple[float, float], count: int = 3
    ) -> tuple[Image.Image, float, float]:
        """Compute the cosine similarity of an image's tokens to one token of the same or another image.

        Args:
            tower, layer, size, image: as in :meth:`colors`.
            source: id of the image that the token is taken from.
            point: (x, y) of the token as fractions in [0, 1) of the source's width and height.
            count: number of most similar tokens to mark in another image; in the source itself the point is marked.

        Returns:
            the heat map over the image, and its minimum and maximum cosine.

        Raises:
            InvalidRequest: for an unknown backbone, layer, size or image, or a point outside [0, 1).
        """
        if not all(0 <= place < 1 for place in point):
            raise InvalidRequest(f"point {point[0]:g},{point[1]:g} is outside the image: x and y must be in [0, 1)")
        features = self._features(tower, layer, size, source)
        row, column = token_at(point, (1, 1), features.shape[2:])
        query = features[0, :, row, column]
        both = {name: cosine_similarity(self._features(tower, layer, size, name), query)[0] for name in (source, image)}
        low, high = min(float(x.min()) for x in both.values()), max(float(x.max()) for x in both.values())
        values, shown = both[image], self.image(image)
        heat = overlay_heatmap(shown, ((values - low) / max(high - low, 1e-6)).cpu().numpy())
        tokens = [(row, column)] if image == source else nearest_tokens(values, count)
        places = [center_of(token, shown.size, values.shape) for token in tokens]
        return mark(heat, places, numbered=image != source), float(values.min()), float(values.max())

    def clusters(
        self, tower: str, layer: int, size: int, image: str, together: Sequence[str], count: int
    ) -> Image.Image:
        """Draw the k-means clusters of an image's tokens.

        Args:
            tower, layer, size, image, together: as in :meth:`colors`; the tokens of all images are clustered together.
            count: number of clusters.

        Raises:
            InvalidRequest: as :meth:`colors`.
            InputError: if the number is out of range, or larger than that of tokens.
        """
        from pe_dense.apps.unsupervised import cluster_picture

        names = tuple(sorted({image, *together}))
        maps = self._clusters(tower, layer, size, names, count)
        return cluster_picture(self.image(image), maps[names.index(image)], count)

    def object(self, tower: str, layer: int, size: int, image: str, method: str, tau: float) -> Image.Image:
        """Draw the object that is found in an image.

        Args:
            tower, layer, size, image: as in :meth:`colors`.
            method, tau: as of :func:`~pe_dense.apps.unsupervised.find_object`.

        Raises:
            InvalidRequest: as :meth:`colors`, or for a threshold outside of -1..1.
            InputError: for an unknown method.
        """
        from pe_dense.apps.unsupervised import find_object, object_picture

        if not -1 <= tau <= 1:
            raise InvalidRequest(f"tau {tau:g} is out of range: it must be -1 to 1")
        return object_picture(self.image(image), find_object(self._features(tower, layer, size, image), method, tau))

    def words(
        self, tower: str, size: int, image: str, words: str, patches: str, proxy: str | None, background: float
    ) -> WordPictures:
        """Compute the similarity of an image to words.

        Args:
            tower, size, image: as in :meth:`colors`.
            words: as of :func:`~pe_dense.language.word_lists.parse_synonyms`, but no file.
            patches: mode of :class:`~pe_dense.language.OpenVocabularySegmenter`.
            proxy: for mode 'proxy', name of the backbone whose similarities are used.
            background: score below which a pixel has no word, from 0 to 1.

        Raises:
            InvalidRequest: for an unknown backbone, mode, size or image, a backbone without a text tower, or another
                background.
            ConfigError: for no word, an empty one, or one given twice.
        """
        from pe_dense.language.word_lists import parse_synonyms
        from pe_dense.language.zero_shot import truncated_words

        self._check_place(tower, size)
        if tower not in self.clips:
            raise InvalidRequest(_no_words(tower))
        if patches not in CORE_MODES:
            raise InvalidRequest(f"patches {patches[:80]!r} is not one of {', '.join(CORE_MODES)}")
        if not 0 <= background <= 1:
            raise InvalidRequest(f"background {background:g} is out of range: it must be 0 to 1")
        if patches != "proxy":
            proxy = None
        elif proxy not in self.towers:
            raise InvalidRequest(f"patches by proxy need the name of a backbone; available: {', '.join(self.towers)}")
        # A list is never the name of a file on this machine.
        names, queries, classes = parse_synonyms(words.split(","))
        photo, model = self.image(image), self._segmenter(tower, patches, proxy)
        key = (tower, size, image, patches, proxy)
        (embeddings,) = self._cached(key, lambda: [self._embed_patches(model, tower, size, image, proxy)])
        similarities = torch.einsum("dhw,qd->qhw", embeddings, self._embed_texts(tower, queries))
        background_first = names[0] == BACKGROUND
        cosines, labels = word_maps(
            similarities, classes, photo.size[::-1], model.logit_scale, background, has_background=background_first
        )
        maps = WordMaps(cosines.numpy(), labels.numpy())
        return WordPictures(names, photo, maps, truncated_words(self.clips[tower], queries))

    def _segmenter(self, tower: str, patches: str, proxy: str | None) -> OpenVocabularySegmenter:
        """Build the model that embeds patches; its own words are not used."""
        from pe_dense.language.open_vocabulary import OpenVocabularySegmenter

        key = (tower, patches, proxy)
        if key not in self._segmenters:
            by = self.towers[proxy] if proxy else None
            self._segmenters[key] = OpenVocabularySegmenter(self.clips[tower], "a", patches, "none", by)
        return self._segmenters[key]

    @torch.no_grad()
    def _embed_patches(
        self, model: OpenVocabularySegmenter, tower: str, size: int, image: str, proxy: str | None
    ) -> Tensor:
        images = prepare(self._image(image), self.towers[tower], size)
        runs = [self.towers[name] for name in (tower, proxy) if name]
        with _cancelable(block for backbone in runs for block in backbone.fsdp_units()):
            embeddings, grid = model.patch_embeddings(images)
        return embeddings[0].T.unflatten(1, grid).float().cpu()

    def _embed_texts(self, tower: str, queries: Sequence[str]) -> Tensor:
        """Return the embeddings (Q, D) of words by the prompt "a photo of a ...", which are kept."""
        from pe_dense.language.zero_shot import class_embeddings

        clip = self.clips[tower]
        if missing := [query for query in queries if (tower, query) not in self._texts]:
            with _cancelable(clip.transformer.resblocks):
                embeddings = class_embeddings(clip, missing).float().cpu()
            self._texts.update(zip([(tower, query) for query in missing], embeddings, strict=True))
        for query in queries:
            self._texts.move_to_end((tower, query))
        found = torch.stack([self._texts[tower, query] for query in queries])
        while len(self._texts) > _MAX_TEXTS:
            self._texts.popitem(last=False)
        return found

    def _image(self, name: str) -> Image.Image:
        with self._images_lock:
            if name not in self._images:
                raise InvalidRequest("image expired; upload it again")
            self._images.move_to_end(name)
            return self._images[name]

    def _features(self, tower: str, layer: int, size: int, image: str) -> Tensor:
        """Return a layer's map (1, C, h, w). All layers are computed together for a fast layer slider."""
        self._check_place(tower, size)
        model = self.towers[tower]
        if not 0 <= layer < model.num_layers:
            raise InvalidRequest(f"layer {layer} is out of range: {tower} has layers 0 to {model.num_layers - 1}")
        return self._cached((tower, size, image), lambda: self._run(model, size, image))[layer]

    def _check_place(self, tower: str, size: int) -> None:
        if tower not in self.towers:
            raise InvalidRequest(f"unknown backbone {tower!r}; available: {', '.join(self.towers)}")
        if not MIN_SIZE <= size <= self.max_size:
            raise InvalidRequest(f"size {size} is out of range: it must be {MIN_SIZE} to {self.max_size} px")

    def _run(self, model: Backbone, size: int, image: str) -> list[Tensor]:
        images = prepare(self._image(image), model, size)
        maps = []
        check_canceled()
        for _, features in iter_intermediates(model, images, range(model.num_layers)):
            maps.append(features.cpu())
            check_canceled()
        return maps

    def _cached(self, key: tuple, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Return maps from the cache, or compute them and drop the least recently used ones beyond the limit."""
        if key not in self._maps:
            self._maps[key] = compute()
            while len(self._maps) > 1 and sum(map(_nbytes, self._maps.values())) > self.cache_bytes:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]

    def _fit_clusters(self, tower: str, layer: int, size: int, images: tuple[str, ...], count: int) -> list[np.ndarray]:
        from pe_dense.apps.unsupervised import cluster_maps

        return cluster_maps([self._features(tower, layer, size, image) for image in images], count)

    def _fit(self, tower: str, layer: int, size: int, images: tuple[str, ...]) -> Basis:
        return fit_basis([self._features(tower, layer, size, image) for image in images])


def _nbytes(maps: Sequence[Tensor]) -> int:
    return sum(features.nbytes for features in maps)


@contextmanager
def _cancelable(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Within the context, a canceled job ends before the next of these blocks runs."""
    handles = [block.register_forward_pre_hook(lambda *_: check_canceled()) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _no_words(tower: str) -> str:
    """Say that a backbone cannot be compared with words, and name the Core model of its size, if there is one."""
    core = next((name for name in TEXT_CONFIGS if name.split("-")[2] in tower.split("-")), "PE-Core-B16-224")
    return f"{tower} has no text tower; load {core}"
