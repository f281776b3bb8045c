"""Zero-shot classification with prompt ensembles, and text-to-image and image-to-text retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.language.clip import CLIP
from pe_dense.language.preprocessing import VIDEO_FRAMES, get_image_transform, get_text_tokenizer, video_frame_indices
from pe_dense.language.word_lists import parse_words
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.image import ImageError, read_image
from pe_dense.utils.video import is_video, read_video

PHOTO = ("a photo of a {}.",)
TEMPLATES = ("photo", "imagenet", "vild", "none")
_TEXTS_PER_BATCH = 256
_LONGEST_PROMPT = 4096  # tokens, more than any context


def get_templates(templates: str | Sequence[str]) -> list[str]:
    """Return prompt templates by name, or check given ones.

    Args:
        templates: 'photo' ("a photo of a {}."), 'imagenet' (CLIP's 80 templates), 'vild' (ViLD's 14), 'none' (the word
            alone), or templates with one ``{}`` each.

    Raises:
        ValueError: for an unknown name, no template, or one without exactly one ``{}``.
    """
    if not isinstance(templates, str) and len(templates) == 1:
        (templates,) = templates
    if isinstance(templates, str):
        if templates == "photo":
            return list(PHOTO)
        if templates == "none":
            return ["{}"]
        if templates in TEMPLATES:
            from mmseg.utils import get_predefined_templates

            return list(get_predefined_templates(templates))
        templates = [templates]
    templates = list(templates)
    if not templates:
        raise InputError("no prompt template: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise InputError(f"{template!r} is not one of {', '.join(TEMPLATES)} or a template with one {{}}")
    return templates


@torch.no_grad()
def class_embeddings(model: CLIP, names: Sequence[str], templates: str | Sequence[str] = "photo") -> Tensor:
    """Embed classes by an ensemble of prompts.

    The embedding of a class is the normalized mean of the normalized embeddings of its prompts, as in CLIP.

    Args:
        model: both towers.
        names: K class names.
        templates: as of :func:`get_templates`.

    Returns:
        (K, D), of unit length.

    Raises:
        ValueError: as :func:`get_templates`, and for no name at all.
    """
    templates = get_templates(templates)
    if not names:
        raise InputError("no class names: give at least one")
    prompts = [template.replace("{}", name) for name in names for template in templates]
    sources = [name for name in names for _ in templates]
    embeddings = encode_texts(model, prompts, sources).unflatten(0, (len(names), len(templates)))
    return F.normalize(embeddings.mean(dim=1), dim=-1)


def truncated_words(model: CLIP, names: Sequence[str], templates: str | Sequence[str] = "photo") -> list[str]:
    """Return the names with a prompt that is longer than the context of the model.

    Args:
        model, names, templates: as of :func:`class_embeddings`.
    """
    templates = get_templates(templates)
    long = get_text_tokenizer(_LONGEST_PROMPT)
    return [
        name
        for name in names
        # The end-of-text token has the largest id.
        if long([t.replace("{}", name) for t in templates]).argmax(dim=1).max() >= model.context_length
    ]


@torch.no_grad()
def encode_texts(model: CLIP, texts: Sequence[str], names: Sequence[str] | None = None) -> Tensor:
    """Compute normalized embeddings (N, D) of texts in batches.

    Args:
        model: anything with ``encode_text``, ``context_length`` and ``logit_scale``.
        texts: N texts.
        names: what a warning about texts that are too long calls them; by default the texts.

    Raises:
        ValueError: if there is no text.
    """
    tokens = get_text_tokenizer(model.context_length)(texts, names=names).to(model.logit_scale.device)
    return torch.cat([model.encode_text(batch, normalize=True) for batch in tokens.split(_TEXTS_PER_BATCH)])


@torch.no_grad()
def encode_files(
    model: CLIP,
    files: Sequence[str | Path],
    *,
    batch_size: int = 16,
    num_frames: int = VIDEO_FRAMES,
    normalize_frames: bool = False,
    left_out: list | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Embed image and video files.

    Args:
        model: both towers.
        files: images, and videos by their ending.
        batch_size: images that run together; a video runs alone.
        num_frames: frames of a video, see :func:`~pe_dense.language.preprocessing.video_frame_indices`.
        normalize_frames: of videos, average normalized frame embeddings and do not normalize the mean, as in the
            published retrieval; by default the mean of the raw ones is normalized, as in the published classification.
        left_out: (number, reason) of a file that cannot be read is appended here instead of raising.

    Yields:
        numbers of files and their embeddings (len(numbers), D), of unit length unless ``normalize_frames``.

    Raises:
        FileNotFoundError, ImageError, ValueError: for a file that cannot be read, without ``left_out``.
    """
    transform = get_image_transform(model.image_size)
    parameter = model.logit_scale  # for its device and data type
    numbers, images = [], []

    def run() -> tuple[list[int], Tensor]:
        batch = torch.stack(images).to(parameter)
        done = list(numbers), model.encode_image(batch, normalize=True)
        numbers.clear()
        images.clear()
        return done

    for number, file in enumerate(files):
        try:
            if is_video(file):
                video = torch.stack([transform(frame) for frame in sample_frames(file, num_frames)])[None].to(parameter)
                embedding = model.encode_video(video, normalize=normalize_frames)
                yield [number], embedding if normalize_frames else F.normalize(embedding, dim=-1)
                continue
            images.append(transform(read_image(file)))
            numbers.append(number)
        except (ImageError, InputError, OSError) as error:
            if left_out is None:
                raise
            left_out.append((number, str(error)))
            continue
        if len(images) == batch_size:
            yield run()
    if images:
        yield run()


