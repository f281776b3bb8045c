"""Panoptic results: pictures, COCO's format, a run on generated shapes."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import LoadPanopticAnnotations
from mmdet.evaluation import CocoPanopticMetric
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData
from PIL import Image

from pe_dense.datasets import CocoPanopticDataset, LoadImage
from pe_dense.detection import Detector
from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import load_predictor
from pe_dense.segmentation import PanopticPredictor
from pe_dense.utils.image import write_png

META = dict(
    classes=("cog", "nut", "sky"),
    thing_classes=("cog", "nut"),
    stuff_classes=("sky",),
    palette=[(250, 0, 0), (0, 250, 0), (0, 0, 250)],
)


class Given(torch.nn.Module):
    """A model that predicts given maps, one after the other."""

    def __init__(self, maps):
        super().__init__()
        self.panoptic_fusion_head = SimpleNamespace(num_things_classes=2)
        self.maps = list(maps)

    def test_step(self, data):
        found = []
        for sample in data["data_samples"]:
            found.append(DetDataSample(metainfo=sample.metainfo))
            found[-1].pred_panoptic_seg = PixelData(sem_seg=torch.tensor(self.maps.pop(0))[None])
        return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Results for an image with two cogs, sky and unknown pixels, and for one where nothing was found."""
    folder = tmp_path_factory.mktemp("panoptic")
    first, second = np.full((20, 30), 2), np.full((8, 8), 3)  # sky, unknown
    first[2:8, 3:9] = 1000  # cog, the first object
    first[10:15, 20:30] = 2000  # cog, the second
    first[:, :3] = 3
    images = [folder / "a.jpg", folder / "b.png"]
    for path, seen in zip(images, (first, second), strict=True):
        Image.new("RGB", seen.shape[::-1], (90, 120, 150)).save(path)
    pipeline = [dict(type="pe_dense.LoadImage"), dict(type="mmdet.PackDetInputs")]
    predictor = PanopticPredictor.of(Detector(Given([first, second]), pipeline, META))
    pictures = list(predictor.predict_files(images, folder / "out", batch_size=2))
    return folder, pictures, first


def test_round_trip(written):
    """The files are a panoptic data set in COCO's format, with the predicted segments."""
    folder, _, first = written
    dataset = CocoPanopticDataset(
        ann_file="out/panoptic/segments.json",
        data_root=str(folder),
        data_prefix=dict(img="", seg="out/panoptic/"),
        metainfo=META,
        pipeline=[LoadImage(), LoadPanopticAnnotations()],
    )
    loaded, empty = dataset[0], dataset[1]
    assert (loaded["gt_seg_map"] == np.select([first >= 1000, first == 2], [0, 2], 255)).all()
    assert loaded["gt_bboxes_labels"].tolist() == [0, 0]
    assert (loaded["gt_masks"].masks == [first == 1000, first == 2000]).all()
    assert loaded["gt_bboxes"].tensor.tolist() == [[3, 2, 9, 8], [20, 10, 30, 15]]
    assert (empty["gt_seg_map"] == 255).all() and not len(empty["gt_masks"])

    # As ground truth they have a quality of 100 % for the same prediction.
    maps = folder / "out/panoptic"
    metric = CocoPanopticMetric(ann_file=str(maps / "segments.json"), seg_prefix=str(maps))
    metric.dataset_meta = META
    seen = dict(sem_seg=torch.tensor(first)[None])
    metric.process({}, [dict(img_id=1, img_path="a.jpg", ori_shape=(20, 30), pred_panoptic_seg=seen)])
    assert metric.evaluate(1)["coco_panoptic/PQ"] == 100.0


