"""Cache files of annotation tables: shared, rebuilt where they are stale or damaged, never required."""

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
from helpers.annotated_folder import content, write_json

from pe_dense.datasets import annotation_cache
from pe_dense.datasets.annotation_cache import open_table, read_table


@pytest.fixture
def parses(monkeypatch, tmp_path):
    """Cache files of any size in a temporary folder, and nothing remembered in the process; lists what is parsed."""
    calls = []

    def parse_table(data, *, masks):
        calls.append(masks)
        return original(data, masks=masks)

    original = annotation_cache.parse_table
    monkeypatch.setattr(annotation_cache, "parse_table", parse_table)
    monkeypatch.setattr(annotation_cache, "MIN_BYTES", 0)
    monkeypatch.setattr(annotation_cache, "_MAX_OPEN", 1)
    monkeypatch.setattr(annotation_cache, "file_version", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return calls


@pytest.fixture
def path(tmp_path):
    write_json(tmp_path / "data/ann.json", content(("a", "b"), ["0.png", "1.png"]))
    return tmp_path / "data/ann.json"


def cache_of(path, kind="masks"):
    return path.with_name(f".{path.name}.{kind}.cache")


def test_second_process_maps_the_file(path, parses):
    first, second = read_table(path, masks=True), read_table(path, masks=True)
    assert parses == [True]
    assert first.source == second.source == str(cache_of(path))
    assert list(first.annotations()) == list(second.annotations())
    assert len(list(second.annotations())) == 4
    with pytest.raises(ValueError, match="read-only"):
        second.arrays["boxes"][0] = 0
    assert [item.name for item in path.parent.iterdir() if item != path] == [cache_of(path).name]


def test_stricter_checks_serve_looser_ones(path, parses):
    read_table(path, masks=True)
    assert all("segmentation" in entry for entry in read_table(path, masks=None).annotations())
    assert not any("segmentation" in entry for entry in read_table(path, masks=False).annotations())
    assert parses == [True]


def test_repaired_tables_serve_no_other_check(path, parses, monkeypatch):
    data = content(("a",), ["0.png"])
    data["annotations"][0].update(area=None, segmentation=[[4, 6, 24, 6, 24, 26]])
    write_json(path, data)
    areas = [next(read_table(path, masks=masks, quiet=True).annotations())["area"] for masks in (True, False)]
    assert areas == [200, 400]  # from the mask, and from the box


def test_another_content_replaces_the_file(path, parses):
    read_table(path)
    write_json(path, content(("a", "b"), ["0.png", "1.png", "2.png"]))
    assert read_table(path).num_images == 3
    assert read_table(path).num_images == 3
    assert parses == [None, None]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "version", "description", "text"])
def test_damaged_files_are_rebuilt(path, parses, damage):
    read_table(path)
    cache = cache_of(path, "all")
    data = bytearray(cache.read_bytes())
    if damage == "truncated":
        data = data[:-64]
    elif damage == "empty":
        data = b""
    elif damage == "text":
        data = b"x" * 1000
    else:
        data[dict(flipped=-65, version=21, description=200)[damage]] ^= 1
    cache.write_bytes(data)
    assert len(list(read_table(path).annotations())) == 4
    assert len(parses) == 2
    read_table(path)
    assert len(parses) == 2


def test_read_only_folders_use_the_users_cache(path, parses, tmp_path, monkeypatch):
    write = annotation_cache.atomic_write

    def refuse(place):
        if str(place).startswith(str(path.parent)):
            raise PermissionError(13, "read-only")
        return write(place)

    monkeypatch.setattr(annotation_cache, "atomic_write", refuse)
    assert read_table(path).source.startswith(str(tmp_path / "user/pe_dense/annotations"))
    copied = tmp_path / "data/copy.json"
    shutil.copy(path, copied)
    assert read_table(copied).num_annotations == 4
    assert parses == [None]
    assert not cache_of(path, "all").exists()


def test_no_place_for_a_cache_file(path, parses, monkeypatch):
    messages = []
    monkeypatch.setattr(annotation_cache, "print_log", lambda message, *_: messages.append(message))

    def refuse(place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotation_cache, "atomic_write", refuse)
    assert read_table(path).num_annotations == 4
    assert messages == [f"{path}: no cache file could be written, so every process parses it"]


def test_small_files_have_no_cache(path):
    assert read_table(path).source is None
    assert list(path.parent.iterdir()) == [path]


def test_tables_are_sent_to_workers_by_path(path, parses):
    table = read_table(path)
    sent = pickle.dumps(table)
    assert len(sent) < 500
    assert list(pickle.loads(sent).annotations()) == list(table.annotations())
    in_memory = pickle.loads(pickle.dumps(table.without_masks()))
    assert np.array_equal(in_memory.arrays["boxes"], table.arrays["boxes"])
    with pytest.raises(OSError):
        open_table(str(path.with_name("missing")))


def _read(path, barrier, results):
    barrier.wait()
    results.put((read_table(path).num_annotations, len(annotation_cache.parsed)))


def test_one_of_several_processes_parses(path, parses, monkeypatch):
    monkeypatch.setattr(annotation_cache, "parsed", parses, raising=False)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_read, args=(path, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert [count for count, _ in outcomes] == [4, 4, 4]
    assert sum(parsed for _, parsed in outcomes) == 1


def test_readers_do_not_wait_for_each_other(path, parses, monkeypatch):
    """The lock is for writers only: hashing the cache file of LVIS takes seconds in every process."""
    read_table(path, masks=True)
    monkeypatch.setattr(annotation_cache, "_MAX_WAIT", 0.1)
    monkeypatch.setattr(annotation_cache.time, "sleep", lambda _: pytest.fail("waits for the lock"))
    with annotation_cache._one_at_a_time(path):
        assert read_table(path, masks=None).num_images == 2
    assert parses == [True]
