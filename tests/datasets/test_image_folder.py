"""Unlabeled images: unusable files are skipped and reported."""

import errno
import gc
import gzip
import io
import pickle
import sys
import tarfile
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pe_dense.datasets.image_folder import UnusableImageError
from pe_dense.datasets.webdataset import _Shard
from pe_dense.engine.runner import Runner
from pe_dense.engine.seeded_sampling import TrainBatches
from pe_dense.registry import DATASETS, TRANSFORMS
from pe_dense.utils.errors import ConfigError

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


def test_folder_skips_and_reports(folder):
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


def test_whatever_a_damaged_file_does_to_its_decoder_is_reported(tmp_path):
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


def write_shard(path, files):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as shard:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


def web_images(paths, **options):
    pytest.importorskip("webdataset")
    urls = "::".join(map(str, paths))
    return DATASETS.build(dict(type="pe_dense.WebImages", urls=urls, pipeline=PIPELINE, **options))


def test_shards(tmp_path, monkeypatch):
    files = {"a.png": encoded((1, 2, 3)), "b.jpg": b"broken", "c.png": encoded((4, 5, 6)), "c.txt": b"a caption"}
    path = write_shard(tmp_path / "shard-000000.tar", files)
    data = web_images([f"{tmp_path}/shard-{{000000..000000}}.tar"], visit=6)
    samples = [data[index] for index in range(60)]  # ten visits of three images, each twice
    colors = [sample["image"][:, 0, 0].tolist() for sample in samples]
    assert sorted(map(tuple, colors)) == [(1, 2, 3)] * len([c for c in colors if c[0] == 1]) + [(4, 5, 6)] * len(
        [c for c in colors if c[0] == 4]
    )
    broken = [sample for sample in samples if sample["skipped"]]
    assert len(broken) == 20
    assert broken[0]["skipped"] == f"{path}/b.jpg is not a readable image (not one of JPEG, PNG, WEBP, BMP, TIFF, GIF)"
    assert samples[0]["path"] == samples[3]["path"] and samples[0]["path"].startswith(f"{path}/")
    assert len({sample["path"] for sample in samples[:3]}) == 2
    monkeypatch.setattr("pe_dense.datasets.webdataset.PATIENCE", 5)
    broken = write_shard(tmp_path / "broken.tar", {f"{n}.png": b"broken" for n in range(9)})
    with pytest.raises(
        UnusableImageError, match=r"None of 5 images in .*broken.tar can be used: .*broken.tar/\d.png is"
    ):
        web_images([broken])[0]
    with pytest.raises(FileNotFoundError, match="2 of 3 shards do not exist, the first is .*shard-000001.tar"):
        web_images([f"{tmp_path}/shard-{{000000..000002}}.tar"])
    with pytest.raises(ValueError, match="visit=0 images per visit of a shard: at least 1"):
        web_images([path], visit=0)


@pytest.fixture
def three_shards(tmp_path):
    """Of 5, 7 and 9 images; the pixels name them."""
    return [
        write_shard(
            tmp_path / f"{shard}.tar",
            {f"{'folder/' * 20}{n}.png": encoded((shard, n, 0)) for n in range(5 + 2 * shard)},  # long names
        )
        for shard in range(3)
    ]


def shard_loader(data, workers=0, batch_size=3, seed=0):
    config = dict(dataset=data, sampler=dict(type="pe_dense.ShardSampler"), batch_size=batch_size, num_workers=workers)
    loader = Runner.build_dataloader(config, seed=seed)
    loader.batch_sampler.continues = True
    return loader


def read_batches(loader, count, skip=0):
    batches = TrainBatches(loader)
    batches.skip_iter(skip)
    return [
        [(path.rpartition("/")[2], *image[:2, 0, 0].tolist(), draw) for path, image, draw in zip(*fields, strict=True)]
        for fields in ([batch[key] for key in ("path", "image", "draw")] for batch in islice(batches, count))
    ]


@TRANSFORMS.register_module(name="DrawForTests", force=True)
class Draw:
    """Adds what the RNG of the augmentation gives."""

    def __call__(self, sample):
        return dict(sample, draw=torch.rand(1).item())


