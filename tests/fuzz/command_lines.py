"""Fuzz the command lines of all tools: python tests/fuzz/command_lines.py --rounds 1000 --seed 0

Each round takes a command line that works, changes it (arguments dropped, doubled, of a wrong type or absurd; options
of the config changed, misspelt or given absurd values) and runs the tool in this process. Parsing, reading the
config and all checks are real; models are built without memory, on the meta device, and nothing is trained or drawn.

A round fails on a traceback, on a round that takes longer than 60 s, if a misspelt name or a number that is not finite
is accepted, and if an accepted option is not in the config that the run gets.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
SHAPES = str(ROOT / "configs/shapes_maskrcnn_pe_tiny.py")
CONFIGS = (SHAPES, *(str(ROOT / f"configs/shapes_{name}_pe_tiny.py") for name in ("deta", "linear", "depth")))
ABSURD = (
    "", " ", "nan", "-inf", "1e400", "-1", "0", "1" * 400, "0.5", "1e5", "007", "1_0", "0x10", "None", "True", "yes",
    "[", "[1,2", "(1,[2)", "[1, 2]", "1,2", "{}", "{'a': 1}", "[" * 3000, "[[[[1]]]]", "'", '"x"', "My Data", "a,b",
    "caf\u00e9", "\u6587\u5b57", "\udcff", "a" * 300, "/dev/null", "/dev/null/x", "/proc/x", "../" * 100, ".",
    "PE-Foo", "hf://", "hf://a", "100000", "99999999999", "type",
    "dict(a=1)", "lambda: 0", "a.b=c", "=", "x\ny", "$HOME",
    "cuda:99",
)  # fmt: skip
SECONDS = 60


class Hang(BaseException):
    """A round took too long."""


class Folder:
    """Files that the command lines name."""

    def __init__(self, path: Path):
        import torch
        from helpers.tiny_clip import tiny_clip
        from PIL import Image

        from pe_dense.language import save_clip

        self.path = path
        self.photo, self.weights, self.run = path / "photo.png", path / "weights.pth", path / "run"
        self.clip, self.labels = path / "clip.pt", path / "labels.csv"
        Image.new("RGB", (64, 48)).save(self.photo)
        torch.save(dict(state_dict={}), self.weights)
        save_clip(tiny_clip(), self.clip)
        self.labels.write_text("file,label\nphoto.png,cat\n")
        os.mkfifo(path / "fifo")
        (path / "file").write_text("x")
        (path / "broken.py").write_text("model = dict(")
        (path / "deep.json").write_text("[" * 100_000)

    def new(self, name: str) -> str:
        for path in self.path.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return str(self.path / name)


def lines(folder: Folder, config: str) -> dict[str, list[list[str]]]:
    """Arguments of each tool that work, one list per argument."""
    out, run = folder.new("out"), folder.new("run")
    return {
        "train": [[config], ["--work-dir", run], ["--ema", "0.01"], ["--launcher", "none"]],
        "test": [[config], [str(folder.weights)], ["--work-dir", run], ["--launcher", "none"]],
        "predict": [
            [SHAPES], [str(folder.weights)], [str(folder.photo)], ["--out", out], ["--score-thr", "0.2"],
            ["--batch-size", "2"], ["--device", "cpu"],
        ],
        "visualize_features": [
            [str(folder.photo)], ["--arch", "PE-Spatial-T16-512"], ["--weights", "random"], ["--layers", "-1"],
            ["--mode", "pca"], ["--size", "64"], ["--out", out], ["--device", "cpu"],
        ],
        "explore": [["PE-Spatial-T16-512=random"], ["--port", "0"], ["--max-size", "512"], ["--device", "cpu"]],
        "export_tower": [[str(folder.weights)], [out + ".pt"], ["--overwrite"]],
        "convert_checkpoint": [[str(folder.weights)], [out + ".pth"], ["--config", SHAPES]],
        "print_config": [[config]],
        "zeroshot": [
            [str(folder.clip)], [str(folder.photo)], ["--words", "a cat, a dog"], ["--templates", "none"],
            ["--top", "2"], ["--json", out + ".json"], ["--batch-size", "2"], ["--device", "cpu"],
        ],
        "zeroshot --labels": [
            [str(folder.clip)], ["--labels", str(folder.labels)], ["--templates", "a {}"], ["--device", "cpu"],
        ],
        "predict --words": [
            [str(folder.clip)], ["words"], [str(folder.photo)], ["--out", out], ["--words", "cat; kitten, dog"],
            ["--batch-size", "2"], ["--device", "cpu"],
        ],
    }  # fmt: skip


def leaves(item, name: str = ""):
    """Dotted names and values of a config's values."""
    if isinstance(item, dict) and item:
        for key, child in item.items():
            yield from leaves(child, f"{name}.{key}" if name else str(key))
    elif isinstance(item, list) and item and isinstance(item[0], dict):
        for number, child in enumerate(item):
            yield from leaves(child, f"{name}.{number}")
    elif name:
        yield name, item


