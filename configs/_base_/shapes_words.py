"""Words and scenes of open-vocabulary segmentation of generated shapes with PE-Mini.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

data_root = "data/shapes_words"  # of shapes_clip_pe_tiny.py
generator = dict(num_train=6000, num_val=400, difficulty="easy")
shapes_words = dict(
    clip=dict(vision="PE-Mini-Core"),
    words="background; empty background, circle, square, triangle, star, ring, cross, crescent, heart",
    templates=["a photo of a {}.", "a picture of a {}", "a {}"],
    test_cfg=dict(crop_size=(128, 128), stride=(64, 64)),
    init_cfg=dict(checkpoint="pe-mini://core"),
)


def words_scenes(shapes_loader):
    """Create the data loader of the validation scenes of shapes_clip_pe_tiny.py; `shapes_loader` of `shapes.py`."""
    steps = [
        dict(type="pe_dense.LoadImage"),
        dict(type="pe_dense.LoadLabelMap", num_classes=9),
        dict(type="PackSegInputs"),
    ]
    folders = dict(img_path="val", seg_map_path="semantic/val")
    loader = shapes_loader("pe_dense.ShapesSegmentationDataset", steps, data_prefix=folders)
    loader["dataset"].update(data_root=data_root, generator=generator)
    return loader
