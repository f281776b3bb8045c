"""Settings that turn a depth probe of one layer into a layer sweep."""

sweep = dict(type="pe_dense.DepthSweep", backbone=dict(out_indices=None))
sweep_constructor = "pe_dense.SweepOptimWrapperConstructor"
sweep_hook = dict(type="pe_dense.SweepHook", title="NYUv2 depth, linear", unit="m", best_over_time=True)
