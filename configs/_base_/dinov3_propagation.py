"""Changes that give label propagation the form of DINOv3's: final norm, circular neighborhood, temperature 0.2."""

dinov3_sizes = dict(patch14=dict(short_side=420, divisor=14), patch16=dict(short_side=480, divisor=16))
dinov3_propagation = dict(
    neighborhood="circle", temperature=0.2, upsampling="nearest", norm=True, backbone=dict(with_head=None)
)
dinov3_pipeline = [dict(type="pe_dense.LoadVideo", **dinov3_sizes["patch14"], round_up=True)]
