# SPDX-License-Identifier: Apache-2.0
"""Shapes against the areas and volumes of geometry books."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.simulation import shapes
from mtl_perception.simulation.mesh import Material, Mesh, MeshBuilder
import numpy as np
import pytest


def build(add: Callable[[MeshBuilder, int], None]) -> Mesh:
    """Return the mesh of one object."""
    builder = MeshBuilder({'box': 17}, texel=0.2)
    material = builder.material(Material(0))
    builder.begin('box')
    with builder.at(3.0, -2.0, 1.0, 0.7, 0.2):
        add(builder, material)
    return builder.finish()


def area_and_volume(mesh: Mesh) -> tuple[float, float]:
    """Return the surface, and the volume by the divergence theorem (outward normals)."""
    a, b, c = mesh.vertices.astype(np.float64).transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1).sum() / 2
    # Use the stored normals: they, too, have to point outward.
    volume = ((a + b + c) / 3 * mesh.normals * np.linalg.norm(cross, axis=1)[:, None]).sum() / 6
    return area, volume


def regular(sides: int) -> float:
    """Return the area of a regular polygon with circumradius 1."""
    return sides / 2 * np.sin(2 * np.pi / sides)


CASES = {
    'box': (
        lambda b, m: shapes.box(b, (-1, -0.5, 0), (1, 0.5, 0.3), m),
        2 * (2 * 1 + 2 * 0.3 + 1 * 0.3), 2 * 1 * 0.3),
    'cylinder': (
        lambda b, m: shapes.cylinder(b, (0, 0, 0), 0.4, 0.9, m, segments=24),
        2 * regular(24) * 0.16 + 24 * 2 * 0.4 * np.sin(np.pi / 24) * 0.9,
        regular(24) * 0.16 * 0.9),
    'frustum': (
        lambda b, m: shapes.cylinder(b, (0, 0, 0), 0.4, 0.9, m, segments=24, top_radius=0.2),
        None, regular(24) * 0.9 / 3 * (0.16 + 0.08 + 0.04)),
    'cone': (
        lambda b, m: shapes.turned(b, (1, 0, 0), [(0, 0.6), (0.5, 0), (0, 0)], m, segments=40),
        None, regular(40) * 0.25 * 0.6 / 3),
    'ball': (
        lambda b, m: shapes.turned(
            b, (0, 0, 0), [(np.sin(t), np.cos(t)) for t in np.linspace(0, np.pi, 60)], m,
            segments=60, smooth=True),
        4 * np.pi, 4 / 3 * np.pi),
    'prism': (
        lambda b, m: shapes.prism(
            b, [(np.cos(t), np.sin(t)) for t in np.arange(6) * np.pi / 3], 0.2, 0.7, m),
        2 * regular(6) + 6 * 1 * 0.5, regular(6) * 0.5),
    # Steiner's formula for a box with rounded edges: inner box, slabs, quarter rods, ball.
    'cushion': (
        lambda b, m: shapes.cushion(b, (-1, -0.5, 0), (1, 0.5, 0.4), 0.1, m, steps=12),
        2 * (1.8 * 0.8 + 1.8 * 0.2 + 0.8 * 0.2) + 4 * (np.pi / 2) * 0.1 * (1.8 + 0.8 + 0.2)
        + 4 * np.pi * 0.01,
        1.8 * 0.8 * 0.2 + 2 * 0.1 * (1.8 * 0.8 + 1.8 * 0.2 + 0.8 * 0.2)
        + np.pi * 0.01 * (1.8 + 0.8 + 0.2) + 4 / 3 * np.pi * 0.001),
}


@pytest.mark.parametrize('name', CASES)
def test_area_and_volume(name):
    """Closed, outward, and as large as the formula says (curved ones within 1 %)."""
    add, area, volume = CASES[name]
    found_area, found_volume = area_and_volume(build(add))
    tolerance = 0.01 if name in ('ball', 'cushion') else 1e-5
    assert found_volume == pytest.approx(volume, rel=tolerance)
    if area is not None:
        assert found_area == pytest.approx(area, rel=tolerance)


def test_a_rod_runs_between_its_ends():
    """All vertices lie at the radius from the axis, normals away from it."""
    start, end = np.array([0.1, 0.2, 0.3]), np.array([0.5, -0.4, 1.0])
    builder = MeshBuilder({'box': 17})
    builder.begin('box')
    shapes.rod(builder, start, end, 0.05, builder.material(Material(0)), 8)
    mesh = builder.finish()
    axis = (end - start) / np.linalg.norm(end - start)
    offset = mesh.vertices - start
    along = offset @ axis
    away = offset - along[..., None] * axis
    np.testing.assert_allclose(np.linalg.norm(away, axis=-1), 0.05, atol=1e-6)
    assert along.min() == pytest.approx(0, abs=1e-6)
    assert along.max() == pytest.approx(np.linalg.norm(end - start), abs=1e-6)
    assert (np.einsum('ik,ik->i', away.mean(axis=1), mesh.normals) > 0).all()


def test_a_box_shows_textures_upright():
    """Seen from the front, u grows to the right and v downward, on all upright sides."""
    builder = MeshBuilder({'box': 17})
    builder.begin('box')
    shapes.box(builder, (0, 0, 0), (1, 2, 3), builder.material(Material(0)), sides='lrfb')
    mesh = builder.finish()
    for vertices, normal, (_, du, dv) in zip(mesh.vertices, mesh.normals, mesh.coordinates):
        edges = np.stack((vertices[1] - vertices[0], vertices[2] - vertices[0]))
        # The gradient of u and v in space: edges @ gradient = difference of the coordinate.
        system = np.vstack((edges, normal))
        u = np.linalg.solve(system, (du[0], dv[0], 0))
        v = np.linalg.solve(system, (du[1], dv[1], 0))
        np.testing.assert_allclose(v, (0, 0, -1), atol=1e-6)
        # Right of a viewer who looks against the normal, z up: (-normal) x z.
        np.testing.assert_allclose(u, np.cross(-normal, (0, 0, 1)), atol=1e-6)


def test_placements_nest():
    """Inner placements move with outer ones, and end with their block."""
    builder = MeshBuilder({'box': 17})
    with builder.at(1, 2, 3, np.pi / 2):
        with builder.at(1, 0, 0):
            assert np.allclose(builder.world_point((0, 0, 0)), (1, 3, 3))
        assert np.allclose(builder.world_point((0, 1, 0)), (0, 2, 3))
    assert np.allclose(builder.world_point((0, 1, 0)), (0, 1, 0))


def test_light_map_texels_lie_on_their_triangles():
    """Each texel's position equals the surface point with that light map coordinate."""
    builder = MeshBuilder({'box': 17}, texel=0.1)
    builder.begin('box')
    shapes.rectangle(builder, (0, 0, 0), (1.0, 0, 0), (0, -0.6, 0), builder.material(Material(0)))
    mesh = builder.finish()
    width = mesh.light_map_shape[1]
    x, y = mesh.texel_pixels % width, mesh.texel_pixels // width
    a, du, dv = mesh.coordinates[0, :, 2:]
    solved = np.linalg.solve(np.stack((du, dv), 1), np.stack((x - a[0], y - a[1])))
    v0, v1, v2 = mesh.vertices[0]
    points = v0 + solved[0][:, None] * (v1 - v0) + solved[1][:, None] * (v2 - v0)
    # Texels are drawn in from the rim by at most 12 mm.
    assert np.linalg.norm(points - mesh.texel_points, axis=1).max() <= 0.0121
    np.testing.assert_allclose(mesh.texel_normals, np.tile((0, 0, 1), (len(x), 1)), atol=1e-6)
    assert len(np.unique(mesh.texel_pixels)) == len(mesh.texel_pixels)
