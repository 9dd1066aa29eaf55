# SPDX-License-Identifier: Apache-2.0
"""One procedural apartment: rooms, furniture, textures and baked light, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass
import math

from mtl_perception.simulation.atlas import TextureAtlas
from mtl_perception.simulation.lighting import AreaLight, bake, Sun
from mtl_perception.simulation.mesh import Floats, Mesh
from mtl_perception.simulation.placement import Decorator, LampPlan
from mtl_perception.simulation.plan import draw_rooms, Occupancy, Room
from mtl_perception.simulation.programs import furnish
from mtl_perception.simulation.shell import build_shell, Daylight
from mtl_perception.simulation.tracer import Tracer
from mtl_perception.simulation.workshop import Workshop
import numpy as np


@dataclass(frozen=True)
class RoomsWorld:
    """
    A furnished apartment ready for rays.

    World frame: x and y along the walls, z up, floor at z = 0, metres. `tracer` knows all
    triangles, `shadows` those that stop light.
    """

    seed: int
    rooms: tuple[Room, ...]
    occupancy: Occupancy
    mesh: Mesh
    atlas: TextureAtlas
    light_map: Floats  # (h, w, 3)
    sun: Sun | None
    tracer: Tracer
    shadows: Tracer

    @classmethod
    def from_seed(cls, seed: int) -> RoomsWorld:
        """Draw rooms, furniture, materials and light, and bake it: about two seconds."""
        rng = np.random.default_rng((seed, 0xA9A27))
        shop, occupancy, sun = build_apartment(rng)
        return cls.assemble(
            shop.builder.finish(), TextureAtlas.pack(shop.tiles), shop.lights, sun,
            rng, seed=seed, rooms=occupancy.rooms, occupancy=occupancy,
        )

    @classmethod
    def assemble(
        cls,
        mesh: Mesh,
        atlas: TextureAtlas,
        lights: list[AreaLight],
        sun: Sun | None,
        rng: np.random.Generator,
        *,
        seed: int = 0,
        rooms: tuple[Room, ...] = (),
        occupancy: Occupancy | None = None,
    ) -> RoomsWorld:
        """Bake the light of a mesh and return the world; for worlds made by hand as well."""
        tracer = Tracer(mesh.vertices)
        table = mesh.material_table
        shadows = Tracer(mesh.vertices[table[mesh.materials, 4] == 0])
        albedo = atlas.means[table[:, 6].astype(np.int64)] * table[:, :3]
        light_map = bake(mesh, albedo, lights, sun, tracer, shadows, rng)
        return cls(
            seed, rooms, occupancy or Occupancy(rooms), mesh, atlas, light_map, sun, tracer,
            shadows,
        )


def build_apartment(rng: np.random.Generator) -> tuple[Workshop, Occupancy, Sun | None]:
    """Draw one or two furnished rooms; returns what is built, who stands where, and the sun."""
    occupancy = Occupancy(draw_rooms(rng))
    daylight, sun, lamps = _draw_light(rng)
    shop = Workshop(rng)
    for room in occupancy.rooms:
        build_shell(shop, room, daylight)
        furnish(Decorator(shop, room, occupancy, lamps))
    return shop, occupancy, sun


def _warmth(kelvin: float) -> tuple[float, float, float]:
    """Return the rough colour of a black body between 2500 and 9000 K, green = 1."""
    shift = math.log(kelvin / 6000.0)
    return math.exp(-0.55 * shift), 1.0, math.exp(0.95 * shift if shift < 0 else 0.5 * shift)


def _draw_light(rng: np.random.Generator) -> tuple[Daylight, Sun | None, LampPlan]:
    """Draw the time of day: bright, overcast, dusk with lamps, or night."""
    hour = str(rng.choice(('sunny', 'overcast', 'dim', 'night'), p=(0.34, 0.28, 0.18, 0.2)))
    sky = {'sunny': 6.0, 'overcast': 5.0, 'dim': 1.2, 'night': 0.02}[hour] * rng.uniform(0.6, 1.4)
    tint = _warmth(rng.uniform(5500, 8500))
    daylight = Daylight((sky * tint[0], sky * tint[1], sky * tint[2]))
    sun = None
    if hour == 'sunny':
        rise, turn = rng.uniform(0.35, 0.95), rng.uniform(0, 2 * math.pi)
        direction = (
            math.cos(rise) * math.cos(turn), math.cos(rise) * math.sin(turn), math.sin(rise)
        )
        warm, strength = _warmth(rng.uniform(4200, 5800)), rng.uniform(25, 60)
        sun = Sun(direction, (strength * warm[0], strength * warm[1], strength * warm[2]))
    lit = hour in ('dim', 'night') or bool(rng.random() < 0.35)
    warm, strength = _warmth(rng.uniform(2600, 5200)), rng.uniform(5, 12)
    power = (strength * warm[0], strength * warm[1], strength * warm[2])
    return daylight, sun, LampPlan(lit, power)
