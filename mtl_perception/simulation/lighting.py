# SPDX-License-Identifier: Apache-2.0
"""
Light baked into the mesh's light map: lamps, windows, and what surfaces pass on to each other.

Radiosity of diffuse surfaces (Cohen and Wallace, "Radiosity and Realistic Image Synthesis",
1993, chapter 2) by Monte Carlo gathering: direct light by shadow rays to points on each
light, indirect light by rays over the cosine-weighted hemisphere that pick up what the
surfaces they meet send on. The gathering darkens corners and contacts by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
from mtl_perception.simulation.mesh import Floats, Mesh
from mtl_perception.simulation.tracer import Tracer
import numpy as np
import numpy.typing as npt

_GATHER_RAYS = 28
_SURFACE_GAP = np.float32(0.003)
_UP, _ACROSS = np.array([0, 0, 1], np.float32), np.array([1, 0, 0], np.float32)


@dataclass(frozen=True)
class AreaLight:
    """Points that shine: `power` is radiance times area per point; with a normal, one side."""

    points: tuple[tuple[float, ...], ...]  # x, y, z each
    power: tuple[float, float, float]
    normal: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Sun:
    """Direct sunlight: the unit vector towards the sun and its irradiance (RGB)."""

    direction: tuple[float, float, float]
    irradiance: tuple[float, float, float]


def _direct(
    points: Floats, normals: Floats, light: AreaLight, shadows: Tracer
) -> Floats:
    """Return the radiance (k, 3) of a white surface lit by one light: irradiance / pi."""
    received = np.zeros(len(points), np.float32)
    closest = np.float32(0.02)
    for sample in np.asarray(light.points, np.float32):
        towards = sample - points
        squared = np.einsum('ij,ij->i', towards, towards)
        cosine = np.einsum('ij,ij->i', towards, normals)
        form = cosine / np.maximum(squared, closest) ** np.float32(1.5)
        if light.normal is not None:
            facing = -(towards @ np.asarray(light.normal, np.float32))
            form *= facing / np.sqrt(np.maximum(squared, closest))
        lit = np.flatnonzero((cosine > 0) & (form > 1e-4))
        free = ~shadows.is_blocked(points[lit], towards[lit], 0.98)
        received[lit[free]] += form[lit[free]]
    return received[:, None] * np.asarray(light.power, np.float32) / np.float32(np.pi)


def sunlight(points: Floats, normals: Floats, sun: Sun, shadows: Tracer) -> Floats:
    """Return the radiance (k, 3) of a white surface lit by the sun alone: irradiance / pi."""
    towards = np.asarray(sun.direction, np.float32)
    cosine = normals @ towards
    lit = np.flatnonzero(cosine > 1e-3)
    rays = np.broadcast_to(towards, (len(lit), 3))
    free = lit[~shadows.is_blocked(points[lit], rays, 1e30)]
    received = np.zeros((len(points), 3), np.float32)
    received[free] = cosine[free, None] * np.asarray(sun.irradiance, np.float32) / np.pi
    return received


def _hemisphere(rng: np.random.Generator, normals: Floats, index: int) -> Floats:
    """Return one cosine-weighted direction per normal; `index` stratifies the set."""
    count = len(normals)
    ring = (index + rng.random(count, np.float32)) / np.float32(_GATHER_RAYS)
    turn = rng.random(count, np.float32) * np.float32(2 * np.pi)
    radius = np.sqrt(ring)
    # The frame around a normal without branches: any vector not parallel to it will do.
    helper = np.where(np.abs(normals[:, 2:]) < 0.9, _UP, _ACROSS)
    first = np.cross(normals, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    direction = (
        first * (radius * np.cos(turn))[:, None]
        + second * (radius * np.sin(turn))[:, None]
        + normals * np.sqrt(np.maximum(0, 1 - ring))[:, None]
    )
    return np.asarray(direction, np.float32)


def bake(
    mesh: Mesh,
    albedo: Floats,
    lights: list[AreaLight],
    sun: Sun | None,
    tracer: Tracer,
    shadows: Tracer,
    rng: np.random.Generator,
) -> Floats:
    """
    Return the light map (h, w, 3): what a white surface would send on, without direct sun.

    `albedo` (m, 3) is each material's mean colour; `shadows` lacks what shines by itself.
    Sunlight is left out because it is traced per frame with sharp shadows; what it adds by
    reflection is in.
    """
    normals = mesh.texel_normals
    points = mesh.texel_points + normals * _SURFACE_GAP
    direct = np.zeros((len(points), 3), np.float32)
    for light in lights:
        direct += _direct(points, normals, light, shadows)
    sent = direct.copy()
    if sun is not None:
        sent += sunlight(points, normals, sun, shadows)
    height, width = mesh.light_map_shape
    send_map = np.zeros((height * width, 3), np.float32)
    # A sunlit spot met by one ray in thirty would be a blotch: what it sends is capped.
    send_map[mesh.texel_pixels] = np.minimum(sent, 12 * sent.mean())
    indirect = np.zeros_like(direct)
    emission = mesh.material_table[:, 4]
    for index in range(_GATHER_RAYS):
        hits = tracer.trace(points, _hemisphere(rng, normals, index))
        met = np.flatnonzero(hits.triangles >= 0)
        triangle = hits.triangles[met].astype(np.intp)
        place = np.rint(mesh.coordinates_at(triangle, hits.u[met], hits.v[met])[:, 2:])
        pixel = (place[:, 1] * width + place[:, 0]).astype(np.intp)
        material = mesh.materials[triangle]
        colour = albedo[material] * (emission[material] == 0)[:, None]
        indirect[met] += send_map[pixel] * colour
    indirect /= _GATHER_RAYS
    # Later bounces: what is left after the first keeps its colour and falls off geometrically.
    mean_albedo = float(np.clip(albedo.mean(), 0.1, 0.7))
    ambient = indirect.mean(axis=0) * mean_albedo / (1 - mean_albedo)
    light_map = np.zeros((height * width, 3), np.float32)
    light_map[mesh.texel_pixels] = indirect
    smooth = _smoothed(light_map.reshape(height, width, 3), mesh.charts).reshape(-1, 3)
    crevice = smooth[mesh.texel_pixels].mean(axis=1, keepdims=True) / max(
        float(indirect.mean()), 1e-6
    )
    smooth[mesh.texel_pixels] += ambient * np.minimum(1.0, crevice) + direct
    return smooth.reshape(height, width, 3)


def _smoothed(light_map: Floats, charts: npt.NDArray[np.int64]) -> Floats:
    """Remove the sampling noise of the larger charts, each by itself."""
    for x, y, width, height in charts:
        if min(width, height) >= 4:
            region = light_map[y : y + height, x : x + width]
            region[...] = cv2.GaussianBlur(
                np.ascontiguousarray(region), (7, 7), 1.7, borderType=cv2.BORDER_REFLECT_101
            )
    return light_map
