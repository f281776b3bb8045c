"""Models and data sets with different classes are refused before a run."""

import pytest
import torch
from helpers.annotated_folder import write_folder
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from pe_dense.detection import num_classes_hook
from pe_dense.detection.num_classes_hook import ClassCheckHook
from pe_dense.engine.runner import Runner
from pe_dense.utils.errors import ConfigError, InputError


@MODELS.register_module(name="CountingForTests", force=True)
class Counting(BaseModel):
    """A head with a number of classes, and a proposal head with its own."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = MODELS.build(dict(type="pe_dense.FederatedLoss", num_classes=num_classes))
        self.proposals = MODELS.build(
            dict(
                type="mmdet.RPNHead",
                in_channels=2,
                anchor_generator=dict(type="mmdet.AnchorGenerator", scales=[1], ratios=[1.0], strides=[4]),
                bbox_coder=dict(type="mmdet.DeltaXYWHBBoxCoder"),
            )
        )

    def forward(self, *_, **__):
        raise AssertionError("the run has begun")


def loader(root, split, classes):
    return dict(
        batch_size=1,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            type="pe_dense.CocoDataset",
            data_root=str(root),
            ann_file=f"annotations/parts_{split}.json",
            data_prefix=dict(img="pictures"),
            metainfo=dict(classes=classes),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="PackDetInputs", meta_keys=())],
        ),
    )


def make_runner(root, num_classes, train=("cog", "bolt"), val=("cog", "bolt")):
    evaluator = dict(type="pe_dense.CocoMetric", ann_file=str(root / "annotations/parts_val.json"))
    config = Config(
        dict(
            default_scope="mmdet",
            model=dict(type="mmengine.CountingForTests", num_classes=num_classes),
            train_dataloader=loader(root, "train", train),
            val_dataloader=loader(root, "val", val),
            test_dataloader=loader(root, "val", val),
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=1),
            val_cfg=dict(type="ValLoop"),
            test_cfg=dict(type="TestLoop"),
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1)),
            custom_hooks=[dict(type="pe_dense.ClassCheckHook")],
            work_dir=str(root / "run"),
            experiment_name=f"test_{root.name}",
            log_level="ERROR",
        )
    )
    return Runner.from_cfg(config)


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path, ("cog", "bolt"))


@pytest.mark.parametrize(("way", "split"), [("train", "train"), ("val", "val"), ("test", "test")])
def test_another_number_of_classes(root, way, split):
    message = f"the model's FederatedLoss has 80 classes, the {split} data set 2: 'cog', 'bolt'"
    with pytest.raises(ConfigError, match=message):
        getattr(make_runner(root, 80), way)()


@pytest.mark.parametrize("way", ["train", "test"])
def test_fitting_classes_pass(root, way):
    with pytest.raises(AssertionError, match="the run has begun"):
        getattr(make_runner(root, 2), way)()


def test_train_and_val_of_other_classes(tmp_path):
    root = write_folder(tmp_path, ("cog", "bolt"), val_classes=("cog", "nut"))
    with pytest.raises(ConfigError, match="train has 'cog', 'bolt'; val has 'cog', 'nut'"):
        make_runner(root, 2, val=("cog", "nut")).train()


def test_registered_for_every_scope():
    assert HOOKS.get("pe_dense.ClassCheckHook") is ClassCheckHook


def saved(root, classes):
    state = Counting(2).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=classes))), root / "trained.pth")
    return str(root / "trained.pth")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("bolt", "cog"), "the same names in another order: 'bolt', 'cog' and 'cog', 'bolt'"),
        (["washer", "nut"], "only in the checkpoint: 'washer', 'nut'; only in the data: 'cog', 'bolt'"),
        (("cog", "nut"), "only in the checkpoint: 'nut'; only in the data: 'bolt'"),
        (("cog", "bolt", "nut"), "3 classes, the test data set has 2"),
        (("Cog", "bolt"), "only in the checkpoint: 'Cog'; only in the data: 'cog'"),
    ],
)
def test_a_checkpoint_of_other_classes_is_not_tested(root, classes, message):
    runner = make_runner(root, 2)
    runner._load_from = saved(root, classes)
    with pytest.raises(InputError, match=f"trained.pth was trained on .*{message}"):
        runner.test()


@pytest.mark.parametrize("classes", [("cog", "bolt"), ["cog", "bolt"], None, 7, "cog", ("cog", 3)])
def test_a_checkpoint_of_the_same_or_unknown_classes_is_tested(root, classes):
    runner = make_runner(root, 2)
    runner._load_from = saved(root, classes)
    with pytest.raises(AssertionError, match="the run has begun"):
        runner.test()


def test_fine_tuning_on_other_classes_is_logged_and_resuming_refused(root, monkeypatch):
    logged = []
    monkeypatch.setattr(num_classes_hook, "print_log", lambda message, *_: logged.append(message))
    runner = make_runner(root, 2)
    runner._load_from = saved(root, ("washer", "nut"))
    with pytest.raises(AssertionError, match="the run has begun"):
        runner.train()
    assert len(logged) == 1
    assert logged[0].startswith("Fine-tuning on other classes: ")
    runner = make_runner(root, 2)
    runner._resume = True
    assert runner.train_loop
    with pytest.raises(InputError, match="only in the checkpoint: 'washer', 'nut'"):
        runner.call_hook(
            "after_load_checkpoint", checkpoint=dict(meta=dict(dataset_meta=dict(classes=["washer", "nut"])))
        )
