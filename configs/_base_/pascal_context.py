"""PASCAL Context: images of VOC 2010."""

data_root = "data/VOCdevkit/VOC2010"
data_source = dict(
    name="PASCAL Context (images of VOC 2010)",
    url="https://cs.stanford.edu/~roozbeh/pascal-context (mmsegmentation's converter makes the labels)",
    layout="JPEGImages/*.jpg, SegmentationClassContext/*.png and ImageSets/SegmentationContext/val.txt",
)
val_files = dict(
    data_root=data_root,
    ann_file="ImageSets/SegmentationContext/val.txt",
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
)
