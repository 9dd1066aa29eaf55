# SPDX-License-Identifier: Apache-2.0
"""Depth, normals, labels, edges and poses against formulas, brute force and each other."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from mtl_perception.camera import CameraError, CameraModel
from mtl_perception.simulation.render import (
    DEPTH_JUMP_M,
    DEPTH_JUMP_SHARE,
    edges_of,
    render,
    trace,
)
from mtl_perception.simulation.rooms import draw_camera
from mtl_perception.simulation.sensor import Sensor
from mtl_perception.simulation.walk import look, walk
import numpy as np
import pytest


def brute_force(
    vertices: np.ndarray, origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return depth (n,), unnormalised normal (n, 3) and triangle (n,): Cramer's rule, float64."""
    a = vertices[:, 0].astype(np.float64)
    e1, e2 = vertices[:, 1] - a, vertices[:, 2] - a
    depths, normals, triangles = [], [], []
    for ray in rays.astype(np.float64):
        # Solve a + u e1 + v e2 = origin + t ray for (u, v, t).
        matrix = np.stack([e1, e2, np.broadcast_to(-ray, e1.shape)], axis=-1)
        determinant = np.linalg.det(matrix)
        safe = np.abs(determinant) > 1e-12
        solution = np.full((len(a), 3), np.nan)
        solution[safe] = np.linalg.solve(matrix[safe], (origin - a)[safe][..., None])[..., 0]
        u, v, t = solution.T
        with np.errstate(invalid='ignore'):
            inside = safe & (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (t > 1e-9)
        best = np.argmin(np.where(inside, t, np.inf))
        depths.append(t[best] if inside.any() else np.nan)
        normals.append(np.cross(e1[best], e2[best]))
        triangles.append(best if inside.any() else -1)
    return np.array(depths), np.array(normals), np.array(triangles)


def test_planes_have_the_depth_of_their_equation(hand_made):
    """Floor and wall: the ray meets the plane n.x = d at z = (d - n.o) / (n.R r)."""
    geometry = trace(hand_made.world, hand_made.camera, hand_made.pose)
    v, u = np.indices((30, 40))
    rays = np.stack([(u - 18.7) / 36.0, (v - 15.3) / 34.0, np.ones_like(u, float)], axis=-1)
    world_rays = rays @ hand_made.pose[:3, :3].T
    origin = hand_made.pose[:3, 3]
    for label, normal, distance in ((1, (0, 0, 1), 0.0), (0, (0, 1, 0), 3.0)):
        seen = geometry.labels == label
        assert seen.sum() > 100
        expected = (distance - np.dot(normal, origin)) / (world_rays[seen] @ normal)
        np.testing.assert_allclose(geometry.depth[seen], expected, rtol=2e-6)
        # Facing the camera, in the optical frame.
        facing = hand_made.pose[:3, :3].T @ np.array(normal, float)
        facing = facing if label == 1 else -facing
        np.testing.assert_allclose(geometry.normals[seen], np.tile(facing, (seen.sum(), 1)),
                                   atol=1e-6)


@pytest.mark.parametrize('which', ['hand_made', 'drawn'])
def test_rays_meet_what_brute_force_meets(which, hand_made, drawn_world):
    """Embree's depth, normal, label and object against float64 brute force."""
    if which == 'hand_made':
        world, camera, pose = hand_made.world, hand_made.camera, hand_made.pose
    else:
        world, camera = drawn_world, CameraModel(16, 12, 12.0, 12.0, 7.5, 5.5)
        pose = walk(world, 0, 3, rate_hz=0.3)[2]
    geometry = trace(world, camera, pose)
    v, u = np.indices((camera.height, camera.width)).reshape(2, -1)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(len(u))], 1)
    depth, normals, triangles = brute_force(
        world.mesh.vertices, pose[:3, 3], rays @ pose[:3, :3].T)
    # At a border float32 and float64 may fall on different sides.
    agree = np.isclose(geometry.depth.reshape(-1), depth, rtol=1e-4)
    assert agree.mean() > 0.99
    assert np.array_equal(np.isnan(geometry.depth.reshape(-1)), np.isnan(depth))
    normals = normals @ pose[:3, :3]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals *= -np.sign(np.einsum('ij,ij->i', normals, rays))[:, None]
    found = geometry.normals.reshape(-1, 3)[agree]
    cosine = np.einsum('ij,ij->i', found, normals[agree])
    assert np.median(cosine) > 1 - 1e-6
    assert (cosine > 1 - 1e-4).mean() > 0.99
    objects = world.mesh.objects[triangles[agree]]
    assert (geometry.objects.reshape(-1)[agree] == objects).mean() > 0.99
    labels = world.mesh.object_labels[objects]
    assert (geometry.labels.reshape(-1)[agree] == labels).mean() > 0.99


