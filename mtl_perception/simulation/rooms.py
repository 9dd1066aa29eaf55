# SPDX-License-Identifier: Apache-2.0
"""Endless labelled frames from procedural apartments, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
import math

from mtl_perception.camera import CameraModel
from mtl_perception.simulation.errors import SimulationError
from mtl_perception.simulation.render import render
from mtl_perception.simulation.sensor import Sensor
from mtl_perception.simulation.walk import walk
from mtl_perception.simulation.world import RoomsWorld
from mtl_perception.values import Sample
import numpy as np

FIELD_OF_VIEW_DEG = (50.0, 85.0)  # horizontal, drawn for each world
DATASET_RATE_HZ = 0.4  # frames two and a half seconds apart show different things


def draw_camera(
    seed: int, width: int, height: int,
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
) -> CameraModel:
    """Draw a pinhole camera with a horizontal field of view between two angles in degrees."""
    rng = np.random.default_rng((seed, 0xCA3))
    angle = math.radians(rng.uniform(*field_of_view_deg))
    focal = width / 2 / math.tan(angle / 2)
    cx = (width - 1) / 2 + rng.normal(0, 0.006) * width
    cy = (height - 1) / 2 + rng.normal(0, 0.006) * height
    return CameraModel(width, height, focal, focal, float(cx), float(cy))


def world_seed(seed: int, index: int) -> int:
    """Return the seed of the index-th world of a run; runs with different seeds share none."""
    return seed * 1_000_003 + index


def world_frames(
    seed: int,
    index: int,
    frames: int,
    *,
    camera: CameraModel | None = None,
    size: tuple[int, int] = (320, 240),
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
    rate_hz: float = DATASET_RATE_HZ,
    skip: int = 0,
) -> Iterator[Sample]:
    """
    Yield the frames of the index-th world of a run, from number `skip` on.

    Without `camera` one of `size` (width, height) and with a horizontal field of view between
    the two angles is drawn for the world.

    Raises
    ------
    SimulationError
        If `frames` or the rate is not positive, or the seed is negative.

    """
    if seed < 0:
        raise SimulationError(f'the seed is {seed}; use zero or a positive number')
    own = world_seed(seed, index)
    world = RoomsWorld.from_seed(own)
    model = camera or draw_camera(own, *size, field_of_view_deg)
    sensor = Sensor.draw(own)
    poses = walk(world, own, frames, rate_hz=rate_hz)
    for number in range(skip, frames):
        yield render(
            world, model, poses[number], sensor=sensor, noise_seed=own * 131 + number,
            name=f'rooms_{seed}_{index:05d}_{number:04d}',
        )


def rooms_frames(
    seed: int,
    frames: int | None,
    camera: CameraModel | None = None,
    *,
    size: tuple[int, int] = (320, 240),
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
    frames_per_world: int = 24,
    rate_hz: float = DATASET_RATE_HZ,
) -> Iterator[Sample]:
    """
    Yield frames from one world after another; endlessly if `frames` is None.

    Raises
    ------
    SimulationError
        If a count or the rate is not positive, or the seed is negative.

    """
    if frames_per_world < 1 or (frames is not None and frames < 1):
        raise SimulationError(
            f'frames and frames per world must be positive, not {frames} and {frames_per_world}'
        )
    left, index = frames, 0
    while left is None or left > 0:
        for sample in world_frames(
            seed, index, frames_per_world, camera=camera, size=size,
            field_of_view_deg=field_of_view_deg, rate_hz=rate_hz,
        ):
            yield sample
            if left is not None:
                left -= 1
                if left == 0:
                    return
        index += 1
