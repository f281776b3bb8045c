"""Both towers of a PE Core that a CPU trains in about an hour: 128 px, 6 blocks of 128; text: 2 blocks of 64."""

tiny_clip = dict(
    vision=dict(
        patch_size=8,
        width=128,
        layers=6,
        heads=4,
        mlp_ratio=4.0,
        image_size=128,
        use_cls_token=True,
        output_dim=128,
        attn_pooler_heads=4,
    ),
    text=dict(context_length=48, width=64, heads=2, layers=2, output_dim=128),
)
