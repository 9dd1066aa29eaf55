# SPDX-License-Identifier: Apache-2.0
"""The shell of a room: floor, ceiling, walls with their openings, windows and doors."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_perception.simulation import prints, textures
from mtl_perception.simulation.lighting import AreaLight
from mtl_perception.simulation.patterns import colour, random_colour, wood_colour
from mtl_perception.simulation.plan import Opening, PARTITION, Room, Wall
from mtl_perception.simulation.shapes import box, rectangle
from mtl_perception.simulation.workshop import Workshop

_REVEAL = 0.22  # depth of a window's niche


@dataclass(frozen=True)
class Daylight:
    """What comes through the windows: radiance of the sky (RGB), near zero at night."""

    radiance: tuple[float, float, float]


def _floor_material(shop: Workshop, kind: str) -> int:
    rng = shop.rng
    choices = {
        'kitchen': ('tiles', 'tiles', 'planks', 'stone', 'linoleum', 'carpet'),
        'bedroom': ('planks', 'carpet', 'planks', 'planks'),
        'office': ('carpet', 'carpet', 'linoleum', 'planks'),
        'storage': ('linoleum', 'linoleum', 'tiles', 'planks'),
    }.get(kind, ('planks', 'planks', 'planks', 'tiles', 'carpet', 'linoleum'))
    choice = choices[int(rng.integers(len(choices)))]
    # Floors are grey, beige or earthen; now and then one has a colour.
    hue = rng.uniform(0.02, 0.14) if rng.random() < 0.7 else rng.random()
    vivid = 0.6 if rng.random() < 0.12 else 0.22
    pale = colour(hue, rng.uniform(0.0, vivid), rng.uniform(0.25, 0.85))
    gloss = float(rng.choice((0.0, 0.02, 0.04)))
    if choice == 'planks':
        scale = float(rng.uniform(0.8, 1.5))
        return shop.surface(
            textures.planks, wood_colour(rng), scale=scale, gloss=gloss, size=512
        )
    if choice == 'tiles':
        scale = float(rng.uniform(0.8, 2.2))
        return shop.surface(textures.tiles, pale, scale=scale, gloss=gloss + 0.02, size=512)
    if choice == 'carpet':
        shade = colour(rng.random(), rng.uniform(0.02, 0.4), rng.uniform(0.2, 0.75))
        return shop.surface(textures.carpet, shade, scale=rng.uniform(0.9, 1.6), size=512)
    if choice == 'stone':
        return shop.surface(textures.stone, pale, scale=1.6, gloss=0.05, size=512)
    return shop.surface(textures.linoleum, pale, scale=1.5, gloss=gloss, size=512)


def _wall_material(shop: Workshop, *, feature: bool = False) -> int:
    """Draw paint, wallpaper, brick, boards or plaster; a feature wall is bolder."""
    rng = shop.rng
    choice = rng.random() * (0.3 if feature else 1.0) + (0.7 if feature else 0.0)
    if choice < 0.78:
        kind = rng.random()
        if kind < 0.62:
            hue = rng.uniform(0.06, 0.17) if rng.random() < 0.7 else rng.random()
            shade = colour(hue, rng.uniform(0.0, 0.12), rng.uniform(0.72, 0.96))
        elif kind < 0.88:
            shade = random_colour(rng, (0.08, 0.28), (0.6, 0.9))
        else:
            shade = random_colour(rng, (0.25, 0.6), (0.3, 0.8))
        pattern = textures.plaster if rng.random() < 0.15 else textures.paint
        return shop.surface(pattern, shade, scale=1.5, size=256)
    if choice < 0.9:
        base = random_colour(rng, (0.03, 0.3), (0.5, 0.92))
        scale = float(rng.uniform(0.4, 1.2))
        return shop.surface(textures.wallpaper, base, scale=scale, size=256)
    if choice < 0.95:
        base = colour(rng.uniform(0.0, 0.06), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.85))
        return shop.surface(textures.brick, base, scale=1.0, size=512)
    if choice < 0.98:
        return shop.surface(textures.planks, wood_colour(rng), scale=1.2, size=512)
    base = random_colour(rng, (0.0, 0.3), (0.5, 0.95))
    return shop.surface(textures.tiles, base, scale=0.9, gloss=0.03, size=512)


def _wall_face(shop: Workshop, wall: Wall, height: float, material: int) -> None:
    """Add the wall's face in strips around its openings, in the wall's own frame."""

    def strip(start: float, end: float, bottom: float, top: float) -> None:
        if end - start > 1e-3 and top - bottom > 1e-3:
            points = [
                [(end, 0.0, top), (start, 0.0, top)],
                [(end, 0.0, bottom), (start, 0.0, bottom)],
            ]
            # One texture runs through all strips.
            texture = [[(-x, height - z) for x, _, z in row] for row in points]
            shop.builder.grid(points, material, texture)

    place = 0.0
    for hole in sorted(wall.openings, key=lambda opening: opening.start):
        strip(place, hole.start, 0.0, height)
        strip(hole.start, hole.end, 0.0, hole.bottom)
        strip(hole.start, hole.end, hole.top, height)
        place = hole.end
    strip(place, wall.length, 0.0, height)


def _reveal(shop: Workshop, hole: Opening, depth: float, material: int) -> None:
    """Line the inside of an opening: jambs, head, and the sill of one above the floor."""
    width, tall = hole.end - hole.start, hole.top - hole.bottom
    add = shop.builder
    rectangle(add, (hole.start, -depth, hole.top), (0, depth, 0), (0, 0, -tall), material)
    rectangle(add, (hole.end, 0.0, hole.top), (0, -depth, 0), (0, 0, -tall), material)
    rectangle(add, (hole.start, -depth, hole.top), (width, 0, 0), (0, depth, 0), material)
    if hole.bottom > 0.0:
        rectangle(add, (hole.start, 0.0, hole.bottom), (width, 0, 0), (0, -depth, 0), material)


def _threshold(shop: Workshop, hole: Opening, depth: float, floor: int) -> None:
    """Carry the floor on through an opening."""
    shop.builder.begin('floor')
    width = hole.end - hole.start
    rectangle(shop.builder, (hole.start, 0.0, 0.0), (width, 0, 0), (0, -depth, 0), floor)


def _frame(
    shop: Workshop, hole: Opening, low: float, high: float, thick: float, material: int
) -> None:
    """Add a frame of square bars inside an opening between depths low and high."""
    add, (x0, x1, z0, z1) = shop.builder, (hole.start, hole.end, hole.bottom, hole.top)
    box(add, (x0, low, z0), (x0 + thick, high, z1), material, sides='lrfb', grain='z')
    box(add, (x1 - thick, low, z0), (x1, high, z1), material, sides='lrfb', grain='z')
    box(add, (x0 + thick, low, z1 - thick), (x1 - thick, high, z1), material, sides='fbtd')
    if z0 > 0:
        box(add, (x0 + thick, low, z0), (x1 - thick, high, z0 + thick), material, sides='fbtd')


def _window(shop: Workshop, wall: Wall, hole: Opening, daylight: Daylight, frame: int) -> None:
    """Add pane, frame, bars and sill, and the light that falls through."""
    rng, add = shop.rng, shop.builder
    width, tall = hole.end - hole.start, hole.top - hole.bottom
    add.begin('window')
    view = shop.picture(
        prints.outside, size=256, tint=daylight.radiance, emission=1.0, gloss=0.04
    )
    deep = -_REVEAL * 0.75
    rectangle(add, (hole.end, deep, hole.top), (-width, 0, 0), (0, 0, -tall), view, fit=True)
    thick = float(rng.uniform(0.045, 0.08))
    _frame(shop, hole, deep, deep + 0.06, thick, frame)
    for bar in range(1, int(rng.integers(1, 1 + max(2, round(width / 0.6))))):
        x = hole.start + width * bar / max(1, round(width / 0.6))
        box(add, (x - 0.03, deep, hole.bottom), (x + 0.03, deep + 0.05, hole.top), frame,
            sides='lrf', grain='z')
    if rng.random() < 0.35:
        z = hole.bottom + tall * float(rng.choice((0.5, 0.72)))
        box(add, (hole.start, deep, z - 0.025), (hole.end, deep + 0.045, z + 0.025), frame,
            sides='ftd')
    if hole.bottom > 0.5:
        box(add, (hole.start - 0.04, 0.0, hole.bottom - 0.03),
            (hole.end + 0.04, rng.uniform(0.02, 0.14), hole.bottom), frame, sides='lrftd')
    # The light leaves from the wall's face, so that the frame does not throw sample shadows.
    columns, rows = max(2, round(width / 0.4)), 3
    points = tuple(
        (*(float(v) for v in wall.point(hole.start + width * (i + 0.5) / columns, -0.02)),
         hole.bottom + tall * (j + 0.5) / rows)
        for i in range(columns) for j in range(rows)
    )
    share = 0.75 * width * tall / len(points)
    power = tuple(float(value) * share for value in daylight.radiance)
    x, y = (float(value) for value in wall.inward)
    shop.lights.append(AreaLight(points, (power[0], power[1], power[2]), (x, y, 0.0)))


def _door(shop: Workshop, hole: Opening, leaf: int, frame: int) -> None:
    """Add a closed door: casing, leaf with panels, handle."""
    rng, add = shop.rng, shop.builder
    add.begin('door')
    width = hole.end - hole.start
    box(add, (hole.start, -0.1, 0.004), (hole.end, -0.03, hole.top), leaf, sides='f', grain='z')
    style = int(rng.integers(4))
    rows, columns = ((0, 0), (2, 1), (3, 2), (1, 1))[style]
    for row in range(rows):
        for column in range(columns):
            x0 = hole.start + 0.1 + (width - 0.12) * column / columns
            x1 = hole.start + 0.02 + (width - 0.12) * (column + 1) / columns
            z0 = 0.15 + (hole.top - 0.25) * row / rows
            z1 = 0.05 + (hole.top - 0.25) * (row + 1) / rows
            box(add, (x0, -0.03, z0), (x1, -0.018, z1), leaf, sides='lrftd', grain='z')
    side = hole.start + 0.07 if rng.random() < 0.5 else hole.end - 0.07
    turn = 0.11 if side < hole.start + 0.5 else -0.11
    box(add, (side - 0.02, -0.03, 0.95), (side + 0.02, -0.02, 1.13), shop.chrome, sides='lrftd')
    x0, x1 = sorted((side, side + turn))
    box(add, (x0, 0.005, 1.035), (x1, 0.025, 1.055), shop.chrome)
    box(add, (side - 0.01, -0.02, 1.035), (side + 0.01, 0.01, 1.055), shop.chrome)
    _reveal(shop, hole, 0.1, frame)
    casing(shop, hole, frame)


def casing(shop: Workshop, hole: Opening, material: int) -> None:
    """Add the trim around a door on the wall's face."""
    add = shop.builder
    x0, x1, z1, wide = hole.start, hole.end, hole.top, 0.075
    box(add, (x0 - wide, 0, 0), (x0, 0.016, z1), material, sides='lrf', grain='z')
    box(add, (x1, 0, 0), (x1 + wide, 0.016, z1), material, sides='lrf', grain='z')
    box(add, (x0 - wide, 0, z1), (x1 + wide, 0.016, z1 + wide), material, sides='lrftd')


