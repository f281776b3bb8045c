"""Fuzz checkpoints: python tests/fuzz/checkpoints.py --rounds 1000 --seed 0

Every round takes a good file, spoils its objects or its bytes, and gives it to one of the readers. A round passes if
the reader refuses the file by a user error of one line, or if what it loads equals the good content. Anything else is
a failure: another exception, more than one line, a wait of more than 20 seconds, a weight that changed in silence.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import logging
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from helpers.linear_run import Linear, make_runner
from mmengine.config import Config
from safetensors.torch import save as to_safetensors

from pe_dense.apis.convert import published_config
from pe_dense.backbones import PETower, load_weights
from pe_dense.backbones.build import export_tower, open_tower
from pe_dense.distillation.feature_cache import FeatureCache
from pe_dense.engine.runner import load_model_state
from pe_dense.probing.probe import save_probe
from pe_dense.utils import read_checkpoint
from pe_dense.utils.atomic_write import WriteError
from pe_dense.utils.errors import UserError, user_message
from pe_dense.utils.state_dict import checkpoint_classes

ARCH = dict(patch_size=4, width=32, layers=2, heads=2, mlp_ratio=2.0, image_size=16, pool_type="none")
SECONDS = 20
STEPS = 4
CLASSES = dict(classes=["cat", "dog"], palette=[[0, 0, 0], [9, 9, 9]])


class Changed(Exception):
    """A reader accepted a corrupted file and loaded different content."""


def plain_values(chance: random.Random):
    """Return invalid values of every type that a checkpoint can contain."""
    return chance.choice(
        [
            None,
            True,
            -1,
            10**30,
            float("nan"),
            float("-inf"),
            "",
            "x" * 5000,
            "a\nb",
            b"\xff\x00",
            [],
            [[]],
            {},
            {"a": {}},
            {3: 4},
            (1, "a"),
            {1, 2},
            torch.tensor(float("nan")),
            torch.zeros(0),
            torch.zeros(3, dtype=torch.complex64),
            torch.zeros(2, 2).to_sparse(),
            torch.zeros(2, device="meta"),
            torch.zeros(1).expand(1 << 20, 1 << 20),
            torch.nn.Parameter(torch.zeros(5)),
        ]
    )


def spoil_tensor(value: torch.Tensor, chance: random.Random):
    """Return a tensor with another dtype or shape, or with a non-finite value."""
    how = chance.randrange(8)
    if how == 0 and value.is_floating_point() and value.numel():
        value = value.clone()
        value.view(-1)[chance.randrange(value.numel())] = chance.choice([torch.nan, torch.inf, -torch.inf])
        return value
    if how == 1:
        return value.to(chance.choice([torch.int64, torch.bool, torch.uint8, torch.complex64]))
    if how == 2:
        return value[None]
    if how == 3:
        return value.flatten()[:-1]
    if how == 4:
        return value.to("meta")
    if how == 5:
        return value.to_sparse()
    if how == 6:
        return torch.cat([value.flatten(), value.flatten()])
    return value.double().to_sparse() if value.dim() == 2 else value.new_zeros(())


def entries(value, path=()):
    """List the containers and keys of all values in a checkpoint."""
    items = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield value, key, (*path, key)
        yield from entries(item, (*path, key))


def spoil_objects(content, chance: random.Random) -> str:
    """Change, remove, rename or add an entry; return a description."""
    found = list(entries(content))
    if not found:
        return "nothing left"
    container, key, path = chance.choice(found)
    how = chance.choice(["change", "change", "change", "remove", "rename", "add"])
    if how == "change":
        value = container[key]
        tensor = isinstance(value, torch.Tensor) and chance.random() < 0.7
        container[key] = spoil_tensor(value, chance) if tensor else plain_values(chance)
    elif how == "remove":
        del container[key]
    elif isinstance(container, list):
        container.insert(0, plain_values(chance))
    elif how == "rename":
        container[chance.choice([3, None, "new", f"{key}.x", "x" * 3000, (1, 2)])] = container.pop(key)
    else:
        container[chance.choice(["new", 7, "a.b"])] = plain_values(chance)
    return f"{how} {'.'.join(map(str, path))[:80]}"


def spoil_text(content, chance: random.Random) -> str:
    """Change the text of the config."""
    text = content["meta"]["cfg"]
    place = chance.randrange(len(text))
    piece = chance.choice(
        ["(", ")", "'", "*", "9" * 30, "\0", "layers=10**7", "[" * 5000, "-" * 9000, "é", "\n", "dict("]
    )
    content["meta"]["cfg"] = text[:place] + piece + text[place + chance.randrange(8) :]
    return "text"


def spoil_bytes(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Flip, cut, overwrite, insert or repeat bytes."""
    data, place = bytearray(data), chance.randrange(len(data))
    how = chance.choice(["flip", "cut", "zeros", "insert", "repeat", "swap"])
    length = chance.choice([1, 7, 64, 1000])
    if how == "flip":
        data[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[place:]
    elif how == "zeros":
        data[place : place + length] = bytes(len(data[place : place + length]))
    elif how == "insert":
        data[place:place] = chance.randbytes(length)
    elif how == "repeat":
        data += data[place : place + length]
    else:
        data[place : place + length] = chance.randbytes(len(data[place : place + length]))
    return bytes(data), how


def spoil_archive(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Rewrite the records: compressed, truncated, missing, or corrupted with a matching CRC."""
    out, how = io.BytesIO(), chance.choice(["compress", "pickle", "missing", "shorter", "twice"])
    method = zipfile.ZIP_DEFLATED if how == "compress" else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", method) as target:
        names = source.namelist()
        victim = chance.choice(names)
        for name in names:
            record = source.read(name)
            if how == "pickle" and name.endswith("data.pkl"):
                record = spoil_bytes(record, chance)[0]
            if name == victim and how == "missing":
                continue
            if name == victim and how == "shorter":
                record = record[: len(record) // 2]
            target.writestr(name, record)
            if name == victim and how == "twice":
                target.writestr(name, record)
    return out.getvalue(), f"archive {how}"


def require_same(found, good) -> None:
    for key, value in good.items():
        if found[key].shape != value.shape or not torch.allclose(
            found[key].float(), value.float(), rtol=1e-2, atol=1e-6
        ):
            raise Changed(key)


class Targets:
    """Good files and their readers."""

    def __init__(self, folder: Path):
        self.folder = folder
        torch.manual_seed(0)
        self.tower = PETower(ARCH)
        self.weights = {key: value.clone() for key, value in self.tower.state_dict().items()}
        config = Config(dict(model=dict(type="Any", backbone=dict(type="pe_dense.PETower", arch=ARCH))))
        meta = dict(cfg=config.pretty_text, epoch=0, iter=STEPS, dataset_meta=CLASSES)
        prefixed = {f"backbone.{key}": value for key, value in self.weights.items()}
        self.run = dict(state_dict=prefixed, meta=meta)
        heads = {f"probes.{layer}-0.conv_seg.weight": torch.randn(2, 4) for layer in range(2)}
        self.sweep = dict(state_dict={"backbone.taps": torch.tensor([0, 1]), **heads}, meta=meta)
        self.linear = {key: value.clone() for key, value in Linear().state_dict().items()}
        make_runner(folder, max_iters=STEPS).train()
        self.trained = torch.load(folder / "run" / f"iter_{STEPS}.pth", weights_only=False)
        self.readers = {
            "tower": (lambda: dict(self.weights), self.read_tower),
            "open": (lambda: copy.deepcopy(self.run), self.read_open),
            "export": (lambda: copy.deepcopy(self.run), self.read_export),
            "model": (lambda: dict(state_dict=dict(self.linear)), self.read_model),
            "probe": (lambda: copy.deepcopy(self.sweep), self.read_probe),
            "classes": (lambda: copy.deepcopy(self.run), self.read_classes),
            "convert": (lambda: dict(self.weights), self.read_convert),
            "resume": (lambda: copy.deepcopy(self.trained), self.read_resume),
            "features": (lambda: {"features": torch.ones(3)}, self.read_features),
        }

    def read_tower(self, path: Path) -> None:
        tower = PETower(ARCH)
        load_weights(tower, path)
        require_same(tower.state_dict(), self.weights)

    def read_open(self, path: Path) -> None:
        require_same(open_tower(None, path).state_dict(), self.weights)

    def read_export(self, path: Path) -> None:
        export_tower(path, path.with_name("exported.pt"), overwrite=True)
        found = torch.load(path.with_name("exported.pt"))
        require_same(found, {key: value for key, value in self.weights.items() if key in found})

    def read_model(self, path: Path) -> None:
        model = Linear()
        load_model_state(model, read_checkpoint(path), str(path))
        require_same(model.state_dict(), self.linear)

    def read_probe(self, path: Path) -> None:
        save_probe(path, path.with_name("probe.pth"), layer=1, overwrite=True)
        # Extraction does not know the model: a weight of another shape is refused when the probe is loaded.
        content = read_checkpoint(path.with_name("probe.pth"))
        content["state_dict"].pop("backbone.taps")
        head = torch.nn.Linear(4, 2, bias=False)
        probe = torch.nn.ModuleDict(dict(decode_head=torch.nn.ModuleDict(dict(conv_seg=head))))
        load_model_state(probe, content, "probe.pth")
        require_same(dict(weight=head.weight), {"weight": self.sweep["state_dict"]["probes.1-0.conv_seg.weight"]})

    def read_classes(self, path: Path) -> None:
        found = checkpoint_classes(read_checkpoint(path), str(path), 2)
        if found is not None and (list(found["classes"]) != CLASSES["classes"]):
            raise Changed("classes")

    def read_convert(self, path: Path) -> None:
        published_config(read_checkpoint(path), str(path))

    def read_resume(self, path: Path) -> None:
        home = path.parent / "resumed"
        shutil.rmtree(home, ignore_errors=True)
        (home / "run").mkdir(parents=True)
        path.rename(home / "run" / f"iter_{STEPS}.pth")
        runner = make_runner(home, max_iters=STEPS + 1, resume="auto")
        try:
            runner.load_or_resume()
            require_same(runner.model.state_dict(), self.trained["state_dict"])
            if runner.iter != STEPS:
                raise Changed("iteration")
            runner._has_loaded = True
            runner.train()
        finally:
            from pe_dense.engine.work_dir_lock import unlock_work_dir

            unlock_work_dir(runner.work_dir)

    def read_features(self, path: Path) -> None:
        cache = FeatureCache(path.parent / "cache")
        images = torch.zeros(1, 2)
        cache.get(images, "x", lambda some: torch.ones(len(some), 3))
        (file,) = (path.parent / "cache").rglob("*.safetensors")
        path.replace(file)
        if not torch.equal(cache.get(images, "x", lambda some: torch.ones(len(some), 3)), torch.ones(1, 3)):
            raise Changed("features")


def spoiled_file(name: str, make, folder: Path, chance: random.Random) -> tuple[Path, str, bool]:
    """Write a corrupted file; return it, a description, and whether the loaded content may differ from the original."""
    content, what = make(), ""
    level = chance.choice(["objects", "objects", "bytes", "archive"])
    if name == "open" and chance.random() < 0.3:
        what = spoil_text(content, chance)
    elif level == "objects":
        what = "; ".join(spoil_objects(content, chance) for _ in range(chance.choice([1, 1, 1, 3])))
    if name == "features" or (name == "tower" and level == "bytes" and chance.random() < 0.5):
        path = folder / "spoiled.safetensors"
        good = {key: value.contiguous() for key, value in make().items()}
        data, how = spoil_bytes(to_safetensors(good), chance)
        path.write_bytes(data)
        # The format has no CRC: only the cache has one of its own.
        return path, f"safetensors {how}", name != "features"
    path = folder / "spoiled.pth"
    data = io.BytesIO()
    torch.save(content, data, _use_new_zipfile_serialization=chance.random() < 0.9 or level == "archive")
    data, free = data.getvalue(), False
    if level == "bytes" and not what:
        legacy = not zipfile.is_zipfile(io.BytesIO(data))
        data, what = spoil_bytes(data, chance)
        free = legacy  # without CRCs
    elif level == "archive":
        data, how = spoil_archive(data, chance)
        what, free = f"{what} {how}", how == "archive pickle"
    path.write_bytes(data)
    return path, what, free


@contextlib.contextmanager
def time_limit(seconds: int):
    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(rounds: int, seed: int, only: str | None = None) -> tuple[collections.Counter, list[str]]:
    """Run the rounds.

    Args:
        rounds: their number; every fourth round at most resumes a run, which takes longest.
        seed: of all randomness.
        only: the name of one reader.

    Returns:
        the number of rounds by reader and result, and the failures.
    """
    warnings.simplefilter("ignore")
    logging.getLogger("mmengine").setLevel(logging.CRITICAL)
    counts, failures = collections.Counter(), []
    with tempfile.TemporaryDirectory() as temporary:
        targets = Targets(Path(temporary))
        logging.disable(logging.CRITICAL)
        names = [only] if only else list(targets.readers)
        for number in range(rounds):
            chance = random.Random(f"{seed} {number}")
            name = chance.choice(names)
            make, read = targets.readers[name]
            folder = Path(temporary) / "round"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            what, free = "writing", False
            try:
                with time_limit(SECONDS), contextlib.redirect_stdout(io.StringIO()):
                    try:
                        path, what, free = spoiled_file(name, make, folder, chance)
                    except (RuntimeError, NotImplementedError, TypeError):  # torch cannot write such an object
                        counts[name, "not written"] += 1
                        continue
                    read(path)
                result = "loaded"
            except UserError as error:
                message = user_message(error)
                result = "refused" if message and "\n" not in str(error) else "failed"
                if isinstance(error, WriteError) and name != "features":
                    result = "failed"
                if result == "failed":
                    failures.append(f"round {number} {name} ({what}): {error!r}")
            except Changed as error:
                result = "loaded" if free else "failed"
                if not free:
                    failures.append(f"round {number} {name} ({what}): loaded another {error}")
            except Exception as error:
                result = "failed"
                trace = "".join(traceback.format_exception(error)[-4:])
                failures.append(f"round {number} {name} ({what}): {type(error).__name__} {error}\n{trace}")
            counts[name, result] += 1
        logging.disable(logging.NOTSET)
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    args = parser.parse_args()
    counts, failures = run(args.rounds, args.seed, args.only)
    for (name, result), count in sorted(counts.items()):
        print(f"{name:10} {result:12} {count}")
    print(f"{args.rounds} rounds, {len(failures)} failures")
    print("\n".join(failures))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
