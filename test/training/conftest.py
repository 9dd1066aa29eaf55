# SPDX-License-Identifier: Apache-2.0
"""A closed-form world for the training tests: the inside of a box, seen from anywhere in it."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.camera import CameraModel
from mtl_perception.values import Sample
import numpy as np
import pytest

WALL, FLOOR, CEILING = 0, 1, 2


def make_box_frame(
    seed: int, width: int = 96, height: int = 72, focal: float = 80.0, **changes: float
) -> Sample:
    """Intersect every pixel's ray with the six planes of a box: exact depth and normals."""
    generator = np.random.default_rng(seed)
    camera = CameraModel(
        width, height, focal, focal * 1.02, width / 2 + 1.3, height / 2 - 2.2
    )
    yaw = changes.get('yaw', generator.uniform(-np.pi, np.pi))
    pitch = changes.get('pitch', generator.uniform(-0.3, 0.3))
    turn = np.array(
        [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    ) @ np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    half = np.array([2.5, 1.3, 3.5])  # x right, y down, z forward, metres
    origin = generator.uniform(-0.4, 0.4, 3) * half
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack(
        ((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)), -1
    )
    world = rays @ turn.T
    distance = (np.sign(world) * half - origin) / world  # to the plane ahead on each axis
    axis = distance.argmin(-1)
    depth = distance.min(-1)
    normal = np.zeros(rays.shape)
    ahead = np.take_along_axis(np.sign(world), axis[..., None], -1)
    np.put_along_axis(normal, axis[..., None], -ahead, -1)
    labels = np.where(axis != 1, WALL, np.where(world[..., 1] > 0, FLOOR, CEILING))
    plane = axis * 2 + (ahead[..., 0] > 0)
    edges = np.zeros(plane.shape, np.uint8)
    edges[:, :-1] |= plane[:, :-1] != plane[:, 1:]
    edges[:-1] |= plane[:-1] != plane[1:]
    colours = np.array(
        [(200, 60, 60), (60, 60, 200), (240, 240, 230), (110, 80, 40),
         (60, 180, 60), (190, 190, 60)]
    )
    shade = np.clip(1.2 - 0.12 * depth, 0.3, 1.0)[..., None]
    return Sample(
        image=(colours[plane] * shade).astype(np.uint8),
        targets={
            'semantic': labels.astype(np.uint8),
            'depth': depth.astype(np.float32),
            'normals': (normal @ turn).astype(np.float32),
            'edges': edges,
        },
        camera=camera,
        name=f'box_{seed}',
    )


@pytest.fixture(scope='session')
def box_frame() -> Callable[..., Sample]:
    """Return the maker of box frames."""
    return make_box_frame


@pytest.fixture(scope='session')
def box_frames() -> list[Sample]:
    """Return eight box frames."""
    return [make_box_frame(seed) for seed in range(8)]
