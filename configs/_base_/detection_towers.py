"""What a detector on another tower changes of one on PE Spatial G; stochastic depth as in the paper's L-size recipe
(Tab. 24) and, below, in ViTDet-B's."""

l14 = dict(
    backbone=dict(
        arch="PE-Spatial-L14-448",
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-L14-448"),
    ),
    neck=dict(in_channels=1024),
)
b16 = dict(
    backbone=dict(
        arch="PE-Spatial-B16-512",
        global_blocks=(2, 5, 8, 11),
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-B16-512"),
    ),
    neck=dict(in_channels=768),
)

# On top of b16:
s16 = dict(
    backbone=dict(arch="PE-Spatial-S16-512", init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-S16-512")),
    neck=dict(in_channels=384),
)
t16 = dict(
    backbone=dict(arch="PE-Spatial-T16-512", init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-T16-512")),
    neck=dict(in_channels=192),
)

# On top of any: features as they come, each window for itself (appendix B.3.3).
frozen = dict(backbone=dict(global_blocks=(), drop_path_rate=0.0, with_cp=False, frozen=True))

# On top of the Spatial tower of their size. Where Core learned another grid, positions are resampled to a window's.
core_g14 = dict(backbone=dict(arch="PE-Core-G14-448", init_cfg=dict(checkpoint="hf://facebook/PE-Core-G14-448")))
core_l14 = dict(
    backbone=dict(arch="PE-Core-L14-336", grid_size=32, init_cfg=dict(checkpoint="hf://facebook/PE-Core-L14-336"))
)
core_b16 = dict(
    backbone=dict(arch="PE-Core-B16-224", grid_size=32, init_cfg=dict(checkpoint="hf://facebook/PE-Core-B16-224"))
)
core_s16 = dict(
    backbone=dict(arch="PE-Core-S16-384", grid_size=32, init_cfg=dict(checkpoint="hf://facebook/PE-Core-S16-384"))
)
core_t16 = dict(
    backbone=dict(arch="PE-Core-T16-384", grid_size=32, init_cfg=dict(checkpoint="hf://facebook/PE-Core-T16-384"))
)
