"""Images with captions, and the schedule of contrastive training. All paths start from `data_root`.

`captions.jsonl` has a line per image, `{"file": "images/0.jpg", "captions": ["...", "..."]}`. A CSV file with the
columns `file` and `caption`, a folder with `.txt` files beside its images and webdataset shards are read as well, see
docs/words.md. MMEngine counts batches, not updates: `max_iters` follows the number of images.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

data_root = "data/captions"


def caption_pipeline(image_size):
    """Crops of nine tenths of an image or more, as OpenCLIP's training."""
    return [
        dict(type="pe_dense.RandomResizedCrop", size=(image_size, image_size), scale=(0.9, 1.0), ratio=(0.75, 1.33)),
        dict(type="pe_dense.PILToTensor"),
    ]


train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="pe_dense.CaptionTable", data_root=data_root, ann_file="captions.jsonl"),
)


def warm_up_and_cosine(warm_up, max_iters):
    """Learning rates: linear warm-up, then a cosine to nothing."""
    return [
        dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=warm_up),
        dict(type="CosineAnnealingLR", by_epoch=False, begin=warm_up, end=max_iters, eta_min=0.0),
    ]


custom_hooks = [dict(type="pe_dense.SkippedImagesHook")]
default_scope = "mmengine"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
