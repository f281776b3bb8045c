"""Build the model of a Mask R-CNN recording from our configs."""

from pathlib import Path

from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from helpers.recorded_tower import recorded_tower
from pe_dense.engine.runner import load_model_state

CONFIGS = Path(__file__).parents[2] / "configs"


def build(golden):
    """Build the model of the LVIS or COCO config with the sizes of a recording."""
    recorded, vit = golden.config, golden.config["vit"]
    config = Config.fromfile(CONFIGS / f"{'lvis' if recorded['use_sigmoid_ce'] else 'coco'}_maskrcnn_pe_g14.py").model
    classes, channels, size = recorded["num_classes"], recorded["fpn_channels"], recorded["img_size"]
    config.merge(
        dict(
            data_preprocessor=dict(pad_size_divisor=size),
            backbone=dict(recorded_tower(recorded), drop_path_rate=vit["drop_path_rate"]),
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