class Options:
    """Random ``--cfg-options`` of a config."""

    def __init__(self, config: str):
        from pe_dense.engine.config import load_config
        from pe_dense.engine.config_check import TOP_LEVEL_KEYS

        content = load_config(config).to_dict()
        self.values = {name: value for name, value in leaves(content) if name.partition(".")[0] in TOP_LEVEL_KEYS}
        self.shared = [name for name in ("data_root", "image_size", "tower") if name in content]

    def draw(self, chance: random.Random) -> tuple[str, str, str]:
        """A kind ('value' or 'misspelt'), a name and a text."""
        name = chance.choice(self.shared) if self.shared and chance.random() < 0.1 else chance.choice([*self.values])
        old = self.values.get(name)
        text = chance.choice(ABSURD) if chance.random() < 0.7 else str(old)
        if isinstance(old, int | float) and chance.random() < 0.4:
            text = chance.choice((str(-old), "0", str(old * 10**9), "nan", str(old / 3), f"'{old}'", "inf"))
        if chance.random() < 0.3:
            return "misspelt", misspell(chance, name), text
        return "value", name, text


def misspell(chance: random.Random, name: str) -> str:
    parts = name.split(".")
    place = chance.choice([number for number, part in enumerate(parts) if not part.isdigit()])
    part, at = parts[place], chance.randrange(len(parts[place]))
    parts[place] = chance.choice((part + "s", part[:at] + part[at + 1 :] + "q", part.upper() + "_", f"x{part}"))
    return ".".join(parts)


def change(chance: random.Random, arguments: list[list[str]], folder: Folder) -> list[str]:
    """Arguments after up to two changes, flattened."""
    arguments = deepcopy(arguments)
    for _ in range(chance.choice((0, 1, 1, 2))):
        kind, place = chance.choice(("drop", "double", "absurd", "absurd", "path")), chance.randrange(len(arguments))
        if kind == "drop":
            arguments.pop(place)
        elif kind == "double":
            arguments.append(list(arguments[place]))
        elif kind == "path":
            names = ("fifo", "file", "file/x", "broken.py", "deep.json", "absent", "", "photo.png", "n" * 300)
            arguments[place][-1] = str(folder.path / chance.choice(names))
        else:
            arguments[place][-1] = chance.choice(ABSURD)
        if not arguments:
            break
    return [part for argument in arguments for part in argument]


def build_parts(config) -> None:
    """Build the model, and what does not need data, of a config."""
    import torch
    from mmengine.registry import HOOKS, MODELS, init_default_scope
    from mmengine.visualization import Visualizer

    init_default_scope(config.get("default_scope", "mmengine"))
    Visualizer.get_instance("fuzz")
    with torch.device("meta"):
        MODELS.build(deepcopy(config.model))
    for hook in deepcopy([*(config.get("default_hooks") or {}).values(), *(config.get("custom_hooks") or [])]):
        if isinstance(hook, dict) and hook["type"] != "EMAHook":
            hook.pop("priority", None)
            HOOKS.build(hook)


@contextlib.contextmanager
def stubs(seen: dict):
    """Replace what is slow or would not end."""
    import torch

    from pe_dense.apps import unsupervised
    from pe_dense.apps.explorer import cli as explorer
    from pe_dense.apps.visualize import MODES
    from pe_dense.backbones import build
    from pe_dense.backbones.pe_configs import get_pe_config
    from pe_dense.engine import build_runner, distributed, inferencer
    from pe_dense.registry import INFERENCERS
    from pe_dense.visualization import features, figures

    def build_run(config):
        seen["config"] = config
        build_parts(config)
        nothing = mock.Mock(return_value=None)
        folder = config.work_dir
        return SimpleNamespace(train=nothing, test=nothing, work_dir=folder, log_dir=folder, model=torch.nn.Identity())

    def build_inferencer(given):
        seen["config"], seen["score_thr"] = given["config"], given.get("score_thr")
        build_parts(given["config"])
        return mock.MagicMock(network=torch.nn.Identity(), left_out=[])

    def open_tower(arch, weights=None, device=None):
        get_pe_config(arch) if arch else build.read_checkpoint(weights)
        return SimpleNamespace(num_layers=12, name=arch or "PE", out_channels=8, image_size=64, label=arch)

    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (build_runner, "RUNNERS", SimpleNamespace(build=build_run)),
            (build_runner, "lock_work_dir", lambda folder: None),
            (build_runner, "check_weights", lambda config: None),
            (inferencer, "INFERENCERS", SimpleNamespace(build=build_inferencer, get=INFERENCERS.get)),
            (build, "open_tower", open_tower),
            (explorer, "_open", lambda name, _: (open_tower(name.partition("=")[0] or None, "absent.pth"), None)),
            (explorer, "Explorer", mock.Mock()),
            (explorer, "ExplorerServer", lambda *_: SimpleNamespace(address=("", 0), run=lambda: None)),
            (features, "FigureInputs", mock.Mock()),
            *((figures, name, lambda *_, **__: []) for mode in MODES if hasattr(figures, name := f"draw_{mode}")),
            *((unsupervised, f"draw_{mode}", lambda *_, **__: []) for mode in ("clusters", "discovery")),
            (distributed, "destroy_distributed", lambda: None),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


