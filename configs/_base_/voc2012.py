"""PASCAL VOC 2012."""

data_root = "data/VOCdevkit/VOC2012"
data_source = dict(
    name="PASCAL VOC 2012",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
    layout="JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/val.txt",
)
val_files = dict(
    data_root=data_root,
    ann_file="ImageSets/Segmentation/val.txt",
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
)
