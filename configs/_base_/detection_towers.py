"""Changes of a detector on PE Spatial G for other towers.

Stochastic depth and layer decay: of L as in the paper's L-size recipe (Tab. 24), of smaller towers as in ViTDet-B's.
"""


def tower(arch, width, size, **backbone):
    """Changes of the model for a tower of `width` channels with the settings of its size."""
    init_cfg = dict(checkpoint=f"hf://facebook/{arch}")
    return dict(backbone=dict(arch=arch, init_cfg=init_cfg, **size, **backbone), neck=dict(in_channels=width))


l_size = dict(global_blocks=(5, 11, 17, 23), drop_path_rate=0.4)
b_size = dict(global_blocks=(2, 5, 8, 11), drop_path_rate=0.1)  # and of S and T, which have as many blocks
l_decay_rate, b_decay_rate = 0.8, 0.7

l14 = tower("PE-Spatial-L14-448", 1024, l_size)
b16 = tower("PE-Spatial-B16-512", 768, b_size)
s16 = tower("PE-Spatial-S16-512", 384, b_size)
t16 = tower("PE-Spatial-T16-512", 192, b_size)

# Where Core learned another grid than 32 x 32, positions are resampled to a window's.
core_g14 = tower("PE-Core-G14-448", 1536, {})
core_l14 = tower("PE-Core-L14-336", 1024, l_size, grid_size=32)
core_b16 = tower("PE-Core-B16-224", 768, b_size, grid_size=32)
core_s16 = tower("PE-Core-S16-384", 384, b_size, grid_size=32)
core_t16 = tower("PE-Core-T16-384", 192, b_size, grid_size=32)

# Unmodified features, with window attention only (appendix B.3.3).
frozen = dict(backbone=dict(global_blocks=(), drop_path_rate=0.0, with_cp=False, frozen=True))

# For DETA: windows as wide as the grid of the learned positions.
native_windows = dict(backbone=dict(grid_size=None, window_size=32, rope_reference_grid=32))
