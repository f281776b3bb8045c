"""Mask R-CNN as our configs set it up, against recordings of the published detectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from recordings import Recording, recordings
from torchvision.ops import box_iou

from pe_dense.engine.runner import load_model_state

CONFIGS = Path(__file__).parents[2] / "configs"
TOLERANCE = dict(atol=1e-5, rtol=0)
by_recording = pytest.mark.parametrize("path", recordings("maskrcnn_*.npz"), ids=lambda path: path.stem)


def build(golden):
    """The model of the LVIS or COCO config, with the sizes of a recording."""
    recorded, vit = golden.config, golden.config["vit"]
    config = Config.fromfile(CONFIGS / f"{'lvis' if recorded['use_sigmoid_ce'] else 'coco'}_maskrcnn_pe_g14.py").model
    classes, channels, size = recorded["num_classes"], recorded["fpn_channels"], recorded["img_size"]
    config.merge(
        dict(
            data_preprocessor=dict(pad_size_divisor=size),
            backbone=dict(
                arch=dict(
                    patch_size=vit["patch_size"],
                    width=vit["embed_dim"],
                    layers=vit["depth"],
                    heads=vit["num_heads"],
                    mlp_ratio=vit["mlp_ratio"],
                    image_size=vit["pretrain_img_size"],
                    ls_init_value=vit["init_values"],
                    use_cls_token=vit["pretrain_use_cls_token"],
                    use_abs_posemb=vit["use_abs_pos"],
                ),
                img_size=size,
                window_size=vit["window_size"],
                global_blocks=[i for i in range(vit["depth"]) if i not in vit["window_block_indexes"]],
                pos_embed="tile" if vit["tile_posemb"] else "bicubic",
                rope_reference_grid=vit["pt_hw_seq_len"],
                drop_path_rate=vit["drop_path_rate"],
                init_cfg=None,
            ),
            neck=dict(in_channels=vit["embed_dim"], out_channels=channels),
            rpn_head=dict(in_channels=channels, feat_channels=channels),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=channels),
                bbox_head=dict(
                    in_channels=channels,
                    conv_out_channels=channels,
                    fc_out_channels=recorded["fc_dim"],
                    num_classes=classes,
                ),
                mask_roi_extractor=dict(out_channels=channels),
                mask_head=dict(in_channels=channels, conv_out_channels=channels, num_classes=classes),
            ),
            test_cfg=dict(rcnn=dict(score_thr=recorded["score_thresh"], max_per_img=recorded["max_per_img"])),
        )
    )
    if recorded["use_sigmoid_ce"]:
        config.roi_head.bbox_head.loss_cls.merge(dict(num_classes=classes, num_sampled=None, ann_file=None))
    # Nothing left to chance, as in the recordings: every candidate is sampled.
    for stage in (config.train_cfg.rpn, config.train_cfg.rcnn):
        stage.sampler.merge(dict(num=1_000_000, pos_fraction=1.0))
    init_default_scope("mmdet")
    model = MODELS.build(config).eval()
    load_model_state(model, dict(model=golden.state), "recording")
    return model


def sample(golden):
    height, width = golden["image"].shape[-2:]
    full = golden.config["orig_size"]
    meta = dict(img_shape=(height, width), ori_shape=tuple(full), scale_factor=(width / full[1], height / full[0]))
    return DetDataSample(metainfo=meta)


def prepare(model, golden, data_sample, training=False):
    bgr = golden["image"].flip(0)
    return model.data_preprocessor(dict(inputs=[bgr], data_samples=[data_sample]), training)


def assert_same_set(boxes, scores, labels, recorded_boxes, recorded_scores, recorded_labels, allowed_misses):
    """Every recorded item is matched by one of ours: same label, score within 1e-4, box within 0.01 px."""
    same = (boxes[:, None] - recorded_boxes[None]).abs().amax(-1) <= 0.01
    same &= (scores[:, None] - recorded_scores[None]).abs() <= 1e-4
    same &= labels[:, None] == recorded_labels[None]
    assert (~same.any(0)).sum() <= allowed_misses
    assert (~same.any(1)).sum() <= allowed_misses
    return same


@by_recording
@torch.no_grad()
def test_golden_inference(path):
    golden = Recording(path)
    model = build(golden)
    data = prepare(model, golden, sample(golden))
    maps = model.backbone(data["inputs"])
    torch.testing.assert_close(maps[-1], golden["net_last"], **TOLERANCE)
    levels = model.neck(maps)
    for number, level in enumerate(levels, start=2):
        torch.testing.assert_close(level, golden[f"pyramid/p{number}"], **TOLERANCE)

    proposals = model.rpn_head.predict(levels, data["data_samples"], rescale=False)[0]
    zeros = torch.zeros(len(golden["proposals/boxes"]), dtype=torch.long)
    assert_same_set(
        proposals.bboxes,
        proposals.scores,
        torch.zeros(len(proposals), dtype=torch.long),
        golden["proposals/boxes"],
        golden["proposals/logits"].sigmoid(),
        zeros,
        allowed_misses=len(zeros) // 100,
    )

    found = model.predict(data["inputs"], data["data_samples"], rescale=True)[0].pred_instances
    recorded = (golden["pred/boxes"], golden["pred/scores"], golden["pred/labels"])
    same = assert_same_set(found.bboxes, found.scores, found.labels, *recorded, allowed_misses=2)
    shape = golden["pred/mask_shape"].tolist()
    masks = np.unpackbits(golden["pred/masks"].numpy(), count=int(np.prod(shape))).reshape(shape).astype(bool)
    pairs = same.nonzero()
    wrong = (found.masks[pairs[:, 0]] != torch.from_numpy(masks)[pairs[:, 1]]).flatten(1).float().mean(1)
    assert len(pairs) and wrong.max() <= 1e-4


@by_recording
def test_golden_losses(path):
    golden = Recording(path)
    model = build(golden)
    shape = golden["train/mask_shape"].tolist()
    masks = np.unpackbits(golden["train/gt_masks"].numpy(), count=int(np.prod(shape))).reshape(shape)
    objects = InstanceData(
        bboxes=golden["train/gt_boxes"], labels=golden["train/gt_labels"], masks=BitmapMasks(masks, *shape[1:])
    )
    data_sample = sample(golden)
    data_sample.gt_instances = objects
    data = prepare(model, golden, data_sample, training=True)
    maps = model.neck(model.backbone(data["inputs"]))

    only_objects = sample(golden)
    only_objects.gt_instances = InstanceData(bboxes=objects.bboxes, labels=torch.zeros_like(objects.labels))
    rpn_samples = prepare(model, golden, only_objects)["data_samples"]
    losses, proposals = model.rpn_head.loss_and_predict(maps, rpn_samples, proposal_cfg=model.train_cfg.rpn_proposal)
    sampled = golden["train/rpn_counts"][0].item()
    for ours, recorded in (("loss_rpn_cls", "rpn_cls_sum"), ("loss_rpn_bbox", "rpn_box_sum")):
        total = sum(loss.double().item() for loss in losses[ours]) * sampled
        assert total == pytest.approx(golden[f"train/{recorded}"].item(), rel=1e-4), ours

    iou = box_iou(proposals[0].bboxes, golden["train/proposals"])
    assert (iou.amax(0) > 0.999).float().mean() >= 0.99

    # The second stage on the recorded proposals, so that what follows does not depend on near ties.
    given = InstanceData(bboxes=golden["train/proposals"], scores=torch.ones(len(golden["train/proposals"])))
    losses = model.roi_head.loss(maps, [given], data["data_samples"])
    for ours, recorded in (("loss_cls", "loss_cls"), ("loss_bbox", "loss_box_reg"), ("loss_mask", "loss_mask")):
        assert losses[ours].item() == pytest.approx(golden[f"train/{recorded}"].item(), abs=1e-4), ours
