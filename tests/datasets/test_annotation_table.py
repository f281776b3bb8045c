"""Annotation files as columns: equal to the file, whichever way they are read, and small copies of data sets."""

import copy
import json

import numpy as np
import pytest
from helpers.annotated_folder import content, write_json

from pe_dense.datasets.annotation_cache import read_table
from pe_dense.datasets.annotation_parser import parse_table, table_of
from pe_dense.datasets.annotations import AnnotationError, read_annotations
from pe_dense.datasets.coco import CocoDataset, Objects365Dataset

RUNS = [64 * 4 + 6, 20] + [44, 20] * 19
RUNS += [64 * 64 - sum(RUNS)]


@pytest.fixture
def mixed():
    """Masks of every kind, annotations that are not in the order of their images, and coordinates of every form."""
    data = content(("b", "a"), ["1.png", "a/0.png", "2.png"], federated=True)
    first, second, third, fourth, fifth, sixth = data["annotations"]
    first["segmentation"] = [first["segmentation"][0], [5.25, 7, 20.5, 7, 20.5, 22.75]]
    second["segmentation"] = dict(size=[64, 64], counts=RUNS)
    second.update(bbox=[4, 6, 20, 20], iscrowd=1)
    third["segmentation"][0][0] = 4 + 1 / 3  # not a multiple of a hundredth
    fourth["ignore"] = 1
    fifth["area"] = 399.9999
    sixth["segmentation"] = dict(size=[64, 64], counts="V8d0\\10000000000000000000000000000000000000j_2")
    sixth["bbox"] = [4, 6, 20, 20]
    data["images"][1].update(neg_category_ids=[1], not_exhaustive_category_ids=[2, 1], file_name="0.png")
    data["annotations"] = [sixth, first, fourth, fifth, third, second]
    return data


def fields(annotation):
    names = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation")
    return {name: annotation.get(name, 0) for name in names}


def test_parsed_table_has_the_content_of_the_file(mixed):
    parsed = parse_table(json.dumps(mixed).encode(), masks=True)
    for table in (parsed, table_of(mixed), copy.deepcopy(parsed)):
        assert table.images() == mixed["images"]
        assert table.categories == mixed["categories"]
        assert [fields(entry) for entry in table.annotations()] == [fields(entry) for entry in mixed["annotations"]]
        assert table.federated
    assert parsed.arrays["coordinates"].dtype == np.float64
    assert all(np.array_equal(parsed.arrays[name], values) for name, values in table_of(mixed).arrays.items())


def test_coordinates_of_two_decimals_take_half_the_space(mixed):
    mixed["annotations"][4]["segmentation"][0][0] = 4.01
    table = parse_table(json.dumps(mixed).encode(), masks=True)
    assert table.arrays["coordinates"].dtype == np.int32
    assert [fields(entry) for entry in table.annotations()] == [fields(entry) for entry in mixed["annotations"]]


def test_chunks_of_both_precisions_and_without_masks(mixed, monkeypatch):
    monkeypatch.setattr("pe_dense.datasets.annotation_parser.CHUNK", 2)
    for table in (parse_table(json.dumps(mixed).encode(), masks=True), table_of(mixed)):
        assert [fields(entry) for entry in table.annotations()] == [fields(entry) for entry in mixed["annotations"]]
    boxes = parse_table(json.dumps(mixed).encode(), masks=False)
    assert not any("segmentation" in entry for entry in boxes.annotations())


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["annotations"][0].update(iscrowd=True),
        lambda data: data["annotations"][0].update(iscrowd=2),
        lambda data: data["annotations"][0].update(id=2),
        lambda data: data["annotations"][0].update(image_id=9),
        lambda data: data["annotations"][0].update(category_id=9),
        lambda data: data["annotations"][0].update(bbox=[1e8, 0, 1, 1]),
        lambda data: data["annotations"][0].update(area=float("nan")),
        lambda data: data["annotations"][0].pop("segmentation"),
        lambda data: data["annotations"][1].update(segmentation=[[1, 2, 3, 4]]),
        lambda data: data["annotations"][1].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        lambda data: data["annotations"][1].update(segmentation=[[1, 2, 3, 400, 5, 6]]),
        lambda data: data["annotations"][1].update(segmentation=[[40, 50, 60, 50, 60, 60]]),
        lambda data: data["annotations"][0]["segmentation"].update(size=[64, 32]),
        lambda data: [
            entry.update(bbox=[*box[:2], box[0] + 20, box[1] + 20])
            for entry in data["annotations"]
            for box in [entry["bbox"]]
        ],
        lambda data: data["images"][0].update(width=0),
        lambda data: data["images"][0].update(width=10**6, height=10**6),
        lambda data: data["images"][0].update(id=1),
        lambda data: data["images"][0].update(coco_url=None),
        lambda data: data["images"][0].update(coco_url="a\nb"),
        lambda data: data["images"][0].update(neg_category_ids=[7]),
        lambda data: data["categories"][0].update(frequency="x"),
        lambda data: data["categories"][0].update(id=2),
        lambda data: data.update(annotations={}),
    ],
)
def test_fast_parser_refuses_what_the_checks_refuse_or_repair(mixed, change):
    change(mixed)
    assert parse_table(json.dumps(mixed).encode(), masks=True) is None


