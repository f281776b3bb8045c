import csv
import json
import math

import pytest
from PIL import Image

from pe_dense.engine.layer_report import best_row, write_layer_report

ROWS = [
    dict(layer=3, mIoU=41.0, aAcc=70.0),
    dict(layer=0, mIoU=12.5, aAcc=50.0),
    dict(layer=7, mIoU=math.nan, aAcc=10.0),
    dict(layer=5, mIoU=44.25, aAcc=75.0),
]


def write(folder, rows=ROWS, higher_is_better=True):
    return write_layer_report(folder, rows, metric="mIoU", higher_is_better=higher_is_better, title="t", unit="%")


def test_table_and_plot_hold_the_rows_by_layer(tmp_path):
    paths = write(tmp_path / "new")
    assert {kind: path.name for kind, path in paths.items()} == dict(
        csv="layers.csv", json="layers.json", png="layers.png"
    )
    table = list(csv.DictReader(paths["csv"].open()))
    assert [(row["layer"], row["mIoU"]) for row in table] == [
        ("0", "12.5"),
        ("3", "41.0"),
        ("5", "44.25"),
        ("7", "nan"),
    ]
    content = json.loads(paths["json"].read_text())
    assert content["best"] == dict(layer=5, mIoU=44.25, aAcc=75.0)
    assert content["rows"][3]["mIoU"] is None
    assert Image.open(paths["png"]).size == (1120, 700)


def test_lower_may_be_better(tmp_path):
    assert json.loads(write(tmp_path, higher_is_better=False)["json"].read_text())["best"]["layer"] == 0


def test_a_report_leaves_the_last_one_alone(tmp_path):
    first = write(tmp_path)
    first["csv"].unlink()  # the numbers of a report's files stay together
    before = first["json"].read_bytes()
    second = write(tmp_path, ROWS[:1])
    assert second["csv"].name == "layers_2.csv"
    assert first["json"].read_bytes() == before


def test_no_finite_value_has_no_best():
    assert best_row([dict(layer=0, mIoU=math.nan)], "mIoU", True) is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "at least one row"), ([dict(layer=1)], "has no mIoU: {'layer': 1}"), ([dict(mIoU=1.0)], "has no layer")],
)
def test_rows_without_their_fields_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, rows)
