# SPDX-License-Identifier: Apache-2.0
"""One frame of a world: geometry, labels and edges by ray casting, colour from baked light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.simulation.atlas import sample_sheet
from mtl_perception.simulation.lighting import sunlight
from mtl_perception.simulation.mesh import Floats
from mtl_perception.simulation.sensor import develop, Sensor
from mtl_perception.simulation.tracer import Hits
from mtl_perception.simulation.world import RoomsWorld
from mtl_perception.values import Sample, UNLABELLED
import numpy as np
import numpy.typing as npt

DEPTH_JUMP_M = 0.01
DEPTH_JUMP_SHARE = 0.02
_FAINT_MIRROR = 0.03
_SUBPIXELS = ((-0.25, -0.3), (0.3, -0.2), (-0.3, 0.25), (0.2, 0.3))


@dataclass(frozen=True)
class Geometry:
    """What each pixel's ray met."""

    depth: Floats  # (H, W) metres along Z, NaN = nothing
    normals: Floats  # (H, W, 3) unit, optical frame, facing the camera; NaN = nothing
    labels: npt.NDArray[np.uint8]  # (H, W), 255 = nothing
    objects: npt.NDArray[np.int32]  # (H, W), -1 = nothing
    hits: Hits  # (H * W,)


def trace(world: RoomsWorld, camera: CameraModel, pose: npt.NDArray[np.float64]) -> Geometry:
    """
    Cast one ray through each pixel centre of a rectified camera at `pose` (optical -> world).

    Raises
    ------
    CameraError
        If the camera has lens distortion.

    """
    rays = camera.rays()
    height, width = rays.shape[:2]
    flat = rays.reshape(-1, 3)
    rotation = pose[:3, :3].astype(np.float32)
    directions = flat @ rotation.T
    origins = np.broadcast_to(pose[:3, 3].astype(np.float32), directions.shape)
    hits = world.tracer.trace(origins, directions)
    missed = hits.triangles < 0
    triangles = np.where(missed, 0, hits.triangles).astype(np.intp)
    # The ray has z = 1 in the optical frame, so Embree's distance is the depth along Z.
    depth = np.where(missed, np.float32(np.nan), hits.distance)
    normals = (world.mesh.normals @ rotation).take(triangles, axis=0)
    away = np.einsum('ij,ij->i', normals, flat) > 0
    np.negative(normals, out=normals, where=away[:, None])
    objects = world.mesh.objects.take(triangles)
    labels = world.mesh.object_labels.take(objects)
    if missed.any():
        normals[missed] = np.nan
        objects[missed] = -1
        labels[missed] = UNLABELLED
    return Geometry(
        depth.reshape(height, width),
        normals.reshape(height, width, 3),
        labels.reshape(height, width),
        objects.reshape(height, width),
        hits,
    )


def edges_of(geometry: Geometry, camera: CameraModel) -> npt.NDArray[np.uint8]:
    """
    Return edges (H, W) uint8 in {0, 1}: borders of objects and jumps of depth, two pixels wide.

    Two 4-neighbours p and q are both edge pixels if they belong to different objects (a wall
    is one object, so the corner of two walls is an edge), or if q lies off the tangent plane
    of p and p off that of q, both by more than 1 cm + 2 % of the smaller depth.
    """
    points = camera.rays() * geometry.depth[..., None]
    edges = np.zeros(geometry.depth.shape, np.bool_)
    for first, second in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        step = points[second] - points[first]
        off_first = np.abs(np.einsum('ijk,ijk->ij', step, geometry.normals[first]))
        off_second = np.abs(np.einsum('ijk,ijk->ij', step, geometry.normals[second]))
        nearer = np.minimum(geometry.depth[first], geometry.depth[second])
        limit = np.float32(DEPTH_JUMP_M) + np.float32(DEPTH_JUMP_SHARE) * nearer
        found = np.minimum(off_first, off_second) > limit
        found |= geometry.objects[first] != geometry.objects[second]
        edges[first] |= found
        edges[second] |= found
    return edges.astype(np.uint8)


