"""A trained detector as a function on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from pycocotools import mask as rle

from pe_dense.datasets.annotations import compare_with_checkpoint
from pe_dense.engine.config import load_config
from pe_dense.engine.runner import load_model_state
from pe_dense.engine.tta import drop_pretrained, use_test_time_augmentation
from pe_dense.registry import INFERENCERS
from pe_dense.utils import read_checkpoint
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import output_names, write_png
from pe_dense.utils.state_dict import checkpoint_classes

Image = str | Path | np.ndarray


def load_detector(
    config: str | Path | Config,
    checkpoint: str | Path,
    *,
    device: str | None = None,
    options: dict | None = None,
    tta: bool = False,
) -> Detector:
    """Build a config's model with a checkpoint's weights.

    Args:
        config: path of a config, or one that was loaded, which stays as it is.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name.
        device: 'cuda', 'cpu', ...; a GPU where there is one by default.
        options: changes of a config given by its path (``dict(image_size=512)``), see
            :func:`~pe_dense.engine.config.load_config`.
        tta: detect in several views of each image (sizes, mirrored), as the config's ``tta_model`` and
            ``tta_pipeline`` say: slower and better.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: for files that are missing or do not fit.
        ValueError: for options beside a loaded config.
    """
    if isinstance(config, Config) and options:
        raise InputError("options change a config that is given by its path; change the loaded one itself")
    config = deepcopy(config) if isinstance(config, Config) else load_config(config, options)
    content = read_checkpoint(checkpoint)
    dataset = config.test_dataloader.dataset
    classes = (dataset.get("metainfo") or {}).get("classes")
    compare_with_checkpoint(content, classes, checkpoint, "the config's data set")
    init_default_scope(config.get("default_scope", "mmdet"))
    if tta:
        use_test_time_augmentation(config)
    drop_pretrained(config.model)
    model = MODELS.build(config.model)
    load_model_state(model, content, str(checkpoint))
    head = getattr(model, "module", model)  # of a model for test-time augmentation
    head = getattr(head, "roi_head", head)
    num_classes = getattr(getattr(head, "bbox_head", None), "num_classes", None)
    metainfo = checkpoint_classes(content, str(checkpoint), num_classes) or dataset.get("metainfo")
    metainfo = metainfo or DATASETS.get(dataset.type).METAINFO
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Detector(model.to(device).eval(), dataset.pipeline, metainfo)


class Detector:
    """Detect objects in images.

    Args:
        model: a detector of mmdet's form.
        pipeline: transforms of the test data, from reading a file on.
        metainfo: of the data set, with ``classes``.
    """

    def __init__(self, model: torch.nn.Module, pipeline: Sequence[dict], metainfo: dict):
        self.model = model
        self.metainfo = dict(metainfo)
        steps = [step for step in pipeline if step["type"] not in ("LoadAnnotations", "LoadImageFromFile")]
        self._from_file = Compose([dict(type="LoadImageFromFile"), *steps])
        self._from_array = Compose([dict(type="mmdet.LoadImageFromNDArray"), *steps])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return tuple(self.metainfo["classes"])

    def __call__(self, images: Image | Sequence[Image], batch_size: int = 1) -> list:
        """Detect in some images.

        Args:
            images: paths, or uint8 arrays (H, W, 3) in RGB; one or several.
            batch_size: images that run together.

        Returns:
            one ``DetDataSample`` per image, with ``pred_instances``: boxes (N, 4) as x1, y1, x2, y2 in pixels of the
            image, scores (N,), labels (N,) and masks (N, H, W) where the model gives them, best first.

        Raises:
            ValueError: for an array of another form, or a batch size below 1.
        """
        images = [images] if isinstance(images, Image) else list(images)
        return [sample for batch in self.iter_batches(images, batch_size) for sample in batch]

    @torch.no_grad()
    def iter_batches(self, images: Sequence[Image], batch_size: int = 1) -> Iterator[list]:
        """As calling, but gives each batch's results as soon as they are there."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, must be at least 1")
        for start in range(0, len(images), batch_size):
            data = [self._prepare(image, start + i) for i, image in enumerate(images[start : start + batch_size])]
            yield self.model.test_step(pseudo_collate(data))

    def _prepare(self, image: Image, index: int) -> dict:
        if not isinstance(image, np.ndarray):
            return self._from_file(dict(img_path=str(image), img_id=index))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"Image {index} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3) in RGB")
        return self._from_array(dict(img=np.ascontiguousarray(image[..., ::-1]), img_id=index))


