"""Loading of label and depth maps, and checks before and during training."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import IterBasedTrainLoop

from pe_dense.datasets.label_maps import LoadDepthMap, LoadLabelMap, MapError
from pe_dense.datasets.synthetic.scene import draw_scene
from pe_dense.engine.preflight import check_images, check_learnable, empty_error
from pe_dense.engine.runner import Runner
from pe_dense.utils.errors import ConfigError, InputError

SHAPES = dict(num_train=20, num_val=1, image_size=64)


def write(root, maps, folder="maps", images=None):
    """Write images of 6 x 8 px with these maps."""
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
        (labels(3), {}, r"has labels 3: legal are 0\.\.2, and 255"),
        (labels(5), dict(reduce_zero_label=True), r"has labels 4, counted without the zero label: legal are 0\.\.2"),
        (labels(300, dtype=np.uint16), {}, r"has values 300\.\.300, outside of the 0\.\.255"),
        (labels(0, (6, 9)), {}, r"0\.png has 6 x 9 px, but its image .*0\.jpg has 6 x 8"),
        (labels(0, (6, 8, 3)), {}, r"of shape \(6, 8, 3\): it must have one channel"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, values, options, message):
    data = segmentation_data(write(tmp_path, [values]), **options)
    with pytest.raises(MapError, match=message):
        data[0]
    with pytest.raises(MapError, match=message):
        check_images(data)  # before training


COLORS = {"#000000": 0, "#0a6450": 1}


def test_colors_are_labels(tmp_path):
    values = np.zeros((6, 8, 3), np.uint8)
    values[2:4] = (80, 100, 10)  # written in the order of OpenCV
    pipeline = [dict(type="LoadImageFromFile"), dict(type="pe_dense.LoadLabelMap", num_classes=2, colors=COLORS)]
    (item,) = segmentation_data(write(tmp_path, [values]), pipeline=pipeline)
    assert item["gt_seg_map"][:, 0].tolist() == [0, 0, 1, 1, 0, 0]
    values[0, 0] = 9
    with pytest.raises(MapError, match=r"0\.png has the colors #090909, which are those of no class"):
        segmentation_data(write(tmp_path, [values]), pipeline=pipeline)[0]


@pytest.mark.parametrize(
    "options", [dict(colors={"red": 0}), dict(colors={"#ff0000": 300}), dict(colors=COLORS, value_map={0: 0})]
)
def test_colors_that_are_no_table(options):
    with pytest.raises(InputError, match="colors is|colors exclude each other"):
        LoadLabelMap(num_classes=2, **options)


def test_an_error_in_a_data_worker_is_one_line(tmp_path):
    loader = torch.utils.data.DataLoader(segmentation_data(write(tmp_path, [labels(3)])), num_workers=1)
    with pytest.raises(MapError) as error:
        next(iter(loader))
    assert str(error.value).startswith(f"label map {tmp_path}/maps/0.png has labels 3: legal are 0..2")


def test_a_wrong_map_among_many_is_found_when_it_is_read(tmp_path):
    maps = [labels(0) for _ in range(40)]
    maps[0][0] = 1
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
    assert str(error) == f"BaseSegDataset: no matching images found in {tmp_path}/images"


def depth_item(path, shape=(6, 8)):
    return dict(depth_map_path=str(path), img_path="0.jpg", ori_shape=shape, seg_fields=[])


def test_depth_in_meters(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), labels(1500, dtype=np.uint16))
    item = LoadDepthMap(depth_rescale_factor=1e-3)(depth_item(tmp_path / "0.png"))
    assert item["gt_depth_map"].dtype == np.float32
    assert np.allclose(item["gt_depth_map"], 1.5)
    with pytest.raises(MapError, match=r"depth map .*0\.png has 6 x 8 px, but its image 0\.jpg has 6 x 7"):
        LoadDepthMap(depth_rescale_factor=1e-3)(depth_item(tmp_path / "0.png", (6, 7)))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "has 1 pixels that are NaN or infinite: use 0 for unknown"), (-2.0, "negative depths, down to -2 m")],
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
    assert np.abs(depth[3]["gt_depth_map"] - scene.depth).max() < 0.000502  # half a millimeter
    check_images(classes)
    check_images(depth)


def test_messages_without_a_worker_stay_whole():
    assert str(MapError("label map a.png: wrong")) == "label map a.png: wrong"
    with pytest.raises(TypeError):
        LoadLabelMap()


# --- what values mean, and maps with nothing to learn ---


def half(first, second, dtype=np.uint8):
    values = labels(first, dtype=dtype)
    values[:, 4:] = second
    return values


def reader(**options):
    return [dict(type="pe_dense.LoadImage"), dict(type="pe_dense.LoadLabelMap", num_classes=3, **options)]


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ([half(0, 255)] * 3, {}, r"All 3 label maps have the values 0 \(72 pixels\), 255 \(72 pixels\).*only class 0.*"
         r"value_map=\{0: 0, 255: 1\}"),
        ([labels(255)] * 2, {}, r"All 2 label maps have the values 255 \(96 pixels\): no class"),
        ([labels(2)] * 20, {}, r"All 20 label maps have the values 2 \(960 pixels\): only class 2"),
        ([labels(0)] * 2, dict(reduce_zero_label=True), r"values 0 \(96 pixels\): no class: all pixels are"),
        ([labels(1)] * 2, dict(reduce_zero_label=True), "only class 0"),
    ],
)  # fmt: skip
def test_nothing_to_learn_is_an_error_with_the_values(tmp_path, maps, options, message):
    data = segmentation_data(write(tmp_path, maps), **options)
    check_images(data)  # a test set may be like this
    with pytest.raises(MapError, match=message):
        check_learnable(data)
    write(tmp_path, [half(1, 2)] * 2, "good")
    good = dict(options, data_prefix=dict(img_path="images", seg_map_path="good"))
    with pytest.raises(MapError, match=message):
        check_learnable(ConcatDataset([segmentation_data(tmp_path, **good), data]))


def test_classes_that_only_a_map_outside_of_the_sample_has(tmp_path):
    maps = [labels(0) for _ in range(40)]
    maps[1] = half(0, 2)
    check_learnable(segmentation_data(write(tmp_path, maps)))


def depth_data(root, **reader):
    init_default_scope("mmseg")
    return DATASETS.build(
        dict(
            type="NYUDataset",
            data_root=str(root),
            data_prefix=dict(img_path="images", depth_map_path="maps"),
            pipeline=[dict(type="pe_dense.LoadImage"), dict(type="pe_dense.LoadDepthMap", **reader)],
        )
    )


def test_depth_maps_without_a_known_depth_are_an_error_in_training(tmp_path):
    for index in range(20):
        pixels = np.zeros((6, 8), np.uint16)
        for folder, values in (("images", np.zeros((6, 8, 3), np.uint8)), ("maps", pixels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"shop_{index:05d}.{'jpg' if folder == 'images' else 'png'}"), values)
    data = depth_data(tmp_path, depth_rescale_factor=1e-3)
    check_images(data)  # a test set may be like this
    with pytest.raises(
        MapError, match=r"All 960 pixels of 20 depth maps, .*\.png among them, are 0, .*nothing to learn"
    ):
        check_learnable(data)
    loop = object.__new__(IterBasedTrainLoop)
    loop.dataloader = SimpleNamespace(dataset=data)
    with pytest.raises(MapError, match="nothing to learn"):
        Runner.build_train_loop(object.__new__(Runner), loop)
    pixels[0, 0] = 700
    cv2.imwrite(str(tmp_path / "maps/shop_00001.png"), pixels)  # not among the 16 that are read first
    check_learnable(data)


@pytest.mark.parametrize(
    ("value_map", "values", "expected"),
    [
        ({0: 0, 255: 1}, half(0, 255), half(0, 1)),
        ({"0": 0, "255": 1}, half(0, 255), half(0, 1)),  # from JSON
        ({7: 0, 24: 2, 0: 255}, half(7, 24), half(0, 2)),
        ({0: 255, 1000: 1}, half(0, 1000, np.uint16), half(255, 1)),
        ({10: 1, 20: 1}, half(10, 20), half(1, 1)),
    ],
    ids=range(5),
)
def test_values_mean_what_the_option_says(tmp_path, value_map, values, expected):
    data = segmentation_data(write(tmp_path, [values]), pipeline=reader(value_map=value_map))
    assert np.array_equal(data[0]["gt_seg_map"], expected)


def test_values_that_the_option_does_not_list(tmp_path):
    data = segmentation_data(write(tmp_path, [half(0, 9)]), pipeline=reader(value_map={0: 0, 255: 1}))
    with pytest.raises(MapError, match=r"0\.png has values 9 that value_map does not list: it has 0, 255"):
        data[0]


@pytest.mark.parametrize("value_map", [{"a": 1}, {0: -1}, {-1: 0}, {0: 256}, [1, 2]])
def test_options_that_map_nothing(value_map):
    with pytest.raises(ValueError, match="must map pixel values"):
        LoadLabelMap(num_classes=2, value_map=value_map)


@pytest.mark.usefixtures("bounded")
def test_label_maps_are_read_as_stored(tmp_path):
    """Values of palette, grayscale and 1-bit files are read as stored; a FIFO does not block, a broken file is "
    "named."""
    import os

    from PIL import Image

    values = half(0, 1)
    write(tmp_path, [values] * 4)
    palette = Image.fromarray(values)
    palette.putpalette([250, 0, 0, 0, 250, 0])
    palette.save(tmp_path / "maps/0.png")
    Image.fromarray(values.astype(bool)).save(tmp_path / "maps/1.png")
    data = segmentation_data(tmp_path)
    for index in range(2):
        assert np.array_equal(data[index]["gt_seg_map"], values)
    (tmp_path / "maps/2.png").unlink()
    os.mkfifo(tmp_path / "maps/2.png")
    (tmp_path / "maps/3.png").write_bytes(b"")
    with pytest.raises(MapError, match=r"2\.png is a FIFO"):
        data[2]
    with pytest.raises(MapError, match=r"3\.png is not a readable image"):
        data[3]


def test_depth_maps_never_run_code():
    with pytest.raises(ValueError, match="decode_backend is 'pickle'"):
        LoadDepthMap(depth_rescale_factor=1.0, decode_backend="pickle")
