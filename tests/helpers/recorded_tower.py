"""Config of the tower that a detector's recording was made with."""


def recorded_tower(recorded):
    """Return changes of a config's ``backbone`` for a recording's ``config``."""
    vit = recorded["vit"]
    return dict(
        arch=dict(
            patch_size=vit["patch_size"],
            width=vit["embed_dim"],
            layers=vit["depth"],
            heads=vit["num_heads"],
            mlp_ratio=vit["mlp_ratio"],
            image_size=vit["pretrain_img_size"],
            ls_init_value=vit["init_values"],
            use_cls_token=vit["pretrain_use_cls_token"],
            use_abs_posemb=vit["use_abs_pos"],
        ),
        img_size=recorded["img_size"],
        window_size=vit["window_size"],
        global_blocks=[i for i in range(vit["depth"]) if i not in vit["window_block_indexes"]],
        pos_embed="tile" if vit["tile_posemb"] else "bicubic",
        rope_reference_grid=vit["pt_hw_seq_len"],
        init_cfg=None,
    )
