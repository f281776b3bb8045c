"""Load a trained model of any task and predict on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from pe_dense.apis.inputs import Picture, read_inputs
from pe_dense.apis.tiles import open_image
from pe_dense.apis.videos import Video, track_video
from pe_dense.backbones.pe_configs import PE_CONFIGS
from pe_dense.engine.acceleration import accelerate
from pe_dense.engine.build_runner import own_weights
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import Predictor, config_of_run, load_predictor, predict_batches
from pe_dense.language.word_lists import parse_synonyms
from pe_dense.runtime.results import Detections, Result
from pe_dense.runtime.source import Source
from pe_dense.runtime.thresholds import Thresholds, check_thresholds
from pe_dense.tiling import Tiling, predict_tiles
from pe_dense.utils.errors import ConfigError, InputError

WORDS_CONFIG = "ade20k_words_pe_l14"  # whose settings open-vocabulary segmentation uses if no config is named
_WEIGHTS = (".pt", ".pth", ".safetensors")


def load(
    source: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    *,
    words: str | Path | Sequence[str] | None = None,
    options: dict | None = None,
    tower: str | None = None,
    tta: bool = False,
    compiled: bool = False,
    dtype: str = "float32",
) -> Model:
    """Load a trained model.

    Args:
        source: work dir of a run, or a checkpoint in it, whose config is used; or a config: a path or a name
            (``lvis_maskrcnn_pe_g14``). With ``words``, a PE Core model (``PE-Core-B16-224``, a file or ``hf://`` name)
            or the config of an open-vocabulary segmenter.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name; by default that of the run, or the weights
            that the config of a training-free method names.
        device: 'cuda', 'cpu', ...; a GPU if available by default.
        words: classes to segment, such as ``"dog, sofa, grass"``, as of
            :func:`~pe_dense.language.word_lists.parse_synonyms`.
        options: overrides of config values, ``{"image_size": 512}``.
        tower: backbone to put under the config, as in training.
        tta: test-time augmentation, for detectors whose config defines it.
        compiled, dtype: compile the backbone's blocks, or run them in bfloat16; see
            :func:`~pe_dense.engine.acceleration.accelerate`.

    Returns:
        the model; call its :meth:`Model.predict`.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: if a file is missing or does not match.
    """
    if words is not None:
        if tta or tower:
            raise ConfigError(f"words do not go with {'tta' if tta else 'tower'}")
        predictor = words_predictor(str(source), checkpoint, words, options=options, device=device)
        accelerate(predictor.network, compiled=compiled, dtype=dtype)
        return Model(predictor)
    if not isinstance(source, Config):
        source, checkpoint = resolve_source(source, checkpoint)
        config = load_config(source, options, tower=tower)
    else:
        config = source.copy()
    if checkpoint is None:
        if "train_dataloader" in config:
            raise ConfigError(f"{source} is a config: name a checkpoint or a work dir after it")
        checkpoint = own_weights(config)
    extra = dict(tta=True) if tta else {}
    checkpoint = None if checkpoint is None else str(checkpoint)
    predictor = load_predictor(config, checkpoint, device=device, **extra)
    accelerate(predictor.network, compiled=compiled, dtype=dtype)
    return Model(predictor)


def resolve_source(source: str | Path, checkpoint: str | Path | None) -> tuple[str, str | Path | None]:
    """Replace the work dir or the checkpoint of a run by the run's config and its checkpoint.

    Args:
        source: work dir, checkpoint or config.
        checkpoint: the checkpoint, if it is not the run's.

    Returns:
        path or name of the config, and the checkpoint.

    Raises:
        ConfigError: if a work dir has no config, or for the name of a backbone.
    """
    if source in PE_CONFIGS:
        raise ConfigError(
            f"{source} is a backbone, which predicts nothing by itself: name the work dir of a run, or with a PE Core "
            'model words to segment: pe_dense.load("PE-Core-L14-336", words="dog, sofa")'
        )
    path = Path(source)
    if path.is_dir() or path.suffix in _WEIGHTS:
        if path.suffix in _WEIGHTS and not path.is_file():
            raise FileNotFoundError(f"checkpoint {path} does not exist ({path.absolute()})")
        return str(config_of_run(path)), path if checkpoint is None else checkpoint
    return str(source), checkpoint


def words_predictor(
    source: str,
    checkpoint: str | Path | None,
    words: str | Path | Sequence[str],
    *,
    options: dict | None = None,
    device: str | None = None,
    check=None,
) -> Predictor:
    """Build the inferencer of open-vocabulary segmentation.

    Args:
        source: a PE Core model or a config, see :func:`load`.
        checkpoint: None for the weights of the model or of the config.
        words: classes.
        options: overrides of config values.
        device: see :func:`load`.
        check: function that is called with the config before the model is built.

    Raises:
        ConfigError: for a checkpoint or an option that names another model or other words, or words that cannot be
            used.
    """
    parse_synonyms(words)  # before weights are read
    options = options or {}
    if "model.words" in options:
        raise ConfigError("the words are given twice, by --words and by the option model.words: leave the option out")
    extra = {}
    if source.startswith(("PE-", "hf://")) or source.endswith(_WEIGHTS) or Path(source).is_dir():
        if checkpoint is not None:
            raise ConfigError(
                f"with --words and a model as the first argument, the second one is 'words', got {str(checkpoint)!r}"
            )
        if twice := [name for name in ("tower", "model.clip") if name in options]:
            raise ConfigError(
                f"the model is given twice, by {source} and by the option {twice[0]}: leave the option out, or name a "
                f"config, such as {WORDS_CONFIG}, instead of the model"
            )
        config = load_config(WORDS_CONFIG, options)
        config.model.clip = source
        extra = dict(native_except=options)
    else:
        config = load_config(source, options)
    if checkpoint is None:
        checkpoint = own_weights(config)
    if check is not None:
        check(config)
    checkpoint = None if checkpoint is None else str(checkpoint)
    return load_predictor(config, checkpoint, device=device, words=words, **extra)


class Model:
    """A trained model that predicts typed results.

    Args:
        predictor: inferencer of its task.

    Attributes:
        predictor: the inferencer.
        classes: class names by label; empty if the model has no classes.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.classes: tuple[str, ...] = predictor.classes

    def predict(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int = 1,
        *,
        score_thr: Thresholds = 0.3,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> list[Result]:
        """Predict on images.

        Args:
            images: paths of images, folders and videos, Pillow images, arrays (H, W, 3) uint8 in RGB, or tensors
                (3, H, W) or (N, 3, H, W) in RGB, uint8 or from 0 to 1; one or several.
            batch_size: number of images per batch.
            score_thr: lowest score of objects, or one by class, ``{"person": 0.6, "*": 0.3}``; 0 for all objects that
                the model returns.
            tile: predict in tiles of this side in pixels, for images that are larger than the model's input; the batch
                is then one of tiles, and large maps are ``numpy.memmap`` of temporary files.
            overlap: smallest overlap of neighboring tiles, as a part of the side.

        Returns:
            a result per image or frame: :class:`~pe_dense.runtime.Detections`, :class:`~pe_dense.runtime.LabelMap`,
            :class:`~pe_dense.runtime.Segments` or :class:`~pe_dense.runtime.DepthMap`. Their ``source`` has the path
            and, for images that are not files, the pixels, but no frames of videos: use :meth:`stream` for those.

        Raises:
            FileNotFoundError, ImageError: if a file cannot be read.
            InputError: for a URL, anything that is not an image, or an unknown class.
        """
        results = self.stream(images, batch_size, score_thr=score_thr, tile=tile, overlap=overlap)
        return [
            one if one.source.frame is None else replace(one, source=replace(one.source, pixels=None))
            for one in results
        ]

    def stream(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int = 1,
        *,
        score_thr: Thresholds = 0.3,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Iterator[Result]:
        """Same as :meth:`predict`, but yield results as soon as they are computed, so that memory stays bounded.

        The frames of videos are in ``source.pixels``.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, must be at least 1")
        check_thresholds(score_thr, self.classes)
        if tile is not None:
            return self._stream_tiles(read_inputs(images), Tiling(tile, overlap), batch_size, score_thr)
        return self._stream(read_inputs(images), batch_size, score_thr)

    def track(
        self,
        video: str | Path,
        batch_size: int = 1,
        *,
        score_thr: Thresholds = 0.3,
        track_thr: float = 0.5,
        fps: float | None = None,
    ) -> Iterator[Result]:
        """Yield the results of the frames of a video; objects have ``ids`` that are the same in all frames.

        Args:
            video: a video file, or a folder with an image for each frame.
            batch_size: number of frames per batch.
            score_thr: lowest score of objects, as of :meth:`predict`; tracks also use those of lower scores.
            track_thr: score from which objects are matched first; new tracks need 0.1 more.
            fps: frames per second; that of the file, or 25, by default.

        Raises:
            FileNotFoundError, InputError: if the video cannot be read.
        """
        check_thresholds(score_thr, self.classes)
        for result in track_video(self.predictor, Video.open(video, fps), batch_size, track_thr=track_thr):
            yield result.above(score_thr) if isinstance(result, Detections) else result

    def _stream(self, sources: Iterator[Source], batch_size: int, score_thr: Thresholds) -> Iterator[Result]:
        prepared = (
            (source, self.predictor.prepare(source.path if source.pixels is None else source.pixels, number)[0])
            for number, source in enumerate(sources)
        )
        for source, sample in predict_batches(self.predictor, prepared, batch_size):
            result = self.predictor.result(sample.cpu())
            if isinstance(result, Detections):
                result = result.above(score_thr)
            yield replace(result, source=source)

    def _stream_tiles(
        self, sources: Iterator[Source], tiling: Tiling, batch_size: int, score_thr: Thresholds
    ) -> Iterator[Result]:
        for source in sources:
            reader = open_image(self.predictor, source.path if source.pixels is None else source.pixels)
            result = predict_tiles(self.predictor, reader, tiling, batch_size, score_thr=score_thr)
            reader.close()
            yield replace(result, source=source)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.predictor).__name__}, {len(self.classes)} classes)"
