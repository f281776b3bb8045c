"""Samples depend only on seed and position; failed data workers have clear errors."""

import os
import random
import re
import resource
import signal
import time

import numpy as np
import pytest
import torch
from helpers.linear_run import make_runner
from helpers.warm_process import WarmProcess
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATASETS
from torch.utils.data import BatchSampler, Dataset
from torch.utils.data import DataLoader as TorchLoader

from pe_dense.engine import data_loading
from pe_dense.engine.data_loading import DataLoader, DataWorkerError, check_shared_memory
from pe_dense.engine.runner import Runner
from pe_dense.engine.seeded_sampling import SampleIndex, TrainBatches
from pe_dense.utils.errors import ConfigError


@DATASETS.register_module(name="DrawsForTests", force=True)
class Draws(Dataset):
    """Data set whose samples are the index and one random number of each RNG."""

    metainfo = dict(classes=("a",))
    shape = (4,)

    def __len__(self):
        return 10

    def __getitem__(self, index):
        draws = [random.random(), np.random.rand(), torch.rand(1).item()]
        return dict(x=torch.tensor([index, *draws], dtype=torch.float64))

    def get_cat_ids(self, index):
        return [int(index == 0)]


def loader(workers=0, sampler=None, seed=0, dataset=None, continues=True, **options):
    config = dict(
        dataset=dataset or dict(type="DrawsForTests"),
        sampler=sampler or dict(type="InfiniteSampler", shuffle=True),
        batch_size=3,
        num_workers=workers,
        **options,
    )
    built = Runner.build_dataloader(config, seed=seed)
    built.batch_sampler.continues = continues
    return built


def batches(built, count, skip=0):
    iterator = TrainBatches(built)
    iterator.skip_iter(skip)
    return [torch.stack(next(iterator)["x"]) for _ in range(count)]


SAMPLERS = [
    dict(type="InfiniteSampler", shuffle=True),
    dict(type="pe_dense.RepeatFactorSampler", threshold=0.5),
    dict(type="DefaultSampler", shuffle=True),  # ends after four batches, and begins anew
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["type"])
def test_batches_do_not_depend_on_workers_and_can_be_resumed(sampler, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # MMEngine's, after each pass
    whole = torch.stack(batches(loader(sampler=sampler), 3))
    rest = batches(loader(workers=2, sampler=sampler), 2, skip=1)
    assert torch.equal(whole[1:], torch.stack(rest))
    assert len(whole[..., 1:].unique()) == whole[..., 1:].numel()  # no draw comes twice
    assert not torch.equal(whole, torch.stack(batches(loader(sampler=sampler, seed=1), 3)))


def test_options_of_workers_are_dropped_without_workers():
    """PyTorch refuses them; a config keeps them when only ``num_workers`` is set to 0."""
    built = loader(0, persistent_workers=True, prefetch_factor=2, timeout=30, multiprocessing_context="fork")
    assert len(batches(built, 1)[0]) == 3


def test_a_pass_that_ended_is_resumed(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    sampler = dict(type="DefaultSampler", shuffle=True)
    whole = batches(loader(sampler=sampler), 9)
    assert [len(batch) for batch in whole] == [3, 3, 3, 1, 3, 3, 3, 1, 3]
    for skip in (3, 4, 5, 8):
        (batch,) = batches(loader(sampler=sampler), 1, skip=skip)
        assert torch.equal(batch, whole[skip])
    assert not torch.equal(whole[0], whole[4])


def test_validation_restarts_with_each_pass():
    built = loader(sampler=dict(type="DefaultSampler", shuffle=False), continues=False)
    first, second = ([torch.stack(batch["x"]) for batch in built] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_processes_share_one_order_of_samples(monkeypatch):
    """Two processes together load the samples of one process, with the same augmentation."""
    alone = torch.cat(batches(loader(), 4))
    for rank in (0, 1):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, 2))
        monkeypatch.setattr("pe_dense.engine.runner.get_dist_info", lambda rank=rank: (rank, 2))
        assert torch.equal(torch.cat(batches(loader(), 2)), alone[rank::2])


def test_other_batch_samplers_are_resumed_without_loading(monkeypatch):
    """Example: mmdet's sampler that groups images by aspect ratio."""

    class Pairs(BatchSampler):
        def __iter__(self):
            for index in self.sampler:
                yield [index, (index + 1) % 10]

    def build():
        dataset = Draws()
        plain = TorchLoader(dataset, batch_sampler=Pairs(DefaultSampler(dataset, shuffle=True, seed=1), 2, False))
        built = DataLoader.seeded(plain, 0, 0, 1)
        built.batch_sampler.continues = True
        return built

    whole = [batch["x"] for batch, _ in zip(build(), range(4), strict=False)]
    resumed, loaded = build(), []
    load = Draws.__getitem__
    monkeypatch.setattr(Draws, "__getitem__", lambda self, index: loaded.append(index) or load(self, index))
    iterator = TrainBatches(resumed)
    iterator.skip_iter(3)
    assert torch.equal(next(iterator)["x"], whole[3]) and len(loaded) == 2


def test_the_main_process_keeps_its_rng():
    built = loader()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    assert built.dataset[SampleIndex(1, 7)]["x"][0] == 1
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert built.dataset.metainfo == dict(classes=("a",)) and len(built.dataset) == 10


def test_a_run_without_a_seed_resumes_with_the_first_ones(tmp_path):
    """The loader is built before the seed is read from the checkpoint."""
    runner = make_runner(tmp_path, max_iters=4, resume=None)
    runner.train()
    again = make_runner(tmp_path, max_iters=6, resume="auto")
    again.cfg.randomness = again._randomness_cfg = dict(seed=None)
    again._seed = 99
    again._train_loop = again.build_train_loop(again._train_loop)
    assert again.train_dataloader.batch_sampler.seed == 99
    again.optim_wrapper = again.build_optim_wrapper(again.optim_wrapper)
    again.load_or_resume()
    assert again.train_dataloader.batch_sampler.seed == 0
    assert again.train_dataloader.batch_sampler.sampler.seed == 0


@DATASETS.register_module(name="KilledForTests", force=True)
class Killed(Draws):
    """Ends its worker, or does not answer."""

    def __init__(self, how):
        self.how = how

    def __getitem__(self, index):
        if self.how == "waits":
            signal.pause()
        if self.how == "unpicklable":
            return lambda: None
        if self.how == "full":  # as a full /dev/shm, which a test has no right to mount
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            return torch.zeros(1000)
        if self.how == "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            return [torch.zeros(1) for _ in range(100)]
        if self.how == "raises":
            raise RuntimeError("of its own")
        os.kill(os.getpid(), self.how)
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (signal.SIGKILL, r"was killed \(signal 9\), most likely because the system ran out of memory.*num_workers=N"),
        (signal.SIGBUS, r"could not hand over a batch in shared memory \(/dev/shm: .* MB free\).*--shm-size"),
        (signal.SIGSEGV, "was killed by SIGSEGV. .*num_workers=0"),
        ("full", r"could not hand over a batch in shared memory \(/dev/shm: .* MB free\).*--shm-size"),
        ("files", r"need an open file for each tensor .*ulimit -n 65536.*num_workers=N"),
        ("unpicklable", "ended with status 1. .*num_workers=0"),
        ("waits", "no batch came from 1 data workers in 1 s.*train_dataloader.timeout=SECONDS.*--shm-size"),
    ],
)
def test_workers_that_fail(how, message):
    built = loader(1, dataset=dict(type="KilledForTests", how=how), timeout=1 if how == "waits" else 30)
    try:
        with pytest.raises(DataWorkerError, match=message):
            next(iter(built))
    finally:
        built.end_workers(final=True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("full", r"could not put a batch into shared memory \(/dev/shm: .* MB free; unable to [^\n]*\).*--shm-size"),
        ("files", r"need an open file for each tensor .*ulimit -n 65536.*num_workers=N"),
    ],
)
def test_shared_memory_is_full_while_collating(how, message):
    """PyTorch's collation puts batches into shared memory, MMEngine's leaves that to the queue."""
    built = loader(1, dataset=dict(type="KilledForTests", how=how), collate_fn=dict(type="default_collate"))
    try:
        with pytest.raises(DataWorkerError, match=message) as caught:
            next(iter(built))
        assert "Traceback" not in str(caught.value)
    finally:
        built.end_workers(final=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unable to mmap 96 bytes from file </torch_1_2>: Cannot allocate memory (12)", "could not put .*--shm-size"),
        ("torch_shm_manager at /x: error: No space left on device", "could not put .*--shm-size"),
        ("received 0 items of ancdata", "need an open file for each tensor .*ulimit -n"),
    ],
)
def test_the_main_process_cannot_take_a_batch(text, message):
    assert re.search(message, str(data_loading._explain_sharing(RuntimeError(text))))
    assert data_loading._explain_sharing(RuntimeError("unable to open checkpoint")) is None


