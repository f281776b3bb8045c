"""Implementation of ``tools/visualize_features.py``: check the arguments, load the backbone, draw the figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pe_dense.backbones.base import parse_layers
from pe_dense.utils.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pe_dense.language import CLIP

MODES = {
    "pca": "principal components as colors (the default); videos give MP4",
    "correspondence": "mutual nearest neighbors between the first image and each of the others",
    "similarity": "cosine similarity of all tokens to the token at --point of the first image",
    "attention": "attention map of the token at --point, from the backbone's queries and keys",
    "clusters": "k-means clusters of the tokens of all images together",
    "discovery": "the object that TokenCut or LOST finds without labels, and the scores of all tokens",
    "words": "similarity to each of --words, and the most similar word of each pixel (PE Core)",
}
DEFAULT_PATCHES = "pooled"


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
    left_out: list[tuple[Path, str]],
    words: str | None = None,
    patches: str | None = None,
    background: float | None = None,
    clusters: int | None = None,
    method: str | None = None,
    tau: float | None = None,
) -> Iterator[Path]:
    """Draw figures of the features of images or videos.

    A file that cannot be used does not stop the others, unless it is the first image and the mode compares the others
    with it.

    Args:
        sources: image files, folders of them, or videos.
        arch, weights: see :func:`~pe_dense.backbones.build.open_tower`.
        layers: block numbers separated by commas, or 'all'.
        mode: one of ``MODES``.
        mask: mask files, one per image, or ``['auto']``.
        point: 'X,Y' in pixels of the first image, or 'cls'.
        size: longer side in pixels that images are resized to; the native image size of the backbone by default.
        per_image: fit the principal components to each image separately.
        out: folder of the figures.
        overwrite: replace existing files in the folder.
        device: of the backbone; by default a GPU if one is available.
        left_out: files that cannot be used are appended here, with the reason.
        words: for mode 'words', as of :func:`~pe_dense.language.word_lists.parse_synonyms`.
        patches: for mode 'words', one of :data:`~pe_dense.language.dense.CORE_MODES`, by default 'pooled'.
        background: for mode 'words', the score below which a pixel has no word, from 0 to 1.
        clusters: for mode 'clusters', their number.
        method: for mode 'discovery', 'tokencut' or 'lost'.
        tau: for 'tokencut', its threshold.

    Yields:
        the path of each file after it is written.

    Raises:
        ConfigError, ValueError, FileNotFoundError, FileExistsError: before the backbone runs, for invalid arguments
            or files.
    """
    from mmengine.logging import MMLogger

    from pe_dense.utils.image import find_images, read_image
    from pe_dense.utils.output_folder import check_output_folder, output_names
    from pe_dense.utils.video import is_video

    films = [Path(source) for source in sources if is_video(source)]
    stills = [source for source in sources if Path(source) not in films]
    _check_options(mode, mask, point, per_image, films)
    _check_words(mode, words, patches, background, layers)
    unsupervised = _unsupervised_options(mode, clusters, method, tau)
    place = _parse_point(point)
    parse_layers(layers)
    check_output_folder(out, "--out")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise FileExistsError(f"{out} is not empty: choose another folder or pass --overwrite")
    files = find_images(stills, exclude=[out])
    if any(file.resolve().parent == out.resolve() for file in [*files, *films]):
        raise ConfigError(f"--out {out} contains the images, which might be replaced: choose another folder")
    masks = "auto" if mask == ["auto"] else mask
    if masks not in (None, "auto") and len(masks) != len(files):
        raise ConfigError(f"{len(masks)} masks for {len(files)} images: give one for each, or 'auto'")
    images = _usable(files, read_image, left_out)
    if files and files[0] not in images and (mode in ("correspondence", "similarity") or point not in (None, "cls")):
        raise ConfigError(f"{left_out[0][1]}: all images are compared with the first, so name another one")
    lengths = _usable(films, _length, left_out)
    if not images and not lengths:
        return

    from pe_dense.backbones.build import choose_device, open_tower, title_of
    from pe_dense.language.both_towers import open_both_towers
    from pe_dense.visualization import figures
    from pe_dense.visualization.features import FigureInputs
    from pe_dense.visualization.figures import SAMPLES, draw_feature_video

    # Messages about loaded files are meant for training logs and would interrupt the progress bar.
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    device = choose_device(device)
    clip = open_both_towers(arch, weights, device=device) if mode == "words" else None
    tower = clip.visual if clip else open_tower(arch, weights, device=device)
    blocks = parse_layers(layers, tower.num_layers)
    if films and len(blocks) > 1:
        raise ConfigError(f"a video is drawn with one layer, but --layers {layers} selects {len(blocks)}")
    long_side = tower.image_size if size is None else size
    inputs = None
    if images:
        if masks not in (None, "auto"):
            masks = [path for file, path in zip(files, masks, strict=True) if file in images]
        title = title_of(tower, weights) + (f", {patches or DEFAULT_PATCHES} patches" if clip else "")
        inputs = FigureInputs(tower, title, output_names(list(images)), list(images.values()), long_side, masks)
    if clip:
        drawn = figures.draw_words(inputs, *_words_of(clip, words, patches, background), out)
    elif mode in ("clusters", "discovery"):
        from pe_dense.apps.unsupervised import draw_clusters, draw_discovery

        draw_mode = draw_clusters if mode == "clusters" else draw_discovery
        drawn = draw_mode(inputs, blocks, out, **unsupervised)
    else:
        options = {"pca": dict(per_image=per_image), "correspondence": {}}.get(mode, dict(point=place))
        drawn = getattr(figures, f"draw_{mode}")(inputs, blocks, out, **options)

    from rich.console import Console
    from rich.progress import Progress

    out.mkdir(parents=True, exist_ok=True)
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        if inputs:
            task = progress.add_task("Running blocks", total=len(images) * (max(blocks) + 1))
            inputs.advance = lambda count: progress.advance(task, count)
            yield from drawn
        for (film, length), name in zip(lengths.items(), output_names(list(lengths)), strict=True):
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


def _usable(files: Sequence[Path], read: Callable, left_out: list[tuple[Path, str]]) -> dict:
    """Read files, and list those that cannot be read."""
    contents = {}
    for file in files:
        try:
            contents[file] = read(file)
        except (InputError, OSError) as error:
            left_out.append((file, str(error)))
    return contents


def _words_of(clip: CLIP, words: str, patches: str | None, background: float | None):
    """Return the names of words, and the function from an input and a size to their maps."""
    import torch

    from pe_dense.language.dense import BACKGROUND, word_maps
    from pe_dense.language.open_vocabulary import OpenVocabularySegmenter
    from pe_dense.visualization.figures import WordMaps

    model = OpenVocabularySegmenter(clip, words, patches or DEFAULT_PATCHES).to(clip.logit_scale.device)

    @torch.no_grad()
    def maps(images: torch.Tensor, size: tuple[int, int]) -> WordMaps:
        embeddings, grid = model.patch_embeddings(images)
        similarities = (embeddings[0] @ model.text_embeddings.T).T.unflatten(1, grid)
        cosines, labels = word_maps(
            similarities,
            model.query_classes,
            size,
            model.logit_scale,
            background or 0.0,
            has_background=model.class_names[0] == BACKGROUND,
        )
        return WordMaps(cosines.cpu().numpy(), labels.cpu().numpy())

    return model.class_names, maps


def _parse_point(text: str | None) -> tuple[float, float] | str | None:
    if text in (None, "cls"):
        return text
    try:
        x, y = (float(part) for part in text.split(","))
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError("not finite")
    except ValueError as error:
        raise ConfigError(
            f"--point must be x and y in pixels separated by a comma, such as 320,240, or cls, got {text!r}"
        ) from error
    return x, y


def _check_options(mode: str, mask, point: str | None, per_image: bool, films: Sequence[Path]) -> None:
    """Refuse options that have no effect in a mode."""
    if point is not None and mode not in ("similarity", "attention"):
        raise ConfigError(f"--point is not supported by --mode {mode}")
    if point == "cls" and mode != "attention":
        raise ConfigError(f"--point cls is not supported by --mode {mode}: give the coordinates of a pixel")
    if mask and mode not in ("pca", "correspondence"):
        raise ConfigError(f"--mask is not supported by --mode {mode}")
    if per_image and mode != "pca":
        raise ConfigError(f"--per-image is not supported by --mode {mode}")
    if films and (mode != "pca" or mask or per_image):
        raise ConfigError(f"{films[0]} is a video: videos support only --mode pca, without --mask and --per-image")


def _check_words(mode: str, words: str | None, patches: str | None, background: float | None, layers: str) -> None:
    """Check the options of mode 'words' before weights are read, and refuse them in the other modes."""
    if mode != "words":
        given = dict(words=words, patches=patches, background=background)
        if unused := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"--{unused[0]} is not supported by --mode {mode}: it belongs to --mode words")
        return
    if words is None:
        raise ConfigError("--mode words needs --words, such as --words 'a dog, grass, sky'")
    if layers != "-1":
        raise ConfigError(f"--mode words uses the last layer, but --layers {layers} is given: leave it out")
    from pe_dense.language.dense import CORE_MODES
    from pe_dense.language.word_lists import parse_synonyms

    parse_synonyms(words)
    if patches is not None and patches not in CORE_MODES:
        raise ConfigError(f"--patches {patches} is not one of {', '.join(CORE_MODES)}")


def _unsupervised_options(mode: str, clusters: int | None, method: str | None, tau: float | None) -> dict:
    """Check the options of modes 'clusters' and 'discovery', and refuse them in the other modes."""
    for name, value, owner in (
        ("clusters", clusters, "clusters"),
        ("method", method, "discovery"),
        ("tau", tau, "discovery"),
    ):
        if value is not None and mode != owner:
            raise ConfigError(f"--{name} is not supported by --mode {mode}: it belongs to --mode {owner}")
    if tau is not None and method == "lost":
        raise ConfigError("--tau is not supported by --method lost: it belongs to tokencut")
    given = dict(count=clusters, method=method, tau=tau)
    return {name: value for name, value in given.items() if value is not None}


def _length(film: Path) -> int:
    from pe_dense.visualization.figures import count_frames

    return count_frames(film)
