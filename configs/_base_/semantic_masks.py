"""Queries, loops and tools of semantic segmentation by mask transformers."""

default_scope = "mmseg"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
num_queries = 100
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
inferencer = dict(type="pe_dense.SegmentationPredictor")
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
sync_bn = "torch"  # statistics over all GPUs
auto_scale_lr = dict(enable=False, base_batch_size=16)
