"""As align_pe_spatial_g14.py, on webdataset shards: `data_root` names them.

torchrun --nproc_per_node=8 tools/train.py configs/align_pe_spatial_g14_shards.py --launcher pytorch --fsdp
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align import *
    from ._base_.align_runtime import *
    from ._base_.align_schedule import *
    from ._base_.web_images import *

model.merge(
    dict(
        backbone=dict(arch="PE-Spatial-G14-448"),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-G14-448"),
        core=dict(tower=dict(arch="PE-Core-G14-448"), layer=40),  # the 41st of 50
    )
)
train_cfg.merge(dict(fast_forward_on_resume=True))  # shards are drawn at random: there is no place to go back to
