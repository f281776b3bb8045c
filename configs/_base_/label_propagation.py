"""Label propagation on a frozen PE tower, with DINO's settings: nothing is trained."""

default_scope = "mmengine"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])

tower = "PE-Spatial-G14-448"  # an option changes it everywhere: tower=PE-Core-G14-448

model = dict(
    type="pe_dense.LabelPropagator",
    backbone=dict(
        type="pe_dense.PETower",
        arch=tower,
        out_indices=(-1,),
        with_head=False,
        init_cfg=dict(type="Pretrained", checkpoint=f"hf://facebook/{tower}"),
    ),
    num_last_frames=7,
    radius=12,
    topk=5,
    temperature=0.1,
)
custom_hooks = [dict(type="pe_dense.VideoResultsHook")]