def test_errors_of_a_data_set_stay_as_they_are():
    built = loader(1, dataset=dict(type="KilledForTests", how="raises"))
    with pytest.raises(RuntimeError, match="of its own") as caught:
        next(iter(built))
    assert not isinstance(caught.value, DataWorkerError)
    built.end_workers(final=True)


def test_workers_end_with_their_parent_and_ignore_its_signals():
    built = loader(1, persistent_workers=True)
    iterator = iter(built)
    next(iterator)
    (worker,) = built._running._workers
    os.kill(worker.pid, signal.SIGTERM)
    next(iterator)
    assert worker.is_alive()
    built.end_workers(final=True)
    assert not worker.is_alive()


def test_no_worker_outlives_a_killed_main_process(tmp_path):
    script, output = tmp_path / "main.py", tmp_path / "output"
    script.write_text(
        "import pe_dense, torch, time\n"
        "from torch.utils.data import DataLoader as Plain, TensorDataset\n"
        "from pe_dense.engine.data_loading import DataLoader\n"
        "loader = DataLoader.seeded(Plain(TensorDataset(torch.zeros(9)), num_workers=1), 0, 0, 1)\n"
        "iterator = iter(loader); next(iterator)\n"
        "print(loader._running._workers[0].pid, flush=True); time.sleep(60)"
    )
    process = WarmProcess(script, output=output)
    while not (output.exists() and output.read_text().endswith("\n")):
        assert process.poll() is None
        time.sleep(0.02)
    worker = int(output.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 3  # PyTorch's own check comes after five seconds, if at all
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(worker)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_small_shared_memory_is_refused_before_the_run(monkeypatch):
    # 3 samples of 32 bytes, 2 x 2 batches ahead and the one in use: 480 bytes
    monkeypatch.setattr(data_loading, "free_shared_memory", lambda: 479)
    with pytest.raises(ConfigError, match=r"/dev/shm has 0.0 MB free, but 2 data workers x 2 batches .*--shm-size"):
        loader(2)
    check_shared_memory(loader(0))
    monkeypatch.setattr(data_loading, "free_shared_memory", lambda: 480)
    check_shared_memory(loader(2))
