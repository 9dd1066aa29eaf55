# SPDX-License-Identifier: Apache-2.0
"""The apartments: complete, different, standing on the floor, all classes among them."""

from __future__ import annotations

from mtl_perception.simulation.plan import draw_rooms
from mtl_perception.simulation.render import trace
from mtl_perception.simulation.rooms import draw_camera
from mtl_perception.simulation.walk import walk
from mtl_perception.simulation.world import build_apartment
from mtl_perception.tasks import load_label_set
import numpy as np
import pytest

NAMES = load_label_set('rooms').names


@pytest.fixture(scope='module')
def apartments() -> list:
    """Return mesh and occupancy of twelve apartments, without baked light."""
    found = []
    for seed in range(12):
        shop, occupancy, _ = build_apartment(np.random.default_rng(seed))
        found.append((shop.builder.finish(), occupancy))
    return found


def test_all_classes_occur(apartments):
    """Over twelve worlds every class of the label set is built, most of them often."""
    counts = np.zeros(len(NAMES), int)
    for mesh, _ in apartments:
        counts[np.unique(mesh.object_labels)] += 1
    assert (counts > 0).all(), [name for name, count in zip(NAMES, counts) if not count]
    for name in ('wall', 'floor', 'ceiling', 'door', 'window', 'lamp', 'picture'):
        assert counts[NAMES.index(name)] >= 10, name
    for name in ('chair', 'sofa', 'table', 'cabinet', 'shelf', 'box'):
        assert counts[NAMES.index(name)] >= 6, name


def test_frames_show_many_classes(drawn_world):
    """One walk through one world shows at least eight classes."""
    camera = draw_camera(1, 48, 36)
    seen = set()
    for pose in walk(drawn_world, 5, 25, rate_hz=0.4):
        seen |= set(np.unique(trace(drawn_world, camera, pose).labels))
    assert len(seen - {255}) >= 8


def test_worlds_differ(apartments):
    """No two have the same size, and both one and two rooms, rectangles and Ls occur."""
    sizes = {occupancy.rooms[0].high for _, occupancy in apartments}
    assert len(sizes) == len(apartments)
    rooms = [draw_rooms(np.random.default_rng(seed)) for seed in range(40)]
    assert {len(each) for each in rooms} == {1, 2}
    assert {each[0].notch is None for each in rooms} == {True, False}
    assert len({room.kind for each in rooms for room in each}) == 6


def test_furniture_stands_on_the_floor_inside_its_room(apartments):
    """Seats, beds, cabinets and plants begin at z = 0; nothing sinks or leaves the shell."""
    standing = {NAMES.index(name) for name in ('chair', 'sofa', 'bed', 'plant')}
    for mesh, occupancy in apartments:
        low = np.min([room.low for room in occupancy.rooms], axis=0) - 0.3
        high = np.max([room.high for room in occupancy.rooms], axis=0) + 0.3
        points = mesh.vertices
        assert points[..., 2].min() > -0.01
        assert points[..., 2].max() < occupancy.rooms[0].height + 0.01
        assert (points[..., :2] > low).all()
        assert (points[..., :2] < high).all()
        bottom = np.full(len(mesh.object_labels), np.inf)
        np.minimum.at(bottom, mesh.objects, points[..., 2].min(axis=1))
        for item in np.flatnonzero(np.isin(mesh.object_labels, list(standing))):
            assert bottom[item] == pytest.approx(0, abs=0.02), NAMES[mesh.object_labels[item]]


def test_furniture_does_not_overlap(apartments):
    """No two pieces' extents share space."""
    for _, occupancy in apartments:
        things = np.array(occupancy.things)
        for index, (x0, y0, z0, x1, y1, z1) in enumerate(things):
            rest = things[index + 1 :]
            overlap = (
                (np.minimum(x1, rest[:, 3]) - np.maximum(x0, rest[:, 0]) > 1e-6)
                & (np.minimum(y1, rest[:, 4]) - np.maximum(y0, rest[:, 1]) > 1e-6)
                & (np.minimum(z1, rest[:, 5]) - np.maximum(z0, rest[:, 2]) > 1e-6)
            )
            assert not overlap.any()


def test_walls_close_around_their_openings(apartments):
    """Wall faces plus openings have the area of the room's walls."""
    for mesh, occupancy in apartments:
        for room in occupancy.rooms:
            for wall in room.walls:
                expected = wall.length * room.height - sum(
                    (hole.end - hole.start) * (hole.top - hole.bottom) for hole in wall.openings)
                inward = np.array([*wall.inward, 0.0])
                offset = mesh.vertices.astype(np.float64) - np.array([*wall.a, 0.0])
                along = offset @ np.array([*wall.along, 0.0])
                on_wall = (np.abs(offset @ inward) < 1e-4).all(axis=1)
                on_wall &= (along > -1e-4).all(axis=1) & (along < wall.length + 1e-4).all(axis=1)
                on_wall &= np.isclose(mesh.normals @ inward, 1)
                on_wall &= mesh.object_labels[mesh.objects] == NAMES.index('wall')
                a, b, c = mesh.vertices[on_wall].astype(np.float64).transpose(1, 0, 2)
                area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
                assert area == pytest.approx(expected, rel=1e-4)
