# SPDX-License-Identifier: Apache-2.0
"""
Seats and beds.

Every piece stands on z = 0 of its placement, back at y = 0, front towards +y,
centred in x, and returns its size (width, depth, height) in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtl_perception.simulation.shapes import box, cushion, cylinder, rod
from mtl_perception.simulation.workshop import Workshop

Size = tuple[float, float, float]


def legs(
    shop: Workshop, low: tuple[float, float], high: tuple[float, float], height: float,
    thick: float, material: int, *, round_legs: bool = False, splay: float = 0.0,
) -> None:
    """Add four legs under the rectangle low..high (x, y)."""
    for x in (low[0] + thick / 2, high[0] - thick / 2):
        for y in (low[1] + thick / 2, high[1] - thick / 2):
            if splay:
                dx = splay if x > 0 else -splay
                dy = splay if y > (low[1] + high[1]) / 2 else -splay
                rod(shop.builder, (x, y, height), (x + dx, y + dy, 0.0), thick / 2, material, 8)
            elif round_legs:
                cylinder(shop.builder, (x, y, 0), thick / 2, height, material, segments=8)
            else:
                half = thick / 2
                box(shop.builder, (x - half, y - half, 0), (x + half, y + half, height),
                    material, sides='lrfb', grain='z')


@dataclass(frozen=True)
class ChairDesign:
    """What the chairs around one table share; lengths in metres."""

    width: float
    depth: float
    seat: float
    height: float
    thick: float
    splay: float
    frame: int
    cover: int
    back: int  # 0 upholstered, 1 rungs, 2 bars, 3 panel


def draw_chair(shop: Workshop) -> ChairDesign:
    """Draw a dining chair: wooden, upholstered, or a shell on tubes."""
    rng = shop.rng
    frame = shop.wood() if rng.random() < 0.6 else shop.metal()
    return ChairDesign(
        width=rng.uniform(0.4, 0.5), depth=rng.uniform(0.42, 0.52),
        seat=rng.uniform(0.43, 0.48), height=rng.uniform(0.78, 0.98),
        thick=rng.uniform(0.03, 0.045),
        splay=rng.uniform(0.02, 0.05) if rng.random() < 0.35 else 0.0,
        frame=frame, cover=shop.cloth() if rng.random() < 0.5 else frame,
        back=int(rng.integers(4)),
    )


def chair(shop: Workshop, design: ChairDesign) -> Size:
    """Add a dining chair."""
    add, frame, cover = shop.builder, design.frame, design.cover
    add.begin('chair')
    seat, height, thick = design.seat, design.height, design.thick
    half = design.width / 2
    legs(shop, (-half, 0.02), (half, design.depth), seat - 0.02, thick, frame,
         splay=design.splay)
    if cover == frame:
        box(add, (-half, 0.0, seat - 0.03), (half, design.depth, seat), frame)
    else:
        cushion(add, (-half, 0.0, seat - 0.05), (half, design.depth, seat + 0.03), 0.03, cover,
                puff=0.015, steps=3)
    if design.back == 0:
        cushion(add, (-half, -0.02, seat + 0.12), (half, 0.045, height), 0.03, cover, steps=3)
        for x in (-half + 0.05, half - 0.05):
            box(add, (x - 0.015, -0.01, seat - 0.03), (x + 0.015, 0.02, seat + 0.15), frame)
        return design.width + 0.02, design.depth + 0.04, height
    for x in (-half + thick / 2, half - thick / 2):
        box(add, (x - thick / 2, -0.02, seat - 0.02), (x + thick / 2, 0.02, height), frame,
            grain='z')
    if design.back == 1:
        for level in range(3):
            z = seat + (height - seat) * (level + 1.2) / 4
            box(add, (-half, -0.015, z), (half, 0.01, z + 0.06), frame)
    elif design.back == 2:
        for bar in range(1, 5):
            x = -half + design.width * bar / 5
            box(add, (x - 0.012, -0.012, seat), (x + 0.012, 0.012, height - 0.02), frame,
                grain='z')
        box(add, (-half, -0.02, height - 0.07), (half, 0.02, height), frame)
    else:
        box(add, (-half + thick, -0.012, seat + 0.1), (half - thick, 0.012, height), cover)
    return design.width + 0.02, design.depth + 0.04, height


def stool(shop: Workshop) -> Size:
    """Add a round stool, low or bar height."""
    rng, add = shop.rng, shop.builder
    add.begin('chair')
    height, radius = float(rng.choice((0.45, 0.65, 0.74))), rng.uniform(0.15, 0.2)
    frame = shop.wood() if rng.random() < 0.5 else shop.metal()
    top = shop.cloth() if rng.random() < 0.4 else frame
    reach = radius * 0.7
    with add.at(0, radius):
        legs(shop, (-reach, -reach), (reach, reach), height - 0.03, 0.03, frame, splay=0.03)
        cylinder(add, (0, 0, height - 0.04), radius, 0.04, top, segments=20)
    return 2 * radius, 2 * radius, height


def office_chair(shop: Workshop) -> Size:
    """Add a swivel chair."""
    rng, add = shop.rng, shop.builder
    add.begin('chair')
    cover = shop.cloth() if rng.random() < 0.6 else shop.black
    with add.at(0, 0.3):
        for spoke in range(5):
            with add.at(0, 0, 0, spoke * 1.2566):
                box(add, (0, -0.02, 0.05), (0.28, 0.02, 0.09), shop.black)
                cylinder(add, (0.27, 0, 0), 0.025, 0.05, shop.black, segments=8)
        cylinder(add, (0, 0, 0.09), 0.03, 0.34, shop.chrome, segments=10)
        cushion(add, (-0.24, -0.24, 0.43), (0.24, 0.26, 0.52), 0.04, cover, puff=0.01, steps=3)
        high = rng.uniform(0.9, 1.2)
        cushion(add, (-0.22, -0.3, 0.58), (0.22, -0.22, high), 0.035, cover, steps=3)
        box(add, (-0.03, -0.27, 0.45), (0.03, -0.24, 0.62), shop.black)
        if rng.random() < 0.6:
            for x in (-0.29, 0.25):
                box(add, (x, -0.15, 0.66), (x + 0.04, 0.12, 0.69), shop.black)
                box(add, (x, -0.03, 0.46), (x + 0.04, 0.01, 0.66), shop.black)
    return 0.6, 0.6, high


def sofa(shop: Workshop, width: float | None = None) -> Size:
    """Add a sofa or armchair of the given width with loose cushions."""
    rng, add = shop.rng, shop.builder
    add.begin('sofa')
    width = float(rng.uniform(1.4, 2.5)) if width is None else width
    depth, seat = rng.uniform(0.8, 0.98), rng.uniform(0.38, 0.45)
    height, arm = rng.uniform(0.72, 0.95), rng.uniform(0.1, 0.24)
    arm_height = seat + rng.uniform(0.08, 0.25)
    cover = shop.cloth()
    half, foot = width / 2, rng.uniform(0.05, 0.14)
    back = rng.uniform(0.16, 0.25)
    legs(shop, (-half + 0.04, 0.04), (half - 0.04, depth - 0.04), foot, 0.05, shop.wood(),
         round_legs=True)
    cushion(add, (-half, 0.0, foot), (half, back, height), 0.06, cover)
    box(add, (-half + 0.02, 0.05, foot), (half - 0.02, depth - 0.03, seat - 0.12), cover)
    for x in (-half, half - arm):
        cushion(add, (x, 0.02, foot), (x + arm, depth, arm_height), 0.05, cover)
    count = max(1, round((width - 2 * arm) / rng.uniform(0.55, 0.95)))
    each = (width - 2 * arm) / count
    for index in range(count):
        x = -half + arm + each * index
        cushion(add, (x, back - 0.04, seat - 0.14), (x + each, depth - 0.01, seat), 0.045,
                cover, puff=0.02)
        with add.at(0, back + 0.02, seat - 0.02, 0, 0.16):
            cushion(add, (x, -0.03, 0), (x + each, 0.13, height - seat - 0.02), 0.05, cover)
    for _ in range(int(rng.integers(0, 4))):
        pillow = shop.cloth()
        x = rng.uniform(-half + arm + 0.2, half - arm - 0.2) if width > 1.2 else 0.0
        with add.at(x, back + 0.2, seat, rng.uniform(-0.3, 0.3), 0.35):
            cushion(add, (-0.2, -0.05, 0.0), (0.2, 0.07, 0.38), 0.05, pillow)
    return width, depth, height


def bed(shop: Workshop, width: float) -> Size:
    """Add a bed, its mattress `width` wide, head at the wall: frame, blanket, pillows."""
    rng, add = shop.rng, shop.builder
    add.begin('bed')
    length, deck = rng.uniform(1.95, 2.1), rng.uniform(0.25, 0.38)
    frame = shop.wood() if rng.random() < 0.6 else shop.cloth()
    sheet, blanket = shop.cloth(), shop.cloth()
    half, head = width / 2 + 0.03, rng.uniform(0.7, 1.25)
    if rng.random() < 0.4:
        cushion(add, (-half, 0, 0.05), (half, 0.1, head), 0.03, frame)
    else:
        box(add, (-half, 0, 0), (half, 0.05, head), frame)
    legs(shop, (-half, 0.06), (half, length + 0.08), deck - 0.15, 0.07, frame)
    box(add, (-half, 0.05, deck - 0.16), (half, length + 0.08, deck), frame)
    top = deck + rng.uniform(0.14, 0.22)
    cushion(add, (-width / 2, 0.06, deck), (width / 2, length + 0.05, top), 0.05, sheet)
    start = rng.uniform(0.45, 0.9)
    low = deck - rng.uniform(-0.08, 0.15)
    cushion(add, (-half - 0.02, start, low), (half + 0.02, length + 0.1, top + 0.05), 0.045,
            blanket, puff=0.02)
    count = 1 if width < 1.3 else 2
    for index in range(count):
        x = -width / 2 + width * (index + 0.5) / count
        pillow = sheet if rng.random() < 0.6 else shop.cloth()
        with add.at(x, 0.13, top - 0.02, rng.uniform(-0.08, 0.08), 0.2):
            cushion(add, (-0.32, 0.0, 0.0), (0.32, 0.42, 0.13), 0.055, pillow, puff=0.02)
    return 2 * half + 0.04, length + 0.1, max(head, top + 0.2)
