"""Students of spatial alignment and the layer of their Core teacher, as deep as G's 41st of 50.

Towers below G have LayerScale during alignment, which the published ones lack.
"""


def student(size, image_size, core_size, depth, layer_scale=True):
    """Return changes for a tower of `depth` blocks, images of `image_size` px and PE Core of `core_size` px."""
    spatial, core = f"PE-Spatial-{size}-{image_size}", f"PE-Core-{size}-{core_size}"
    return dict(
        image_size=image_size,
        backbone=dict(arch=dict(base=spatial, ls_init_value=0.1) if layer_scale else spatial),
        init_cfg=dict(checkpoint=f"hf://facebook/{core}"),
        core=dict(tower=dict(arch=core), layer=depth * 40 // 50),
    )


g14 = student("G14", 448, 448, depth=50, layer_scale=False)
l14 = student("L14", 448, 336, depth=24)
b16 = student("B16", 512, 224, depth=12)
t16 = student("T16", 512, 384, depth=12)
