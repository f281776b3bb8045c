"""Generated images with depth maps in the layouts of NYU and KITTI."""

import cv2
import numpy as np

DATE = "2011_09_26"


def write(path, values):
    """Write an image of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)


def noise(size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def write_nyu(root, depth=None):
    """Write two images of 640 x 480 px per split; depth in meters (480, 640), by default random up to 9 m."""
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for index in range(2):
            write(root / f"images/{split}/kitchen_{index:05d}.jpg", noise((480, 640)))
            meters = rng.uniform(0, 9, (480, 640)) if depth is None else depth
            write(root / f"annotations/{split}/kitchen_{index:05d}.png", (1000 * meters).astype(np.uint16))


def kitti_files(split):
    """Return image and depth map of two frames of a drive, below their folders."""
    drive = f"{DATE}_drive_{dict(train=1, test=2)[split]:04d}_sync"
    return [
        (f"{DATE}/{drive}/image_02/data/{frame:010d}.png", f"{drive}/proj_depth/groundtruth/image_02/{frame:010d}.png")
        for frame in (5, 3)
    ]


def write_kitti(root, depth=None, size=(375, 1242)):
    """Write two images per split; depth in meters of the same size, by default random up to 90 m, 0 for half of it."""
    rng = np.random.default_rng(1)
    for split, folder in (("train", "val"), ("test", "train")):  # Eigen's split is not the benchmark's
        lines = [f"{DATE}/{DATE}_drive_0009_sync/image_02/data/0000000001.png None 721.5377"]
        for image, depth_map in kitti_files(split):
            write(root / "input" / image, noise(size))
            meters = rng.uniform(0, 90, size) * rng.integers(0, 2, size) if depth is None else depth
            write(root / "data_depth_annotated" / folder / depth_map, (256 * meters).astype(np.uint16))
            lines.append(f"{image} {depth_map} 721.5377")
        (root / f"kitti_eigen_{split}.txt").write_text("\n".join(lines) + "\n")
