"""Settings that turn a linear probe of one layer into a layer sweep."""

sweep = dict(type="pe_dense.SegmentationSweep", backbone=dict(out_indices=None))
sweep_constructor = "pe_dense.SweepOptimWrapperConstructor"
sweep_evaluator = dict(
    type="pe_dense.LayerMetric",
    metric=dict(type="pe_dense.IoUMetric", class_table=False),
    key="mIoU",
    higher_is_better=True,
)
