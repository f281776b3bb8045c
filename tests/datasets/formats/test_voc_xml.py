"""Pascal VOC's layouts and their typical mistakes."""

import pytest
from helpers import data_formats as formats

from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.object_reader import read_objects


@pytest.fixture
def root(tmp_path):
    """XML files beside the images, as of LabelImg."""
    for number in range(3):
        formats.save(tmp_path / f"{number}.jpg", formats.picture(number))
        formats.text(tmp_path / f"{number}.xml", formats.voc_xml(number))
    return tmp_path


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def boxes(data):
    found = {}
    for split in data.splits.values():
        found |= formats.boxes_of(split.content)
    return found


def test_folders_of_splits(tmp_path):
    for split, number in (("train", 0), ("valid", 1), ("test", 2)):
        formats.save(tmp_path / f"{split}/{number}.jpg", formats.picture(number))
        formats.text(tmp_path / f"{split}/{number}.xml", formats.voc_xml(number))
    data = read_objects(tmp_path)
    names = [data.splits[split].content["images"][0]["file_name"] for split in ("train", "val", "test")]
    assert names == ["train/0.jpg", "valid/1.jpg", "test/2.jpg"]


def test_coordinates_from_zero(root):
    label, left, top, width, height = formats.scene(0)[0]
    old = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + width}</xmax>"
    edit(root / "0.xml", old, f"<xmin>0</xmin><ymin>{top}</ymin><xmax>20</xmax>")
    data = read_objects(root)
    assert boxes(data)["0.jpg"][0][1] == (0.0, float(top), 20.0, float(height))
    assert "read as counted from 0" in data.findings.notes[0]


def test_difficult_objects_are_crowds(root):
    edit(root / "0.xml", "<difficult>0", "<difficult>1")
    data = read_objects(root)
    crowds = [item["iscrowd"] for split in ("train", "val") for item in data.splits[split].content["annotations"]]
    assert sum(crowds) == 1


def test_repairs(root):
    edit(root / "0.xml", "<width>64</width><height>48</height>", "<width>0</width><height>0</height>")
    edit(root / "1.xml", "<name>cog</name>", "<name>cog </name>")
    lines = "\n".join(read_objects(root).findings.lines())
    assert "missing image sizes read from the images: 1 (0.xml)" in lines
    assert "space around class names removed: 1 (1.xml)" in lines


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("</annotation>", "", "files that are not valid XML: 1 (0.xml line 1 column"),
        (
            "<width>64",
            "<width>32",
            "images have another size than their XML file says: 1 (0.xml: 32 x 48, 0.jpg: 64 x 48)",
        ),
        ("<width>64</width><height>48", "<width>48</width><height>64", "width and height swapped"),
        ("<xmin>", "<xmin>x", "objects without a box of numbers (xmin, ymin, xmax, ymax): 1 (0.xml object 1)"),
        ("<name>bolt", "<name>", "objects without a name: 1 (0.xml object 1)"),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "define entities: 1 (0.xml)"),
    ],
)
def test_mistakes(root, old, new, problem):
    edit(root / "0.xml", old, new)
    with pytest.raises(DataError) as error:
        read_objects(root)
    assert "(Pascal VOC) has 1 problem" in str(error.value)
    assert problem in str(error.value)


def test_names_that_are_not_in_the_list(root):
    formats.text(root / "classes.txt", "bolt\ncogs\n")
    with pytest.raises(DataError, match="class 'cog' is not in classes.txt, did you mean 'cogs'.: 1 .1.xml"):
        read_objects(root)


def test_missing_and_extra_files(root):
    (root / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"XML files without an image: 1 \(0.xml\)"):
        read_objects(root)
    (root / "0.xml").unlink()
    formats.save(root / "9.jpg", formats.picture(9))
    assert "1 of 3 images have no XML file and are left out, such as 9.jpg" in read_objects(root).findings.notes


def test_lists_of_splits(tmp_path):
    formats.write_voc(tmp_path)
    formats.text(tmp_path / "ImageSets/Main/val.txt", "4\n77\n0\n")
    with pytest.raises(DataError, match=r"images in several splits: 1 \(ImageSets/Main/val.txt line 3: 0"):
        read_objects(tmp_path)
    formats.text(tmp_path / "ImageSets/Main/val.txt", "4\n77\n")
    data = read_objects(tmp_path)
    assert (
        "listed images without an XML file left out: 1 (ImageSets/Main/val.txt line 2: 77)" in data.findings.lines()[0]
    )
    assert (
        "1 of 6 images are not in train.txt, val.txt and are left out, such as JPEGImages/5.jpg" in data.findings.notes
    )