def test_normals_are_the_slopes_of_the_depth(drawn_world):
    """Normals against central differences of back-projected depth, inside flat triangles."""
    camera = draw_camera(3, 96, 72)
    checked = 0
    for pose in walk(drawn_world, 1, 4, rate_hz=0.3):
        geometry = trace(drawn_world, camera, pose)
        points = camera.back_project(geometry.depth).astype(np.float64)
        across = points[1:-1, 2:] - points[1:-1, :-2]
        down = points[2:, 1:-1] - points[:-2, 1:-1]
        slope = np.cross(down, across)
        slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
        normals = geometry.normals.astype(np.float64)
        middle = normals[1:-1, 1:-1]
        # Flat: the four neighbours lie on the same surface with the same normal.
        flat = np.ones(middle.shape[:2], bool)
        for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
            rows, columns = slice(dy, dy + 70), slice(dx, dx + 94)
            flat &= (normals[rows, columns] * middle).sum(-1) > 1 - 1e-6
            flat &= geometry.objects[rows, columns] == geometry.objects[1:-1, 1:-1]
            step = points[rows, columns] - points[1:-1, 1:-1]
            flat &= np.abs((step * middle).sum(-1)) < 0.002
        angle = np.degrees(np.arccos(np.clip((slope * middle).sum(-1)[flat], -1, 1)))
        assert flat.mean() > 0.5
        assert np.median(angle) < 0.05
        assert np.quantile(angle, 0.99) < 1.0
        checked += flat.sum()
    assert checked > 10000
    # Unit length, towards the camera.
    rays = camera.rays()
    np.testing.assert_allclose(np.linalg.norm(geometry.normals, axis=-1), 1, atol=1e-5)
    assert ((geometry.normals * rays).sum(-1) <= 0).all()


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample (H, W) at x, y by the formula."""
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    p, q = x - x0, y - y0
    return (image[y0, x0] * (1 - p) * (1 - q) + image[y0, x0 + 1] * p * (1 - q)
            + image[y0 + 1, x0] * (1 - p) * q + image[y0 + 1, x0 + 1] * p * q)


def test_a_frame_warps_into_the_next(drawn_world):
    """Depth and pose agree: one frame's points, moved into the next, lie on its depth."""
    camera = draw_camera(5, 160, 120)
    poses = walk(drawn_world, 4, 40, rate_hz=10.0)
    for a, b in zip(poses[::9], poses[2::9]):
        first, second = trace(drawn_world, camera, a), trace(drawn_world, camera, b)
        points = camera.back_project(first.depth).reshape(-1, 3).astype(np.float64)
        world = points @ a[:3, :3].T + a[:3, 3]
        moved = (world - b[:3, 3]) @ b[:3, :3]
        with np.errstate(all='ignore'):
            u = camera.fx * moved[:, 0] / moved[:, 2] + camera.cx
            v = camera.fy * moved[:, 1] / moved[:, 2] + camera.cy
        inside = (moved[:, 2] > 0.1) & (u > 0) & (v > 0) & (u < 158) & (v < 118)
        u, v, z = u[inside], v[inside], moved[inside, 2]
        objects = second.objects[np.rint(v).astype(int), np.rint(u).astype(int)]
        same = objects == first.objects.reshape(-1)[inside]
        error = np.abs(bilinear(second.depth.astype(np.float64), u, v) - z)
        assert same.sum() > 1000
        assert np.median(error[same]) < 0.005
        assert np.quantile(error[same], 0.8) < 0.02


@pytest.mark.parametrize(
    ('width', 'height', 'zoom'), [(64, 48, 0.7), (80, 45, 1.0), (40, 60, 1.4)])
def test_another_camera_sees_the_same_points(drawn_world, width, height, zoom):
    """Other focal lengths and aspects: back-projected points lie on the same planes."""
    reference = draw_camera(7, 120, 90)
    focal = reference.fx * width / 120 * zoom
    other = CameraModel(width, height, focal, focal * 1.05, width / 2 - 1.3, height / 2 + 0.4)
    pose = walk(drawn_world, 9, 1)[0]
    first, second = (trace(drawn_world, camera, pose) for camera in (reference, other))
    points = other.back_project(second.depth).reshape(-1, 3).astype(np.float64)
    u, v = np.rint(reference.project(points)).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < 120) & (v < 90)
    anchors = reference.back_project(first.depth)[v[inside], u[inside]].astype(np.float64)
    normals = first.normals[v[inside], u[inside]]
    alike = (normals * second.normals.reshape(-1, 3)[inside]).sum(-1) > 1 - 1e-6
    alike &= first.objects[v[inside], u[inside]] == second.objects.reshape(-1)[inside]
    assert alike.sum() > 500
    off = np.abs(((points[inside] - anchors) * normals).sum(-1))[alike]
    assert np.median(off) < 1e-4
    assert np.quantile(off, 0.9) < 1e-3


