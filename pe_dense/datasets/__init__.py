"""Data sets, transforms and samplers that the MM libraries do not have, and generated data."""

from pe_dense.datasets.captions import CaptionFolder, CaptionTable, LabeledImages, WebCaptions
from pe_dense.datasets.coco import CocoDataset, Objects365Dataset
from pe_dense.datasets.davis import DavisDataset
from pe_dense.datasets.image_folder import ImageFolder
from pe_dense.datasets.label_maps import LoadDepthMap, LoadLabelMap
from pe_dense.datasets.loading import LoadImage
from pe_dense.datasets.lvis import LVISDataset
from pe_dense.datasets.map_files import MapFiles
from pe_dense.datasets.panoptic import CocoPanopticDataset
from pe_dense.datasets.samplers import RepeatFactorSampler, ShardSampler
from pe_dense.datasets.webdataset import WebImages

__all__ = [
    "CaptionFolder",
    "CaptionTable",
    "CocoDataset",
    "CocoPanopticDataset",
    "DavisDataset",
    "ImageFolder",
    "LVISDataset",
    "LabeledImages",
    "LoadDepthMap",
    "LoadImage",
    "LoadLabelMap",
    "MapFiles",
    "Objects365Dataset",
    "RepeatFactorSampler",
    "ShardSampler",
    "WebCaptions",
    "WebImages",
]
