"""Build the model of a DETA recording from our configs."""

from pathlib import Path

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from helpers.recorded_tower import recorded_tower
from pe_dense.engine.runner import load_model_state

CONFIGS = Path(__file__).parents[2] / "configs"


def build(golden, load=True, **head):
    """Build the model of the COCO config with the sizes of a recording; ``head`` changes options of the head."""
    recorded, vit = golden.config, golden.config["vit"]
    config = Config.fromfile(CONFIGS / "coco_deta_pe_g14_1824.py").model
    queries, nms = recorded["num_queries"], dict(type="nms", iou_threshold=recorded["nms_iou"])
    config.merge(
        dict(
            data_preprocessor=dict(pad_size_divisor=recorded["img_size"]),
            backbone=dict(
                recorded_tower(recorded),
                patch_size=None,
                grid_size=None,
                out_indices=vit["return_layer"],
                drop_path_rate=0.0,
                with_cp=False,
            ),
            neck=dict(in_channels=vit["embed_dim"]),
            bbox_head=dict(num_classes=recorded["num_classes"]),
            embed_dims=recorded["hidden_dim"],
            num_levels=recorded["num_feature_levels"],
            feedforward_channels=recorded["ffn"],
            encoder_layers=recorded["enc_layers"],
            decoder_layers=recorded["dec_layers"],
            num_queries=queries,
            tower_dtype=None,
            init_cfg=None,
            test_cfg=dict(nms=nms),
        )
    )
    # The recorded losses are not weighted.
    for loss in ("loss_cls", "loss_bbox", "loss_iou"):
        config.bbox_head[loss].loss_weight = 1.0
    config.bbox_head.merge(head)
    init_default_scope("mmdet")
    model = MODELS.build(config)
    if load:
        load_model_state(model, dict(model=golden.state), "recording")
    return model


def sample(golden, original=(480, 640)):
    """The recorded image's sample, with its objects; detections are in px of an ``original`` (height, width)."""
    shape = tuple(golden.config["valid_hw"])
    data_sample = DetDataSample(
        metainfo=dict(img_shape=shape, batch_input_shape=tuple(golden["image"].shape[-2:]), ori_shape=original)
    )
    center, size = golden["target/boxes_cxcywh"].chunk(2, dim=1)
    scale = center.new_tensor([shape[1], shape[0]] * 2)
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1)
    data_sample.gt_instances = InstanceData(bboxes=boxes * scale, labels=golden["target/labels"])
    return data_sample
