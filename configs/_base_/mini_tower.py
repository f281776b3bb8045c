"""PE-Mini-Spatial, with the weights that come with the package: images of 128 px, patches of 8 px."""

mini_tower = dict(
    type="pe_dense.PETower",
    arch="PE-Mini-Spatial",
    with_head=False,
    with_cp=False,
    init_cfg=dict(type="Pretrained", checkpoint="pe-mini://spatial"),
)
