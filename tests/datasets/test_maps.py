"""Label and depth maps: what they give, and what is refused before and while training."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, init_default_scope

from pe_dense.datasets.label_maps import LoadDepthMap, LoadLabelMap, MapError
from pe_dense.datasets.synthetic.scene import draw_scene
from pe_dense.engine.preflight import check_images, empty_error
from pe_dense.utils.errors import ConfigError

SHAPES = dict(num_train=20, num_val=1, image_size=64)


def write(root, maps, folder="maps", images=None):
    """Images of 6 x 8 px with these maps."""
    for name in ("images", folder):
        (root / name).mkdir(exist_ok=True)
    for index, values in enumerate(maps):
        if images is None or index in images:
            cv2.imwrite(str(root / "images" / f"{index}.jpg"), np.zeros((6, 8, 3), np.uint8))
        if values is not None:
            cv2.imwrite(str(root / folder / f"{index}.png"), values)
    return root


def labels(value=0, shape=(6, 8), dtype=np.uint8):
    return np.full(shape, value, dtype)


def segmentation_data(root, **options):
    init_default_scope("mmseg")
    return DATASETS.build(
        dict(
            type="BaseSegDataset",
            data_root=str(root),
            data_prefix=dict(img_path="images", seg_map_path="maps"),
            metainfo=dict(classes=("a", "b", "c")),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="pe_dense.LoadLabelMap", num_classes=3)],
        )
        | options
    )


def test_labels_and_the_ignored_one(tmp_path):
    values = labels(2)
    values[0] = 255
    item = segmentation_data(write(tmp_path, [values]))[0]
    assert np.array_equal(item["gt_seg_map"], values)


def test_zero_label_is_reduced(tmp_path):
    values = labels(3)
    values[0] = 0
    (item,) = segmentation_data(write(tmp_path, [values]), reduce_zero_label=True)
    assert set(item["gt_seg_map"].ravel()) == {2, 255}


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (labels(3), {}, r"holds labels 3: legal are 0\.\.2, and 255"),
        (labels(5), dict(reduce_zero_label=True), r"holds labels 4, counted without the zero label: legal are 0\.\.2"),
        (labels(300, dtype=np.uint16), {}, "holds label 300, more than the 255 of 8 bits"),
        (labels(0, (6, 9)), {}, r"0\.png is of 6 x 9 px, but its image .*0\.jpg of 6 x 8"),
        (labels(0, (6, 8, 3)), {}, r"of shape \(6, 8, 3\): it must have one channel"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, values, options, message):
    data = segmentation_data(write(tmp_path, [values]), **options)
    with pytest.raises(MapError, match=message):
        data[0]
    with pytest.raises(MapError, match=message):
        check_images(data)  # before training


def test_an_error_in_a_data_worker_is_one_line(tmp_path):
    loader = torch.utils.data.DataLoader(segmentation_data(write(tmp_path, [labels(3)])), num_workers=1)
    with pytest.raises(MapError) as error:
        next(iter(loader))
    assert str(error.value).startswith(f"label map {tmp_path}/maps/0.png holds labels 3: legal are 0..2")


def test_a_wrong_map_among_many_is_found_when_it_is_read(tmp_path):
    maps = [labels(0) for _ in range(40)]
    maps[1] = labels(7)
    data = segmentation_data(write(tmp_path, maps))
    check_images(data)  # 16 of them, spread: 0, 2, 5, ...
    with pytest.raises(MapError, match=r"1\.png"):
        data[[item["img_path"].endswith("/1.jpg") for item in map(data.get_data_info, range(40))].index(True)]


def test_missing_maps_are_counted(tmp_path):
    data = segmentation_data(write(tmp_path, [labels(0), None, None]))
    with pytest.raises(ConfigError, match=r"2 of 3 label maps that its folder lists do not exist, .*maps/1\.png"):
        check_images(data)


def test_no_image_at_all(tmp_path):
    write(tmp_path, [])
    error = empty_error(dict(type="BaseSegDataset", data_root=str(tmp_path), data_prefix=dict(img_path="images")))
    assert str(error) == f"BaseSegDataset: there is no image of its kind in {tmp_path}/images"


def depth_item(path, shape=(6, 8)):
    return dict(depth_map_path=str(path), img_path="0.jpg", ori_shape=shape, seg_fields=[])


def test_depth_in_metres(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), labels(1500, dtype=np.uint16))
    item = LoadDepthMap(depth_rescale_factor=1e-3)(depth_item(tmp_path / "0.png"))
    assert item["gt_depth_map"].dtype == np.float32
    assert np.allclose(item["gt_depth_map"], 1.5)
    with pytest.raises(MapError, match=r"depth map .*0\.png is of 6 x 8 px, but its image 0\.jpg of 6 x 7"):
        LoadDepthMap(depth_rescale_factor=1e-3)(depth_item(tmp_path / "0.png", (6, 7)))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "holds 1 pixels of NaN or infinity: 0 is unknown"), (-2.0, "negative depths, down to -2 m")],
)
def test_depth_that_is_none(tmp_path, value, message):
    depth = np.ones((6, 8), np.float32)
    depth[0, 0] = value
    np.save(tmp_path / "0.npy", depth)
    with pytest.raises(MapError, match=message):
        LoadDepthMap(depth_rescale_factor=1.0, decode_backend="numpy")(depth_item(tmp_path / "0.npy"))


def test_shapes_give_their_scenes_classes_and_depth(tmp_path):
    init_default_scope("mmseg")
    scene = draw_scene(np.random.default_rng((0, 1, 3)), 64)
    options = dict(data_root=str(tmp_path / "shapes"), generator=SHAPES)
    classes = DATASETS.build(
        dict(
            type="pe_dense.ShapesSegmentationDataset",
            data_prefix=dict(img_path="train", seg_map_path="semantic/train"),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="pe_dense.LoadLabelMap", num_classes=9)],
            **options,
        )
    )
    assert len(classes) == 20
    assert len(classes.metainfo["classes"]) == len(classes.metainfo["palette"]) == 9
    assert np.array_equal(classes[3]["gt_seg_map"], scene.semantic)
    assert np.array_equal(classes[3]["img"][..., ::-1], scene.image)
    depth = DATASETS.build(
        dict(
            type="pe_dense.ShapesDepthDataset",
            data_prefix=dict(img_path="train", depth_map_path="depth/train"),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3)],
            **options,
        )
    )
    assert np.abs(depth[3]["gt_depth_map"] - scene.depth).max() < 0.000502  # half a millimetre
    check_images(classes)
    check_images(depth)


def test_messages_without_a_worker_stay_whole():
    assert str(MapError("label map a.png: wrong")) == "label map a.png: wrong"
    with pytest.raises(TypeError):
        LoadLabelMap()
