"""Text for the patches of PE-Mini-Spatial: a head of two blocks on the frozen tower, and PE-Mini-Core's text tower."""

mini_lit = dict(
    type="pe_dense.LiT",
    backbone=dict(
        type="pe_dense.FrozenTower",
        arch="PE-Mini-Spatial",
        with_head=False,
        init_cfg=dict(type="Pretrained", checkpoint="pe-mini://spatial"),
    ),
    image_size=128,
    text="PE-Mini-Core",
    head_layers=2,
    drop_path=0.0,
    loss="softmax",
)
