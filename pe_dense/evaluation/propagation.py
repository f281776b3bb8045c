"""Label propagation on videos in DINOv3's protocol, as a task of the benchmark."""

from __future__ import annotations

from pe_dense.datasets.davis import DavisDataset
from pe_dense.datasets.synthetic import write_shapes_video
from pe_dense.evaluation import pictures
from pe_dense.evaluation.run import TaskRun
from pe_dense.tracking import DavisMetric, LabelPropagator


def evaluate_propagation(
    run: TaskRun,
    *,
    patches: int,
    dataset: type[DavisDataset] = DavisDataset,
    generator: dict | None = None,
) -> list[dict]:
    """Evaluate DINOv3's label propagation on DAVIS 2017, YouTube-VOS, MOSE or generated videos.

    Args:
        run: backbone and layers.
        patches: short side of the frames in patches; the long side is rounded up to whole patches.
        dataset: DAVIS 2017 (val), or :class:`~pe_dense.datasets.video_objects.VideoObjectsDataset` for
            YouTube-VOS and MOSE.
        generator: arguments of :func:`~pe_dense.datasets.synthetic.write_shapes_video`; None for published data.

    Returns:
        rows with ``J&F`` and its parts, in percent.
    """
    root = run.root if generator is None else write_shapes_video(run.root, **generator)
    patch = run.tower.patch_size
    pipeline = [dict(type="pe_dense.LoadVideo", short_side=patches * patch, divisor=patch, round_up=True)]
    metric = DavisMetric()
    model = LabelPropagator(run.tower, neighborhood="circle", temperature=0.2, upsampling="nearest", norm=True)
    own_indices = run.tower.out_indices
    shown = []
    try:
        for video in dataset(data_root=str(root), pipeline=pipeline):
            sample, labels = video["data_samples"], {}
            frames = video["inputs"].to(run.device)
            tokens = frames.shape[2] * frames.shape[3] / patch**2
            for layers in run.groups(4.0 * 9 * tokens * run.tower.embed_dim):
                run.tower.out_indices = layers
                labels |= model.track(frames, sample.first_mask, later_masks=sample.later_masks)
            metric.process(None, [dict(sample.to_dict(), labels=labels)])
            if len(shown) < 2:
                shown.append((sample.frames, labels[run.layers[-1]]))
    finally:
        run.tower.out_indices = own_indices
    metric.compute_metrics(metric.results)
    run.save(pictures.video_figure(shown))
    return [{name: value if name == "layer" else 100 * value for name, value in row.items()} for row in metric.by_layer]
