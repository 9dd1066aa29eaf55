# SPDX-License-Identifier: Apache-2.0
"""Pictures and distances of meshes whose every point is known."""

from __future__ import annotations

from mtl_perception.geometry.errors import GeometryError
from mtl_perception.geometry.scene import empty_cloud, LabelledCloud, LabelledMesh
from mtl_perception.geometry.scene_views import (
    MeshRenderer,
    up_direction,
    view_from_above,
    view_towards,
)
from mtl_perception.geometry.surface_distance import distances_to, surface_distance
import numpy as np
import pytest

pytest.importorskip('open3d', reason='Open3D is not installed', exc_type=ImportError)
PAPER = (244, 244, 244)
PALETTE = np.array([(index, 255 - index, 7) for index in range(256)], np.uint8)


def squares(*places: tuple[tuple[float, float, float], tuple[int, int, int], int]) -> LabelledMesh:
    """Return unit squares that look up, each (lower corner, colour, label)."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
    points = np.concatenate([corners + np.float32(place[0]) for place in places])
    count = len(points)
    cloud = LabelledCloud(
        points,
        np.repeat(np.array([place[1] for place in places], np.uint8), 4, axis=0),
        np.tile(np.float32((0, 0, 1)), (count, 1)),
        np.repeat(np.array([place[2] for place in places], np.uint8), 4),
        np.ones(count, np.float32),
    )
    triangles = [
        (4 * index + a, 4 * index + b, 4 * index + c)
        for index in range(len(places))
        for a, b, c in ((0, 1, 2), (0, 2, 3))
    ]
    return LabelledMesh(cloud, np.array(triangles, np.int32))


MESH = squares(((0, 0, 0), (200, 0, 0), 3), ((2, 0, 0), (0, 0, 200), 9), ((1, 0, 2), (9, 9, 9), 5))


def test_from_above_every_square_is_where_it_lies() -> None:
    up = np.array([0.0, 0.0, 1.0])
    view = view_from_above(MESH, up, np.array([0.0, 1.0, -0.4]), ceiling=1.0, width=300)
    picture = MeshRenderer(MESH).picture(view)
    height, width = picture.shape[:2]
    metres = (width - 1) * (view.origins[0, 1, 0] - view.origins[0, 0, 0])
    assert metres == pytest.approx(3.0 * 1.04, rel=0.02)
    assert height == pytest.approx(100, abs=3)  # the map is three times as wide as deep
    # Lit from straight above, colours are unchanged; the square above the ceiling is cut off.
    middle = height // 2
    assert tuple(picture[middle, 50]) == (200, 0, 0)
    assert tuple(picture[middle, 150]) == PAPER
    assert tuple(picture[middle, 250]) == (0, 0, 200)
    labels = MeshRenderer(MESH).picture(view, PALETTE)
    assert tuple(labels[middle, 50]) == tuple(PALETTE[3])
    assert tuple(labels[middle, 250]) == tuple(PALETTE[9])


def test_perspective_agrees_with_a_pinhole() -> None:
    eye, target, up = np.array([1.5, -4.0, 3.0]), np.array([1.5, 0.5, 0.0]), np.array([0, 0, 1.0])
    view = view_towards(eye, target, up, width=201, height=151, field_of_view_deg=70.0)
    picture = MeshRenderer(MESH).picture(view, PALETTE)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.array([1.0, 0.0, 0.0])
    above = np.cross(right, forward)
    focal = 100.5 / np.tan(np.deg2rad(35))
    for point, label in (((0.5, 0.5, 0), 3), ((2.5, 0.5, 0), 9), ((1.5, 0.6, 2), 5)):
        ray = np.array(point) - eye
        column = 100 + focal * (ray @ right) / (ray @ forward)
        row = 75 - focal * (ray @ above) / (ray @ forward)
        pixel = picture[round(row), round(column)].astype(float)
        # The colour of the label, darker by the angle alone.
        cosine = abs(ray[2]) / np.linalg.norm(ray)
        np.testing.assert_allclose(pixel, PALETTE[label] * (0.55 + 0.45 * cosine), atol=2)
    assert tuple(picture[0, 0]) == PAPER


def test_up_is_what_floors_say_not_what_a_tilted_camera_says() -> None:
    random = np.random.default_rng(0)
    truth = np.array([0.1, -0.97, 0.2])
    truth /= np.linalg.norm(truth)
    floor = truth + random.normal(0, 0.02, (2000, 3))
    walls = np.cross(truth, random.normal(size=(2000, 3)))
    normals = np.concatenate((floor, walls))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    side = np.cross(truth, (0, 0, 1.0))
    side /= np.linalg.norm(side)
    tilt = np.deg2rad(25)
    camera_up = np.cos(tilt) * truth + np.sin(tilt) * np.cross(side, truth)
    pose = np.eye(4)
    pose[:3, 1] = -camera_up
    up = up_direction(normals, pose[None])
    assert np.degrees(np.arccos(up @ truth)) < 1.0


def test_distances_are_those_of_arithmetic() -> None:
    points = np.array([(0.5, 0.5, 0.3), (1.25, 0.5, 0.0), (-3.0, 1.0, 4.0), (2.5, 0.5, 0.0)])
    floor = squares(((0, 0, 0), (0, 0, 0), 0), ((2, 0, 0), (0, 0, 0), 0))
    np.testing.assert_allclose(distances_to(points, floor), [0.3, 0.25, 5.0, 0.0], atol=1e-6)
    found = surface_distance(points, floor)
    assert found['mean'] == pytest.approx(5.55 / 4)
    assert found['median'] == pytest.approx(0.275)
    with pytest.raises(GeometryError, match='without triangles'):
        distances_to(points, LabelledMesh(empty_cloud(), np.zeros((0, 3), np.int32)))
