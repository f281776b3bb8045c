"""A PE tower that two CPU cores train in minutes: 4 blocks, 128 wide, 0.8 M parameters; it is trained from scratch."""

tiny_tower = dict(
    type="pe_dense.PETower",
    arch=dict(
        patch_size=8,
        width=128,
        layers=4,
        heads=4,
        mlp_ratio=4.0,
        image_size=64,
        ls_init_value=None,
        use_ln_post=False,
        pool_type="none",
    ),
    img_size=128,
    patch_size=8,
    grid_size=None,
    window_size=8,
    global_blocks=(1, 3),
    rope_reference_grid=8,
    drop_path_rate=0.0,
    with_cp=False,
    init_cfg=None,
)
