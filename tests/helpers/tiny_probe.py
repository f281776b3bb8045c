"""Tiny probes on a tower of three blocks with random weights, and batches for them."""

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pe_dense.backbones import PETower

ARCH = dict(
    patch_size=4, width=16, layers=3, heads=2, mlp_ratio=2.0, image_size=16, use_ln_post=False, pool_type="none"
)
CLASSES = 5
HEADS = dict(
    segmentation=dict(type="pe_dense.LinearHead", num_classes=CLASSES),
    depth=dict(type="pe_dense.LinearDepthHead", num_bins=8),
    dpt=dict(type="pe_dense.DPTDepthHead", channels=8),
)


def write_tower(path, seed=1):
    """Write the weights of a tower to a file."""
    torch.manual_seed(seed)
    torch.save(PETower(ARCH).state_dict(), path)
    return path


def model_config(task, kind, taps, weights=None, **changes):
    """Return the config of a 'Probe' or a 'Sweep'."""
    config = ConfigDict(
        type=f"pe_dense.{'Segmentation' if task == 'segmentation' else 'Depth'}{kind}",
        data_preprocessor=dict(
            type="pe_dense.ProbePreprocessor",
            mean=[127.5] * 3,
            std=[127.5] * 3,
            bgr_to_rgb=True,
            size=(16, 16),
            pad_val=0,
            seg_pad_val=255 if task == "segmentation" else 0,
        ),
        backbone=dict(
            type="pe_dense.FrozenTower",
            arch=ARCH,
            out_indices=taps,
            init_cfg=weights and dict(type="Pretrained", checkpoint=str(weights)),
        ),
        decode_head=HEADS[task],
        test_cfg=dict(mode="whole"),
    )
    config.merge(changes)
    return config


def build(task, kind, taps, weights=None, seed=0, **changes):
    """Build a model, initialized as in a run with this seed."""
    init_default_scope("mmseg")
    torch.manual_seed(seed)
    model = MODELS.build(Config(dict(model=model_config(task, kind, taps, weights, **changes))).model)
    model.init_weights()
    return model


def batch(task, size=(16, 16), count=2, seed=3):
    """Return a batch in the format of the data sets."""
    generator = torch.Generator().manual_seed(seed)
    data = dict(inputs=[], data_samples=[])
    for _ in range(count):
        data["inputs"].append(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
        sample = SegDataSample(metainfo=dict(img_path="a.png", ori_shape=size, img_shape=size))
        if task == "segmentation":
            labels = torch.randint(0, CLASSES, (1, *size), generator=generator)
            labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
            sample.gt_sem_seg = PixelData(data=labels)
        else:
            sample.gt_depth_map = PixelData(data=10 * torch.rand(1, *size, generator=generator))
        data["data_samples"].append(sample)
    return data
