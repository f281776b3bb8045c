"""Console command ``pe-dense``: one subcommand per script of ``tools/``, which it runs unchanged."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import NamedTuple

from pe_dense import __version__
from pe_dense.utils.errors import one_line_errors, run_main
from pe_dense.utils.package_files import package_folder


class Command(NamedTuple):
    """A subcommand: the script that it runs, without ``.py``, and its line in the overview."""

    script: str
    help: str


COMMANDS = {
    "demo": Command("demo", "see everything at work in minutes on a CPU, in one page"),
    "train": Command("train", "train a model from a config"),
    "test": Command("test", "evaluate a checkpoint"),
    "predict": Command("predict", "draw and save predictions for images"),
    "data": Command("data", "report on a folder of custom data, and draw samples"),
    "zeroshot": Command("zeroshot", "classify images and videos by words"),
    "visualize": Command("visualize_features", "draw features: PCA, similarity, correspondence, attention, words"),
    "bench": Command("bench", "evaluate backbones on dense tasks, one sheet"),
    "explore": Command("explore", "explore features in a local web page"),
    "export": Command("export", "export a model to ONNX, or a trained backbone in the published format"),
    "export-tower": Command("export_tower", "export the towers of a run in the published format"),
    "push": Command("push", "push a trained model to the Hugging Face hub"),
    "convert": Command("convert_checkpoint", "convert a released detector to this project's format"),
    "print-config": Command("print_config", "print a resolved config and the file that sets each key"),
}


def overview() -> str:
    """Return the help text with all subcommands."""
    lines = [f"  {name:<{max(map(len, COMMANDS))}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        (
            "usage: pe-dense COMMAND [ARGUMENT ...]",
            "",
            "commands:",
            *lines,
            "",
            "`pe-dense COMMAND --help` lists the arguments of a command. A config is a path or a bare name",
            "(shapes_maskrcnn_pe_tiny), which is looked up in ./configs, then among the configs of the package.",
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    Args:
        arguments: subcommand and its arguments; those of the process by default.

    Raises:
        SystemExit: with status 2 for an unknown command; else as the script raises it.
    """
    with one_line_errors():
        _run(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])


def _run(arguments: list[str]) -> None:
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        _print(overview())
    elif name in ("-V", "--version"):
        _print(f"pe_dense {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"pe-dense {name}", *rest]  # argparse takes the name in its messages from here
        run_main(_load(COMMANDS[name].script).main)
    else:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        _print(f"error: unknown command {name!r}; {hint}commands: {', '.join(COMMANDS)}", sys.stderr)
        raise SystemExit(2)


def _load(script: str) -> ModuleType:
    spec = spec_from_file_location(script, package_folder("tools") / f"{script}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _print(text: str, file=None) -> None:
    print(text, file=file)
