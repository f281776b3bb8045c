"""Spatial alignment: the teachers of a Core tower are its initial weights and SAM 2.1-L. Configs set the size."""

image_size = 448

model = dict(
    type="pe_dense.SpatialAligner",
    image_size=image_size,
    backbone=dict(
        type="pe_dense.PETower",
        arch=None,
        with_head=False,
        drop_path_rate=0.4,
        drop_path_schedule="constant",
        with_cp=True,
    ),
    init_cfg=dict(type="Pretrained", checkpoint=None),
    core=dict(tower=dict(type="pe_dense.PETower", arch=None, with_head=False), layer=None, dtype="bfloat16"),
    sam=dict(
        type="pe_dense.SAMTeacher",
        size="l",
        checkpoint="hf://facebook/sam2.1-hiera-large",
        image_size=1024,
        points_per_side=32,
        dtype="bfloat16",
    ),
    core_weight=1.0,
    locality_weight=1.0,
    temperature=20.0,
    mask_ratio=0.75,
    mask_block_size=2,
)