def _skirting(shop: Workshop, wall: Wall, material: int, tall: float) -> None:
    place = 0.0
    holes = [hole for hole in wall.openings if hole.bottom == 0.0]
    for start, end in [
        *((hole.start - 0.075, hole.end + 0.075) for hole in sorted(
            holes, key=lambda opening: opening.start)),
        (wall.length, wall.length),
    ]:
        if start - place > 0.02:
            box(shop.builder, (place, 0, 0), (start, 0.012, tall), material, sides='lrft')
        place = end


def _slab(shop: Workshop, room: Room, z: float, material: int, up: bool) -> None:
    """Add a floor or ceiling over the room's rectangle or L."""
    parts = [(room.low, room.high)]
    if room.notch is not None:
        nx, ny = room.notch
        parts = [(room.low, (room.high[0], ny)), ((room.low[0], ny), (nx, room.high[1]))]
    for (x0, y0), (x1, y1) in parts:
        rows = ((y1, y0) if up else (y0, y1))
        points = [[(x0, y, z), (x1, y, z)] for y in rows]
        texture = [[(x, y) for x, y, _ in row] for row in points]
        shop.builder.grid(points, material, texture)


def build_shell(shop: Workshop, room: Room, daylight: Daylight) -> None:
    """Add the room's shell to the world, with daylight at its windows."""
    rng, add = shop.rng, shop.builder
    floor = _floor_material(shop, room.kind)
    walls = _wall_material(shop)
    feature = _wall_material(shop, feature=True) if rng.random() < 0.3 else walls
    trim = shop.white if rng.random() < 0.7 else shop.wood()
    leaf = shop.white if rng.random() < 0.5 else shop.wood()
    add.begin('floor')
    _slab(shop, room, 0.0, floor, up=True)
    add.begin('ceiling')
    tone = colour(rng.uniform(0.05, 0.15), rng.uniform(0, 0.08), rng.uniform(0.8, 0.97))
    if rng.random() < (0.6 if room.kind in ('office', 'storage') else 0.12):
        ceiling = shop.surface(textures.ceiling_panels, tone, scale=1.2, size=256)
    else:
        pattern = textures.plaster if rng.random() < 0.25 else textures.paint
        ceiling = shop.surface(pattern, tone, scale=1.2, size=256)
    _slab(shop, room, room.height, ceiling, up=False)
    skirting = float(rng.uniform(0.05, 0.12)) if rng.random() < 0.8 else 0.0
    for index, wall in enumerate(room.walls):
        with add.at(*wall.a, 0.0, wall.yaw):
            add.begin('wall')
            face = feature if index == 0 else walls
            _wall_face(shop, wall, room.height, face)
            if skirting:
                _skirting(shop, wall, trim, skirting)
            for hole in wall.openings:
                if hole.kind == 'window':
                    add.begin('wall')
                    _reveal(shop, hole, _REVEAL, face)
                    _window(shop, wall, hole, daylight, trim)
                elif hole.kind == 'door':
                    _threshold(shop, hole, 0.1, floor)
                    _door(shop, hole, leaf, trim)
                else:
                    add.begin('door')
                    casing(shop, hole, trim)
                    _reveal(shop, hole, PARTITION / 2, trim)
                    _threshold(shop, hole, PARTITION / 2, floor)
