"""What the page asks for: photos kept, maps computed once, pictures drawn."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import Lock, RLock

from PIL import Image
from torch import Tensor

from pe_dense.backbones import PETower
from pe_dense.utils.image import as_rgb, decode
from pe_dense.visualization.colors import feature_rgb
from pe_dense.visualization.drawing import enlarge, fit_photo, lay_over, mark
from pe_dense.visualization.features import centre_of, iter_maps, native_side, prepare, token_at
from pe_dense.visualization.pca import Basis, fit_basis
from pe_dense.visualization.similarity import cosine_similarity, nearest_tokens

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SIDE = 480  # px, longer side of the pictures
SMALLEST_SIZE = 64  # px
_PHOTOS = 32


class Explorer:
    """Towers, the photos of the page, and the maps of both.

    Its methods may be called from several threads; towers run one at a time.

    Args:
        towers: by the names that the page shows.
        max_size: longest side in pixels at which photos may be run.
        cache_bytes: how much memory computed maps may take; the oldest are dropped.
    """

    def __init__(self, towers: Mapping[str, PETower], *, max_size: int = 1024, cache_bytes: int = 4 << 30):
        self.towers = dict(towers)
        self.max_size = max_size
        self.cache_bytes = cache_bytes
        self._photos: OrderedDict[str, Image.Image] = OrderedDict()
        self._maps: OrderedDict[tuple[str, int, str], list[Tensor]] = OrderedDict()
        self._basis = lru_cache(64)(self._fit)
        # Three locks, so that a photo can be dropped and shown while a tower runs. Decoding takes up to a few hundred
        # MB, so files wait for each other.
        self._decoding, self._keeping, self._running = Lock(), Lock(), RLock()

    def describe(self) -> dict:
        """Towers and limits, for the page's controls."""
        towers = [
            dict(name=name, layers=tower.num_layers, patch=tower.variant.patch_size, size=native_side(tower))
            for name, tower in self.towers.items()
        ]
        return dict(towers=towers, smallest_size=SMALLEST_SIZE, max_size=self.max_size)

    def add_photo(self, data: bytes) -> str:
        """Keep a photo and give the name that it has from now on; the same file has the same name.

        Raises:
            ValueError: if it can't be decoded.
        """
        with self._decoding:
            photo = as_rgb(decode(io.BytesIO(data), "the file", formats=FORMATS))
            if max(photo.size) > 2 * self.max_size:
                photo = fit_photo(photo, 2 * self.max_size)
        name = hashlib.sha256(data).hexdigest()[:16]
        with self._keeping:
            self._photos[name] = photo
            self._photos.move_to_end(name)
            while len(self._photos) > _PHOTOS:
                self._photos.popitem(last=False)
        return name

    def photo(self, name: str) -> Image.Image:
        """A photo as the page shows it."""
        return fit_photo(self._photo(name), SIDE)

    def colours(self, tower: str, layer: int, size: int, photo: str, together: Sequence[str]) -> Image.Image:
        """Principal components of a photo's features as colours.

        Args:
            tower: name of a tower.
            layer: block number from 0.
            size: longer side in pixels that photos are run at.
            photo: name of the photo to draw.
            together: names of all photos that share the components.

        Raises:
            ValueError: for names or numbers that do not exist.
        """
        features = self._features(tower, layer, size, photo)
        basis = self._basis(tower, layer, size, tuple(sorted({photo, *together})))
        return enlarge(feature_rgb(features, basis=basis)[0], self.photo(photo).size)

    def similarity(
        self, tower: str, layer: int, size: int, photo: str, source: str, point: tuple[float, float], count: int = 3
    ) -> tuple[Image.Image, float, float]:
        """How alike a photo's tokens are to one of the same or of another photo.

        Args:
            tower, layer, size, photo: as of :meth:`colours`.
            source: name of the photo that the token is of.
            point: where it is, as parts of the source's width and height.
            count: how many of the nearest parts are marked in another photo; in the source it is the point.

        Returns:
            the map over the photo, and the range of its cosines.

        Raises:
            ValueError: for names or numbers that do not exist, or a point outside.
        """
        features = self._features(tower, layer, size, source)
        row, column = token_at(point, (1, 1), features.shape[2:])
        query = features[0, :, row, column]
        both = {name: cosine_similarity(self._features(tower, layer, size, name), query)[0] for name in (source, photo)}
        low, high = min(float(x.min()) for x in both.values()), max(float(x.max()) for x in both.values())
        values, shown = both[photo], self.photo(photo)
        heat = lay_over(shown, ((values - low) / max(high - low, 1e-6)).cpu().numpy())
        tokens = [(row, column)] if photo == source else nearest_tokens(values, count)
        places = [centre_of(token, shown.size, values.shape) for token in tokens]
        return mark(heat, places, numbered=photo != source), float(values.min()), float(values.max())

    def _photo(self, name: str) -> Image.Image:
        with self._keeping:
            if name not in self._photos:
                raise ValueError("that photo is not here any more: drop it again")
            self._photos.move_to_end(name)
            return self._photos[name]

    def _features(self, tower: str, layer: int, size: int, photo: str) -> Tensor:
        """One layer's map (1, C, H, W); all layers are computed together, so that the slider moves at once."""
        if tower not in self.towers:
            raise ValueError(f"no tower {tower!r} here, there is {', '.join(self.towers)}")
        if not 0 <= layer < self.towers[tower].num_layers:
            raise ValueError(f"{tower} has layers 0..{self.towers[tower].num_layers - 1}, not {layer}")
        if not SMALLEST_SIZE <= size <= self.max_size:
            raise ValueError(f"size {size} is not within {SMALLEST_SIZE}..{self.max_size}")
        with self._running:
            key = (tower, size, photo)
            if key not in self._maps:
                model = self.towers[tower]
                images = prepare(self._photo(photo), model, size)
                self._maps[key] = [features.cpu() for _, features in iter_maps(model, images, range(model.num_layers))]
                while len(self._maps) > 1 and sum(map(_nbytes, self._maps.values())) > self.cache_bytes:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(key)
            return self._maps[key][layer]

    def _fit(self, tower: str, layer: int, size: int, photos: tuple[str, ...]) -> Basis:
        return fit_basis([self._features(tower, layer, size, photo) for photo in photos])


def _nbytes(maps: Sequence[Tensor]) -> int:
    return sum(features.nbytes for features in maps)