def test_images_are_listed_in_order(tmp_path, monkeypatch):
    """Although the first one is written last, in another thread."""
    images = [tmp_path / name for name in ("c.png", "a.png", "b.png")]
    for path in images:
        Image.new("RGB", (8, 8)).save(path)
    pipeline = [dict(type="pe_dense.LoadImage"), dict(type="mmdet.PackDetInputs")]
    predictor = PanopticPredictor.of(Detector(Given([np.full((8, 8), 2)] * 3), pipeline, META))
    others = threading.Event()
    done = []

    def write_late(path, *args, **options):
        if path == f"{tmp_path}/out/c.png":
            others.wait(10)
        write_png(path, *args, **options)
        done.append(path)
        if len(done) == 4:  # the picture and the map of each of the others
            others.set()

    monkeypatch.setattr("pe_dense.engine.inferencer.spare_cores", lambda limit: 3)
    monkeypatch.setattr("pe_dense.segmentation.inferencer.write_png", write_late)
    assert [path.stem for path in predictor.predict_files(images, tmp_path / "out")] == ["c", "a", "b"]
    content = json.loads((tmp_path / "out/panoptic/segments.json").read_text())
    assert [(one["id"], one["file_name"]) for one in content["images"]] == [(1, "c.png"), (2, "a.png"), (3, "b.png")]
    listed = [(one["image_id"], one["file_name"]) for one in content["annotations"]]
    assert listed == [(1, "c.png"), (2, "a.png"), (3, "b.png")]


def test_json_of_an_image(written):
    folder, pictures, first = written
    assert pictures == [folder / "out/a.png", folder / "out/b.png"]
    content = json.loads((folder / "out/a.json").read_text())
    segments = {tuple(one["bbox"]): one for one in content["segments_info"]}
    assert (content["image"], content["segments_file"]) == (str(folder / "a.jpg"), "panoptic/a.png")
    assert {(one["category"], one["isthing"], one["area"]) for one in segments.values()} == {
        ("cog", 1, 36),
        ("cog", 1, 50),
        ("sky", 0, int((first == 2).sum())),
    }
    assert segments[3, 2, 6, 6]["id"] == 250  # red, as its class
    assert json.loads((folder / "out/b.json").read_text())["segments_info"] == []


def test_picture(written):
    """Segments in the colors of their classes beside the image; pixels without one are as they were."""
    _, pictures, _ = written
    picture = np.asarray(Image.open(pictures[0])).astype(int)
    factor = 480 // 30
    drawn = picture[: 20 * factor, -30 * factor :]
    cog, sky, unknown = (drawn[int((y + 0.5) * factor), int((x + 0.5) * factor)] for y, x in ((4, 5), (1, 20), (9, 0)))
    assert cog.argmax() == 0 and sky.argmax() == 2
    assert abs(unknown - [90, 120, 150]).max() <= 3  # JPEG
    assert len(picture) > 20 * factor  # a legend


@pytest.mark.parametrize("method", ["eomt", "mask2former"])
def test_run_on_shapes(tmp_path, method):
    """Train, validate and predict with the configs of generated shapes."""
    config = load_config(f"shapes_panoptic_{method}_pe_tiny", dict(image_size=64, data_root=str(tmp_path / "shapes")))
    config.work_dir = str(tmp_path / "run")
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
    config.param_scheduler = []
    if method == "eomt":
        config.custom_hooks[-1].intervals = [(0, 1), (1, 2)]
        config.model.panoptic_head.num_points = 64
    else:
        config.model.train_cfg.num_points = 64
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.generator = dict(num_train=2, num_val=2, image_size=64)
    runner = build_runner.training_runner(config, work_dir=None, resume=None, amp=False, launcher="none")
    runner.train()
    quality = runner.message_hub.get_scalar("val/coco_panoptic/PQ").current()
    assert 0 <= quality <= 100
    trained = load_config(tmp_path / "run" / f"shapes_panoptic_{method}_pe_tiny.py")
    predictor = load_predictor(trained, str(tmp_path / "run"), device="cpu")
    list(predictor.predict_files([tmp_path / "shapes/val/000000.png"], tmp_path / "out"))
    content = json.loads((tmp_path / "out/panoptic/segments.json").read_text())
    assert [entry["name"] for entry in content["categories"] if not entry["isthing"]] == ["background"]
    assert len(content["images"]) == 1 and "objects" in json.loads((tmp_path / "out/000000.json").read_text())
