"""Same as images_align_pe_g14.py on webdataset shards, given by `data_root`. Other configs can be changed likewise.

torchrun --nproc_per_node=8 tools/train.py configs/shards_align_pe_g14.py --launcher pytorch --fsdp
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import g14
    from ._base_.images_align import *

model.merge(g14)

data_root = "data/shards/shard-{000000..000999}.tar"

train_dataloader.merge(
    dict(
        sampler=dict(_delete_=True, type="pe_dense.ShardSampler"),
        dataset=dict(_delete_=True, type="pe_dense.WebImages", urls=data_root, pipeline=train_pipeline),
    )
)