def test_edges_follow_their_definition(drawn_world):
    """Edges against loops over pixel pairs, straight from the docstring."""
    camera = draw_camera(11, 48, 36)
    for pose in walk(drawn_world, 2, 3, rate_hz=0.3):
        geometry = trace(drawn_world, camera, pose)
        points = camera.rays() * geometry.depth[..., None]
        expected = np.zeros((36, 48), np.uint8)
        for y in range(36):
            for x in range(48):
                for other in ((y, x + 1), (y + 1, x)):
                    if other[0] >= 36 or other[1] >= 48:
                        continue
                    step = points[other] - points[y, x]
                    off = min(abs(step @ geometry.normals[y, x]),
                              abs(step @ geometry.normals[other]))
                    near = min(geometry.depth[y, x], geometry.depth[other])
                    jump = off > DEPTH_JUMP_M + DEPTH_JUMP_SHARE * near
                    if jump or geometry.objects[y, x] != geometry.objects[other]:
                        expected[y, x] = expected[other] = 1
        edges = edges_of(geometry, camera)
        # A pair exactly at the limit may fall either way in float32.
        assert (edges != expected).sum() <= 2
        assert 0.02 < edges.mean() < 0.6


def test_a_slanted_plane_has_no_edges(hand_made):
    """The floor seen at a grazing angle jumps in depth from row to row, yet is smooth."""
    geometry = trace(hand_made.world, hand_made.camera, hand_made.pose)
    edges = edges_of(geometry, hand_made.camera)
    floor = geometry.labels == 1
    inner = floor.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(floor, shift, axis)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.sum() > 50
    assert not edges[inner].any()


_HASH_FRAMES = """
import hashlib
from mtl_perception.simulation.rooms import rooms_frames
total = hashlib.sha256()
for sample in rooms_frames(21, 3, size=(64, 48), frames_per_world=3):
    total.update(sample.image.tobytes())
    total.update(sample.pose.tobytes())
    for name in sorted(sample.targets):
        total.update(sample.targets[name].tobytes())
print(total.hexdigest())
"""


def test_same_seed_same_bytes_in_two_processes():
    """Images, targets and poses are equal byte by byte, whatever Python hashes by."""
    digests = {
        subprocess.run(
            [sys.executable, '-c', _HASH_FRAMES], check=True, capture_output=True, text=True,
            env={**os.environ, 'PYTHONHASHSEED': hash_seed, 'OMP_NUM_THREADS': threads},
        ).stdout
        for hash_seed, threads in (('1', '1'), ('2', '2'))
    }
    assert len(digests) == 1


def test_noise_has_its_own_seed(hand_made):
    """Frames differ by noise alone: targets stay."""
    sensor = Sensor(shot_noise=0.02, read_noise=0.005)
    first, again, other = (
        render(hand_made.world, hand_made.camera, hand_made.pose, sensor=sensor, noise_seed=seed)
        for seed in (1, 1, 2)
    )
    digest = [hashlib.sha256(each.image.tobytes()).digest() for each in (first, again, other)]
    assert digest[0] == digest[1] != digest[2]
    np.testing.assert_array_equal(first.targets['depth'], other.targets['depth'])
    assert first.image.std() > 5


def test_distortion_is_refused(hand_made):
    """A ray per pixel of a distorted image is not offered, and says so."""
    camera = CameraModel(40, 30, 36.0, 34.0, 18.7, 15.3, distortion=(0.1, 0, 0, 0, 0))
    with pytest.raises(CameraError, match='rectified'):
        render(hand_made.world, camera, hand_made.pose)


def test_rays_that_leave_the_world_are_invalid(hand_made):
    """Looking away from everything: NaN, unlabelled, black."""
    sample = render(hand_made.world, hand_made.camera, look((0, -5, 1), -1.57, 0.5))
    missed = np.isnan(sample.targets['depth'])
    assert missed.any()
    assert (sample.targets['semantic'][missed] == 255).all()
    assert np.isnan(sample.targets['normals'][missed]).all()
