"""Images a second that one core decodes and jitters as the detectors' training does, and with which decoder.

    python benchmarks/data_loading.py
    python benchmarks/data_loading.py --images /path/to/photos --gpus 8 --rate 6

Decoders run in turns on the same JPEG files: OpenCV (the default of mmcv), Pillow, torchvision and, where it is
installed, PyTurboJPEG. Then large-scale jitter to 1024 px with boxes and masks, whole, as the config has it. The last
line tells how many cores keep GPUs of a rate (images a second each, see docs/scale.md) busy.
"""

import argparse
import tempfile
from pathlib import Path

from utils import in_turns, summary, write_table


def make_images(folder: Path, count: int) -> list[Path]:
    """Write noisy JPEG files of 640 x 480 px."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += generator.integers(-12, 13, image.shape, dtype=np.int16)
        paths.append(folder / f"{index}.jpg")
        cv2.imwrite(str(paths[-1]), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return paths


def decoders() -> dict:
    """Functions from a file's bytes to an array (H, W, 3), by name."""
    import io

    import cv2
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    found = {
        "OpenCV": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        "torchvision": lambda data: (
            decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
            .permute(1, 2, 0)
            .numpy()
        ),
    }
    try:
        from turbojpeg import TurboJPEG

        found["PyTurboJPEG"] = TurboJPEG().decode
    except (ImportError, RuntimeError):
        pass
    return found


def jitter(paths: list[Path], objects: int):
    """The training pipeline of the COCO detectors over some files with boxes and polygons."""
    import numpy as np
    from mmengine.config import Config
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    import pe_dense  # noqa: F401

    init_default_scope("mmdet")
    config = Config.fromfile(Path(__file__).parents[1] / "configs" / "coco_maskrcnn_pe_b16.py")
    pipeline = Compose(config.train_pipeline)
    generator = np.random.default_rng(0)
    samples = []
    for index, path in enumerate(paths):
        instances = []
        for x, y, w, h in generator.uniform((0, 0, 30, 30), (400, 300, 200, 150), (objects, 4)):
            angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
            outline = np.stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))], axis=1)
            box = [x, y, x + w, y + h]
            instances.append(dict(ignore_flag=0, bbox=box, bbox_label=0, mask=[outline.ravel().tolist()]))
        samples.append(dict(img_path=str(path), img_id=index, height=480, width=640, instances=instances))

    def run():
        np.random.seed(0)
        for sample in samples:
            pipeline(dict(sample, instances=[dict(instance) for instance in sample["instances"]]))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files (some are made)")
    parser.add_argument("--count", type=int, default=16, help="of the images (16)")
    parser.add_argument("--objects", type=int, default=8, help="on an image (8)")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--rate", type=float, default=6.0, help="images a second that a GPU trains with (6)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/data_loading.json"))
    args = parser.parse_args()

    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = (
            sorted(args.images.glob("*.jpg"))[: args.count] if args.images else make_images(Path(folder), args.count)
        )
        if not paths:
            raise SystemExit(f"{args.images} holds no .jpg file")
        files = [path.read_bytes() for path in paths]
        runs = {
            f"decode, {name}": lambda decode=decode: [decode(data) for data in files]
            for name, decode in decoders().items()
        }
        runs["large-scale jitter, whole"] = jitter(paths, args.objects)
        seconds = in_turns(runs, args.repeats)
    rows = []
    for name, values in summary(seconds, peer="decode, OpenCV").items():
        rate = len(paths) / values["ms"] * 1e3
        rows.append(
            {"step": name, "images/s a core": round(rate, 1), "times OpenCV's decoding": values["times_faster"]}
        )
    write_table(rows, args.output, images=len(paths), objects=args.objects)
    cores = args.gpus * args.rate / rows[-1]["images/s a core"]
    print(f"{args.gpus} GPUs of {args.rate:g} images/s need {cores:.1f} cores of this kind")


if __name__ == "__main__":
    main()
