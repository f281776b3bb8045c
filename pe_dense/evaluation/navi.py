"""Geometric correspondence on NAVI: matched surface points of two views of an object, compared by its 3-D shape.

Source: Probe3D (arXiv 2404.08636) on NAVI (arXiv 2306.09109). In shapes h and w are the sides of the grid of surface
points, C the number of feature channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pe_dense.datasets.annotations import read_json
from pe_dense.datasets.synthetic.cache import write_once, write_png
from pe_dense.datasets.synthetic.scene import draw_background, draw_surface
from pe_dense.datasets.synthetic.shapes import CLASSES, rasterize
from pe_dense.evaluation import pictures
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import decode, read_image
from pe_dense.visualization.features import to_input

SIDE = 512  # px, of the object's crop in which errors in pixels are measured
POINTS = SIDE // 4  # side of the grid of surface points
_DISPARITY = 65_535 * 10.0  # a stored value v stands for a depth of _DISPARITY / v millimeters
_METERS, _PIXELS, _ANGLES = (0.01, 0.02, 0.05), (5, 25, 50), (0, 30, 60, 90, 120)
_BLOCK = 4096


@dataclass(frozen=True)
class View:
    """A view of an object: its files, image size (height, width), focal length in pixels and pose.

    Attributes:
        pose: (4, 4), object to camera coordinates, in meters.
    """

    image: Path
    depth: Path
    size: tuple[int, int]
    focal: float
    pose: Tensor


def navi_pairs(root: Path, *, step: int = 4, max_angle: float = 120.0, seed: int = 8) -> list[tuple[View, View]]:
    """List pairs of views of the same object in different places (``wild_set``).

    Args:
        root: folder ``navi_v1`` with down-sampled images and depth maps (``downsampled_<id>``).
        step: take every n-th view of all objects as the first of a pair.
        max_angle: largest angle in degrees between the two views.
        seed: of the draw of the second views. Views are sorted by name before.

    Raises:
        InputError: if there are no views, or an annotation is invalid.
    """
    rng, pairs, number = np.random.default_rng(seed), [], 0
    for folder in sorted(root.glob("*/wild_set")):
        views = [_view(folder, item) for item in sorted(read_json(folder / "annotations.json"), key=_filename)]
        views = [view for view in views if view.image.exists()]
        rotations = torch.stack([view.pose[:3, :3] for view in views]) if views else torch.zeros(0, 3, 3)
        for place, view in enumerate(views):
            angles = rotation_angles(rotations[place] @ rotations.transpose(1, 2))
            # The angle of a view to itself is not always 0, because of rounding.
            partners = [other for other, angle in enumerate(angles.tolist()) if other != place and angle <= max_angle]
            if partners and number % step == 0:
                pairs.append((view, views[int(rng.choice(partners))]))
            number += 1
    if not pairs:
        raise InputError(f"{root} contains no pairs of views (*/wild_set/annotations.json, images/downsampled_*.jpg)")
    return pairs


def _filename(item: dict) -> str:
    return item["filename"]


def _view(folder: Path, item: dict) -> View:
    try:
        stem, camera = Path(item["filename"]).stem, item["camera"]
        pose = torch.eye(4)
        pose[:3, :3] = rotation_matrix(torch.tensor(camera["q"], dtype=torch.float32))
        pose[:3, 3] = torch.tensor(camera["t"], dtype=torch.float32) / 1000
        size, focal = tuple(item["image_size"]), float(camera["focal_length"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder / 'annotations.json'} is not an annotation of NAVI: {error!r}") from error
    name = f"downsampled_{stem}"
    return View(folder / f"images/{name}.jpg", folder / f"depth/{name}.png", size, focal, pose)


def rotation_matrix(q: Tensor) -> Tensor:
    """Convert a quaternion (w, x, y, z) of any length to a rotation matrix (3, 3)."""
    w, x, y, z = (q / q.norm()).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_angles(rotations: Tensor) -> Tensor:
    """Compute the angles in degrees of rotation matrices (N, 3, 3) -> (N,)."""
    trace = rotations.diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((trace - 1) / 2).clamp(-1, 1).acos() * (180 / math.pi)


def surface_points(depth: Tensor, focal: float) -> Tensor:
    """Compute camera coordinates of the pixels of a square, centered depth map: (S, S) meters -> (3, S, S)."""
    side = len(depth)
    axis = torch.arange(side) + 0.5 - side / 2
    return torch.stack([axis * depth / focal, axis[:, None] * depth / focal, depth])


def object_square(depth: Tensor) -> tuple[int, int, int]:
    """Find the square around the pixels with depth (S, S): top, left and side."""
    rows, columns = depth.nonzero(as_tuple=True)
    if not len(rows):
        raise InputError("a depth map is empty")
    low = torch.stack([rows.min(), columns.min()])
    extent = torch.stack([rows.max(), columns.max()]) - low
    side = max(int(extent.max()), 1)
    corner = low - (side - extent) // 2
    if (corner < 0).any() or (corner + side > len(depth)).any():
        corner = (low - (side - extent)).clamp(min=0)
    return int(corner[0]), int(corner[1]), side


def load_view(
    view: View, side: int, mean: tuple, std: tuple, grid: int = POINTS
) -> tuple[Tensor, tuple[Tensor, float, np.ndarray]]:
    """Read a view and crop it to its object.

    Args:
        view: the view.
        side: of the square model input in pixels.
        mean, std: normalization.
        grid: side of the grid of points.

    Returns:
        model input (3, side, side), and points (3, grid, grid) in camera coordinates (0 outside of the object), the
        focal length in pixels of a crop of 512 px, and the pixels of the crop.
    """
    image = _center_square(read_image(view.image))
    stored = np.array(_center_square(decode(view.depth)), dtype=np.float32)
    depth = torch.from_numpy(np.where(stored > 0, _DISPARITY / np.maximum(stored, 1), 0) / 1000)
    focal = view.focal * SIDE / min(view.size)
    top, left, crop = object_square(depth)
    points = surface_points(depth, focal)[:, top : top + crop, left : left + crop]
    points = F.interpolate(points[None], size=(grid, grid), mode="nearest")[0]
    pixels = image.crop((left, top, left + crop, top + crop)).resize((side, side), Image.Resampling.BILINEAR)
    return to_input(pixels, mean, std)[0], (points, focal * SIDE / crop, np.asarray(pixels))


def _center_square(image: Image.Image) -> Image.Image:
    """Resize the short side to 512 px by nearest neighbor and crop the center."""
    scale = SIDE / min(image.size)
    width, height = (max(round(length * scale), SIDE) for length in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return image.resize((width, height), Image.Resampling.NEAREST).crop((left, top, left + SIDE, top + SIDE))


def match_points(first: Tensor, second: Tensor, count: int = 1000) -> tuple[Tensor, Tensor]:
    """Match points by features; the most distinctive matches are kept.

    Args:
        first: (P, C), features of the points of the first view.
        second: (Q, C), Q at least 2.
        count: number of matches; their weight is 1 minus the ratio of the cosine distances to the two nearest points.

    Returns:
        indices of points of the first and second view, (min(count, P),) each, best first.
    """
    first, second = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
    ratios, nearest = [], []
    for part in first.split(_BLOCK):
        cosines = part @ second.T
        best = cosines.max(dim=1)
        # Faster than the two largest by `topk`, on CPUs by far.
        others = cosines.scatter_(1, best.indices[:, None], -torch.inf).max(dim=1).values
        ratios.append((1 - best.values).clamp(min=1e-9) / (1 - others).clamp(min=1e-9))
        nearest.append(best.indices)
    chosen = (1 - torch.cat(ratios)).topk(min(count, len(first))).indices
    return chosen, torch.cat(nearest)[chosen]


def point_errors(
    maps: tuple[Tensor, Tensor], points: tuple[Tensor, Tensor], pose: Tensor, focal: float, count: int = 1000
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Match the points of two views and compute errors.

    Args:
        maps: features (C, h', w') of both views; resized bicubically to the grid of points.
        points: (3, h, w) of both views; depth 0 for no point.
        pose: (4, 4), coordinates of the first camera to those of the second.
        focal: of the second view, in pixels of its crop of 512 px.
        count: number of matches.

    Returns:
        distances (M,) in meters and in pixels, and positions (M, 2) of the matches in the grids of both views.
    """
    features, places = [], []
    for features_map, grid in zip(maps, points, strict=True):
        large = F.interpolate(features_map[None].float(), size=grid.shape[1:], mode="bicubic", align_corners=False)[0]
        known = grid[2] > 0
        features.append(large[:, known.to(large.device)].T)
        places.append(known.nonzero().flip(1))
    chosen = [index.cpu() for index in match_points(*features, count=count)]
    places = [place[index] for place, index in zip(places, chosen, strict=True)]
    first, second = (grid[:, place[:, 1], place[:, 0]].T for grid, place in zip(points, places, strict=True))
    moved = first @ pose[:3, :3].T + pose[:3, 3]
    pixels = [focal * xyz[:, :2] / xyz[:, 2:].clamp(min=1e-9) for xyz in (moved, second)]
    return (moved - second).norm(dim=1), (pixels[0] - pixels[1]).norm(dim=1), tuple(places)


