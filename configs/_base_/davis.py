"""DAVIS 2017, 480p, for tracking from the first mask. All paths start from `data_root`."""

data_root = "data/davis"
data_source = dict(
    name="DAVIS 2017",
    url="https://davischallenge.org/davis2017/code.html",
    layout="ImageSets/2017/val.txt, JPEGImages/480p/*/*.jpg and Annotations/480p/*/*.png",
)
# 34 patches of 14 px, or 30 of 16 px on frames cut to multiples of 64 px. The option `tower=` sets these sizes by the
# tower's patches.
sizes_by_patch = dict(patch14=dict(short_side=476, divisor=14), patch16=dict(short_side=480, divisor=64))

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    prefetch_factor=1,  # whole videos
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
    dataset=dict(
        type="pe_dense.DavisDataset",
        data_root=data_root,
        ann_file="ImageSets/2017/val.txt",
        data_prefix=dict(img="JPEGImages/480p", mask="Annotations/480p"),
        pipeline=[dict(type="pe_dense.LoadVideo", **sizes_by_patch["patch16"])],
    ),
)
test_evaluator = dict(type="pe_dense.DavisMetric")
test_cfg = dict(type="TestLoop")
