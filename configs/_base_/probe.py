"""Frozen backbone of heads: the tower and its dtype, for mmseg's data sets."""

default_scope = "mmseg"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])

tower = "PE-Spatial-G14-448"  # an option changes it everywhere: tower=PE-Core-G14-448

model = dict(
    data_preprocessor=dict(
        type="pe_dense.ProbePreprocessor",
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="pe_dense.FrozenTower",
        arch=tower,
        out_indices=(-1,),
        dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint=f"hf://facebook/{tower}"),
    ),
)
sync_bn = "torch"  # statistics over all GPUs
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
