"""Test-time augmentation of Mask R-CNN."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import pe_dense  # noqa: F401  before mmdet
from pe_dense.detection import MaskRCNNTTAModel, load_detector
from pe_dense.engine.class_counts import drop_masks
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import load_predictor
from pe_dense.engine.runner import load_model_state
from pe_dense.utils.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "configs" / "shapes_maskrcnn_pe_tiny.py"


@pytest.fixture(scope="module")
def config():
    config = load_config(CONFIG)
    config.model.test_cfg.rcnn.score_thr = 0.1
    return config


@pytest.fixture(scope="module")
def checkpoint(config, tmp_path_factory):
    """Return a detector whose untrained heads have scores high enough for detections."""
    torch.manual_seed(0)
    init_default_scope("mmdet")
    model = MODELS.build(config.model)
    model.init_weights()
    path = tmp_path_factory.mktemp("detector") / "detector.pth"
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope="module")
def image():
    return torch.randint(0, 256, (100, 128, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8).numpy()


def views(config, *flips):
    """Return a config with one view per entry, horizontally flipped if the entry is 1.0."""
    config = Config(config.to_dict(), filename=config.filename)
    resizes = config.tta_pipeline[1].transforms
    resizes[0] = resizes[0][:1]
    resizes[1] = [dict(type="RandomFlip", prob=prob) for prob in flips]
    return config


def found(config, checkpoint, image, tta):
    (sample,) = load_detector(config, checkpoint, device="cpu", tta=tta)(image)
    return sample.pred_instances


def test_one_plain_view_changes_nothing(config, checkpoint, image):
    plain = found(config, checkpoint, image, tta=False)
    augmented = found(views(config, 0.0), checkpoint, image, tta=True)
    assert len(plain) > 5
    assert torch.equal(plain.labels, augmented.labels)
    torch.testing.assert_close(plain.scores, augmented.scores)
    torch.testing.assert_close(plain.bboxes, augmented.bboxes, atol=1e-3, rtol=0)
    assert (plain.masks != augmented.masks).float().mean() < 1e-3


def test_flipped_view_equals_the_flipped_image(config, checkpoint, image):
    """Its detections are those of the flipped image, flipped back."""
    mirrored = found(config, checkpoint, image[:, ::-1].copy(), tta=False)
    augmented = found(views(config, 1.0), checkpoint, image, tta=True)
    torch.testing.assert_close(mirrored.scores, augmented.scores)
    upright = mirrored.bboxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([128, 0, 128, 0])
    torch.testing.assert_close(upright, augmented.bboxes, atol=1e-3, rtol=0)
    assert (mirrored.masks.flip(-1) != augmented.masks).float().mean() < 1e-3


def test_the_image_and_its_flip_agree(config, checkpoint, image):
    """With both views, the image and its flipped copy have the same detections."""
    both = views(config, 0.0, 1.0)
    one, other = found(both, checkpoint, image, tta=True), found(both, checkpoint, image[:, ::-1].copy(), tta=True)
    assert len(one) > 5
    torch.testing.assert_close(one.scores, other.scores)
    assert (one.masks != other.masks.flip(-1)).float().mean() < 1e-3


def test_sizes_and_batches(config, checkpoint, image):
    """Views of the config, for images of a batch."""
    detector = load_detector(config, checkpoint, device="cpu", tta=True)
    alone = [detector(one)[0].pred_instances for one in (image, image[:64])]
    together = [sample.pred_instances for sample in detector([image, image[:64]], batch_size=2)]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
    assert together[1].masks.shape[1:] == (64, 128)


def test_nothing_found(config, checkpoint, image):
    config = Config(config.to_dict(), filename=config.filename)
    config.model.test_cfg.rcnn.score_thr = 0.999
    nothing = found(config, checkpoint, image, tta=True)
    assert nothing.masks.shape == (0, 100, 128)
    assert nothing.bboxes.shape == (0, 4)


def test_without_a_mask_head(config, checkpoint, image, tmp_path):
    """A run on boxes alone is loaded by the config with masks; the weights of masks are left out without one."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    boxes = {key: value for key, value in state.items() if "mask_head" not in key}
    torch.save(dict(state_dict=boxes), tmp_path / "boxes.pth")
    for tta in (False, True):
        alone, both = (found(config, path, image, tta=tta) for path in (tmp_path / "boxes.pth", checkpoint))
        assert "masks" not in alone
        assert torch.equal(alone.bboxes, both.bboxes)
    assert config.model.roi_head.mask_head
    config = Config(config.to_dict(), filename=config.filename)
    drop_masks(config)
    assert torch.equal(found(config, checkpoint, image, tta=True).bboxes, both.bboxes)


def test_takes_a_detectors_checkpoint(config, checkpoint):
    model = MODELS.build(dict(config.tta_model, module=config.model))
    state = torch.load(checkpoint, weights_only=True)
    load_model_state(model, state, str(checkpoint))
    assert torch.equal(model.module.backbone.conv1.weight, state["state_dict"]["backbone.conv1.weight"])


def test_drawing_takes_the_flag(config, checkpoint):
    predictor = load_predictor(config, str(checkpoint), device="cpu", tta=True)
    assert isinstance(predictor.detector.model, MaskRCNNTTAModel)
    assert not isinstance(load_predictor(config, str(checkpoint), device="cpu").detector.model, MaskRCNNTTAModel)


def test_a_loaded_config_stays_as_it_is(config, checkpoint):
    before = config.to_dict()
    load_detector(config, checkpoint, device="cpu", tta=True)
    assert config.to_dict() == before
    with pytest.raises(ValueError, match="options change a config that is given by its path"):
        load_detector(config, checkpoint, options=dict(image_size=64))


def test_config_without_it(config, checkpoint):
    config = Config(config.to_dict(), filename=config.filename)
    config.pop("tta_model")
    with pytest.raises(ConfigError, match="tiny.py has no test-time augmentation: it lacks tta_model"):
        load_detector(config, checkpoint, tta=True)