def evaluate_navi(
    run: TaskRun,
    *,
    patches: int | None = None,
    step: int = 4,
    grid: int = POINTS,
    generator: dict | None = None,
) -> list[dict]:
    """Evaluate geometric correspondence.

    Args:
        run: backbone and layers.
        patches: side of the model input in patches; by default as many as are closest to 512 px.
        step: see :func:`navi_pairs`.
        grid: side of the grid of points; 128 as published.
        generator: arguments of :func:`write_shapes_navi`; None for NAVI.

    Returns:
        rows with ``R2cm`` and other recalls: share of matches with errors below 1, 2 and 5 cm and 5, 25 and 50 px, and
        at 2 cm by the angle between the views; in percent.
    """
    root = run.root if generator is None else write_shapes_navi(run.root, **generator)
    pairs = navi_pairs(root, step=step)
    patch = run.tower.patch_size
    side = (patches or max(round(SIDE / patch), 1)) * patch
    load = partial(load_view, side=side, mean=run.tower.mean, std=run.tower.std, grid=grid)
    extractor = run.extractor(norm=False)
    extractor.announce_cache(2 * len(pairs), (side // patch) ** 2)
    errors: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in run.layers}
    angles, shown, before = [], [], None
    for index, extra, maps in extractor.iter([view for pair in pairs for view in pair], load):
        if index % 2 == 0:
            before = extra, maps
            continue
        (points, _, pixels), (first, second) = before[0], pairs[index // 2]
        pose = second.pose @ first.pose.inverse()
        angles.append(rotation_angles(pose[None, :3, :3]))
        for layer in run.layers:
            both = before[1][layer], maps[layer]
            meters, distance, places = point_errors(both, (points, extra[0]), pose, extra[1])
            errors[layer].append((meters, distance))
        if index // 2 < SHOWN_IMAGES:
            shown.append((pixels, extra[2], *((place[:8] + 0.5) / grid for place in places), meters[:8] < 0.02))
    run.save(pictures.point_figure(shown))
    return [dict(layer=layer, **_recalls(found, torch.cat(angles))) for layer, found in errors.items()]


def _recalls(errors: list[tuple[Tensor, Tensor]], angles: Tensor) -> dict[str, float]:
    meters, pixels = (torch.cat(parts) for parts in zip(*errors, strict=True))
    row = {f"R{round(100 * limit)}cm": 100 * float((meters < limit).double().mean()) for limit in _METERS}
    row |= {f"R{limit}px": 100 * float((pixels < limit).double().mean()) for limit in _PIXELS}
    by_pair = torch.stack([(found < 0.02).double().mean() for found, _ in errors])
    for low, high in zip(_ANGLES, _ANGLES[1:], strict=False):
        chosen = by_pair[(angles >= low) & (angles < high)]
        row[f"R2cm_{low}_{high}"] = 100 * float(chosen.mean()) if len(chosen) else None
    return row


def write_shapes_navi(
    root: Path, *, num_objects: int = 8, num_views: int = 4, image_size: int = 128, seed: int = 0
) -> Path:
    """Generate views of painted spheres with depth and poses in the layout of NAVI, or reuse them if they exist.

    Shapes are painted all over a sphere, each of other colors. In each view the light has another color and the
    camera is rolled.

    Returns:
        the resolved root.

    Raises:
        FileExistsError, WriteError: see :func:`~pe_dense.datasets.synthetic.cache.write_once`.
    """
    spec = dict(num_objects=num_objects, num_views=num_views, image_size=image_size, seed=seed)
    return write_once(root, dict(version=2, **spec), kind="shapes_navi", write=_write_spheres)


_RADIUS, _DISTANCE = 0.06, 0.3  # meters
_LIGHT = (0.35, 1.0)  # of each color
_ROLL = math.pi / 4  # largest turn of the camera around its axis
_TEXTURE = 256  # pixels between the poles and around a half of the equator
_PAINTED = (3, 3)  # rows and columns of shapes


def _write_spheres(draft: Path, spec: dict) -> None:
    size = spec["image_size"]
    for number in range(spec["num_objects"]):
        # The 3 at the end: NumPy's seed sequence does not tell trailing zeros apart.
        rng = np.random.default_rng((spec["seed"], number, 3))
        folder = draft / f"sphere_{number:03d}" / "wild_set"
        for part in ("images", "depth"):
            (folder / part).mkdir(parents=True)
        texture = _paint(rng)
        center, items = rng.normal(size=4), []
        for view in range(spec["num_views"]):
            q = _rolled(center + rng.normal(scale=0.25, size=4), rng.uniform(-_ROLL, _ROLL))
            offset = rng.uniform(-0.02, 0.02, 2)
            t, focal = np.array([*offset, _DISTANCE]), 1.3 * size
            color, depth = _render(texture, rotation_matrix(torch.from_numpy(q)).numpy(), t, focal, size)
            ground = draw_background(rng, size).transpose(1, 2, 0)
            color = np.where(depth[..., None] > 0, color, ground) * rng.uniform(*_LIGHT, 3)
            color += rng.normal(0, 0.01, (size, size, 3))
            name = f"downsampled_{view:03d}"
            pixels = (255 * color.clip(0, 1)).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{name}.jpg", quality=95)
            stored = np.where(depth > 0, _DISPARITY / (1000 * np.maximum(depth, 1e-3)), 0).round().astype(np.uint16)
            write_png(folder / f"depth/{name}.png", stored)
            camera = dict(q=q.tolist(), t=(1000 * t).tolist(), focal_length=focal)
            items.append(dict(filename=f"{view:03d}.jpg", image_size=[size, size], camera=camera))
        write_json(folder / "annotations.json", items)


def _rolled(q: np.ndarray, angle: float) -> np.ndarray:
    """Turn a pose, a quaternion (w, x, y, z), by an angle in radians around the axis of the camera."""
    w, x, y, z = q
    cos, sin = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w])


