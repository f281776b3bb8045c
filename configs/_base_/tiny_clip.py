"""Both towers of a PE Core that a CPU trains in minutes: 64 px, 4 and 2 blocks, 96 wide; they start from nothing."""

tiny_clip = dict(
    vision=dict(
        patch_size=8,
        width=96,
        layers=4,
        heads=3,
        mlp_ratio=4.0,
        image_size=64,
        use_cls_token=True,
        output_dim=96,
        attn_pooler_heads=3,
    ),
    text=dict(context_length=48, width=96, heads=3, layers=2, output_dim=96),
)
