import json
import threading

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from pe_dense.datasets.synthetic import CLASSES, build, cache, draw_scene, write_shapes

TINY = dict(num_train=3, num_val=2, image_size=64)


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def load(root, name):
    return json.loads((root / "annotations" / name).read_text())


def test_layout(small_shapes):
    root, _ = small_shapes
    files = {str(path) for path in contents(root)}
    names = [f"train/{index:06d}.png" for index in range(24)] + [f"val/{index:06d}.png" for index in range(8)]
    maps = [folder + name for folder in ("", "semantic/", "depth/") for name in names]
    annotations = [f"annotations/{kind}_{split}.json" for kind in ("instances", "lvis") for split in ("train", "val")]
    captions = [f"annotations/captions_{split}.jsonl" for split in ("train", "val")]
    assert files == {"shapes.json", *annotations, *captions, *maps}


def test_files_are_those_of_the_scene(small_shapes):
    root, _ = small_shapes
    scene = draw_scene(np.random.default_rng((0, 2, 3)), 64)  # seed 0, validation, image 3
    image = cv2.imread(str(root / "val/000003.png"))[..., ::-1]
    np.testing.assert_array_equal(image, scene.image)
    semantic = cv2.imread(str(root / "semantic/val/000003.png"), cv2.IMREAD_UNCHANGED)
    assert semantic.dtype == np.uint8
    np.testing.assert_array_equal(semantic, scene.semantic)
    depth = cv2.imread(str(root / "depth/val/000003.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    np.testing.assert_allclose(depth / 1000, scene.depth, atol=0.0006)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_annotations_agree_with_maps(small_shapes, split):
    root, _ = small_shapes
    coco = COCO(root / f"annotations/instances_{split}.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert coco.getCatIds() == list(range(1, 9))
    for image in coco.loadImgs(coco.getImgIds()):
        semantic = cv2.imread(str(root / "semantic" / split / image["file_name"]), cv2.IMREAD_UNCHANGED)
        assert semantic.shape == (image["height"], image["width"])
        painted = np.zeros_like(semantic)
        for annotation in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(annotation)
            y, x = np.nonzero(mask)
            assert annotation["area"] == mask.sum() >= 12
            assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            painted += mask * np.uint8(annotation["category_id"])
        np.testing.assert_array_equal(painted, semantic)
    assert min(coco.getAnnIds()) == 1


def test_same_arguments_same_bytes(small_shapes, tmp_path):
    root, spec = small_shapes
    assert contents(write_shapes(tmp_path / "again", **spec)) == contents(root)


def test_first_images_do_not_depend_on_the_number(small_shapes, tmp_path):
    root, spec = small_shapes
    fewer = write_shapes(tmp_path / "fewer", **{**spec, "num_train": 5, "num_val": 2})
    for path, content in contents(fewer).items():
        if path.suffix == ".png":
            assert (root / path).read_bytes() == content
    for name in ("instances_train.json", "lvis_train.json", "instances_val.json", "lvis_val.json"):
        few, many = load(fewer, name), load(root, name)
        assert few["images"] == many["images"][: len(few["images"])]
        assert few["annotations"] == many["annotations"][: len(few["annotations"])]


def test_splits_and_seeds_differ(small_shapes, tmp_path):
    root, spec = small_shapes
    other = write_shapes(tmp_path / "other", **{**spec, "num_train": 1, "num_val": 1, "seed": 1})
    images = [folder / split / "000000.png" for folder in (root, other) for split in ("train", "val")]
    assert len({image.read_bytes() for image in images}) == 4


def test_existing_data_is_used_as_it_is(small_shapes, monkeypatch):
    root, spec = small_shapes
    monkeypatch.setattr(build, "_write", None)
    assert write_shapes(str(root), **spec) == root


@pytest.mark.parametrize("change", [dict(num_train=4), dict(num_val=3), dict(image_size=65), dict(seed=7)])
def test_data_from_other_arguments_is_refused(tmp_path, change):
    root = write_shapes(tmp_path / "shapes", **TINY)
    before = contents(root)
    ((name, value),) = change.items()
    found = json.loads((root / "shapes.json").read_text())[name]
    with pytest.raises(FileExistsError, match=f"'{name}': {found}.*'{name}': {value}.*delete it or choose"):
        write_shapes(root, **{**TINY, **change})
    assert contents(root) == before


def test_data_of_another_version_is_refused(tmp_path, monkeypatch):
    root = write_shapes(tmp_path / "shapes", **TINY)
    monkeypatch.setattr(build, "VERSION", build.VERSION + 1)
    with pytest.raises(FileExistsError, match="'version'"):
        write_shapes(root, **TINY)


@pytest.mark.parametrize("name", ["mine.txt", "shapes.json"])
def test_other_folder_is_never_overwritten(tmp_path, name):
    root = tmp_path / "photos"
    root.mkdir()
    (root / name).write_text("precious")
    with pytest.raises(FileExistsError, match="not a shapes folder"):
        write_shapes(root, **TINY)
    assert contents(tmp_path) == {root.relative_to(tmp_path) / name: b"precious"}


def test_file_in_place_of_the_root_is_refused(tmp_path):
    (tmp_path / "shapes").write_text("precious")
    with pytest.raises(FileExistsError, match="not a shapes folder"):
        write_shapes(tmp_path / "shapes", **TINY)


def test_empty_or_linked_root_is_filled(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "shapes").symlink_to(tmp_path / "disk")
    write_shapes(tmp_path / "shapes", **TINY)
    assert (tmp_path / "disk/shapes.json").is_file()
    assert (tmp_path / "shapes").is_symlink()


@pytest.mark.parametrize("change", [dict(num_train=0), dict(num_val=0), dict(image_size=63), dict(seed=-1)])
def test_arguments_out_of_range(tmp_path, change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name} is {value}, must be at least {value + 1}"):
        write_shapes(tmp_path / "shapes", **{**TINY, **change})
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    calls = iter(range(10))

    def interrupted(rng, **options):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return draw_scene(rng, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "draw_scene", interrupted)
        write_shapes(tmp_path / "shapes", **TINY)
    assert list(tmp_path.iterdir()) == []
    assert (write_shapes(tmp_path / "shapes", **TINY) / "shapes.json").is_file()


def race(tmp_path, monkeypatch, *specs):
    """Write all specs to one root concurrently; each draft is complete before the first is renamed."""
    barrier = threading.Barrier(len(specs))
    rename = cache.os.rename

    def rename_together(source, target):
        barrier.wait(timeout=30)
        rename(source, target)

    monkeypatch.setattr(cache.os, "rename", rename_together)
    results = []

    def write(spec):
        try:
            results.append(write_shapes(tmp_path / "shapes", **spec))
        except FileExistsError as error:
            results.append(error)

    threads = [threading.Thread(target=write, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    return results


def test_race_of_equals_ends_well(tmp_path, monkeypatch):
    root = (tmp_path / "shapes").resolve()
    assert race(tmp_path, monkeypatch, TINY, TINY, TINY) == [root, root, root]


def test_race_of_different_arguments_has_one_winner(tmp_path, monkeypatch):
    results = race(tmp_path, monkeypatch, TINY, {**TINY, "seed": 1})
    assert sum(isinstance(result, FileExistsError) for result in results) == 1


def test_progress_is_logged(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(cache, "print_log", lambda message, **_: lines.append(message))
    write_shapes(tmp_path / "quiet", **TINY)
    assert lines == ["shapes: 5/5 images, 0 s left"]
    monkeypatch.setattr(cache, "_SECONDS_BETWEEN_REPORTS", 0.0)
    write_shapes(tmp_path / "chatty", **TINY)
    assert [line.split(",")[0] for line in lines[1:]] == [f"shapes: {n}/5 images" for n in range(1, 6)]
