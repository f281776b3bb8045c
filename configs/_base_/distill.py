"""Distillation of small Spatial towers from Spatial G. Students' sizes are the configs'."""

model = dict(
    type="pe_dense.SpatialDistiller",
    image_size=None,
    backbone=dict(type="pe_dense.PETower", arch=None, with_head=False, with_cp=True),
    init_cfg=dict(type="Pretrained", checkpoint=None),
    teacher=dict(
        tower=dict(type="pe_dense.PETower", arch="PE-Spatial-G14-448"),
        checkpoint="hf://facebook/PE-Spatial-G14-448",
        image_size=448,  # 32 x 32 tokens, as many as the student has
        dtype="bfloat16",
    ),
    pairwise_weight=1.0,
    feature_weight=1.0,
)
