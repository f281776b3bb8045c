"""Training of depth heads on NYU and KITTI as in DINOv2's and DINOv3's depth evaluations: length, clipping, pipeline.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

max_iters = 38_400
clip_grad = dict(max_norm=35, norm_type=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)


def depth_pipeline(load, crop_size, **color):
    """Return the training pipeline: rotation by up to 2.5 degrees, flip, crop, color.

    Args:
        load: steps that load and crop the image and the depth map.
        crop_size: (height, width) of the random crop.
        color: arguments of GammaBrightnessColor.
    """
    return [
        *load,
        dict(type="RandomRotate", prob=0.5, degree=2.5, pad_val=0, seg_pad_val=0),
        dict(type="RandomFlip", prob=0.5),
        dict(type="RandomCrop", crop_size=crop_size),
        dict(type="pe_dense.GammaBrightnessColor", prob=0.5, **color),
        dict(type="PackSegInputs"),
    ]