def sample_frames(path: str | Path, count: int = VIDEO_FRAMES) -> list:
    """Yield evenly spaced frames of a video as PIL images; it is decoded twice, to keep one frame at a time.

    Raises:
        FileNotFoundError, ValueError: as :func:`~pe_dense.utils.video.read_video`.
    """
    from PIL import Image

    total = sum(1 for _ in read_video(path))
    wanted = video_frame_indices(total, count)
    frames = {i: Image.fromarray(frame) for i, frame in enumerate(read_video(path)) if i in set(wanted)}
    return [frames[i] for i in wanted]


def recall_at_k(scores: Tensor, positives: Tensor, ks: Sequence[int] = (1, 5, 10), reweight: bool = False) -> dict:
    """Compute the fraction of queries with at least one positive among the k items with the highest scores.

    Args:
        scores: (queries, items) similarities.
        positives: (queries, items), bool.
        ks: numbers of items; larger ones than there are items count all.
        reweight: multiply scores by their softmax over all queries, as PE's published evaluation does by default. It
            uses the whole test set at once (transductive), so that its figures are not comparable with others'.

    Returns:
        recall by k.

    Raises:
        ValueError: if shapes differ, or a query has no positive.
    """
    if scores.shape != positives.shape or scores.dim() != 2:
        raise InputError(f"scores {tuple(scores.shape)} and positives {tuple(positives.shape)} are of different shapes")
    if not positives.any(dim=1).all():
        raise InputError(f"query {int((~positives.any(dim=1)).nonzero()[0])} has no positive item")
    if reweight:
        scores = scores * scores.softmax(dim=0)
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = positives.gather(1, order)
    return {k: hits[:, :k].any(dim=1).float().mean().item() for k in ks}


