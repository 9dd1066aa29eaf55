# SPDX-License-Identifier: Apache-2.0
"""Worlds that the tests of this room share: one made by hand, one drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_perception.camera import CameraModel
from mtl_perception.simulation.atlas import TextureAtlas
from mtl_perception.simulation.lighting import AreaLight
from mtl_perception.simulation.mesh import Material, MeshBuilder
from mtl_perception.simulation.shapes import box, cylinder, rectangle
from mtl_perception.simulation.walk import look
from mtl_perception.simulation.world import RoomsWorld
import numpy as np
import pytest

LABELS = {'wall': 0, 'floor': 1, 'table': 8, 'box': 17}


@dataclass(frozen=True)
class HandMade:
    """A world whose geometry is known in closed form, and a camera in it."""

    world: RoomsWorld
    camera: CameraModel
    pose: np.ndarray


@pytest.fixture(scope='session')
def hand_made() -> HandMade:
    """Return a floor at z = 0, a wall at y = 3, a turned box and a cylinder before it."""
    builder = MeshBuilder(LABELS, texel=0.5)
    grey = builder.material(Material(0))
    builder.begin('floor')
    rectangle(builder, (-4, 6, 0), (8, 0, 0), (0, -8, 0), grey)
    builder.begin('wall')
    rectangle(builder, (-4, 3, 4), (8, 0, 0), (0, 0, -4), grey)
    builder.begin('table')
    with builder.at(-0.6, 1.4, 0, 0.5):
        box(builder, (-0.4, -0.2, 0), (0.4, 0.2, 0.7), grey)
    builder.begin('box')
    cylinder(builder, (0.7, 1.2, 0), 0.3, 0.8, grey, segments=12)
    atlas = TextureAtlas.pack([np.full((16, 16, 3), 0.5, np.float32)])
    lights = [AreaLight(((0.0, 0.0, 2.5),), (3.0, 3.0, 3.0))]
    world = RoomsWorld.assemble(
        builder.finish(), atlas, lights, None, np.random.default_rng(0)
    )
    camera = CameraModel(40, 30, 36.0, 34.0, 18.7, 15.3)
    return HandMade(world, camera, look((0.1, -0.8, 1.2), 1.5, -0.25, 0.07))


@pytest.fixture(scope='session')
def drawn_world() -> RoomsWorld:
    """Return a furnished world."""
    return RoomsWorld.from_seed(12)
