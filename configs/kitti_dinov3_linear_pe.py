"""Linear depth probe on KITTI (Eigen's split) in DINOv3's form: published RMSE 3.082 m for PE Spatial G, 4.119 Core G.

    tools/train.py configs/kitti_dinov3_linear_pe.py --cfg-options tower=PE-Spatial-B16-512

Options, head, loss and schedule as in nyu_dinov3_linear_pe.py. DINOv3's config for KITTI is not published. The range
of 80 m, the random crop of 352 x 704 px and the range of brightness are defaults of its code; the crop of 352 x 1216 px
and Garg's crop in evaluation are those of the toolbox that DINOv2's and DINOv3's depth evaluations are derived from.

Source: DINOv3 (arXiv 2508.10104), table 3, and its code, eval/depth; Monocular-Depth-Estimation-Toolbox,
configs/_base_/datasets/kitti.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.dinov3_depth import *
    from ._base_.kitti import *

model.merge(dict(decode_head=dict(min_depth=min_depth, max_depth=max_depth)))
train_pipeline = depth_pipeline(load_crop, (352, 704), brightness=(0.9, 1.1), unit=1.0)  # gamma on values in 0..255
train_dataloader.merge(dict(dataset=dict(pipeline=train_pipeline)))
del depth_pipeline
