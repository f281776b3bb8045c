"""Images without labels: what can't be used is left out and told."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from pe_dense.datasets.image_folder import UnusableImageError
from pe_dense.engine.runner import Runner
from pe_dense.registry import DATASETS

PIPELINE = [dict(type="pe_dense.PILToTensor")]


def encoded(value, size=(40, 36), mode="RGB", kind="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    files = {
        "0.png": encoded((10, 20, 30)),
        "1_broken.jpg": encoded((0, 0, 0), kind="JPEG")[:200],
        "2_text.png": b"no image",
        "3_tiny.png": encoded((0, 0, 0), size=(400, 31)),
        "below/4.png": encoded(77, mode="L"),
        "below/notes.txt": b"",
    }
    for name, content in files.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "images"


def build(folder, **options):
    return DATASETS.build(dict(type="pe_dense.ImageFolder", data_root=str(folder), pipeline=PIPELINE, **options))


def test_folder_skips_and_tells(folder):
    data = build(folder)
    assert len(data) == 5  # not the text file
    assert torch.equal(data[0]["image"][:, 0, 0], torch.tensor([10, 20, 30], dtype=torch.uint8))
    assert data[0]["path"].endswith("images/0.png") and data[0]["skipped"] == ""
    gray = data[1]  # in its place, and in that of 2 and 3
    assert gray["path"].endswith("below/4.png")
    assert gray["image"].shape == (3, 36, 40) and gray["image"].unique().tolist() == [77]
    faults = [line.rpartition("images/")[2] for line in gray["skipped"].splitlines()]
    assert faults[0].startswith("1_broken.jpg is not a readable image")
    assert faults[1].startswith("2_text.png is not a readable image")
    assert faults[2:] == ["3_tiny.png is 400 x 31 px, below 32"]
    assert len(build(folder, min_side=8)[1]["skipped"].splitlines()) == 2


def test_whatever_a_damaged_file_does_to_its_decoder_is_told(tmp_path):
    """Formats are known by content: the first is a PPM with a width of 'abc'; a worker must survive all."""
    (tmp_path / "0.png").write_bytes(b"P6 abc 40 255 ")
    (tmp_path / "1.png").write_bytes(encoded((0, 0, 0))[:-30])
    (tmp_path / "2.png").write_bytes(encoded(30_000, mode="I;16"))  # a good one, of 16 bits
    sample = build(tmp_path)[0]
    assert [line.rpartition("/")[2][:5] for line in sample["skipped"].splitlines()] == ["0.png", "1.png"]
    assert sample["image"].unique().tolist() == [round(30_000 / 65_535 * 255)]


def test_folder_without_a_usable_image(folder, tmp_path):
    (folder / "0.png").unlink()
    (folder / "below" / "4.png").unlink()
    with pytest.raises(UnusableImageError, match=r"None of 3 images can be used: .*2_text.png is not a"):
        build(folder)[1]
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        build(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="contains no image"):
        build(tmp_path / "empty")


def test_augmentation_is_torchvisions(folder):
    pipeline = [
        dict(type="pe_dense.RandomResizedCrop", size=(24, 24), scale=(0.5, 1.0), ratio=(0.75, 1.33)),
        dict(type="pe_dense.RandomHorizontalFlip", p=0.5),
        dict(type="pe_dense.ColorJitter", brightness=0.32, saturation=0.32),
        dict(type="pe_dense.PILToTensor"),
    ]
    gradient = np.tile(np.arange(120, dtype=np.uint8)[:, None, None], (1, 120, 3))
    Image.fromarray(np.concatenate([gradient, gradient[::-1]], 1)).save(folder / "0.png")
    data = DATASETS.build(dict(type="pe_dense.ImageFolder", data_root=str(folder), pipeline=pipeline))
    torch.manual_seed(0)
    first, second = data[0]["image"], data[0]["image"]
    assert first.shape == (3, 24, 24) and first.dtype == torch.uint8
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(data[0]["image"], first)


def test_shards(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    files = {"a.png": encoded((1, 2, 3)), "b.jpg": b"broken", "c.png": encoded((4, 5, 6)), "c.txt": b"a caption"}
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as shard:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    urls = f"{tmp_path}/shard-{{000000..000000}}.tar"
    data = DATASETS.build(dict(type="pe_dense.WebImages", urls=urls, pipeline=PIPELINE, buffer=1))
    samples = iter(data)
    first, second, third = next(samples), next(samples), next(samples)
    assert first["image"][:, 0, 0].tolist() == [1, 2, 3] and first["skipped"] == ""
    assert second["image"][:, 0, 0].tolist() == [4, 5, 6]
    assert (
        second["skipped"]
        == f"{tmp_path}/shard-000000.tar/b.jpg is not a readable image (not one of JPEG, PNG, WEBP, BMP, TIFF, GIF)"
    )
    assert second["path"].endswith("shard-000000.tar/c.png")
    assert third["path"] == first["path"]  # without end
    config = dict(type="pe_dense.WebImages", urls=urls, pipeline=PIPELINE)
    loader = Runner.build_dataloader(dict(dataset=config, sampler=None, batch_size=2, num_workers=0))
    batch = next(iter(loader))
    assert len(batch["image"]) == len(batch["path"]) == len(batch["skipped"]) == 2
    monkeypatch.setattr("pe_dense.datasets.webdataset.EXTENSIONS", (".tif",))
    monkeypatch.setattr("pe_dense.datasets.webdataset.PATIENCE", 5)
    with pytest.raises(UnusableImageError, match=r"None of 5 samples in .*000000.tar can .*: the last has jpg"):
        next(iter(data))
    with pytest.raises(FileNotFoundError, match="2 of 3 shards do not exist, the first is .*shard-000001.tar"):
        DATASETS.build(dict(config, urls=f"{tmp_path}/shard-{{000000..000002}}.tar"))


def write_shard(path, files):
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


def cut_short(path):
    path.write_bytes(path.read_bytes()[:560])


def declares(size):
    def spoil(path):
        info = tarfile.TarInfo("a.png")
        info.size = size
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + encoded((1, 2, 3)))

    return spoil


SPOILT = {
    "empty": lambda path: path.write_bytes(b""),
    "no tar file": lambda path: path.write_bytes(b"<html>404</html>" * 100),
    "cut short": cut_short,
    "no member": lambda path: write_shard(path, {}),
    "no image": lambda path: write_shard(path, {"a.txt": b"text", "b.json": b"{}"}),
    "1 TB": declares(1 << 40),
    "a member larger than allowed": declares((256 << 20) + 1),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_shards_without_a_sample_end_with_their_name(tmp_path, kind):
    """They were drawn again and again, for ever."""
    pytest.importorskip("webdataset")
    paths = [write_shard(tmp_path / f"{index}.tar", {"a.png": encoded((1, 2, 3))}) for index in range(2)]
    for path in paths:
        SPOILT[kind](path)
    data = DATASETS.build(
        dict(type="pe_dense.WebImages", urls="::".join(map(str, paths)), pipeline=PIPELINE, buffer=100)
    )
    with pytest.raises(UnusableImageError, match=r"None of 2 shards has an image .* from .*0\.tar to .*1\.tar"):
        next(iter(data))


def test_one_good_shard_among_bad_ones_is_found(tmp_path):
    pytest.importorskip("webdataset")
    paths = [write_shard(tmp_path / f"{index}.tar", {"a.txt": b"text"}) for index in range(12)]
    write_shard(paths[7], {"a.png": encoded((1, 2, 3)), "b.png": encoded((4, 5, 6))})
    data = DATASETS.build(dict(type="pe_dense.WebImages", urls="::".join(map(str, paths)), pipeline=PIPELINE, buffer=1))
    samples = iter(data)
    for _ in range(6):
        assert "7.tar" in next(samples)["path"]
