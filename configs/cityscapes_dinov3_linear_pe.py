"""Linear probe on Cityscapes in DINOv3's form: published mIoU 73.2 for PE Spatial G, 61.1 for Core G.

    tools/train.py configs/cityscapes_dinov3_linear_pe.py --cfg-options tower=PE-Spatial-B16-512

Options as in ade20k_dinov3_linear_pe.py. Crop and schedule, which are not published, are those of ADE20k.

Source: DINOv3 (arXiv 2508.10104), table 3, and its code, eval/segmentation.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.dinov3_linear import *

data_root = "data/cityscapes"
data_source = dict(
    name="Cityscapes",
    url="https://www.cityscapes-dataset.com/downloads (mmsegmentation's converter makes the labels)",
    layout="leftImg8bit/{train,val}/*/*.png and gtFine/{train,val}/*/*_gtFine_labelTrainIds.png",
)
num_classes = 19
train_dataloader, val_dataloader, _ = segmentation_data(
    image_size,
    dict(type="CityscapesDataset", data_root=data_root),
    dict(data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
    dict(data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")),
    num_classes,
)
test_dataloader = val_dataloader
model.merge(dict(decode_head=dict(num_classes=num_classes)))
del _, segmentation_data
