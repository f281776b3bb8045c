"""Open-vocabulary segmentation of ADE20k's 150 classes with PE Core L, without training.

    tools/test.py configs/ade20k_words_pe_l14.py

Options: tower=PE-Core-G14-448 (or another size), model.mode=proxy (pooled, self, sclip, clearclip, naclip, naive)
and the other arguments of pe_dense.OpenVocabularySegmenter. Published for PE Core L, with another method (MaskCLIP)
and protocol: 17.6 mIoU (DINOv3, arXiv 2508.10104, Table 16).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.words import *

data_root = "data/ade20k"
data_source = dict(
    name="ADE20k (scene parsing, 2016)",
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    layout="images/validation/*.jpg and annotations/validation/*.png",
)
test_dataloader = words_loader(
    dict(
        type="ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    ),
    num_classes=150,
    short_side=448,
)
model.merge(dict(words="ade20k.txt"))
del words_loader
