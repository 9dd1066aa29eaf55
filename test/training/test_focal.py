# SPDX-License-Identifier: Apache-2.0
"""The focal correction of targets is undone by the decoder, and agrees with real geometry."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.networks.decoding import decode_depth, decode_normals
from mtl_perception.training.focal import depth_scale, reference_depth, reference_normals
import numpy as np
import pytest
import torch


@settings(max_examples=50, deadline=None)
@given(st.floats(0.3, 3.0), st.integers(0, 2**32 - 1))
def test_decoder_undoes_the_correction(scale, seed):
    generator = np.random.default_rng(seed)
    depth = generator.uniform(0.5, 8.0, (3, 4)).astype(np.float32)
    normals = generator.normal(size=(3, 4, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    s = torch.tensor([scale])
    raw = torch.tensor(np.log(reference_depth(depth, scale)))[None, None]
    np.testing.assert_allclose(decode_depth(raw, (0.01, 100.0), s)[0], depth, rtol=1e-5)
    raw = torch.tensor(7 * reference_normals(normals, scale)).permute(2, 0, 1)[None]
    back = decode_normals(raw, s)[0].permute(1, 2, 0)
    np.testing.assert_allclose(back, normals, atol=1e-5)


def test_two_focal_lengths_that_give_one_picture_give_one_target():
    # A plane seen through f = 100 and f = 150: stretched by 1.5 along z, it looks the same.
    size = {'width': 40, 'height': 30, 'cx': 19.5, 'cy': 14.5}
    plane = np.array([0.3, -0.2, 0.9])
    targets = []
    for focal in (100.0, 150.0):
        camera = CameraModel(fx=focal, fy=focal, **size)
        stretch = focal / 100.0
        # Points p with plane . (x, y, z / stretch) = 2.
        direction = plane / np.array([1, 1, stretch])
        depth = 2.0 / (camera.rays() @ direction)
        normals = np.broadcast_to(-direction / np.linalg.norm(direction), (30, 40, 3))
        scale = depth_scale(camera, 120.0)
        targets.append((
            reference_depth(depth.astype(np.float32), scale),
            reference_normals(normals.astype(np.float32), scale),
        ))
    np.testing.assert_allclose(targets[0][0], targets[1][0], rtol=1e-5)
    np.testing.assert_allclose(targets[0][1], targets[1][1], atol=1e-6)


def test_reference_normals_are_normal_to_reference_points():
    camera = CameraModel(40, 30, 150.0, 150.0, 19.5, 14.5)
    plane = np.array([0.2, 0.5, -0.8]) / np.linalg.norm([0.2, 0.5, -0.8])
    depth = (-1.7 / (camera.rays() @ plane)).astype(np.float32)
    scale = depth_scale(camera, 100.0)
    points = CameraModel(40, 30, 100.0, 100.0, 19.5, 14.5).back_project(
        reference_depth(depth, scale)
    )
    normal = reference_normals(np.broadcast_to(plane, (30, 40, 3)).astype(np.float32), scale)
    offsets = ((points - points[0, 0]) * normal).sum(-1)
    assert np.abs(offsets).max() < 1e-5


def test_invalid_stays_invalid():
    assert np.isnan(reference_depth(np.array([[np.nan]], np.float32), 2.0)).all()
    holes = np.array([[[np.nan] * 3, [0.0] * 3]], np.float32)
    assert np.isnan(reference_normals(holes, 2.0)).all()


def test_scale_is_the_geometric_mean_over_the_reference():
    assert depth_scale(CameraModel(4, 4, 100.0, 400.0, 1, 1), 50.0) == pytest.approx(4.0)
