"""Linear segmentation probe of PE Spatial G in DINOv3's form, without data.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

from mmengine.config import read_base

with read_base():
    from .dinov3_probe import *
    from .probe import *
    from .probe_schedule import *
    from .runtime import *

# 1,024 patches; the option `tower=` sets these sizes by the tower's patches.
sizes_by_patch = dict(patch14=dict(image_size=448), patch16=dict(image_size=512))
image_size = sizes_by_patch["patch14"]["image_size"]

model.merge(
    dict(
        type="pe_dense.SegmentationProbe",
        data_preprocessor=dict(size=(image_size, image_size)),
        decode_head=dict(type="pe_dense.LinearHead"),
        test_cfg=dict(mode="slide", crop_size=(image_size, image_size)),
    )
)
model.merge(dinov3_model)
optim_wrapper.merge(dinov3_optim_wrapper)
param_scheduler = [dict(dinov3_scheduler, end=max_iters)]
train_cfg.merge(dinov3_train_cfg)
val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
inferencer = dict(type="pe_dense.SegmentationPredictor")


def linear_loaders(dataset, train, val, num_classes):
    """Create data loaders of training and validation: short side and crops of `image_size`.

    Args:
        dataset: arguments of both data sets of mmseg.
        train, val: further arguments of each.
        num_classes: of the label maps.
    """
    load = [dict(type="pe_dense.LoadImage"), dict(type="pe_dense.LoadLabelMap", num_classes=num_classes)]
    size = dict(scale=(100_000, image_size), keep_ratio=True)  # the long side of an image has no limit
    crop = dict(type="RandomCrop", crop_size=(image_size, image_size), cat_max_ratio=0.75)
    changes = [crop, dict(type="RandomFlip", prob=0.5), dict(type="PhotoMetricDistortion")]
    pack = dict(type="PackSegInputs")
    pipelines = dict(
        train=[*load, dict(type="RandomResize", ratio_range=(0.5, 2.0), **size), *changes, pack],
        val=[load[0], dict(type="Resize", **size), load[1], pack],
    )
    return [
        dict(
            batch_size=16 if split == "train" else 1,
            num_workers=8 if split == "train" else 4,
            persistent_workers=True,
            sampler=dict(type=sampler, shuffle=split == "train"),
            dataset=dict(dataset, **files, pipeline=pipelines[split]),
        )
        for split, sampler, files in (("train", "InfiniteSampler", train), ("val", "DefaultSampler", val))
    ]
