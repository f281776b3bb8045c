"""Open-vocabulary segmentation of generated shapes with PE-Mini-Core, without labels.

    tools/test.py configs/shapes_words_pe_tiny.py --cfg-options model.mode=pooled

Also takes a CHECKPOINT of shapes_clip_pe_tiny.py, or a file of both towers of these sizes; for others, name the file by
model.clip=FILE instead. Modes and options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes import *
    from ._base_.words import *

model.merge(
    dict(
        clip=dict(vision="PE-Mini-Core"),
        words="background; empty background, circle, square, triangle, star, ring, cross, crescent, heart",
        templates=["a photo of a {}.", "a picture of a {}", "a {}"],
        test_cfg=dict(crop_size=(128, 128), stride=(64, 64)),
        init_cfg=dict(checkpoint="pe-mini://core"),
    )
)
test_dataloader = shapes_loader(
    "pe_dense.ShapesSegmentationDataset",
    [
        dict(type="pe_dense.LoadImage"),
        dict(type="pe_dense.LoadLabelMap", num_classes=9),
        dict(type="PackSegInputs"),
    ],
    data_prefix=dict(img_path="val", seg_map_path="semantic/val"),
)
# The scenes of shapes_clip_pe_tiny.py.
test_dataloader["dataset"].update(
    data_root="data/shapes_words", generator=dict(num_train=6000, num_val=400, difficulty="easy")
)
del instance_loaders, shapes_loader, tower, words_loader
