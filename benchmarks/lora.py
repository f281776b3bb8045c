"""Compare a training step with LoRA and full fine-tuning of a tower: time, memory, parameters.

    python benchmarks/lora.py --arch PE-Spatial-T16-512 --size 512
    python benchmarks/lora.py --arch PE-Spatial-G14-448 --size 1024 --window 32 --device cuda --dtype bfloat16 --with-cp

A step is forward and backward pass and an update by AdamW. Memory is that of three steps in a process of their own, on
top of the process without the tower: weights, gradients, moments and activations. `times faster` is the time of full
fine-tuning divided by the row's, the median over rounds.
"""

import argparse
from pathlib import Path

import torch
from utils import in_turns, peak_memory, summary, write_table

FULL = "full"


def make_step(row: str, options: dict):
    """Return a function that runs one step of a row: 'full', or a rank of LoRA."""
    from pe_dense.backbones import PETower

    torch.manual_seed(0)
    torch.set_num_threads(options["threads"])
    device, dtype = options["device"], getattr(torch, options["dtype"])
    windows = dict(window_size=options["window"]) if options["window"] else dict(with_head=False)
    lora = None if row == FULL else dict(rank=int(row))
    tower = PETower(options["arch"], **windows, with_cp=options["with_cp"], lora=lora).to(device).train()
    optimizer = torch.optim.AdamW([p for p in tower.parameters() if p.requires_grad], lr=1e-4)
    images = torch.randn(options["batch"], 3, options["size"], options["size"], device=device)

    def step():
        with torch.autocast(device.partition(":")[0], dtype, enabled=dtype != torch.float32):
            loss = tower(images)[0].float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step.tower = tower
    return step


def build_and_step(row: str, options: dict):
    """Return a function that builds the tower of a row and runs three steps, for the measurement of memory."""
    make_step("1", dict(options, arch="PE-Mini-Core", size=64, window=None))()  # libraries

    def run():
        step = make_step(row, options)
        for _ in range(3):
            step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="PE-Spatial-T16-512")
    parser.add_argument("--size", type=int, default=512, help="side of the images in px (512)")
    parser.add_argument("--window", type=int, help="side of the attention windows in tokens; global attention without")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--with-cp", action="store_true", help="activation checkpointing")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/lora.json"))
    args = parser.parse_args()
    options = {key: value for key, value in vars(args).items() if key not in ("ranks", "repeats", "output")}
    names = [FULL, *map(str, args.ranks)]
    steps = {name: make_step(name, options) for name in names}
    trained = {
        name: (sum(p.numel() for p in step.tower.parameters() if p.requires_grad)) for name, step in steps.items()
    }
    times = summary(in_turns(steps, args.repeats, args.device), peer=FULL)
    steps.clear()
    rows = [
        {
            "row": name if name == FULL else f"LoRA, rank {name}",
            "trained": f"{trained[name]:,}",
            "% of full": round(100 * trained[name] / trained[FULL], 2),
            **times[name],
            "MB": round(peak_memory(build_and_step, name, options, device=args.device)),
        }
        for name in names
    ]
    write_table(rows, args.output, **{key: str(value) for key, value in options.items()})


if __name__ == "__main__":
    main()
