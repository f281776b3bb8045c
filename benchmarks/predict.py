"""Compare prediction on a folder of photos with mmdet's own inferencer, with the same model.

    python benchmarks/predict.py
    git worktree add /tmp/before COMMIT && python benchmarks/predict.py --before /tmp/before

The model is the Mask R-CNN of `configs/shapes_maskrcnn_pe_tiny.py` with random weights, which returns 48 objects with
masks for every image. "pictures" reads JPEG files of 640 x 480 px, detects, draws boxes, masks and labels, and writes
a picture and a JSON file per image; "files" writes the objects with masks only: here in COCO's format, mmdet as JSON
files. "deta" and "probe" write pictures of the tiny DETA and of a linear probe of classes, "features" principal
components of PE-Mini-Spatial's features at 256 px beside the photo, for which the other way is a `VisionTransformer` of
timm of the same size, `torch.pca_lowrank` and Pillow. Each row runs in a process of its own, in turns. `images/s` and
`CPU ms` per image are medians without the start; `times faster` is against the other way's row of the same output, or
else that of the other checkout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from utils import quartiles, write_table

CONFIGS = Path(__file__).resolve().parents[1] / "configs"  # also of another checkout's row
MASK_RCNN = "shapes_maskrcnn_pe_tiny"
ROWS = dict(pictures=MASK_RCNN, files=MASK_RCNN, deta="shapes_deta_pe_tiny", probe="shapes_linear_pe_tiny")
OBJECTS = 48
FEATURES_PX = 256  # long side of the images of "features"
OPTIONS = {MASK_RCNN: {"model.test_cfg.rcnn.score_thr": 0.0, "model.test_cfg.rcnn.max_per_img": OBJECTS}}


def make_files(folder: Path, images: int) -> None:
    """Write photos of smooth noise, and checkpoints of the models."""
    import cv2
    import numpy as np
    import torch
    from mmengine.registry import MODELS, init_default_scope

    from pe_dense.datasets.synthetic import CLASSES

    for name in set(ROWS.values()):
        config = config_of(name)
        init_default_scope(config.default_scope)
        torch.manual_seed(0)
        frozen = name == ROWS["probe"]  # its weights are not in the checkpoint
        if not frozen:
            config.model.backbone.pop("init_cfg", None)
        model = MODELS.build(config.model)
        if frozen:
            model.init_weights()
        meta = {} if frozen else dict(dataset_meta=dict(classes=CLASSES, palette="random"))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f"{name}.pth")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(images):
        noise = (rng.random((30, 40, 3)) * 255).astype(np.uint8)
        photo = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"photos/{number:04d}.jpg"), photo)


def config_of(name: str):
    """Load a config with the options of its row."""
    from pe_dense import detection
    from pe_dense.backbones import PE_CONFIGS
    from pe_dense.engine.config import load_config

    config = load_config(CONFIGS / f"{name}.py", OPTIONS.get(name))
    if name == MASK_RCNN and not hasattr(detection, "SingleRoIExtractor"):  # an earlier checkout
        for extractor in ("bbox_roi_extractor", "mask_roi_extractor"):
            config.model.roi_head[extractor].type = "SingleRoIExtractor"
    if config.model.backbone.arch not in PE_CONFIGS:  # an earlier checkout
        sizes = dict(image_size=128, patch_size=8, width=128, layers=6, heads=4, mlp_ratio=4.0, output_dim=None)
        config.model.backbone.update(arch=dict(sizes, use_cls_token=True, pool_type="none"), init_cfg=None)
    return config


def run(row: str, folder: Path) -> None:
    """Predict on all photos but the first, after that one as a warm-up; print seconds and processor seconds."""
    import logging
    import time

    import torch
    from mmengine.logging import MMLogger

    MMLogger.get_instance("benchmark", log_level="ERROR").setLevel(logging.ERROR)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    photos, out = sorted((folder / "photos").iterdir()), Path(tempfile.mkdtemp(dir=folder))
    way = next((way for name, way in OTHER_WAYS.items() if row.endswith(name)), our_way)
    predict = way(row, folder, out)
    predict(photos[:1])
    start, cpu = time.perf_counter(), time.process_time()
    predict(photos[1:])
    print(json.dumps([time.perf_counter() - start, time.process_time() - cpu, len(photos) - 1]))


def our_way(row: str, folder: Path, out: Path):
    """Return a function that predicts on photos as `tools/predict.py` does."""
    from pe_dense.engine.inferencer import load_predictor

    if row.startswith("features"):
        return our_features(out)
    name = ROWS[row.split(",")[0]]
    options = {} if name == ROWS["probe"] else dict(score_thr=0.0)
    predictor = load_predictor(config_of(name), str(folder / f"{name}.pth"), device="cpu", **options)
    if "files" not in row:
        return lambda photos: list(predictor.predict_files(photos, out))
    from pe_dense.apis.label_files import write_labels

    return lambda photos: list(write_labels(predictor, photos, out, "coco", score_thr=0.0))


def our_features(out: Path):
    """Return a function that draws features as `tools/visualize_features.py` does."""
    from pe_dense.apps.visualize import draw

    options = dict(layers="-1", mode="pca", mask=None, point=None, per_image=False, overwrite=True, device="cpu")
    tower = dict(arch="PE-Mini-Spatial", weights="pe-mini://spatial", size=FEATURES_PX)
    return lambda photos: list(draw([*map(str, photos)], out=out, left_out=[], **tower, **options))


def timms_way(row: str, folder: Path, out: Path):
    """Return a function that draws features with timm, `torch.pca_lowrank` and Pillow."""
    import numpy as np
    import timm
    import torch
    from PIL import Image

    grid = (FEATURES_PX * 3 // 4 // 8, FEATURES_PX // 8)
    size = dict(img_size=tuple(8 * side for side in grid), patch_size=8, embed_dim=128, depth=6, num_heads=4)
    tower = timm.models.VisionTransformer(**size, num_classes=0).eval()

    @torch.inference_mode()
    def draw_all(photos: list[Path]) -> None:
        images = [Image.open(photo).convert("RGB") for photo in photos]
        tokens = []
        for image in images:
            pixels = np.asarray(image.resize((FEATURES_PX, FEATURES_PX * 3 // 4), Image.Resampling.BICUBIC))
            normed = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
            tokens.append(tower.forward_features(normed)[0, 1:])
        every = torch.cat(tokens)
        mean, components = every.mean(dim=0), torch.pca_lowrank(every)[2][:, :3]
        for photo, image, features in zip(photos, images, tokens, strict=True):
            colors = ((features - mean) @ components).numpy()
            low, high = np.percentile(colors, [1, 99], axis=0)
            colors = ((colors - low) / (high - low)).clip(0, 1).reshape(*grid, 3) * 255
            image = image.resize((498, 374), Image.Resampling.BICUBIC)  # as large as the other row's panels
            picture = Image.new("RGB", (2 * image.width, image.height))
            picture.paste(image, (0, 0))
            picture.paste(Image.fromarray(colors.astype(np.uint8)).resize(image.size), (image.width, 0))
            picture.save(out / f"{photo.stem}.png")

    return draw_all


def mmdets_way(row: str, folder: Path, out: Path):
    """Return a function that predicts on photos with mmdet's inferencer."""
    from mmdet.apis import DetInferencer

    config = config_of(MASK_RCNN)
    config.visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
    config.model.backbone.pop("init_cfg", None)
    config.test_dataloader.dataset.pipeline[0] = dict(type="LoadImageFromFile")  # the only reader that it accepts
    inferencer = DetInferencer(config, str(folder / f"{MASK_RCNN}.pth"), device="cpu", show_progress=False)
    files = dict(no_save_vis="pictures" not in row, no_save_pred=False, pred_score_thr=0.0, out_dir=str(out))
    return lambda photos: inferencer([str(photo) for photo in photos], print_result=False, **files)


