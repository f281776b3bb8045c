"""NAVI: reader, geometry and errors, on generated views of spheres."""

import json
import math

import numpy as np
import pytest
import torch
from helpers.tiny_towers import tiny_tower

from pe_dense.evaluation.navi import (
    evaluate_navi,
    load_view,
    match_points,
    navi_pairs,
    object_square,
    point_errors,
    rotation_angles,
    rotation_matrix,
    surface_points,
    write_shapes_navi,
)
from pe_dense.evaluation.run import TaskRun

GENERATOR = dict(num_objects=2, num_views=4, image_size=96)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_shapes_navi(tmp_path_factory.mktemp("navi") / "data", **GENERATOR)


def test_rotations():
    turn = math.radians(40)
    q = torch.tensor([math.cos(turn / 2), 0, 0, math.sin(turn / 2)])
    expected = torch.tensor([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    torch.testing.assert_close(rotation_matrix(3 * q), expected)
    assert rotation_angles(torch.stack([expected, torch.eye(3)])).tolist() == pytest.approx([40, 0], abs=1e-3)


def test_surface_points_of_a_plane():
    points = surface_points(torch.full((4, 4), 2.0), focal=8.0)
    assert points[:, 0, 3].tolist() == [1.5 * 2 / 8, -1.5 * 2 / 8, 2.0]


def test_squares_around_objects():
    depth = torch.zeros(20, 20)
    depth[5:9, 2:13] = 1
    assert object_square(depth) == (2, 2, 10)  # centered on the short axis
    depth = torch.zeros(20, 20)
    depth[0:4, 2:13] = 1
    assert object_square(depth) == (0, 2, 10)  # moved into the image
    with pytest.raises(ValueError, match="a depth map is empty"):
        object_square(torch.zeros(4, 4))


def test_distinctive_matches_come_first():
    second = torch.eye(4)
    first = torch.tensor([[1.0, 0.9, 0, 0], [0, 0, 1, 0.1], [0, 1, 0, 0]])
    rows, columns = match_points(first, second, count=2)
    assert rows.tolist() == [2, 1] and columns.tolist() == [1, 2]


def test_pairs(root):
    pairs = navi_pairs(root, step=1)
    assert len(pairs) == 8 and len(navi_pairs(root, step=4)) == 2
    for first, second in pairs:
        assert first.image.parent == second.image.parent and first.image != second.image
    names = [[view.image.name for view in pair] for pair in pairs]
    assert names == [[view.image.name for view in pair] for pair in navi_pairs(root, step=1)]
    with pytest.raises(ValueError, match="contains no pairs of views"):
        navi_pairs(root, max_angle=0)


def test_features_of_places_on_the_object_find_them_and_others_do_not(root):
    """Features that are the coordinates on the object match exactly: depth, poses and crops agree."""
    found = []
    for first, second in navi_pairs(root, step=1)[:2]:
        (_, (points, *_)), (_, (others, focal, _)) = (load_view(v, 64, (0,) * 3, (1,) * 3, 48) for v in (first, second))
        maps = []
        for view, grid in ((first, points), (second, others)):
            inverse = view.pose.inverse()
            flat = grid.flatten(1)
            maps.append((inverse[:3, :3] @ flat + inverse[:3, 3:]).view_as(grid))
        pose = second.pose @ first.pose.inverse()
        meters, pixels, places = point_errors(tuple(maps), (points, others), pose, focal)
        assert len(meters) == len(places[0]) == 1000
        assert meters.median() < 0.002 and pixels.median() < 10
        noise = tuple(torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(2))
        found.append(point_errors(noise, (points, others), pose, focal)[0].median())
    assert min(found) > 0.02


def test_rows(root, tmp_path):
    run = TaskRun(tiny_tower(), root, (0, 2), batch_size=3, figure=tmp_path / "points.png")
    rows = evaluate_navi(run, patches=8, step=2, grid=24, generator=GENERATOR)
    assert [row["layer"] for row in rows] == [0, 2] and (tmp_path / "points.png").exists()
    for row in rows:
        assert 0 < row["R1cm"] <= row["R2cm"] <= row["R5cm"] <= 100 and row["R5px"] <= row["R25px"] <= row["R50px"]
        by_angle = [row[name] for name in row if name.startswith("R2cm_")]
        assert len(by_angle) == 4 and not all(map(math.isnan, by_angle))
    other = evaluate_navi(
        TaskRun(tiny_tower(), root, (2,), batch_size=1), patches=8, step=2, grid=24, generator=GENERATOR
    )
    assert other[0]["R2cm"] == pytest.approx(rows[1]["R2cm"], abs=0.2)


def test_invalid_annotations(tmp_path):
    folder = tmp_path / "thing" / "wild_set"
    folder.mkdir(parents=True)
    (folder / "annotations.json").write_text(json.dumps([dict(filename="0.jpg", camera=dict(q=[1, 0, 0, 0]))]))
    with pytest.raises(ValueError, match="annotations.json is not an annotation of NAVI: KeyError"):
        navi_pairs(tmp_path)


def test_generated_views_are_the_same_each_time(root, tmp_path):
    other = write_shapes_navi(tmp_path / "other", **GENERATOR)
    for path in sorted(root.rglob("*.png")):
        assert np.array_equal(path.read_bytes(), (other / path.relative_to(root)).read_bytes())