def classification_accuracy(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute top-1 and top-5 accuracy and mean per-class recall.

    Args:
        logits: (N, K).
        labels: (N,) class numbers.
    """
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    recalls = [hits[labels == label, 0].float().mean() for label in labels.unique()]
    return dict(
        top1=hits[:, 0].float().mean().item(),
        top5=hits.any(dim=1).float().mean().item(),
        mean_per_class_recall=torch.stack(recalls).mean().item(),
    )


def read_labels(path: str | Path, column: str, root: str | Path | None = None) -> tuple[list[Path], list[str]]:
    """Read a CSV or JSON lines file with ``file`` and ``label`` or ``caption``.

    Args:
        path: the table, or for labels a folder with a folder of images for each class, see
            :func:`pe_dense.datasets.formats.class_folders.read`.
        column: 'label' or 'caption'.
        root: folder that files are relative to; that of the table by default.

    Returns:
        files and their labels; see :func:`~pe_dense.datasets.captions.read_table`.

    Raises:
        ConfigError, FileNotFoundError: as that function.
    """
    from pe_dense.datasets.captions import read_table
    from pe_dense.datasets.formats import class_folders

    rows = class_folders.read(path) if column == "label" and Path(path).is_dir() else read_table(path, column, root)
    return [file for file, _ in rows], [label for _, label in rows]


def embed_all(model: CLIP, files: Sequence[Path], left_out: list | None = None, **options) -> tuple[list[Path], Tensor]:
    """Embed all files in their order.

    Args:
        model, options: as of :func:`encode_files`.
        files: images and videos.
        left_out: (path, reason) of a file that cannot be read is appended here instead of raising.

    Returns:
        the N files that could be read, and their embeddings (N, D).

    Raises:
        InputError: if no file could be read.
        FileNotFoundError, ImageError, ValueError: for a file that cannot be read, without ``left_out``.
    """
    failed = None if left_out is None else []
    batches = list(encode_files(model, files, left_out=failed, **options))
    if failed:
        left_out += [(files[number], reason) for number, reason in failed]
    if not batches:
        raise InputError(f"none of {len(files)} files can be read; the first: {failed[0][1]}")
    order = torch.tensor([number for numbers, _ in batches for number in numbers])
    embeddings = torch.cat([embedding for _, embedding in batches])
    return [files[number] for number in order.sort().values], embeddings[order.argsort().to(embeddings.device)]


def evaluate_classification(
    model: CLIP,
    labels_file: str | Path,
    templates: str | Sequence[str] = "photo",
    *,
    root: str | Path | None = None,
    left_out: list | None = None,
    **options,
) -> dict[str, float]:
    """Evaluate zero-shot classification on a CSV file with the columns ``file`` and ``label``.

    Args:
        model: both towers.
        labels_file: as of :func:`read_labels`; its distinct labels are the classes.
        templates: as of :func:`get_templates`.
        root: as of :func:`read_labels`.
        left_out: as of :func:`embed_all`; files that cannot be read are not part of the figures.
        options: of :func:`encode_files`.

    Returns:
        as :func:`classification_accuracy`.

    Raises:
        ConfigError: if labels differ only by letter case, so that the text tower cannot distinguish them; and as
            :func:`read_labels`.
    """
    rows, labels = read_labels(labels_file, "label", root)
    classes = sorted(set(labels))
    try:
        parse_words(classes)
    except ConfigError as error:
        raise ConfigError(f"labels of {labels_file}, without distinction of letter case: {error}") from error
    files, embeddings = embed_all(model, list(dict.fromkeys(rows)), left_out, **options)
    places = {file: place for place, file in enumerate(files)}
    read = [(places[file], classes.index(label)) for file, label in zip(rows, labels, strict=True) if file in places]
    numbers, targets = torch.tensor(read).T
    logits = embeddings.cpu()[numbers] @ class_embeddings(model, classes, templates).cpu().T
    return classification_accuracy(logits, targets)


def evaluate_retrieval(
    model: CLIP,
    captions_file: str | Path,
    ks: Sequence[int] = (1, 5, 10),
    *,
    root: str | Path | None = None,
    left_out: list | None = None,
    **options,
) -> dict:
    """Evaluate image-text retrieval on a CSV file with the columns ``file`` and ``caption``.

    A file may occur in several rows. Equal captions of different files are positives of each other.

    Args:
        model: both towers.
        captions_file: as of :func:`read_labels`.
        ks: as of :func:`recall_at_k`.
        root: as of :func:`read_labels`.
        left_out: as of :func:`embed_all`; files that cannot be read, and captions of no other file, are not part of
            the figures.
        options: of :func:`encode_files`.

    Returns:
        recalls by name (``text_to_image_r1``, ...), plain and ``_reweighted`` as in :func:`recall_at_k`.
    """
    rows, texts = read_labels(captions_file, "caption", root)
    files, images = embed_all(model, list(dict.fromkeys(rows)), left_out, normalize_frames=True, **options)
    places = {file: place for place, file in enumerate(files)}
    pairs = [(text, places[file]) for file, text in zip(rows, texts, strict=True) if file in places]
    captions = {text: place for place, text in enumerate(dict.fromkeys(text for text, _ in pairs))}
    positives = torch.zeros(len(captions), len(files), dtype=torch.bool)
    for text, place in pairs:
        positives[captions[text], place] = True
    scores = (encode_texts(model, list(captions)) @ images.T).float().cpu()
    results = {}
    for suffix, reweight in (("", False), ("_reweighted", True)):
        for name, (s, p) in dict(text_to_image=(scores, positives), image_to_text=(scores.T, positives.T)).items():
            recalls = recall_at_k(s, p, ks, reweight)
            results |= {f"{name}_r{k}{suffix}": recall for k, recall in recalls.items()}
    return results
