"""Tiny models with random weights for export, and the models' own predictions."""

import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, init_default_scope

from helpers.tiny_run import two_blocks
from helpers.tool_runs import ROOT
from pe_dense.engine.config import load_config

CLASSES = tuple(f"class {number}" for number in range(8))
WINDOWS = dict(window_size=2, global_blocks=(1,), pos_embed="tile", rope_reference_grid=4, img_size=16)


def tiny_detector(name, **options):
    """Build a detector of the shapes configs with a tower of two blocks and weights of a size that lets scores vary."""
    config = load_config(ROOT / "configs" / f"{name}.py")
    config.model.backbone = two_blocks()
    config.merge_from_dict(options)
    init_default_scope(config.get("default_scope", "mmdet"))
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and not name.startswith("backbone"):
            parameter.data.normal_(std=(2 / parameter[0].numel()) ** 0.5)
    return model


def padded_images(*sizes, side=128, seed=0):
    """Random normalized images of these sizes in the top left corner of a square, and the sizes."""
    images = torch.randn(len(sizes), 3, side, side, generator=torch.Generator().manual_seed(seed))
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images, torch.tensor(sizes)


@torch.no_grad()
def own_predictions(model, images, sizes, rescale=False):
    """The detections of mmdet's own prediction, one ``InstanceData`` per image."""
    canvas = tuple(images.shape[-2:])
    samples = [
        DetDataSample(
            metainfo=dict(
                img_shape=tuple(size), ori_shape=tuple(size), batch_input_shape=canvas, scale_factor=(1.0, 1.0)
            )
        )
        for size in sizes.tolist()
    ]
    return [sample.pred_instances for sample in model.predict(images, samples, rescale=rescale)]


def compare_detections(found, expected, tolerance):
    """Match detections one to one by class and place; scores within ``tolerance``, boxes within 0.05 px.

    Args:
        found: boxes (K, 4), scores (K,), labels (K,), zero after the last one.
        expected: ``InstanceData``.
    """
    boxes, scores, labels = (torch.as_tensor(value) for value in found[:3])
    real = scores > 0
    boxes, scores, labels = boxes[real], scores[real], labels[real]
    assert len(scores) == len(expected.scores) > 3
    distance = (boxes[:, None] - expected.bboxes).abs().amax(-1)
    distance = distance + 1e6 * (labels[:, None] != expected.labels)
    partner = distance.argmin(1)
    assert partner.unique().numel() == len(partner)
    assert distance.amin(1).max() < 0.05
    assert (scores - expected.scores[partner]).abs().max() < tolerance
    return partner
