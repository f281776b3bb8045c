"""Compare three ways to compute token features with SAM 2.1: speed and memory.

    python benchmarks/alignment.py                                          a few of the 1024 points, CPU minutes
    python benchmarks/alignment.py --size l --points-per-side 32 --device cuda --dtype bfloat16

Weights are random. All rows encode the same image of 1024 px and run alternately:

* direct: used in training, from low-resolution logits directly to the tokens; * generator: SAM2AutomaticMaskGenerator
without filters, 64 points per batch (its default); it returns masks, not
  logits, so it could not even be used for the features;
* long way: logits at 1024 px by SAM2ImagePredictor, then resampled to the tokens.

`1024 points` is the time of a full grid of 32 x 32 points, extrapolated from the times of encoder and decoder.
"""

import argparse
import os
from pathlib import Path

SIDE, GRID = 1024, (32, 32)
ROWS = ("direct", "generator", "long way", "encoder")


def make_image():
    """Create a smooth random image, uint8 (H, W, 3)."""
    import numpy as np
    from PIL import Image

    noise = (np.random.default_rng(0).random((32, 32, 3)) * 255).astype(np.uint8)
    return np.array(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def make_run(kind: str, options: dict):
    """Return a function that runs one of the rows once."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from pe_dense.distillation.preprocessor import SAM_MEAN_STD, resize
    from pe_dense.distillation.teachers import SAMTeacher
    from pe_dense.distillation.teachers.sam import build_sam

    torch.set_num_threads(options["threads"])
    device, image = options["device"], make_image()
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device) / 255
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=options["dtype"] == "bfloat16")
    if kind in ("direct", "encoder"):
        settings = dict(points_per_side=options["points_per_side"], dtype=options["dtype"])
        teacher = SAMTeacher(options["size"], None, points_per_batch=options["direct_batch"], **settings).to(device)
        if kind == "direct":
            return lambda: teacher(images, GRID)

        def encode():
            with torch.inference_mode(), autocast:
                return teacher.embed(resize(images, SIDE, SAM_MEAN_STD))

        return encode
    sam = build_sam(options["size"], None).to(device)
    if kind == "generator":
        generator = SAM2AutomaticMaskGenerator(
            sam,
            points_per_side=options["points_per_side"],
            points_per_batch=options["batch"],
            pred_iou_thresh=0.0,
            stability_score_thresh=0.0,
            box_nms_thresh=1.0,
            output_mode="uncompressed_rle",
        )

        def generate():
            with torch.inference_mode(), autocast:
                return generator.generate(image)

        return generate
    predictor = SAM2ImagePredictor(sam)
    cells = (np.arange(options["points_per_side"]) + 0.5) / options["points_per_side"] * SIDE
    points = torch.tensor(np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 1, 2), dtype=torch.float32, device=device)

    def go_round():
        with torch.inference_mode(), autocast:
            predictor.set_image(image)
            tokens = []
            for part in points.split(options["batch"]):
                labels = torch.ones(len(part), 1, dtype=torch.int, device=device)
                logits, quality, _ = predictor._predict(part, labels, multimask_output=True, return_logits=True)
                chosen = logits[torch.arange(len(part)), quality.argmax(1)][:, None]
                tokens.append(F.interpolate(chosen.float(), size=GRID, mode="bilinear").flatten(1))
            return torch.cat(tokens).T[None]

    return go_round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="t", choices=["t", "s", "b+", "l"])
    parser.add_argument("--points-per-side", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64, help="points per batch of the generator and the long way (64)")
    parser.add_argument("--direct-batch", type=int, help="points per batch of the direct way (4 on a CPU, 32 on a GPU)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/alignment.json"))
    options = vars(parser.parse_args())
    os.environ["OMP_NUM_THREADS"] = str(options["threads"])

    from utils import in_turns, peak_memory, summary, write_table

    runs = {kind: make_run(kind, options) for kind in ROWS}
    tokens, expected = runs["direct"](), runs["long way"]()
    difference = float((tokens - expected).abs().max() / expected.std())
    seconds = in_turns(runs, options["repeats"], options["device"])
    points = options["points_per_side"] ** 2
    encoder = sorted(seconds["encoder"])[options["repeats"] // 2]
    rows = []
    for kind, result in summary(seconds, "generator").items():
        whole = encoder + (result["ms"] / 1e3 - encoder) * 1024 / points
        row = dict(way=kind, **result, s_for_1024_points=round(whole, 1) if kind != "encoder" else None)
        rows.append(dict(row, peak_mb=round(peak_memory(make_run, kind, options, device=options["device"]))))
    print(f"SAM 2.1-{options['size']}, {points} points, tokens {GRID}, {options['device']}, {options['dtype']}")
    print(f"direct against the long way: largest difference {difference:.1e} of the logits' standard deviation\n")
    facts = {key: value for key, value in options.items() if key not in ("out", "repeats")}
    write_table(rows, options["out"], difference=difference, **facts)


if __name__ == "__main__":
    main()