def _paint(rng: np.random.Generator) -> np.ndarray:
    """Draw colors (256, 512, 3) of a sphere, from pole to pole and around the equator."""
    ground = draw_background(rng, _TEXTURE)
    canvas = np.concatenate([ground, ground[..., ::-1]], axis=2)  # without a seam
    rows, columns = _PAINTED
    cell = _TEXTURE / rows
    for row in range(rows):
        for column in range(2 * columns):
            label, angle = int(rng.integers(len(CLASSES))), rng.uniform(0, 2 * np.pi)
            half = slice(0, _TEXTURE) if column < columns else slice(_TEXTURE, 2 * _TEXTURE)
            center = ((column % columns + 0.5) * cell, (row + 0.5) * cell)
            alpha = rasterize(label, center=center, diameter=0.9 * cell, angle=angle, image_size=_TEXTURE)
            canvas[:, :, half] += alpha * (draw_surface(rng, _TEXTURE) - canvas[:, :, half])
    return canvas.transpose(1, 2, 0)


def _render(
    texture: np.ndarray, rotation: np.ndarray, t: np.ndarray, focal: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render a sphere at the origin of its coordinates: colors (S, S, 3) and depth (S, S), 0 outside."""
    axis = (np.arange(size) + 0.5 - size / 2) / focal
    rays = np.stack([*np.meshgrid(axis, axis), np.ones((size, size))], axis=-1)
    along, norm = rays @ t, (rays**2).sum(-1)
    root = along**2 - norm * (t @ t - _RADIUS**2)
    depth = np.where(root > 0, (along - np.sqrt(root.clip(min=0))) / norm, 0)
    x, y, z = ((depth[..., None] * rays - t) @ rotation / _RADIUS).transpose(2, 0, 1)
    columns = (np.arctan2(z, x) / (2 * np.pi) + 0.5) * (texture.shape[1] - 1)
    rows = (y.clip(-1, 1) / 2 + 0.5) * (texture.shape[0] - 1)
    color = cv2.remap(texture.astype(np.float32), columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    return color, depth.astype(np.float32)
