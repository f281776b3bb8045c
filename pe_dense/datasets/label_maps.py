"""Read and check label and depth maps."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations, LoadDepthAnnotation

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import ImageError, decode


class MapError(InputError):
    """A label or depth map does not match its image or its data set.

    PyTorch prepends the traceback of a data worker to the message; only the last line is kept.
    """

    def __init__(self, message: str):
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.MapError: "))


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """mmseg's ``LoadAnnotations``, with checks of the map's size and of its labels.

    Args:
        num_classes: number of classes of the data set, after its label map and without a reduced zero label.
        ignore_index: label of pixels without a class.
        value_map: labels of pixel values, if pixel values are not the labels themselves: ``{0: 0, 255: 1}`` for binary
            masks of 0 and 255. All values that occur must be listed; ``ignore_index`` is allowed as a label.
        colors: labels of RGB colors, if maps are colored: ``{"#000000": 0, "#ff0000": 1}``. All colors that occur must
            be listed.

    Raises:
        InputError: if ``value_map`` has values outside of 0..65535, or labels that are not classes, or if colors are
            not of that form.
        MapError: with file, sizes or labels.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        value_map: dict[int, int] | None = None,
        colors: dict[str, int] | None = None,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.value_map = _checked_value_map(value_map) if value_map else None
        self._is_colored = bool(colors)
        if colors:
            if value_map:
                raise InputError("value_map and colors exclude each other: maps have values or colors")
            self.value_map = _checked_colors(colors)

    def _load_seg_map(self, results: dict) -> None:
        results["gt_seg_map"] = self.labels(_read_map(results["seg_map_path"]), results)
        results["seg_fields"].append("gt_seg_map")

    def labels(self, values: np.ndarray, results: dict) -> np.ndarray:
        """Check the values of a map and convert them to labels.

        Args:
            values: (H, W), as stored.
            results: entry of the data set, with ``ori_shape``.

        Returns:
            (H, W) uint8.

        Raises:
            MapError: with file, sizes or labels.
        """
        path = results["seg_map_path"]
        if self._is_colored:
            values = _packed(values)
        if values.ndim != 2:
            raise MapError(f"label map {path} is of shape {values.shape}: it must have one channel of labels")
        _check_size(values, results, "label map", path)
        if self.value_map is not None:
            values = self._translate(values, path)
        if values.max(initial=0) > 255 or values.min(initial=0) < 0:
            raise MapError(
                f"label map {path} has values {values.min()}..{values.max()}, outside of the 0..255 of 8 bits; "
                "value_map of pe_dense.LoadLabelMap says what values mean"
            )
        labels = self._reduce(values.astype(np.uint8), results)
        present = np.unique(labels)
        wrong = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if len(wrong):
            reduced = ", counted without the zero label" if results["reduce_zero_label"] else ""
            raise MapError(
                f"label map {path} has labels {', '.join(map(str, wrong[:8]))}{reduced}: legal are "
                f"0..{self.num_classes - 1}, and {self.ignore_index} for pixels without a class; if its values mean "
                "something else, set value_map of pe_dense.LoadLabelMap"
            )
        return labels

    def _translate(self, values: np.ndarray, path: str) -> np.ndarray:
        present = np.unique(values)
        if unknown := [int(value) for value in present if int(value) not in self.value_map]:
            raise MapError(
                f"label map {path} has values {self._shown(unknown)} that value_map does not list: it has "
                f"{self._shown(sorted(self.value_map))}"
                if not self._is_colored
                else f"label map {path} has the colors {self._shown(unknown)}, which are those of no class"
            )
        labels = np.array([self.value_map[int(value)] for value in present])
        return labels[np.searchsorted(present, values)]

    def _shown(self, values: list[int]) -> str:
        return ", ".join(f"#{value:06x}" if self._is_colored else str(value) for value in values[:8])

    def _reduce(self, labels: np.ndarray, results: dict) -> np.ndarray:
        """Reduce the zero label and select classes, as mmseg does."""
        if results["reduce_zero_label"]:
            labels = np.where((labels == 0) | (labels == 255), 255, labels - 1).astype(np.uint8)
        if results.get("label_map"):
            selected = labels.copy()
            for old, new in results["label_map"].items():
                selected[labels == old] = new
            labels = selected
        return labels


def _checked_value_map(value_map: dict) -> dict[int, int]:
    try:
        numbers = {int(value): int(label) for value, label in value_map.items()}  # JSON has text keys only
    except (TypeError, ValueError, AttributeError):
        numbers = None
    if not numbers or not all(0 <= value <= 65535 and 0 <= label <= 255 for value, label in numbers.items()):
        raise InputError(f"value_map is {value_map!r}: must map pixel values (0..65535) to labels (0..255)")
    return numbers


def _checked_colors(colors: dict) -> dict[int, int]:
    """Return labels by color, R * 65536 + G * 256 + B."""
    try:
        numbers = {int(str(color).removeprefix("#"), 16): int(label) for color, label in colors.items()}
        good = all(len(str(color)) == 7 and str(color).startswith("#") for color in colors)
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good or not all(0 <= label <= 255 for label in numbers.values()):
        raise InputError(f"colors is {colors!r}: must map colors such as '#ff0000' to labels (0..255)")
    return numbers


def _packed(values: np.ndarray) -> np.ndarray:
    """Convert colors (H, W, 3 or 4) uint8, or gray (H, W), to R * 65536 + G * 256 + B."""
    if values.ndim == 2:
        return values.astype(np.int64) * 0x10101
    return values[..., :3].astype(np.int64) @ np.array([65536, 256, 1])


