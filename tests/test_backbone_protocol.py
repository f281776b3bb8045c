"""Every task with a second backbone: small random models of timm, with registers and without any prefix token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_probe
from helpers.explorer_server import request, serving
from helpers.tiny_alignment import STUDENT, write_core
from helpers.tiny_towers import photo_file
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

from pe_dense.apps.explorer import Explorer
from pe_dense.datasets.synthetic.video import draw_video
from pe_dense.engine.config import load_config
from pe_dense.registry import MODELS
from pe_dense.visualization.features import FigureInputs
from pe_dense.visualization.figures import draw_correspondence, draw_pca, draw_similarity

ROOT = Path(__file__).parents[1]
NAME = "test_vit"  # patches of 16 px, 64 channels
MODELS_OF_TIMM = {
    "registers": dict(depth=3, reg_tokens=4),
    "no prefix token": dict(depth=3, class_token=False, global_pool="avg"),
}
pytestmark = pytest.mark.parametrize("model_args", MODELS_OF_TIMM.values(), ids=MODELS_OF_TIMM)


def config(model_args, **options):
    return dict(type="pe_dense.TimmTower", name=NAME, model_args=dict(model_args), **options)


def build(model_args, **options):
    torch.manual_seed(0)
    return MODELS.build(config(model_args, **options)).eval()


def test_mask_rcnn(model_args):
    init_default_scope("mmdet")
    model_config = load_config(ROOT / "configs" / "shapes_maskrcnn_pe_tiny.py").model
    model_config.backbone = config(model_args)
    model_config.neck.update(in_channels=64, stride=16, scales=(4.0, 2.0, 1.0))
    torch.manual_seed(0)
    model = MODELS.build(model_config)
    sample = DetDataSample(
        metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128), pad_shape=(128, 128), scale_factor=(1.0, 1.0))
    )
    mask = np.zeros((1, 128, 128), np.uint8)
    mask[:, 30:90, 20:80] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 30.0, 80.0, 90.0]]), labels=torch.tensor([2]), masks=BitmapMasks(mask, 128, 128)
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    image = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)
    data = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]), training=True)
    losses = model(**data, mode="loss")
    total = sum(sum(value) if isinstance(value, list) else value for name, value in losses.items() if "loss" in name)
    total.backward()
    assert torch.isfinite(total)
    gradients = [parameter.grad for name, parameter in model.backbone.named_parameters() if ".blocks." in name]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    model.eval()
    with torch.no_grad():
        (found,) = model(**data, mode="predict")
    assert found.pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize("task", ["segmentation", "depth", "dpt"])
@pytest.mark.parametrize("kind", ["Probe", "Sweep"])
def test_probes_and_sweeps(model_args, task, kind):
    if (task, kind) == ("dpt", "Sweep"):
        pytest.skip("a DPT head takes several layers together")
    init_default_scope("mmseg")
    model_config = tiny_probe.model_config(task, kind, [2] if kind == "Probe" else None)
    model_config.backbone.update(arch=f"timm/{NAME}", model_args=dict(model_args))
    model_config.data_preprocessor.size = (32, 32)
    torch.manual_seed(0)
    model = MODELS.build(model_config)
    model.init_weights()
    data = model.data_preprocessor(
        tiny_probe.batch("segmentation" if task == "segmentation" else "depth", (32, 32)), True
    )
    losses = model(**data, mode="loss")
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert not any(parameter.requires_grad for parameter in model.backbone.tower.parameters())
    model.eval()
    assert len(model(**data, mode="predict")) == 2


def test_label_propagation(model_args):
    images, labels = zip(*draw_video(np.random.default_rng(0), num_frames=3, image_size=64), strict=True)
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    tracker = MODELS.build(dict(type="pe_dense.LabelPropagator", backbone=config(model_args, out_indices=None))).eval()
    assert tracker.backbone.out_indices == (0, 1, 2)
    tracked = tracker.track(frames, labels[0], int(labels[0].max()))
    assert {layer: masks.shape for layer, masks in tracked.items()} == dict.fromkeys(range(3), (3, 64, 64))


@pytest.mark.parametrize("method", ["SpatialAligner", "SpatialDistiller"])
def test_teacher_of_the_alignment(model_args, method, tmp_path):
    torch.manual_seed(0)
    teacher = dict(tower=config(model_args), checkpoint=None, layer=1)
    student = dict(type="pe_dense.PETower", arch=dict(STUDENT), with_head=False)
    common = dict(
        type=f"pe_dense.{method}",
        image_size=64,
        backbone=student,
        init_cfg=dict(type="Pretrained", checkpoint=write_core(tmp_path)),
    )
    if method == "SpatialAligner":
        # Features of teacher and student are compared one to one, so both are 64 wide here.
        common["init_cfg"]["checkpoint"] = write_core(tmp_path, width=64)
        student["arch"] |= dict(width=64)
        model = MODELS.build(dict(common, core=teacher, sam=dict(), locality_weight=0.0))
    else:
        student["arch"] |= dict(ls_init_value=None)
        model = MODELS.build(dict(common, teacher=dict(teacher, image_size=64)))
    model.init_weights()
    losses = model.loss(torch.rand(2, 3, 64, 64))
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    (only,) = model.teachers.values()
    assert len(list(only.tower.fsdp_units())) == 2  # the block after the teacher's layer was removed


@pytest.fixture
def photos():
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (5, 6, 3), np.uint8)).resize(size) for size in ((96, 64), (64, 80))
    ]


def test_figures(model_args, photos, tmp_path):
    scene = FigureInputs(build(model_args), "test", ["a", "b"], photos, long_side=96)
    written = [
        *draw_pca(scene, [0, 2], tmp_path),
        *draw_similarity(scene, [2], tmp_path, point=(10.0, 10.0)),
        *draw_correspondence(scene, [2], tmp_path),
    ]
    assert len(written) >= 5
    for path in (path for path in written if path.suffix == ".png"):
        with Image.open(path) as picture:
            assert picture.size > (96, 64)


def test_explorer(model_args):
    explorer = Explorer({"timm": build(model_args)}, max_size=96)
    with serving(explorer) as server:
        image = request(server.address, "/image", "POST", photo_file((96, 64)))[1]["image"]
        place = dict(tower="timm", layer=2, size=96, image=image)
        for path, query in (("/colors", dict(together=image)), ("/similarity", dict(source=image, x=0.2, y=0.3))):
            status, content, headers = request(server.address, path, **place, **query)
            assert status == 200, content
            assert headers["Content-Type"] == "image/png"
