# SPDX-License-Identifier: Apache-2.0
"""Baked light against closed-form irradiance, shadows and an energy balance."""

from __future__ import annotations

from dataclasses import replace

from mtl_perception.simulation.atlas import TextureAtlas
from mtl_perception.simulation.lighting import AreaLight, Sun
from mtl_perception.simulation.mesh import Material, MeshBuilder
from mtl_perception.simulation.shapes import box, rectangle
from mtl_perception.simulation.world import RoomsWorld
import numpy as np
import pytest

BLACK, GREY = 0.0, 0.5  # sRGB; grey is 0.2176 linear


def lit_floor(
    lights: list[AreaLight], shade: float, sun: Sun | None = None, roof: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the floor texels' positions, the light they send on, and what the roof does."""
    builder = MeshBuilder({'floor': 1, 'box': 17}, texel=0.25)
    material = builder.material(Material(0))
    builder.begin('floor')
    rectangle(builder, (-2, 2, 0), (4, 0, 0), (0, -4, 0), material)
    floor = 17 * 17
    if roof:
        builder.begin('box')
        rectangle(builder, (-2, -2, 1), (2, 0, 0), (0, 4, 0), material)
    atlas = TextureAtlas.pack([np.full((8, 8, 3), shade, np.float32)])
    world = RoomsWorld.assemble(builder.finish(), atlas, lights, sun, np.random.default_rng(1))
    mesh = world.mesh
    light = world.light_map.reshape(-1, 3)[mesh.texel_pixels]
    return mesh.texel_points[:floor].astype(np.float64), light[:floor], light[floor:]


def test_a_point_light_falls_off_by_the_law():
    """Irradiance I cos / r^2; a white surface sends on 1 / pi of it, colour by colour."""
    points, light, _ = lit_floor([AreaLight(((0.3, -0.2, 1.5),), (2.0, 1.0, 0.5))], BLACK)
    towards = np.array((0.3, -0.2, 1.5)) - points
    distance = np.linalg.norm(towards, axis=1)
    expected = 2.0 * towards[:, 2] / distance**3 / np.pi
    np.testing.assert_allclose(light[:, 0], expected, rtol=0.01)
    np.testing.assert_allclose(light[:, 1:], light[:, :1] * [0.5, 0.25], rtol=1e-5)


def test_a_panel_lights_as_its_form_factor():
    """A parallel square panel: the textbook integral, done here on a fine grid."""
    side = (np.arange(10) + 0.5) / 10 - 0.5
    spots = tuple((float(x), float(y), 1.0) for x in side for y in side)
    panel = AreaLight(spots, (0.01, 0.01, 0.01), (0.0, 0.0, -1.0))
    points, light, _ = lit_floor([panel], BLACK)
    fine = (np.arange(60) + 0.5) / 60 - 0.5
    x, y = np.meshgrid(fine, fine)
    for point, found in zip(points[::37], light[::37, 0]):
        squared = (x - point[0]) ** 2 + (y - point[1]) ** 2 + 1.0
        # Radiance 1 over 1 m^2: cos cos / r^2 = 1 / r^4, a share of 1 / pi is sent on.
        expected = (1.0 / squared**2).mean() / np.pi
        assert found == pytest.approx(expected, rel=0.02)


def test_a_one_sided_light_leaves_its_back_dark():
    """Nothing below a panel that faces up."""
    _, light, _ = lit_floor([AreaLight(((0, 0, 1),), (1, 1, 1), (0.0, 0.0, 1.0))], BLACK)
    assert light.max() == 0


def test_a_roof_throws_a_shadow():
    """Below the roof (x < 0) it is dark, far beyond it as without one."""
    lamp = [AreaLight(((-1.0, 0.0, 2.0),), (1, 1, 1))]
    points, light, _ = lit_floor(lamp, BLACK, roof=True)
    _, open_light, _ = lit_floor(lamp, BLACK)
    # The edge at x = 0, z = 1 throws its shadow from z = 2, x = -1 to x = 1.
    assert light[points[:, 0] < 0.9].max() == 0
    beyond = points[:, 0] > 1.1
    np.testing.assert_allclose(light[beyond], open_light[beyond], rtol=1e-4)


def test_surfaces_light_each_other():
    """A closed box: the light sent on in all, direct and reflected, balances."""
    builder = MeshBuilder({'wall': 0}, texel=0.12)
    material = builder.material(Material(0))
    builder.begin('wall')
    box(builder, (0, 0, 0), (2, 2, 2), material)
    atlas = TextureAtlas.pack([np.full((8, 8, 3), GREY, np.float32)])
    mesh = builder.finish()
    lamp = AreaLight(((1.0, 1.0, 1.0),), (1.0, 1.0, 1.0))
    # Seen from inside the box is seen from behind: turn the texels' normals.
    mesh = replace(mesh, texel_normals=-mesh.texel_normals)
    world = RoomsWorld.assemble(mesh, atlas, [lamp], None, np.random.default_rng(2))
    light = world.light_map.reshape(-1, 3)[mesh.texel_pixels][:, 0]
    albedo = (round(GREY * 255) / 255) ** 2.2
    # Power 4 pi over 24 m^2, of which every bounce keeps the albedo: E = P / A / (1 - albedo).
    expected = 4 * np.pi / 24 / np.pi / (1 - albedo)
    # Rims are sampled twice, so the mean over texels leans towards the darker corners.
    assert light.mean() == pytest.approx(expected, rel=0.06)


def test_the_sun_is_left_to_the_frame():
    """Direct sunlight is not baked, but what the floor throws back at a roof is."""
    sun = Sun((0.0, 0.0, 1.0), (10.0, 10.0, 10.0))
    _, floor, roof = lit_floor([], GREY, sun, roof=True)
    albedo = (round(GREY * 255) / 255) ** 2.2
    assert floor.max() < 0.1
    # Beside the edge of the roof half of what it sees is sunlit floor, deep under it less.
    assert 0.2 * albedo * 10 / np.pi < roof.max() < albedo * 10 / np.pi
    assert roof.min() < 0.3 * roof.max()
