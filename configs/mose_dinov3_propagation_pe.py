"""Label propagation on MOSE in DINOv3's protocol, short side 420 px (patch 14) or 480 px (patch 16).

    tools/test.py configs/mose_dinov3_propagation_pe.py --cfg-options tower=PE-Spatial-B16-512

Options as in davis_dinov3_propagation_pe.py. Objects may enter after the first frame. Published for PE Spatial G
at 30, 60 and 90 patches: 39.3, 40.2 and 34.0; which videos were evaluated is not known.

Source: DINOv3 (arXiv 2508.10104), table 5.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *
    from ._base_.dinov3_propagation import *

data_root = "data/mose"
data_source = dict(
    name="MOSE, a split with masks of all frames",
    url="https://henghuiding.com/MOSE",
    layout="JPEGImages/<video>/<frame>.jpg and Annotations/<video>/<frame>.png",
)
sizes_by_patch = dinov3_sizes
model.merge(dinov3_propagation)
test_dataloader.dataset = dict(type="pe_dense.VideoObjectsDataset", data_root=data_root, pipeline=dinov3_pipeline)
