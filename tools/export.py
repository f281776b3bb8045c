#!/usr/bin/env python
"""Export a model: tools/export.py CONFIG|RUN|MODEL [CHECKPOINT] OUT

OUT.onnx and OUT.pt2 are graphs with weights: the predictions of a detector, a probe or a mask transformer, the feature
maps of a backbone (--part tower) or a tower of a CLIP (--part image, --part text). pe_dense.runtime.OnnxModel runs ONNX
files without PyTorch. OUT.pt, OUT.pth and OUT.safetensors are the weights of a run's backbone in the published format,
with the options of tools/export_tower.py (pe-dense export-tower).
"""

import argparse
import runpy
import sys
from pathlib import Path

from pe_dense.engine.arguments import ConfigOptions, path, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main

WEIGHTS, GRAPHS = (".pt", ".pth", ".safetensors"), (".onnx", ".pt2")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source",
        type=text,
        help="config, followed by a checkpoint; work dir of a run (its config and last checkpoint); or the name of a "
        "published model (PE-Spatial-B16-512)",
    )
    parser.add_argument(
        "rest",
        nargs="+",
        type=text,
        metavar="[CHECKPOINT] OUT",
        help="checkpoint, work dir or hf:// name, if it is not the source's own; output file",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing output file")
    parser.add_argument("--part", choices=("model", "tower", "image", "text"), default="model", help="(model)")
    side = whole_number(1, 1 << 15)
    parser.add_argument(
        "--size", nargs="+", type=side, metavar="PX", help="height and width of the input, or one side of a square"
    )
    parser.add_argument("--batch", type=whole_number(1, 4096), default=1, help="images per batch, if fixed (1)")
    parser.add_argument("--dynamic", nargs="+", choices=("batch", "size"), default=[], help="sizes left open")
    parser.add_argument(
        "--opset", type=whole_number(1, 99), default=20, help="version of the ONNX operators, from 17 to 24 (20)"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--half", action="store_true", help="float16 backbone; heads and inputs stay in float32")
    precision.add_argument("--int8", action="store_true", help="linear layers quantized to 8 bits, dynamically")
    parser.add_argument(
        "--with-preprocessing", action="store_true", help="take one uint8 image (H, W, 3) of any size as input"
    )
    parser.add_argument(
        "--layers", nargs="+", type=int, metavar="N", help="blocks of --part tower, from 0; negative ones from the end"
    )
    parser.add_argument("--norm", action="store_true", help="apply the final norm to the maps of --part tower")
    parser.add_argument("--tower", type=text, metavar="NAME", help="backbone under the config, as in training")
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, metavar="NAME=VALUE", help="override config values"
    )
    args = parser.parse_intermixed_args()  # options may stand between the names
    if len(args.rest) > 2:
        parser.error(f"expected SOURCE [CHECKPOINT] OUT, got {1 + len(args.rest)} names")
    if args.size is not None and len(args.size) > 2:
        parser.error("--size takes one or two numbers")
    return args


def names_weights(arguments):
    """Return whether an output is named that is a file of weights: the second name, or none is a graph."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    return len(names) > 1 and names[1].endswith(WEIGHTS) and not any(name.endswith(GRAPHS) for name in names)


def export_model(args, out):
    """Write the model's graph."""
    from pe_dense.export import export_graph, graph_of
    from pe_dense.export.source import open_model

    checkpoint = args.rest[0] if len(args.rest) > 1 else None
    model, classes = open_model(args.source, checkpoint, part=args.part, options=args.cfg_options, tower=args.tower)
    size = None if args.size is None else (args.size[0], args.size[-1])
    graph = graph_of(model, args.part, size=size, classes=classes, layers=args.layers, norm=args.norm)
    export_graph(
        graph,
        out,
        opset=args.opset,
        dynamic=args.dynamic,
        batch=args.batch,
        half=args.half,
        int8=args.int8,
        with_preprocessing=args.with_preprocessing,
        overwrite=args.overwrite,
        metadata=dict(source=args.source),
    )
    files = [file for file in (out, out.with_name(f"{out.name}.data")) if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    names = " and ".join(map(str, files))
    return f"Model for {graph.task}: {names}, {size:,.1f} MB; outputs {', '.join(graph.output_names)}"


def main():
    if names_weights(sys.argv[1:]):
        return runpy.run_path(str(Path(__file__).with_name("export_tower.py")))["main"]()
    args = parse_args()
    try:
        with one_line_errors():
            from pe_dense.export.writer import check_output

            out = path(args.rest[-1])
            check_output(out, args.overwrite)  # before the model is opened
            message = export_model(args, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    print(message)
    return 0


if __name__ == "__main__":
    run_main(main)