def call(tool: str, arguments: list[str]) -> tuple[str, str]:
    """Run a tool's main function; give how it ended and what it printed."""
    tool = tool.partition(" ")[0]
    spec = importlib.util.spec_from_file_location(f"fuzzed_{tool}", ROOT / "tools" / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    output, ending = io.StringIO(), "accepted"
    with (
        mock.patch.object(sys, "argv", [f"{tool}.py", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            end = module.main()
            ending = "accepted" if end in (None, 0, 1) else f"exit {end}"
        except SystemExit as end:
            ending = "refused" if end.code == 2 else "accepted" if end.code in (None, 0, 1) else f"exit {end.code}"
        except Hang:
            ending = "hang"
        except Exception:
            ending = "traceback"
            output.write(traceback.format_exc())
    return ending, output.getvalue()


def wrongly_accepted(seen: dict, kind: str, name: str, text: str, options: Options) -> str | None:
    """Why the acceptance of an option is wrong, or None."""
    if kind == "misspelt" and name not in options.values and name not in options.shared:
        from pe_dense.engine.config_check import _OPEN

        return None if _OPEN & set(name.split(".")) else "a misspelt name is accepted"
    if "config" not in seen:
        return None
    item = seen["config"]
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError, AttributeError):
        for part in name.split("."):
            item = item[int(part)] if isinstance(item, list | tuple) else item[part]
        if isinstance(item, float) and not math.isfinite(item):
            return "a number that is not finite is accepted"
        return None
    return "the option is not in the config"


def run(rounds: int, seed: int, verbose: bool = False) -> tuple[Counter, list[str]]:
    """Fuzz.

    Returns:
        how often rounds ended in which way, and a description of each failure.
    """
    chance = random.Random(seed)
    endings, failures = Counter(), []
    options = {config: Options(config) for config in CONFIGS}

    def too_long(*_):
        raise Hang

    signal.signal(signal.SIGALRM, too_long)
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Folder(Path(temporary))
        stack.callback(signal.alarm, 0)
        stack.callback(os.chdir, home)
        os.chdir(temporary)
        for number in range(rounds):
            config = chance.choice(CONFIGS)
            tool, arguments = chance.choice([*lines(folder, config).items()])
            arguments = change(chance, arguments, folder) if chance.random() < 0.6 else sum(arguments, [])
            option = None
            if tool in ("train", "test", "predict", "print_config") and chance.random() < 0.8:
                kind, name, text = options[config if tool != "predict" else SHAPES].draw(chance)
                option = (kind, name, text, options[config if tool != "predict" else SHAPES])
                arguments += ["--cfg-options", f"{name}={text}"]
            seen: dict = {}
            started = time.monotonic()
            signal.alarm(SECONDS)
            with stubs(seen):
                ending, output = call(tool, arguments)
            signal.alarm(0)
            why = ending if ending not in ("accepted", "refused") else None
            last = output.strip().splitlines()[-1] if output.strip() else ""
            if ending == "refused" and "error: " not in last:
                why = "refused without a last line `error: ...`"
            if ending == "accepted" and option and "--help" not in arguments:
                why = wrongly_accepted(seen, *option)
            endings[f"{tool} {ending}"] += 1
            if why:
                failures.append(f"round {number}: {why}: {tool} {arguments!r}\n{output[-1500:]}")
            if verbose:
                seconds = time.monotonic() - started
                print(number, f"{seconds:.1f} s", why or ending, tool, str(arguments)[:150], last[:150], flush=True)
    return endings, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print each round")
    args = parser.parse_args()

    endings, failures = run(args.rounds, args.seed, args.verbose)
    print(*failures, sep="\n", end="\n\n")
    print(*(f"{count:5} {name}" for name, count in sorted(endings.items())), sep="\n")
    print(f"{args.rounds} rounds, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
