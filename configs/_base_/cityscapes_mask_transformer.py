"""Mask transformers on Cityscapes' 19 classes at 1024 px: data and model without tower and head."""

from mmengine.config import read_base

with read_base():
    from .mask_transformers import semantic_model, semantic_pipeline
    from .runtime import *
    from .semantic_masks import *

data_root = "data/cityscapes"
data_source = dict(
    name="Cityscapes",
    url="https://www.cityscapes-dataset.com/downloads (mmsegmentation's converter makes the labels)",
    layout="leftImg8bit/{train,val}/*/*.png and gtFine/{train,val}/*/*_gtFine_labelTrainIds.png",
)
image_size, num_classes = 1024, 19


def cityscapes_loader(part, pipeline, **loader):
    """Create the data loader of a part."""
    prefix = dict(img_path=f"leftImg8bit/{part}", seg_map_path=f"gtFine/{part}")
    dataset = dict(type="CityscapesDataset", data_root=data_root, data_prefix=prefix, pipeline=pipeline)
    return dict(loader, persistent_workers=True, dataset=dataset)


train_dataloader = cityscapes_loader(
    "train",
    semantic_pipeline(image_size, num_classes),
    batch_size=4,
    num_workers=8,
    sampler=dict(type="InfiniteSampler", shuffle=True),
)
test_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="Resize", scale=(2 * image_size, image_size), keep_ratio=True),
    dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
    dict(type="PackSegInputs"),
]
val_dataloader = cityscapes_loader(
    "val", test_pipeline, batch_size=1, num_workers=4, sampler=dict(type="DefaultSampler", shuffle=False)
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator
model = semantic_model(image_size)
mask_classes = dict(num_things_classes=0, num_stuff_classes=num_classes)
del cityscapes_loader, semantic_model, semantic_pipeline
