"""`tools/visualize_features.py` behind its arguments: checks first, then the tower, then pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.logging import MMLogger

from pe_dense.utils import video
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import check_output_folder, find_images, output_names, read_image

MODES = ("pca", "correspondence", "similarity", "attention")


def draw(
    sources: Sequence[str],
    *,
    arch: str | None,
    weights: str | None,
    layers: str,
    mode: str,
    mask: Sequence[str] | None,
    point: str | None,
    size: int | None,
    per_image: bool,
    out: Path,
    overwrite: bool,
    device: str | None,
) -> Iterator[Path]:
    """Draw pictures of images' or videos' features.

    Args:
        sources: image files, folders of them, or videos.
        arch, weights: see :func:`~pe_dense.backbones.build.open_tower`.
        layers: block numbers with commas between them, or 'all'.
        mode: one of ``MODES``.
        mask: mask files, one per image, or ``['auto']``.
        point: 'X,Y' in pixels of the first image, or 'cls'.
        size: longer side in pixels at which images are run; the side of the tower's native image by default.
        per_image: principal components of each image by itself.
        out: folder of the pictures.
        overwrite: replace files in it.
        device: of the tower; a GPU where there is one by default.

    Yields:
        each file, when it is written.

    Raises:
        ConfigError, ValueError, FileNotFoundError, FileExistsError: before the tower runs, for whatever does not fit.
    """
    films = [Path(source) for source in sources if Path(source).suffix.lower() in video.EXTENSIONS]
    stills = [source for source in sources if Path(source) not in films]
    _check_options(mode, mask, point, per_image, films)
    place = _parse_point(point)
    _check_numbers(layers)
    check_output_folder(out, "--out")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise FileExistsError(f"{out} is not empty: name another folder or pass --overwrite")
    files = find_images(stills, exclude=[out])
    if any(file.resolve().parent == out.resolve() for file in [*files, *films]):
        raise ConfigError(f"--out {out} is the folder of the images, which pictures might replace: name another one")
    photos = [read_image(file) for file in files]
    lengths = [_length(film) for film in films]

    from pe_dense.backbones.build import choose_device, open_tower, title_of
    from pe_dense.visualization import figures
    from pe_dense.visualization.features import FigureInputs
    from pe_dense.visualization.figures import SAMPLES, draw_feature_video

    # What is logged about a file on its way is for training logs; here it would break into the progress.
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    tower = open_tower(arch, weights, device=choose_device(device))
    blocks = parse_layers(layers, tower.num_layers)
    if films and len(blocks) > 1:
        raise ConfigError(f"videos show one layer, --layers {layers} names {len(blocks)}")
    long_side = tower.image_size if size is None else size
    masks = "auto" if mask == ["auto"] else mask
    inputs = (
        FigureInputs(tower, title_of(tower, weights), output_names(files), photos, long_side, masks) if photos else None
    )
    options = {"pca": dict(per_image=per_image), "correspondence": {}}.get(mode, dict(point=place))
    drawer = getattr(figures, f"draw_{mode}")

    from rich.console import Console
    from rich.progress import Progress

    out.mkdir(parents=True, exist_ok=True)
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        if inputs:
            task = progress.add_task("Running blocks", total=len(photos) * (max(blocks) + 1))
            inputs.advance = lambda count: progress.advance(task, count)
            yield from drawer(inputs, blocks, out, **options)
        for film, length, name in zip(films, lengths, output_names(films), strict=True):
            task = progress.add_task(f"Frames of {film.name}", total=length + min(length, SAMPLES))
            yield draw_feature_video(
                tower,
                film,
                out / f"{name}_features.mp4",
                block=blocks[0],
                long_side=long_side,
                frames=length,
                advance=lambda count, task=task: progress.advance(task, count),
            )


def parse_layers(text: str, layers: int) -> list[int]:
    """Block numbers from 0 of 'all' or of numbers with commas between them.

    Raises:
        ConfigError: for anything else.
        ValueError: for a number out of range; the message prints the legal one.
    """

    from pe_dense.backbones.base import resolve_indices

    numbers = _check_numbers(text)
    return list(range(layers)) if numbers is None else sorted(set(resolve_indices("--layers", numbers, layers)))


def _check_numbers(text: str) -> list[int] | None:
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--layers {text}: 'all', or numbers with commas between them, as -1 or 2,5,8") from error


def _parse_point(text: str | None) -> tuple[float, float] | str | None:
    if text in (None, "cls"):
        return text
    try:
        x, y = (float(part) for part in text.split(","))
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError("not finite")
    except ValueError as error:
        raise ConfigError(f"--point {text}: x and y in pixels with a comma between them, as 320,240, or cls") from error
    return x, y


def _check_options(mode: str, mask, point: str | None, per_image: bool, films: Sequence[Path]) -> None:
    """Refuse options that would change nothing."""
    if point is not None and mode not in ("similarity", "attention"):
        raise ConfigError(f"--point has no meaning for --mode {mode}")
    if point == "cls" and mode != "attention":
        raise ConfigError(f"--point cls has no meaning for --mode {mode}: name a pixel")
    if mask and mode not in ("pca", "correspondence"):
        raise ConfigError(f"--mask has no meaning for --mode {mode}")
    if per_image and mode != "pca":
        raise ConfigError(f"--per-image has no meaning for --mode {mode}")
    if films and (mode != "pca" or mask or per_image):
        raise ConfigError(f"{films[0]} is a video: those are drawn by --mode pca, without --mask and --per-image")


def _length(film: Path) -> int:
    from pe_dense.visualization.figures import count_frames

    return count_frames(film)
