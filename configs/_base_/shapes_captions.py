"""Crops of generated scenes with captions, and a zero-shot test on generated images of one shape each."""

form_captions = dict(size=0.0, color=0.0, place=0.0, relation=0.0)
data_root = "data/shapes_words"  # for easy scenes: data/shapes has the hard ones
forms_root = "data/shapes_forms"

images, small_images = (
    [dict(type="pe_dense.Resize", size=(side, side)), dict(type="pe_dense.PILToTensor")] for side in (128, 64)
)
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="pe_dense.ShapesCaptionDataset",
        data_root=data_root,
        split="train",
        generator=dict(num_train=6000, num_val=400, difficulty="easy"),
        crop_area=0.25,
        focus=0.9,
        context=5.0,
        flip=0.5,
        rotate=True,
        told=dict(size=0.1, color=0.3, place=0.1, relation=0.1),
        pipeline=images,
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="pe_dense.ShapesFormDataset",
        data_root=forms_root,
        generator=dict(num_images=400),
        pipeline=images,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.ZeroShotMetric")
test_evaluator = val_evaluator
custom_hooks = [dict(type="pe_dense.ZeroShotHook", templates=["a photo of a {}.", "a picture of a {}", "a {}"])]
default_scope = "mmengine"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
