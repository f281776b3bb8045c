"""Minimal training run: a linear layer on eight vectors."""

from itertools import count

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS

from pe_dense.engine.build_runner import training_runner

_COUNT = count()


@MODELS.register_module(name="LinearForTests", force=True)
class Linear(BaseModel):
    def __init__(self, outputs=1):
        super().__init__()
        self.linear = torch.nn.Linear(4, outputs)

    def forward(self, x, mode="tensor"):
        y = self.linear(torch.stack(x) if isinstance(x, list) else x)
        return dict(loss=(y - 1).square().mean()) if mode == "loss" else y


@DATASETS.register_module(name="NumbersForTests", force=True)
class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(x=torch.full((4,), float(index)))


def make_runner(
    tmp_path,
    max_iters=4,
    resume=None,
    optim_wrapper=None,
    max_keep_ckpts=-1,
    param_scheduler=None,
    amp=False,
    **options,
):
    """A training run in ``tmp_path / 'run'`` that saves every two steps; ``options`` of ``training_runner``."""
    config = Config(
        dict(
            default_scope="mmengine",
            runner_type="pe_dense.Runner",
            model=dict(type="LinearForTests"),
            train_dataloader=dict(
                batch_size=2,
                sampler=dict(type="InfiniteSampler", shuffle=False),
                dataset=dict(type="NumbersForTests"),
            ),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=1000),
            optim_wrapper=optim_wrapper or dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1)),
            param_scheduler=param_scheduler,
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False, max_keep_ckpts=max_keep_ckpts)
            ),
            experiment_name=f"test_{tmp_path.name}_{next(_COUNT)}",  # MMEngine keeps state by this name
            log_level="ERROR",
            randomness=dict(seed=0),
        )
    )
    return training_runner(config, work_dir=str(tmp_path / "run"), resume=resume, amp=amp, launcher="none", **options)