def _read_map(path: str) -> np.ndarray:
    """Read the stored pixel values of a map, (H, W) or with channels."""
    file = io.BytesIO(fileio.get(path)) if "://" in path else path
    try:
        return np.array(decode(file, path, ignore_orientation=True))
    except (ImageError, FileNotFoundError) as error:
        raise MapError(f"map {path} can't be read: {error}") from error


def check_label_values(dataset) -> None:
    """Check that a training set's label maps contain at least two classes.

    Reading stops once two classes are found, after a few maps in most data sets.

    Args:
        dataset: mmseg data set, with :class:`LoadLabelMap` in its pipeline.

    Raises:
        MapError: listing the values found and their counts.
    """
    reader = _reader(dataset, LoadLabelMap)
    if reader is None or reader.num_classes < 2:
        return
    values, classes = Counter(), Counter()
    for item in _all_entries(dataset):
        raw = _read_map(item["seg_map_path"])
        labels = reader.labels(raw, dict(item, ori_shape=raw.shape[:2]))
        for counter, array in ((values, raw), (classes, labels)):
            numbers, counts = np.unique(array, return_counts=True)
            counter.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        if len(classes.keys() - {reader.ignore_index}) >= 2:
            return
    found = ", ".join(f"{value} ({count:,} pixels)" for value, count in sorted(values.items())[:8])
    known = sorted(classes.keys() - {reader.ignore_index})
    what = f"only class {known[0]}" if known else f"no class: all pixels are ignored ({reader.ignore_index})"
    binary = (
        " Binary masks of 0 and 255 need value_map={0: 0, 255: 1} in pe_dense.LoadLabelMap."
        if (set(values) <= {0, 255} and 255 in values)
        else " If the values mean something else, set value_map of pe_dense.LoadLabelMap."
    )
    raise MapError(
        f"All {len(dataset)} label maps have the values {found}: {what}, so there is nothing to learn.{binary}"
    )


def check_depths(dataset) -> None:
    """Check that a training set's depth maps contain a known depth.

    The first map is enough for most data sets; all maps are read only if they have none.

    Args:
        dataset: mmseg data set, with :class:`LoadDepthMap` in its pipeline.

    Raises:
        MapError: with the number of maps and pixels.
    """
    reader = _reader(dataset, LoadDepthMap)
    if reader is None:
        return
    pixels = 0
    for item in _all_entries(dataset):
        depth = reader.read(item["depth_map_path"])
        if depth.any():
            return
        pixels += depth.size
    raise MapError(
        f"All {pixels:,} pixels of {len(dataset)} depth maps, {item['depth_map_path']} among them, are 0, which means "
        "unknown: there is nothing to learn"
    )


def _reader(dataset, kind: type):
    return next((step for step in dataset.pipeline.transforms if isinstance(step, kind)), None)


def _all_entries(dataset) -> Iterator[dict]:
    """Entries of a data set: some that are spread over it first, then the others."""
    last = len(dataset) - 1
    spread = [round(last * i / 15) for i in range(16)]
    for index in dict.fromkeys([*spread, *range(len(dataset))]):
        yield dataset.get_data_info(index)


@TRANSFORMS.register_module()
class LoadDepthMap(LoadDepthAnnotation):
    """mmseg's ``LoadDepthAnnotation``, with checks of the map's size and for NaN and negative depth.

    Args:
        depth_rescale_factor: factor from the file's unit to meters: 1e-3 for millimeters.
        decode_backend: 'cv2' for images, 'numpy' for arrays.
        nan_is_unknown: read NaN and infinite depths as unknown instead of refusing them.

    Raises:
        InputError: if the backend is unknown.
        MapError: naming the file and its size or values.
    """

    def __init__(self, depth_rescale_factor: float, decode_backend: str = "cv2", nan_is_unknown: bool = False):
        if decode_backend not in ("cv2", "numpy"):  # mmseg also has 'pickle', which would run code from the file
            raise InputError(f"decode_backend is {decode_backend!r}, must be 'cv2' or 'numpy'")
        super().__init__(decode_backend=decode_backend, depth_rescale_factor=depth_rescale_factor)
        self.nan_is_unknown = nan_is_unknown

    def transform(self, results: dict) -> dict:
        """Load the map into ``gt_depth_map`` (H, W), float32, in meters; 0 where depth is unknown."""
        results["gt_depth_map"] = depth = self.read(results["depth_map_path"])
        results["seg_fields"].append("gt_depth_map")
        results["depth_rescale_factor"] = self.depth_rescale_factor
        _check_size(depth, results, "depth map", results["depth_map_path"])
        return results

    def read(self, path: str) -> np.ndarray:
        """Read a map.

        Returns:
            (H, W) float32, in meters; 0 where depth is unknown.

        Raises:
            MapError: for a file that cannot be read, or with NaN, infinite or negative depth.
        """
        if self.decode_backend == "cv2":
            depth = _read_map(path).astype(np.float32) * np.float32(self.depth_rescale_factor)
        else:
            depth = super().transform(dict(depth_map_path=path, seg_fields=[]))["gt_depth_map"]
        finite = np.isfinite(depth)
        if self.nan_is_unknown:
            depth = np.where(finite, depth, np.float32(0))
        elif not finite.all():
            raise MapError(
                f"depth map {path} has {np.count_nonzero(~finite)} pixels that are NaN or infinite: use 0 for unknown "
                "depth"
            )
        if depth.min() < 0:
            raise MapError(f"depth map {path} has negative depths, down to {depth.min():g} m")
        return depth


def _check_size(values: np.ndarray, results: dict, what: str, path: str) -> None:
    if values.shape != tuple(results["ori_shape"][:2]):
        sides, image = " x ".join(map(str, values.shape)), " x ".join(map(str, results["ori_shape"][:2]))
        raise MapError(f"{what} {path} has {sides} px, but its image {results['img_path']} has {image}")
