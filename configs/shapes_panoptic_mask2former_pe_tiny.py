"""Mask2Former, by `--tower`'s machinery, on PE-Mini for generated shapes and their background.

    tools/train.py configs/shapes_panoptic_mask2former_pe_tiny.py

Data, tower and schedule are those of shapes_panoptic_eomt_pe_tiny.py; the head is mmdet's, a quarter as wide and with
fewer layers.
"""

_base_ = []  # MMEngine then runs the imports of this file

from pe_dense.engine.config import adapted, load_config


def quarter(item):
    """Divide the widths of all layers by four."""
    if isinstance(item, dict):
        return {key: quarter(value) for key, value in item.items()}
    return {128: 32, 256: 64, 1024: 256, 2048: 512}.get(item, item) if isinstance(item, int) else item


globals().update(load_config("shapes_panoptic_eomt_pe_tiny").to_dict())
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]  # without mask annealing
eomt = model
model = adapted("mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic", eomt["backbone"])["model"]
classes = dict(num_things_classes=num_things, num_stuff_classes=num_stuff)
model.update(data_preprocessor=eomt["data_preprocessor"], test_cfg=dict(eomt["test_cfg"], filter_low_score=True))
model["train_cfg"].update(num_points=1024)
model["panoptic_fusion_head"].update(classes)
model["neck"]["out_channels"] = 64
head = model["panoptic_head"] = dict(quarter(model["panoptic_head"]), in_channels=[64] * 4, num_queries=20, **classes)
head["loss_cls"]["class_weight"] = [1.0] * (num_things + num_stuff) + [0.1]
head["pixel_decoder"]["encoder"]["num_layers"] = 2
head["transformer_decoder"]["num_layers"] = 3
del classes, eomt, head
