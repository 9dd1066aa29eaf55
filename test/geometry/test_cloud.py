# SPDX-License-Identifier: Apache-2.0
"""The fused cloud against its definition, point by point."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.geometry.cloud import Cloud, CLOUD_FIELDS, cloud_shape, fused_cloud
from mtl_perception.geometry.errors import GeometryError
import numpy as np
import pytest

PALETTE = np.array([[10 * i, 255 - i, i] for i in range(18)], np.uint8)


def make_frame(height: int, width: int, seed: int) -> tuple[dict, np.ndarray, CameraModel]:
    """Return maps with holes, an image and a camera whose axes differ."""
    random = np.random.default_rng(seed)
    depth = random.uniform(0.2, 9.0, (height, width)).astype(np.float32)
    depth[random.random((height, width)) < 0.2] = np.nan
    normals = random.normal(size=(height, width, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[random.random((height, width)) < 0.1] = np.nan
    semantic = random.integers(0, 18, (height, width), dtype=np.uint8)
    semantic[random.random((height, width)) < 0.1] = 255
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    camera = CameraModel(
        width, height, random.uniform(20, 900), random.uniform(20, 900),
        random.uniform(0, width), random.uniform(0, height),
    )  # fmt: skip
    return {'depth': depth, 'normals': normals, 'semantic': semantic}, image, camera


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 13),
    width=st.integers(1, 17),
    stride=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    color_mode=st.sampled_from(['camera', 'semantic']),
)
def test_each_point_is_its_pixel(
    height: int, width: int, stride: int, seed: int, color_mode: str
) -> None:
    maps, image, camera = make_frame(height, width, seed)
    near, far = 0.5, 6.0
    cloud = fused_cloud(
        maps, image, camera, stride=stride, range_m=(near, far), color_mode=color_mode,
        label_colours=PALETTE,
    )  # fmt: skip
    rows, columns = range(0, height, stride), range(0, width, stride)
    assert cloud.points.shape == (len(rows), len(columns), 8) == cloud_shape(camera, stride)
    assert cloud.points.dtype == np.float32
    data = cloud.points.tobytes()
    for index, (v, u) in enumerate((v, u) for v in rows for u in columns):
        x, y, z, rgb, nx, ny, nz, label = struct.unpack_from('<3fI3fI', data, 32 * index)
        depth = maps['depth'][v, u]
        if near <= depth <= far:
            assert z == depth
            assert camera.fx * x / z + camera.cx == pytest.approx(u, abs=1e-3)
            assert camera.fy * y / z + camera.cy == pytest.approx(v, abs=1e-3)
        else:
            assert np.isnan([x, y, z]).all()
        np.testing.assert_array_equal((nx, ny, nz), maps['normals'][v, u])
        assert label == maps['semantic'][v, u]
        colour = image[v, u]
        if color_mode == 'semantic':
            colour = PALETTE[label] if label != 255 else (0, 0, 0)
        red, green, blue = (int(value) for value in colour)
        assert rgb == red << 16 | green << 8 | blue


def test_it_agrees_with_the_camera_model() -> None:
    maps, image, camera = make_frame(480, 640, 1)
    points = fused_cloud(maps, image, camera).points[..., :3]
    pixels = camera.project(points)
    v, u = np.mgrid[:480, :640]
    valid = np.isfinite(maps['depth'])
    assert np.isfinite(points[valid]).all()
    assert np.isnan(points[~valid]).all()
    assert np.abs(pixels - np.stack((u, v), axis=-1))[valid].max() < 1e-3


def test_the_ends_of_the_range_belong_to_it_and_no_depth_is_no_position() -> None:
    depth = np.array([[0.0, -1.0, 1.0, 2.0, 4.0, 4.0000005, np.inf, -np.inf, np.nan]], np.float32)
    image = np.zeros((1, 9, 3), np.uint8)
    camera = CameraModel(9, 1, 100.0, 100.0, 4.0, 0.0)
    limited = fused_cloud({'depth': depth}, image, camera, range_m=(2.0, 4.0)).points[0]
    assert np.isfinite(limited[:, 2]).tolist() == [False] * 3 + [True] * 2 + [False] * 4
    unlimited = fused_cloud({'depth': depth}, image, camera).points[0]
    assert np.isfinite(unlimited[:, :3]).all(axis=1).tolist() == [
        False, False, True, True, True, True, False, False, False,
    ]  # fmt: skip
    assert np.isnan(unlimited[[0, 1, 6, 7, 8], :3]).all()


def test_what_the_model_lacks_is_marked_so() -> None:
    maps, image, camera = make_frame(4, 5, 2)
    cloud = fused_cloud({'depth': maps['depth']}, image, camera)
    assert np.isnan(cloud.points[..., 4:7]).all()
    assert (cloud.labels == 255).all()


def test_it_fills_the_callers_buffer_and_hides_no_alpha() -> None:
    maps, image, camera = make_frame(6, 7, 3)
    out = np.full((6, 7, 8), -1.0, np.float32)
    cloud = fused_cloud(maps, image, camera, out=out)
    assert cloud.points is out
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    np.testing.assert_array_equal(cloud.rgb, packed)
    np.testing.assert_array_equal(out, fused_cloud(maps, image, camera).points)
    assert sum(np.dtype(kind).itemsize for _, kind in CLOUD_FIELDS) == 32
    assert Cloud(out).labels.dtype == np.uint32


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'stride': 0}, 'stride 0'),
        ({'range_m': (3.0, 2.0)}, r'range \(3.0, 2.0\)'),
        ({'range_m': (-1.0, 2.0)}, r'range \(-1.0, 2.0\)'),
        ({'range_m': (0.0, float('nan'))}, 'range'),
        ({'color_mode': 'rainbow'}, "'rainbow' is unknown; use camera or semantic"),
        ({'color_mode': 'semantic', 'label_colours': None}, 'needs label_colours'),
        ({'out': np.empty((4, 4, 8), np.float32)}, r'out is float32 \(4, 4, 8\)'),
        ({'out': np.empty((4, 5, 8))}, 'out is float64'),
        ({'out': np.empty((8, 5, 4), np.float32).T}, 'C-contiguous'),
    ],
)
def test_a_bad_option_is_named(change: dict, message: str) -> None:
    maps, image, camera = make_frame(4, 5, 4)
    options = {'color_mode': 'camera', 'label_colours': PALETTE, **change}
    with pytest.raises(GeometryError, match=message):
        fused_cloud(maps, image, camera, **options)


def test_maps_that_do_not_belong_together_are_named() -> None:
    maps, image, camera = make_frame(4, 5, 5)
    with pytest.raises(GeometryError, match='needs depth; the maps are semantic'):
        fused_cloud({'semantic': maps['semantic']}, image, camera)
    with pytest.raises(GeometryError, match=r'normals has shape \(4, 5\)'):
        fused_cloud({**maps, 'normals': maps['depth']}, image, camera)
    with pytest.raises(GeometryError, match=r'image has shape \(3, 5, 3\)'):
        fused_cloud(maps, image[1:], camera)
    distorted = CameraModel(5, 4, 50.0, 50.0, 2.0, 2.0, distortion=(0.1, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match='rectified'):
        fused_cloud(maps, image, distorted)