def test_shards_are_resumed_exactly_with_any_number_of_workers(three_shards, monkeypatch):
    options = dict(visit=4)
    monkeypatch.setattr(sys.modules[__name__], "PIPELINE", [*PIPELINE, dict(type="pe_dense.DrawForTests")])
    whole = read_batches(shard_loader(web_images(three_shards, **options)), 12)
    loader = shard_loader(web_images(three_shards, **options), workers=2)
    assert read_batches(loader, 5, skip=7) == whole[7:]
    loader.end_workers(final=True)
    samples = [sample for batch in whole for sample in batch]
    assert len({draw for *_, draw in samples}) == 36  # augmented anew each time
    assert {shard for _, shard, *_ in samples} == {0, 1, 2}
    other = read_batches(shard_loader(web_images(three_shards, **options), seed=1), 12)
    assert [sample[:3] for batch in other for sample in batch] != [sample[:3] for sample in samples]
    monkeypatch.setattr("pe_dense.datasets.samplers.get_dist_info", lambda: (1, 2))
    second = read_batches(shard_loader(web_images(three_shards, **options)), 12)
    assert [sample[:3] for batch in second for sample in batch] != [sample[:3] for sample in samples]


def test_workers_open_shards_of_their_own_and_read_each_image_of_a_visit_once():
    from pe_dense.datasets.samplers import ShardSampler

    sampler = ShardSampler(SimpleNamespace(visit=50), seed=0)
    sampler.batch_size = 6
    indices = list(islice(sampler, 6 * 800))
    visits = [[divmod(index, 50) for index in indices[6 * batch : 6 * batch + 6]] for batch in range(800)]
    assert sum(len({number for number, _ in batch}) == 2 for batch in visits) > 720  # else one ends in the batch
    of_workers = [{number for batch in visits[worker::12] for number, _ in batch} for worker in range(12)]
    assert sum(map(len, of_workers)) == len(set.union(*of_workers))
    places = {}
    for batch in visits:
        for number, place in batch:
            places.setdefault(number, []).append(place)
    assert all(found == list(range(found[0], found[-1] + 1)) for found in places.values())
    assert sum(len(found) == 50 for found in places.values()) > 40


def test_other_samplers_are_refused(three_shards):
    with pytest.raises(ConfigError, match=r"sampler to dict\(type='pe_dense.ShardSampler'\)"):
        dataset = dict(type="pe_dense.WebImages", urls=str(three_shards[0]), pipeline=PIPELINE)
        sampler = dict(type="InfiniteSampler", shuffle=True)
        Runner.build_dataloader(dict(dataset=dataset, sampler=sampler, batch_size=2, num_workers=0))


@pytest.mark.parametrize("kind", ["gz", "pipe", "cut"])
def test_shards_that_are_not_local_tar_files_are_copied(tmp_path, three_shards, kind):
    """A part of a stream cannot be read again; the copy has the same images in the same order."""
    expected = [web_images(three_shards[2:])[index]["path"].rpartition("/")[2] for index in range(9)]
    if kind == "gz":
        name = tmp_path / "2.tar.gz"
        name.write_bytes(gzip.compress(three_shards[2].read_bytes()))
    elif kind == "pipe":
        name = f"pipe:cat {three_shards[2]}"
    else:  # the images before the cut, and nothing of a file without a name is left
        name = tmp_path / "cut.tar.gz"
        name.write_bytes(gzip.compress(three_shards[2].read_bytes())[:-40])
        expected = None
    data = web_images([name])
    found = [data[index]["path"].rpartition("/")[2] for index in range(9)]
    assert found == expected if expected else set(found) <= {f"{n}.png" for n in range(9)}


def test_no_room_for_a_copy(three_shards, monkeypatch):
    def full(self, *args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(ConfigError, match=r"no room for a copy of shard pipe:cat .*set TMPDIR"):
        web_images([f"pipe:cat {three_shards[0]}"])[0]


def test_memory_of_a_shard_is_bounded(tmp_path):
    """Eight bytes for each image, not its header (about 2 KB)."""
    shard = _Shard(str(write_shard(tmp_path / "a.tar", {f"{n}.png": b"" for n in range(2000)})))
    assert len(pickle.dumps(shard.offsets)) < 40_000
    assert not [item for item in gc.get_objects() if isinstance(item, tarfile.TarInfo)]


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


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", SPOILT)
def test_shards_without_a_sample_end_with_their_name(tmp_path, kind):
    """They were drawn again and again, for ever."""
    paths = [write_shard(tmp_path / f"{index}.tar", {"a.png": encoded((1, 2, 3))}) for index in range(2)]
    for path in paths:
        SPOILT[kind](path)
    for names in (paths, [f"pipe:cat {path}" for path in paths]):
        with pytest.raises(UnusableImageError, match=r"None of 2 shards has an image .* from .*0\.tar to .*1\.tar"):
            web_images(names)[0]


def test_one_good_shard_among_bad_ones_is_found(tmp_path):
    paths = [write_shard(tmp_path / f"{index}.tar", {"a.txt": b"text"}) for index in range(12)]
    write_shard(paths[7], {"a.png": encoded((1, 2, 3)), "b.png": encoded((4, 5, 6))})
    data = web_images(paths)
    for visit in range(6):
        assert "7.tar" in data[1000 * visit]["path"]
