"""Images without labels, in webdataset shards, as `image_folder.py` has them in a folder."""

from mmengine.config import read_base

with read_base():
    from .image_folder import *

data_root = "data/shards/shard-{000000..000999}.tar"

train_dataloader.merge(
    dict(
        sampler=None,
        dataset=dict(_delete_=True, type="pe_dense.WebImages", urls=data_root, pipeline=train_pipeline),
    )
)