def test_fast_parser_refuses_invalid_json(mixed):
    text = json.dumps(mixed)
    for data in (
        text[:-1].encode(),
        b"\xef\xbb\xbf" + text.encode(),
        text.replace('"iscrowd"', '"\xff"').encode("latin1"),
    ):
        assert parse_table(data, masks=True) is None


@pytest.mark.parametrize("masks", [True, None, False])
def test_repaired_files_have_the_repaired_content(tmp_path, mixed, masks):
    mixed["annotations"][3].update(area="400.5", iscrowd="1")
    mixed["annotations"][5]["segmentation"] = [[4, 6], [24, 6], [24, 26], [4, 26]]
    mixed["images"][2].update(neg_category_ids=["1", 7])
    write_json(tmp_path / "ann.json", mixed)
    expected = read_annotations(tmp_path / "ann.json", masks=masks, quiet=True)
    table = read_table(tmp_path / "ann.json", masks=masks, quiet=True)
    assert [fields(entry) for entry in table.annotations()] == [fields(entry) for entry in expected["annotations"]]
    assert table.images() == expected["images"]


def test_repairs_are_logged_each_time(tmp_path, mixed, monkeypatch):
    messages = []
    monkeypatch.setattr("pe_dense.datasets.annotation_cache.print_log", lambda message, *_: messages.append(message))
    mixed["annotations"][3].update(area=None)
    write_json(tmp_path / "ann.json", mixed)
    read_table(tmp_path / "ann.json", quiet=True)
    assert messages == []
    for _ in range(2):
        read_table(tmp_path / "ann.json")
    assert messages == 2 * [
        f"{tmp_path}/ann.json: repaired on reading: 'area' that was missing computed from the mask or the box in "
        "1 annotations"
    ]


def test_missing_names_are_refused(tmp_path):
    data = content(("a",), ["0.png", "1.png"], federated=True)
    write_json(tmp_path / "ann.json", data)
    with pytest.raises(ValueError, match="image 0 has no file_name"):
        CocoDataset(ann_file=str(tmp_path / "ann.json"), metainfo=dict(classes=("a",)))


def dataset_of(tmp_path, kind=CocoDataset, **options):
    write_json(tmp_path / "ann.json", content(("a", "b"), [f"{i}.png" for i in range(5)]))
    files = dict(ann_file="ann.json", data_root=str(tmp_path), data_prefix=dict(img="p"))
    return kind(**{**files, "metainfo": dict(classes=("a", "b")), **options})


def test_items_are_made_anew_and_subsets_share_the_columns(tmp_path):
    dataset = dataset_of(tmp_path)
    changed = dataset.get_data_info(0)
    changed["instances"].clear()
    assert len(dataset.get_data_info(0)["instances"]) == 2
    assert dataset.get_cat_ids(4) == [0, 1]
    assert dataset.get_data_info(-1)["sample_idx"] == 4
    for indices, expected in ((2, [0, 1]), (-2, [3, 4]), ([3, 0], [3, 0])):
        for subset in (dataset.get_subset(indices), dataset_of(tmp_path, indices=indices)):
            assert [subset.get_data_info(index)["img_id"] for index in range(len(subset))] == expected
    assert dataset.get_subset(2).data_list.table is dataset.data_list.table


def test_overridden_parser_is_called_for_each_image(tmp_path):
    class Custom(CocoDataset):
        def parse_data_info(self, raw_data_info):
            return {**super().parse_data_info(raw_data_info), "custom": len(raw_data_info["raw_ann_info"])}

    dataset, reference = dataset_of(tmp_path, kind=Custom), dataset_of(tmp_path)
    assert len(dataset) == 5
    for index in range(5):
        assert dataset.get_data_info(index) == {**reference.get_data_info(index), "custom": 2}


def test_objects365_names_and_missing_images(tmp_path):
    names = ["images/v1/patch8/objects365_v1_00420917.jpg", "images/v2/patch16/objects365_v2_00908726.jpg"]
    write_json(tmp_path / "train.json", content(("Person", "New"), names))
    dataset = Objects365Dataset(
        ann_file="zhiyuan.json", data_root=str(tmp_path), ann_file_alternatives=["train.json"], data_prefix=dict(img="")
    )
    assert len(dataset) == 1  # the other image was not published
    item = dataset.get_data_info(0)
    assert item["img_path"] == f"{tmp_path}/patch8/objects365_v1_00420917.jpg"
    assert [instance["bbox_label"] for instance in item["instances"]] == [0]


def test_errors_are_those_of_the_checks(tmp_path, mixed):
    mixed["annotations"][0]["bbox"] = None
    write_json(tmp_path / "ann.json", mixed)
    with pytest.raises(AnnotationError, match=r"ann\.json is not a valid annotation file: 'bbox' is null in 1 of 6"):
        read_table(tmp_path / "ann.json")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "missing.json")
