"""DETA's test input and the merging of its test-time augmentation, against recordings of the published detector."""

import re
from pathlib import Path

import pytest
import torch
from helpers.recordings import Recording, by_recording
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from PIL import Image

from pe_dense.detection.deta.transforms import DETAView, detr_size
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import drop_pretrained

CONFIGS = Path(__file__).parents[2] / "configs"
OFFICIAL = "coco_deta_pe_g14_1824.py"


def data_preprocessor(config, image_size):
    return MODELS.build(dict(config.model.data_preprocessor, pad_size_divisor=image_size))


@by_recording("deta_inputs*.npz")
def test_golden_inputs(path, tmp_path):
    """The config's pipeline and preprocessor produce the recorded normalized, padded batch."""
    golden = Recording(path)
    size = golden.config["image_size"]
    config = load_config(CONFIGS / OFFICIAL, dict(image_size=size))
    assert config.model.data_preprocessor.mean == pytest.approx([255 * x for x in golden.config["mean"]])
    assert config.model.data_preprocessor.std == pytest.approx([255 * x for x in golden.config["std"]])
    steps = [step for step in config.test_dataloader.dataset.pipeline if step["type"] != "LoadAnnotations"]
    prepare, preprocess = Compose([TRANSFORMS.build(step) for step in steps]), data_preprocessor(config, size)
    for name in sorted({name.split("/")[0] for name in golden.names if name.startswith("in")}):
        file = tmp_path / f"{name}.png"
        Image.fromarray(golden[f"{name}/image"].numpy()).save(file)
        data = preprocess(pseudo_collate([prepare(dict(img_path=str(file), img_id=0))]), False)
        height, width = data["data_samples"][0].img_shape
        assert [height, width] == golden[f"{name}/valid"].tolist()
        (tensor,) = data["inputs"]
        torch.testing.assert_close(tensor[:, ::2, ::2], golden[f"{name}/tensor_every_2nd"], atol=1e-5, rtol=0)
        padding = torch.ones(tensor.shape[1:], dtype=torch.bool)
        padding[:height, :width] = False
        assert torch.equal(padding, golden[f"{name}/padding"])


@by_recording("deta_inputs*.npz")
def test_golden_sizes(path):
    """Image sizes and view sizes of test-time augmentation match for all published image sizes."""
    golden = Recording(path)
    originals = golden["sizes/original_wh"].tolist()
    for name in [name for name in golden.names if re.fullmatch(r"sizes/\d+_hw", name)]:
        longest = int(name[len("sizes/") : -len("_hw")]) - 32
        ours = [detr_size(*original, longest, longest)[::-1] for original in originals]
        assert ours == [tuple(size) for size in golden[name].tolist()], name
    for name in [name for name in golden.names if re.fullmatch(r"sizes/\d+_views_hw", name)]:
        image_size = int(name[len("sizes/") : -len("_views_hw")])
        views = Config.fromfile(CONFIGS / f"coco_deta_pe_g14_{image_size}.py").tta_pipeline[2].transforms[0]
        assert {view.image_size for view in views} == {image_size}
        resized = [tuple(size) for size in golden[f"sizes/{image_size}_hw"].tolist()]
        steps = [DETAView(view.image_size, view.ratio) for view in views]
        ours = [[list(step.size(*size)) for step in steps] for size in resized]
        assert ours == golden[name].tolist(), name


@by_recording("deta_tta_merge*.npz")
def test_golden_tta_merge(path):
    """The config's test-time augmentation model merges the outputs of all views into the recorded detections."""
    golden = Recording(path)
    recorded, size = golden.config, tuple(golden.config["original_size"])
    config = Config.fromfile(CONFIGS / OFFICIAL)
    sides = [float(side) for side in re.search(r"side ([\d,]*\d)", recorded["views"])[1].split(",")]
    names = sorted({name.split("/")[0] for name in golden.names if name.startswith("view")}, key=lambda n: int(n[4:]))
    assert len(names) == 2 * len(sides)
    classes = golden["view0/logits"].shape[1]
    tiny = Config.fromfile(CONFIGS / "shapes_deta_pe_tiny.py").model
    drop_pretrained(tiny)
    tiny.bbox_head.num_classes = classes
    options = dict(
        module=tiny,
        min_sides=sides,
        pre_nms=recorded["pre_topk"],
        nms=dict(
            type="soft_nms",
            iou_threshold=recorded["threshold"],
            min_score=recorded["min_score"],
            quad_scale=recorded["quad_scale"],
        ),
    )
    model = MODELS.build(dict(config.tta_model, **options))

    views = []
    for number, name in enumerate(names):
        meta = dict(
            ori_shape=size,
            img_shape=size,
            scale=(1000 - number // 2,) * 2,
            flip=number % 2 == 1,
            flip_direction="horizontal" if number % 2 else None,
        )
        found = model.module.bbox_head._predict_by_feat_single(
            golden[f"{name}/logits"], golden[f"{name}/boxes"], meta, rescale=True
        )
        view = DetDataSample(metainfo=meta, pred_instances=found)
        views.append(view)
        assert len(model.from_view(view, 0.0)) == golden[f"{name}/after_soft_nms"]
        assert_same_set(model.from_view(view, sides[number // 2]), golden.subset(f"{name}/kept_"))
    (merged,) = model.merge_preds([views])
    assert_same_set(merged.pred_instances, golden.subset("merged/"))


def assert_same_set(found: InstanceData, recorded):
    """Every detection has a recorded one of the same class, score and box, and the other way around."""
    assert len(found) == len(recorded["boxes"])
    ours, theirs = (
        torch.cat([x[:, None] if x.ndim == 1 else x for x in part], dim=1)
        for part in (
            (found.labels * 1e6, found.scores * 1e3, found.bboxes),
            (recorded["labels"] * 1e6, recorded["scores"] * 1e3, recorded["boxes"]),
        )
    )
    distance = torch.cdist(ours.double(), theirs.double(), p=float("inf"))
    assert distance.amin(0).max() <= 0.01 and distance.amin(1).max() <= 0.01