def _radiance(
    world: RoomsWorld, origin: Floats, directions: Floats, hits: Hits, focal_px: float,
    mirror: bool = True,
) -> Floats:
    """Return the light (n, 3) that travels back along rays (n, 3) of a camera."""
    mesh = world.mesh
    triangles = np.maximum(hits.triangles, 0).astype(np.intp)
    place = mesh.coordinates_at(triangles, hits.u, hits.v)
    material = mesh.material_table.take(mesh.materials.take(triangles), axis=0)
    normals = mesh.normals.take(triangles, axis=0)
    length = np.sqrt(np.einsum('ij,ij->i', directions, directions))
    cosine = np.einsum('ij,ij->i', normals, directions) / length
    # A slanted surface is blurred along its slope only; the root meets in the middle.
    slant = np.sqrt(np.maximum(np.abs(cosine), np.float32(0.05)))
    footprint = hits.distance * length / np.float32(focal_px) / slant * material[:, 5]
    colour = world.atlas.sample(
        material[:, 6].astype(np.intp), place[:, 0], place[:, 1], footprint
    ) * material[:, :3]
    light = np.asarray(sample_sheet(world.light_map, place[:, 2], place[:, 3]), np.float32)
    if world.sun is not None or mirror:
        facing = np.where(cosine > 0, np.float32(-1), np.float32(1))
        turned = normals * facing[:, None]
        points = origin + directions * hits.distance[:, None] + turned * np.float32(2e-3)
    if world.sun is not None:
        light = light + sunlight(points, turned, world.sun, world.shadows)
    shine = material[:, 4:5]
    radiance = colour * np.where(shine > 0, shine, light)
    if mirror:
        _add_mirrors(world, radiance, points, turned, directions, -np.abs(cosine), material,
                     focal_px)
    radiance[hits.triangles < 0] = 0
    return radiance


def _add_mirrors(
    world: RoomsWorld, radiance: Floats, points: Floats, normals: Floats, directions: Floats,
    cosine: Floats, material: Floats, focal_px: float,
) -> None:
    """Add what glossy surfaces mirror (Schlick's approximation, 1994), one bounce."""
    glossy = np.flatnonzero(material[:, 3] > 0)
    if len(glossy) == 0:
        return
    base = material[glossy, 3]
    fresnel = base + (1 - base) * (1 + cosine[glossy]) ** 5 * np.float32(0.35)
    # Below three per cent a mirror image is not seen but costs as much as a bright one.
    fresnel -= np.float32(_FAINT_MIRROR)
    keep = fresnel > 0
    glossy, fresnel = glossy[keep], fresnel[keep]
    if len(glossy) == 0:
        return
    ray, normal = directions[glossy], normals[glossy]
    bounced = ray - 2 * np.einsum('ij,ij->i', ray, normal)[:, None] * normal
    hits = world.tracer.trace(points[glossy], bounced)
    # A coarser footprint blurs the mirror image a little, as worn surfaces do.
    seen = _radiance(world, points[glossy], bounced, hits, focal_px / 6, mirror=False)
    radiance[glossy] += np.minimum(seen, 8) * fresnel[:, None]


def render(
    world: RoomsWorld,
    camera: CameraModel,
    pose: npt.NDArray[np.float64],
    *,
    sensor: Sensor | None = None,
    noise_seed: int = 0,
    name: str = '',
) -> Sample:
    """
    Render one frame: image and the targets semantic, depth, normals, edges.

    `sensor` (default: one without noise) turns light into an image, with `noise_seed` for
    its noise. The pose is (4, 4), optical frame -> world.

    Raises
    ------
    CameraError
        If the camera has lens distortion.

    """
    geometry = trace(world, camera, pose)
    edges = edges_of(geometry, camera)
    height, width = geometry.depth.shape
    rotation = pose[:3, :3].astype(np.float32)
    origin = pose[:3, 3].astype(np.float32)
    flat = camera.rays().reshape(-1, 3)
    directions = flat @ rotation.T
    radiance = _radiance(world, origin, directions, geometry.hits, camera.focal_px)
    border = np.flatnonzero(edges.reshape(-1))
    if len(border):
        # One ray per pixel frays borders: average four more there.
        total = radiance[border]
        for dx, dy in _SUBPIXELS:
            ray = flat[border] + np.array([dx / camera.fx, dy / camera.fy, 0], np.float32)
            ray = ray @ rotation.T
            hits = world.tracer.trace(np.broadcast_to(origin, ray.shape), ray)
            # Bright panes would swallow the frames around them if averaged unclipped.
            total += np.minimum(_radiance(world, origin, ray, hits, camera.focal_px, False), 8)
        radiance[border] = total / (1 + len(_SUBPIXELS))
    image = develop(radiance.reshape(height, width, 3), sensor or Sensor(), noise_seed)
    targets: dict[str, npt.NDArray[Any]] = {
        'semantic': geometry.labels,
        'depth': geometry.depth,
        'normals': geometry.normals,
        'edges': edges,
    }
    return Sample(image, targets, camera, name, np.asarray(pose, np.float64))
