"""Both towers of a PE Core that a CPU trains in minutes: 64 px, 5 and 2 blocks, 128 wide; they start from nothing."""

tiny_clip = dict(
    vision=dict(
        patch_size=8,
        width=128,
        layers=5,
        heads=4,
        mlp_ratio=4.0,
        image_size=64,
        use_cls_token=True,
        output_dim=128,
        attn_pooler_heads=4,
    ),
    text=dict(context_length=48, width=128, heads=4, layers=2, output_dim=128),
)
