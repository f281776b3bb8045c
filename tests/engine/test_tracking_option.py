"""``--track``: metrics, learning rates and pictures in TensorBoard, and the calls of the other trackers."""

import sys
from unittest import mock

import numpy as np
import pytest
from helpers.tiny_run import write_config
from helpers.tool_runs import call_tool
from mmengine.config import Config

from pe_dense.engine.hooks.trackers import MLflowVisBackend, WandbVisBackend
from pe_dense.engine.tracking_option import use_tracker
from pe_dense.utils.errors import ConfigError


def test_tensorboard_gets_metrics_learning_rates_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_config(tmp_path, max_iters=2, validate=True)
    done = call_tool("train", config, "--work-dir", tmp_path / "run", "--track", "tensorboard")
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "run").glob("*/vis_data/events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    assert {"lr", "loss", "loss_mask", "coco/bbox_mAP"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert [event.step for event in events.Scalars("coco/bbox_mAP")] == [2]
    assert events.Tags()["images"] == [f"val/{number}" for number in range(4)]
    assert (events.Images("val/0")[0].step, events.Images("val/0")[0].width) == (2, 512)
    assert list((tmp_path / "run").glob("*/vis_data/scalars.json"))  # the local log stays


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("pe_dense.engine.tracking_option.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--track wandb: the package wandb is not installed: pip install wandb"):
        use_tracker(Config({}), "wandb")


def test_backends_of_the_config_keep_their_settings():
    backend = dict(type="TensorboardVisBackend", save_dir="elsewhere")
    config = Config(dict(visualizer=dict(type="DetLocalVisualizer", vis_backends=[backend])))
    use_tracker(config, "tensorboard")
    assert config.visualizer == dict(type="DetLocalVisualizer", vis_backends=[backend])
    assert "custom_hooks" not in config  # nothing is validated
    config = Config(dict(val_dataloader=dict(batch_size=1)))
    use_tracker(config, "tensorboard")
    kinds = [backend["type"] for backend in config.visualizer.vis_backends]
    assert kinds == ["LocalVisBackend", "TensorboardVisBackend"]
    assert [hook.type for hook in config.custom_hooks] == ["pe_dense.ValidationPictureHook"]


@pytest.fixture
def package(monkeypatch):
    """A stand-in for a tracker's package that records calls."""

    def install(name):
        module = mock.MagicMock()
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def test_wandb_gets_the_iteration_of_each_value(package, tmp_path):
    wandb = package("wandb")
    backend = WandbVisBackend(save_dir=str(tmp_path))
    backend.add_scalars(dict(loss=0.5, lr=1e-3), step=7, file_path="scalars.json")
    backend.add_scalar("mAP", 0.25, step=8)
    backend.add_image("val/0", np.zeros((2, 3, 3), np.uint8), step=9)
    backend.close()
    wandb.define_metric.assert_called_with("*", step_metric="iteration")
    logged = [call.args[0] for call in wandb.log.call_args_list]
    assert logged[:2] == [dict(loss=0.5, lr=1e-3, iteration=7), dict(mAP=0.25, iteration=8)]
    assert logged[2] == {"val/0": wandb.Image.return_value, "iteration": 9}
    wandb.finish.assert_called_once()


def test_mlflow_keeps_the_pictures_of_all_steps(package, tmp_path):
    mlflow = package("mlflow")
    mlflow.active_run.return_value = None
    backend = MLflowVisBackend(save_dir=str(tmp_path), exp_name="shapes")
    backend.add_config(Config(dict(work_dir=str(tmp_path), image_size=512, model=dict(type="X" * 1000))))
    backend.add_scalars({"loss": 0.5, "coco/bbox_AR@100": 0.2}, step=7)
    backend.add_scalar("davis/J&F", 0.3, step=7)
    for step in (8, 9):
        backend.add_image("val/0", np.zeros((2, 3, 3), np.uint8), step=step)
    backend.close()
    mlflow.set_experiment.assert_called_once_with("shapes")
    mlflow.log_params.assert_called_once_with(dict(work_dir=str(tmp_path), image_size="512"))
    # MLflow accepts no other characters in names than these.
    mlflow.log_metrics.assert_called_once_with({"loss": 0.5, "coco/bbox_AR_100": 0.2}, 7)
    mlflow.log_metric.assert_called_once_with("davis/J_F", 0.3, 7)
    assert [call.args[1] for call in mlflow.log_image.call_args_list] == ["val/0_8.png", "val/0_9.png"]
    mlflow.end_run.assert_called_once()
