"""Generated videos: reproducible, moving, and hard for a static mask."""

import numpy as np
import pytest

from pe_dense.datasets.davis import read_mask
from pe_dense.datasets.synthetic import ShapesVideoDataset, write_shapes_video
from pe_dense.datasets.synthetic.video import _draw_shape, _draw_shapes, draw_video
from pe_dense.tracking.davis_eval import measure

TINY = dict(num_videos=2, num_frames=4, image_size=64)


def video(seed, **options):
    frames = list(draw_video(np.random.default_rng(seed), **{**dict(num_frames=12), **options}))
    return tuple(np.stack(part) for part in zip(*frames, strict=True))


def test_shapes_and_types():
    images, labels = video(0, num_frames=3, image_size=96)
    assert images.shape == (3, 96, 96, 3) and images.dtype == np.uint8
    assert labels.shape == (3, 96, 96) and labels.dtype == np.uint8


@pytest.mark.parametrize("seed", range(4))
def test_all_shapes_begin_in_sight_and_move(seed):
    _, labels = video(seed)
    count = labels.max()
    assert 2 <= count <= 4
    for number in range(1, count + 1):
        assert np.count_nonzero(labels[0] == number) >= 60
    entries = dict.fromkeys(range(1, count + 1), 0)
    copied = np.stack(measure(np.broadcast_to(labels[0], labels.shape), labels, entries))
    assert copied[:, 0].mean() < 0.5
    assert copied[:, 0, 0].mean() > copied[:, 0, -1].mean()


def test_same_state_same_video_and_others_differ():
    first, again, other = (video(seed, num_frames=3)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(4))
def test_shapes_of_the_same_surface(seed):
    """All have the same colors, which those of the other videos do not."""

    def shapes(same_surface):
        return _draw_shapes(np.random.default_rng(seed), 64, same_surface)

    alike, different = shapes(True), shapes(False)
    assert all(np.array_equal(shape.texture, alike[0].texture) for shape in alike)
    assert not any(np.array_equal(shape.texture, different[0].texture) for shape in different[1:])
    assert len({shape.label for shape in alike}) == len(alike)
    labels = video(seed, num_frames=3, image_size=64, same_surface=True)[1]
    assert labels.max() == len(alike)


def test_texture_moves_and_turns_with_its_shape():
    """A point of the shape keeps its color: place and texture follow the same turn and swelling."""
    rng = np.random.default_rng(3)
    size = 128
    shape = _draw_shape(rng, size, 2.0, forms=[4])
    rows, columns = np.indices((size, size)) - (size - 1) / 2
    # A texture that tells where on the shape a pixel lies.
    shape.texture[...] = np.stack([columns, rows, np.zeros_like(rows)], axis=2)
    for frame in (0, 5, 11):
        alpha, colors = shape.at(frame, size)
        inside = alpha == 1
        y, x = np.nonzero(inside)
        places = np.stack([x, y], axis=1)
        on_shape = np.stack([colors[0][inside], colors[1][inside]], axis=1)
        # Places are a rotation and scaling of points of the shape: the least squares fit is exact.
        design = np.concatenate([on_shape, np.ones((len(on_shape), 1))], axis=1)
        fit, *_ = np.linalg.lstsq(design, places, rcond=None)
        assert np.abs(design @ fit - places).max() < 0.5
        angle = np.arctan2(fit[0, 1], fit[0, 0])
        expected = shape.angle + frame * shape.spin
        assert np.cos(angle - expected) == pytest.approx(1, abs=1e-3)


def test_files_are_those_of_the_video(tmp_path):
    root = write_shapes_video(tmp_path / "videos", **TINY)
    assert (root / "ImageSets/2017/val.txt").read_text() == "shapes-000\nshapes-001\n"
    _, labels = video((0, 1, 1), num_frames=4, image_size=64)
    for frame in range(4):
        np.testing.assert_array_equal(read_mask(root / f"Annotations/480p/shapes-001/{frame:05d}.png"), labels[frame])
    assert len(list((root / "JPEGImages/480p/shapes-001").iterdir())) == 4


def test_data_set_makes_its_videos_once(tmp_path):
    root = tmp_path / "videos"
    dataset = ShapesVideoDataset(data_root=str(root), generator=TINY)
    assert len(dataset) == 2
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    ShapesVideoDataset(data_root=str(root), generator=TINY)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    with pytest.raises(FileExistsError, match="'num_frames': 4.*'num_frames': 5.*delete it or choose"):
        ShapesVideoDataset(data_root=str(root), generator=TINY | dict(num_frames=5))


@pytest.mark.parametrize("change", [dict(num_videos=0), dict(num_frames=2), dict(image_size=63), dict(seed=-1)])
def test_arguments_out_of_range(tmp_path, change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name} is {value}, must be at least {value + 1}"):
        write_shapes_video(tmp_path / "videos", **TINY | change)
