# SPDX-License-Identifier: Apache-2.0
"""Normals from depth against the planes that made the depth, and against NYU's own normals."""

from __future__ import annotations

from pathlib import Path

import cv2
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.geometry.errors import GeometryError
from mtl_perception.geometry.normals_from_depth import normals_from_depth
import numpy as np
import pytest

CAMERA = CameraModel(64, 48, 55.0, 53.0, 33.5, 22.25)


def plane_depth(camera: CameraModel, normal: np.ndarray, distance: float) -> np.ndarray:
    """Return Z where the ray of each pixel meets the plane normal . X = -distance."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    return -distance / (normal[0] * x + normal[1] * y + normal[2])


def angles_deg(normals: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the angle between (N, 3) and (3,) or (N, 3) unit vectors by the chord length."""
    chord = np.linalg.norm(normals.astype(np.float64) - expected, axis=-1)
    return np.degrees(2 * np.arcsin(chord / 2))


def unit(vector: tuple[float, float, float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


@pytest.mark.parametrize('window', [3, 7, 11])
@pytest.mark.parametrize(
    'normal', [(0, 0, -1), (0.5, 0, -1), (-1, 0.3, -1), (0, -1, -0.3), (0.9, -0.9, -1)]
)
def test_ideal_planes_come_back(normal: tuple[float, float, float], window: int) -> None:
    truth = unit(normal)
    depth = plane_depth(CAMERA, truth, 2.0)
    # Pixels whose rays do not meet the plane, and those that meet it beyond any sensor.
    depth[(depth <= 0) | (depth > 20)] = np.nan
    normals = normals_from_depth(depth.astype(np.float32), CAMERA, window)
    found = np.isfinite(normals[..., 0])
    # A margin of the window is allowed to be lost where the plane ends in the image.
    inside = cv2.erode(np.isfinite(depth).astype(np.uint8), np.ones((3, 3))) > 0
    assert found[inside].mean() > 0.97
    assert angles_deg(normals[found], truth).max() < 0.1
    np.testing.assert_allclose(np.linalg.norm(normals[found], axis=-1), 1.0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    tilt=st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)),
    distance=st.floats(0.3, 8.0),
    holes=st.integers(0, 2**32 - 1),
)
def test_any_plane_with_holes_comes_back(
    tilt: tuple[float, float], distance: float, holes: int
) -> None:
    truth = unit((tilt[0], tilt[1], -1.0))
    depth = plane_depth(CAMERA, truth, distance)
    assume((depth > 0).all() and depth.max() < 50)
    lost = np.random.default_rng(holes).random(depth.shape) < 0.2
    depth[lost] = np.nan
    normals = normals_from_depth(depth, CAMERA)
    assert np.isnan(normals[lost]).all()
    assert np.isfinite(normals[~lost]).mean() > 0.99
    assert np.nanmax(angles_deg(normals[~lost], truth)) < 0.1


def test_sensor_noise_is_averaged_away() -> None:
    """The spread of the normal follows from the least-squares line: sigma f / sqrt(sum x^2)."""
    truth = unit((0.3, -0.2, -1))
    camera = CameraModel(160, 120, 150.0, 150.0, 79.5, 59.5)
    depth = plane_depth(camera, truth, 2.0)
    sigma = 1e-4  # of the inverse depth, 1/m
    noise = np.random.default_rng(3).normal(0, sigma, depth.shape)
    normals = normals_from_depth(1 / (1 / depth + noise), camera, 11)[10:-10, 10:-10]
    # Slope of n points: variance sigma^2 / sum dx^2 with sum dx^2 = 11 * 110 in the window. In
    # normalised coordinates times f; relative to |(a, b, c)| = 1 / plane distance.
    expected = sigma * 150.0 / np.sqrt(11 * 110) * 2.0
    tangent = np.cross(truth, (0, 1, 0))
    tangent /= np.linalg.norm(tangent)
    spread = (normals.reshape(-1, 3) @ tangent).std()
    # The error of c adds a little through the offset of the pixel from the principal point.
    assert 0.7 * expected < spread < 1.3 * expected


def test_depth_jumps_do_not_tilt_the_normals() -> None:
    near, far = unit((0.2, 0, -1)), unit((-0.4, 0.3, -1))
    depth = plane_depth(CAMERA, near, 1.0)
    depth[:, 30:] = plane_depth(CAMERA, far, 2.5)[:, 30:]
    normals = normals_from_depth(depth, CAMERA, 9)
    assert np.isfinite(normals).all(axis=-1).mean() > 0.95
    left, right = normals[:, :30].reshape(-1, 3), normals[:, 30:].reshape(-1, 3)
    assert np.nanmax(angles_deg(left, near)) < 0.1
    assert np.nanmax(angles_deg(right, far)) < 0.1


def test_what_is_no_plane_is_invalid() -> None:
    depth = np.random.default_rng(0).uniform(1, 5, (48, 64))
    assert np.isnan(normals_from_depth(depth, CAMERA)).mean() > 0.99
    lone = np.full((48, 64), np.nan)
    lone[20, 30] = 1.0
    lone[30] = 2.0  # a single row leaves the tilt about it open
    assert np.isnan(normals_from_depth(lone, CAMERA)).all()
    assert np.isnan(normals_from_depth(np.full((48, 64), -1.0), CAMERA)).all()


@pytest.mark.parametrize('window', [1, 4, -3])
def test_a_window_without_a_centre_is_refused(window: int) -> None:
    with pytest.raises(GeometryError, match=str(window)):
        normals_from_depth(np.ones((48, 64)), CAMERA, window)


def test_a_camera_of_another_image_is_refused() -> None:
    with pytest.raises(GeometryError, match=r'\(48, 60\)'):
        normals_from_depth(np.ones((48, 60)), CAMERA)
    raw = CameraModel(64, 48, 55.0, 53.0, 33.5, 22.25, distortion=(0.1, 0, 0, 0))
    with pytest.raises(GeometryError, match='rectif'):
        normals_from_depth(np.ones((48, 64)), raw)


@pytest.mark.realdata
def test_kinect_depth_gives_the_normals_of_nyu(sample_data: Path) -> None:
    depth = cv2.imread(str(sample_data / 'nyuv2/0433_depth_mm.png'), cv2.IMREAD_UNCHANGED) / 1000
    encoded = cv2.imread(str(sample_data / 'nyuv2/0433_normal_RxGzBup.png'))
    right, forward, up = (encoded[..., i].astype(float) / 255 * 2 - 1 for i in (2, 1, 0))
    reference = np.stack((right, -up, forward), axis=-1)
    annotated = np.abs(np.linalg.norm(reference, axis=-1) - 1) < 0.05
    camera = CameraModel(640, 480, 518.86, 519.47, 325.58, 253.74)
    normals = normals_from_depth(depth, camera, window=11)
    both = annotated & np.isfinite(normals[..., 0])
    assert both.sum() > 0.95 * (annotated & (depth > 0)).sum()
    cosine = np.einsum('nc,nc->n', normals[both], reference[both])
    assert np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) < 12
