"""Zero-shot tasks of backbones with a text tower: open-vocabulary segmentation and classification by words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from pe_dense.backbones.base import TIMM_PREFIX
from pe_dense.backbones.pe_configs import PE_CONFIGS
from pe_dense.datasets.synthetic import write_forms
from pe_dense.evaluation import pictures
from pe_dense.evaluation.data import SegmentationData, segmentation_data
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.evaluation.scores import count_pairs, mean_iou
from pe_dense.language.both_towers import open_both_towers
from pe_dense.language.clip import CLIP
from pe_dense.language.inferencer import native_windows
from pe_dense.language.open_vocabulary import OpenVocabularySegmenter
from pe_dense.language.text_tower import TEXT_CONFIGS
from pe_dense.language.zero_shot import evaluate_classification
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import read_image
from pe_dense.visualization.features import to_input


def open_text(name: str, device: torch.device) -> CLIP:
    """Load image and text tower of a backbone.

    Args:
        name: as on the command line of the benchmark.
        device: device of the model.

    Raises:
        InputError: if the backbone has no text tower.
    """
    arch, _, weights = name.partition("=")
    if arch.startswith(TIMM_PREFIX) or arch in PE_CONFIGS and arch not in TEXT_CONFIGS:
        raise InputError(f"{arch} has no text tower")
    if arch not in PE_CONFIGS:
        arch, weights = None, name
    try:
        return open_both_towers(arch, weights or None, device=device)
    except ValueError as error:
        raise InputError(f"no text tower: {error}") from error


def evaluate_words(
    run: TaskRun,
    data: str,
    *,
    words: str,
    short_side: float,
    threshold: float = 0.0,
    templates: str | Sequence[str] = "imagenet",
    generator: dict | None = None,
) -> list[dict]:
    """Evaluate open-vocabulary segmentation, see :class:`~pe_dense.language.OpenVocabularySegmenter`.

    Args:
        run: backbone with a text tower. Words are compared with the last layer, whatever the layers of the run.
        data: see :func:`~pe_dense.evaluation.data.segmentation_data`.
        words: classes, in the order of the data set.
        short_side: of the images, in sides of a window, which has the native size of the backbone.
        threshold: score below which a pixel is background.
        templates: as of :func:`~pe_dense.language.zero_shot.get_templates`.
        generator: of generated data.

    Returns:
        a row with ``mIoU`` in percent.
    """
    files = segmentation_data(data, run.root, generator)
    clip = run.open_text()
    windows, _ = native_windows(clip.visual)
    model = OpenVocabularySegmenter(clip, words, templates=templates, threshold=threshold, test_cfg=windows)
    model = model.to(run.device)
    classes = len(files.classes)
    if model.num_classes != classes:
        raise InputError(f"{model.num_classes} words for the {classes} classes of {data}")
    tower, (side, _) = clip.visual, windows["crop_size"]
    load = partial(_load_image, data=files, short=round(short_side * side), mean=tower.mean, std=tower.std)
    counts, shown = 0, []
    for index, (pixels, labels) in enumerate(run.read(files.val, load)):
        sample = SegDataSample(metainfo=dict(img_shape=tuple(pixels.shape[1:]), ori_shape=tuple(labels.shape)))
        (found,) = model.predict([pixels.to(run.device)], [sample])
        predicted = found.pred_sem_seg.data[0].cpu()
        counts = counts + count_pairs(predicted, labels, classes, classes)
        if index < SHOWN_IMAGES:
            shown.append((files.val[index][0], labels.numpy(), predicted.numpy()))
    run.save(pictures.label_figure(shown, files.palette, "words"))
    return [dict(layer=run.tower.num_layers - 1, mIoU=100 * mean_iou(counts))]


def _load_image(
    item: tuple[Path, Path], data: SegmentationData, short: int, mean: tuple, std: tuple
) -> tuple[Tensor, Tensor]:
    path, label_path = item
    image = read_image(path, ignore_orientation=True)
    scale = short / min(image.size)
    size = tuple(max(round(scale * length), 1) for length in image.size)
    labels = np.array(data.read_labels(label_path))
    return to_input(image.resize(size, Image.Resampling.BILINEAR), mean, std)[0], torch.from_numpy(labels)


def evaluate_zero_shot(run: TaskRun, *, templates: str | Sequence[str], generator: dict) -> list[dict]:
    """Evaluate zero-shot classification of generated images of one shape.

    Args:
        run: backbone with a text tower; images are compared by the embedding of the whole image.
        templates: as of :func:`~pe_dense.language.zero_shot.get_templates`.
        generator: arguments of :func:`~pe_dense.datasets.synthetic.write_forms`.

    Returns:
        a row with ``top-1`` and ``top-5`` in percent.
    """
    root = write_forms(run.root, **generator)
    found = evaluate_classification(run.open_text(), root / "labels.csv", templates, batch_size=run.batch_size)
    return [dict(layer=run.tower.num_layers - 1, **{f"top-{k}": 100 * found[f"top{k}"] for k in (1, 5)})]