OTHER_WAYS = {"mmdet": mmdets_way, "timm": timms_way}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="photos, besides one for warm-up (40)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--before", type=Path, help="another checkout of this project, for all rows")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "features"], default=[*ROWS, "features"])
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/predict.json"))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        run(args.row, args.folder)
        return
    before = [f"{row}, before" for row in args.rows] if args.before else []
    others = [row for row in ("pictures, mmdet", "files, mmdet", "features, timm") if row.split(",")[0] in args.rows]
    rows = [*args.rows, *before, *others]
    results: dict[str, list[list[float]]] = {row: [] for row in rows}
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), args.images + 1)
        for _ in range(args.repeats):
            for row in rows:
                root = args.before.resolve() if "before" in row else here
                environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(args.threads)}
                command = [sys.executable, str(Path(__file__).resolve()), "--row", row, "--folder", folder]
                output = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=root
                )
                results[row].append(json.loads(output.stdout.splitlines()[-1]))
    table = []
    for row, values in results.items():
        output = row.split(",")[0]
        others = (results.get(f"{output}, {way}") for way in (*OTHER_WAYS, "before"))
        peer = next((found for found in others if found), values)
        table.append(
            {
                "row": row,
                "images/s": round(quartiles([count / seconds for seconds, _, count in values])[1], 2),
                "CPU ms": round(quartiles([1e3 * cpu / count for _, cpu, count in values])[1], 1),
                "times faster": round(quartiles([b[0] / a[0] for a, b in zip(values, peer, strict=True)])[1], 2),
                "times less CPU": round(quartiles([b[1] / a[1] for a, b in zip(values, peer, strict=True)])[1], 2),
            }
        )
    write_table(table, args.out, threads=args.threads, images=args.images)


if __name__ == "__main__":
    main()
