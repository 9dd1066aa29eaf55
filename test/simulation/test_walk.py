# SPDX-License-Identifier: Apache-2.0
"""The walk: smooth, clear of everything, at the height of a robot or a hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.simulation.errors import SimulationError
from mtl_perception.simulation.render import trace
from mtl_perception.simulation.rooms import draw_camera, FIELD_OF_VIEW_DEG, rooms_frames
from mtl_perception.simulation.walk import look, walk
from mtl_perception.simulation.world import RoomsWorld
import numpy as np
import pytest

WIDE = CameraModel(24, 18, 14.0, 14.0, 11.5, 8.5)
SEEDS = (12, 101, 102)


@pytest.fixture(scope='module')
def worlds(drawn_world) -> dict[int, RoomsWorld]:
    """Return three worlds by seed."""
    return {12: drawn_world, **{seed: RoomsWorld.from_seed(seed) for seed in SEEDS[1:]}}


@given(st.floats(-3.1, 3.1), st.floats(-1.4, 1.4), st.floats(-0.5, 0.5))
def test_look_points_where_it_says(yaw, pitch, roll):
    """The pose is a rotation; its z axis has that yaw and pitch; level without roll."""
    pose = look((1, 2, 3), yaw, pitch, roll)
    rotation = pose[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    forward = rotation[:, 2]
    assert np.arctan2(forward[1], forward[0]) == pytest.approx(yaw, abs=1e-9)
    assert np.arcsin(forward[2]) == pytest.approx(pitch, abs=1e-9)
    np.testing.assert_allclose(pose[:3, 3], (1, 2, 3))
    level = look((0, 0, 0), yaw, pitch)[:3, :3]
    assert level[2, 0] == pytest.approx(0, abs=1e-12)
    assert level[2, 1] < 0  # y is down
    # Roll turns about the viewing axis alone.
    assert level[:, 0] @ rotation[:, 0] == pytest.approx(np.cos(roll))


@pytest.mark.parametrize('seed', SEEDS)
def test_nothing_comes_too_close(worlds, seed):
    """In every direction from every place the nearest surface is beyond 0.15 m."""
    world = worlds[seed]
    rng = np.random.default_rng(0)
    for pose in walk(world, seed, 30, rate_hz=0.7):
        directions = rng.normal(size=(400, 3)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        origins = np.broadcast_to(pose[:3, 3].astype(np.float32), directions.shape)
        hits = world.tracer.trace(origins, directions)
        assert hits.distance[hits.triangles >= 0].min() > 0.15
        # Inside a closed room, at most a crack lets a ray out.
        assert (hits.triangles < 0).mean() < 0.01


@pytest.mark.parametrize('seed', SEEDS)
def test_the_walk_is_smooth(worlds, seed):
    """At 30 Hz: under 4 cm and 5 degrees from frame to frame, and it gets somewhere."""
    poses = walk(worlds[seed], 3, 240)
    step = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert step.max() < 0.04
    assert step.sum() > 1.5
    turn = np.einsum('nij,nij->n', poses[:-1, :3, :3], poses[1:, :3, :3])
    angle = np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1)))
    assert angle.max() < 5
    assert angle.sum() > 20
    assert poses[:, 2, 3].min() >= 0.5
    assert poses[:, 2, 3].max() <= 1.8


def test_views_are_near_and_far_up_and_down(worlds):
    """Over a few walks depth spans 0.5 to 5 m and the view tilts both ways, mostly down."""
    depths, tilts = [], []
    for seed, world in worlds.items():
        for pose in walk(world, seed, 20, rate_hz=0.4):
            depths.append(np.nanquantile(trace(world, WIDE, pose).depth, (0.05, 0.95)))
            tilts.append(np.degrees(np.arcsin(pose[2, 2])))
    near, far = np.array(depths).T
    assert near.min() < 0.8
    assert far.max() > 4
    assert np.min(tilts) < -20
    assert np.median(tilts) < 0


def test_same_seed_same_walk(drawn_world):
    """And another seed another one."""
    first, again, other = (walk(drawn_world, seed, 5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize(('frames', 'rate'), [(0, 30.0), (5, 0.0), (5, -1.0), (5, float('nan'))])
def test_impossible_walks_are_refused(drawn_world, frames, rate):
    """The message names both numbers."""
    with pytest.raises(SimulationError, match=str(frames)):
        walk(drawn_world, 0, frames, rate_hz=rate)


def test_a_world_without_rooms_has_no_walk(hand_made):
    """A world made by hand needs poses by hand."""
    with pytest.raises(SimulationError, match='no rooms'):
        walk(hand_made.world, 0, 5)


def test_cameras_vary_within_the_stated_field_of_view():
    """Horizontal fields of view of 100 cameras fill 50 to 85 degrees."""
    angles = []
    for seed in range(100):
        camera = draw_camera(seed, 320, 240)
        assert camera.fx == camera.fy
        angles.append(2 * np.degrees(np.arctan(160 / camera.fx)))
    low, high = FIELD_OF_VIEW_DEG
    assert low <= min(angles) < low + 4
    assert high - 4 < max(angles) <= high


def test_the_field_of_view_can_be_chosen():
    """A world's camera lies between the angles asked for, whichever world it is."""
    for sample in rooms_frames(3, 2, size=(24, 18), frames_per_world=1,
                               field_of_view_deg=(30.0, 31.0)):
        assert sample.camera is not None
        assert 30 <= 2 * np.degrees(np.arctan(12 / sample.camera.fx)) <= 31


def test_frames_follow_the_callers_camera_and_counts():
    """A given camera is kept; worlds change after the given number of frames."""
    samples = list(rooms_frames(4, 2, WIDE, frames_per_world=1))
    assert [sample.name for sample in samples] == [
        'rooms_4_00000_0000', 'rooms_4_00001_0000']
    assert all(sample.camera == WIDE for sample in samples)
    assert all(sample.image.shape == (18, 24, 3) for sample in samples)
    with pytest.raises(SimulationError, match='positive'):
        next(rooms_frames(4, 0))
    with pytest.raises(SimulationError, match='-1'):
        next(rooms_frames(-1, 2))