READABLE_SIDE = 480  # px; smaller images are enlarged before drawing


@INFERENCERS.register_module()
class DetectionPredictor:
    """Draws detections, see :func:`predict_files`.

    Args:
        config: of a detector.
        checkpoint: path, work dir or ``hf://`` name.
        device: as of :func:`~pe_dense.detection.load_detector`.
        score_thr: draw objects from this score on.
        tta: detect in several views of each image, as of :func:`~pe_dense.detection.load_detector`.
    """

    def __init__(
        self, config: Config, checkpoint: str, device: str | None = None, score_thr: float = 0.3, tta: bool = False
    ):
        self.detector = load_detector(config, checkpoint, device=device, tta=tta)
        self.score_thr = score_thr

    def predict_files(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[Path]:
        """As :func:`predict_files`."""
        return predict_files(self.detector, images, out_dir, score_thr=self.score_thr, batch_size=batch_size)


def predict_files(
    detector: Detector, images: Sequence[Path], out_dir: Path, *, score_thr: float = 0.3, batch_size: int = 1
) -> Iterator[Path]:
    """Detect in image files and write ``<name>.png`` with boxes, masks and labels drawn, and ``<name>.json``.

    Args:
        detector: see :func:`~pe_dense.detection.load_detector`.
        images: files that can be read.
        out_dir: made if missing; names repeat no folder, so equal names of different folders get a number.
        score_thr: draw objects from this score on; the JSON holds all.
        batch_size: images that run together.

    Yields:
        the picture of each image, in order.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = detector.metainfo
    samples = (sample for batch in detector.iter_batches(images, batch_size) for sample in batch)
    for image, name, sample in zip(images, output_names(images), samples, strict=True):
        picture = out_dir / f"{name}.png"
        pixels, drawn = enlarge(mmcv.imread(str(image), channel_order="rgb"), sample.cpu())
        visualizer.add_datasample(name, pixels, drawn, draw_gt=False, pred_score_thr=score_thr)
        write_png(picture, visualizer.get_image())
        write_json(picture.with_suffix(".json"), as_json(sample, detector.classes, image))
        yield picture


def enlarge(pixels: np.ndarray, sample: DetDataSample) -> tuple[np.ndarray, DetDataSample]:
    """Enlarge a small image and what was found in it by a whole factor, so that labels can be read.

    Args:
        pixels: (H, W, 3).
        sample: detections in pixels of the image.

    Returns:
        image and detections with a longer side of at least 480 px.
    """
    factor = -(-READABLE_SIDE // max(pixels.shape[:2]))
    if factor == 1:
        return pixels, sample
    height, width = pixels.shape[:2]
    sample = sample.clone()
    found = sample.pred_instances = sample.pred_instances.clone()
    found.bboxes = found.bboxes * factor
    if "masks" in found:
        found.masks = found.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return mmcv.imresize(pixels, (width * factor, height * factor), interpolation="bicubic"), sample


def as_json(sample: DetDataSample, classes: Sequence[str], image: Path) -> dict:
    """A detection result in plain types; boxes are x1, y1, x2, y2 in pixels, masks COCO's run lengths."""
    found = sample.pred_instances.cpu().numpy()
    height, width = sample.ori_shape
    objects = [
        dict(category=classes[label], label=int(label), score=float(score), bbox=[float(x) for x in box])
        for label, score, box in zip(found.labels, found.scores, found.bboxes, strict=True)
    ]
    if "masks" in found:
        for item, mask in zip(objects, found.masks, strict=True):
            encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            item["mask"] = dict(size=encoded["size"], counts=encoded["counts"].decode())
    return dict(image=str(image), width=int(width), height=int(height), objects=objects)
