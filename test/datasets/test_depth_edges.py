# SPDX-License-Identifier: Apache-2.0
"""Depth jumps: surfaces in front of others, grazing floors, shadows, noise and ramps."""

from __future__ import annotations

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.depth_edges import depth_jump_edges
import numpy as np
import pytest

CAMERA = CameraModel(160, 120, 145.0, 145.0, 79.5, 59.5)


def floor(height_m=1.2):
    """Depth of a floor below a level camera up to the horizon, farther than 8 m unknown."""
    depth = np.full((120, 160), np.nan, np.float32)
    rows = np.arange(120)
    below = rows > 80
    depth[below] = (145.0 * height_m / (rows[below] - 59.5))[:, None]
    return depth


def kinect_noise(depth, generator):
    """Structured light measures disparity in eighths of a pixel (at 640 pixels of width)."""
    disparity = 580 * 0.075 / depth + generator.normal(0, 1 / 16, depth.shape)
    return (580 * 0.075 / (np.rint(disparity * 8) / 8)).astype(np.float32)


def test_a_box_before_a_wall_has_an_outline_of_two_pixels():
    depth = np.full((120, 160), 3.0, np.float32)
    depth[40:80, 50:100] = 1.5
    edges = depth_jump_edges(depth)
    expected = np.zeros_like(edges)
    expected[39:81, 49:101] = 1
    expected[41:79, 51:99] = 0
    expected[[39, 39, 80, 80], [49, 100, 49, 100]] = 0  # no row or column crosses there
    np.testing.assert_array_equal(edges, expected)


def test_a_floor_at_a_grazing_angle_and_a_crease_have_none():
    depth = floor()
    depth[:81] = depth[81]  # a wall that stands on its far end
    share = np.abs(np.diff(depth[81:], axis=0)) / depth[82:]
    assert share.max() > 0.04, 'the depth itself changes a lot from row to row'
    assert not (depth_jump_edges(depth) == 1).any()


@pytest.mark.parametrize('seed', range(3))
def test_sensor_noise_on_walls_and_floors_makes_no_edges(seed):
    generator = np.random.default_rng(seed)
    rays = CAMERA.rays()
    slanted = 3.0 / (rays[..., 2] + 0.6 * rays[..., 0])  # a wall turned by 31 degrees
    for depth in (np.full((120, 160), 4.0), slanted, floor().astype(np.float64)):
        edges = depth_jump_edges(kinect_noise(depth, generator))
        assert (edges == 1).mean() < 1e-3


def test_holes_are_unknown_and_the_shadow_of_an_object_is_bordered_on_its_near_side():
    depth = np.full((120, 160), 3.0, np.float32)
    depth[:, 50:100] = 1.5
    depth[:, 40:50] = np.nan  # the shadow that structured light casts
    depth[20:30, 120:130] = np.nan  # a hole within the wall
    edges = depth_jump_edges(depth)
    assert (edges[:, 42:49] == 255).all()
    assert (edges[:, 49:51] == 1).all(), 'the near surface begins at 50'
    assert (edges[:, 39:41] != 1).all(), 'not where the far surface begins'
    assert (edges[22:28, 122:128] == 255).all()
    assert (edges[15:35, 115:135] != 1).all(), 'a hole in one surface is no border'
    assert (edges[:, 99:101] == 1).all()


def test_a_jump_that_the_sensor_smears_is_one_edge():
    depth = np.full((9, 60), 3.0, np.float32)
    depth[:, :30] = 1.5
    depth[:, 30], depth[:, 31] = 1.9, 2.5
    edges = depth_jump_edges(depth)
    columns = np.nonzero(edges[4])[0]
    assert 1 <= len(columns) <= 2
    assert set(columns) <= {29, 30, 31, 32}


def test_no_depth_at_all_is_all_unknown():
    assert (depth_jump_edges(np.full((4, 5), np.nan, np.float32)) == 255).all()
    assert (depth_jump_edges(np.zeros((4, 5), np.float32)) == 255).all()
