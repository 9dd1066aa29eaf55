# SPDX-License-Identifier: Apache-2.0
"""The camera model against OpenCV, plain arithmetic and geometry that must not change."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraError, CameraModel
import numpy as np
import pytest

CAMERA = CameraModel(640, 480, 525.0, 520.0, 318.5, 241.25)
DISTORTED = CameraModel(
    320, 240, 280.0, 282.0, 158.0, 121.0,
    distortion=(-0.28, 0.07, 0.0012, -0.0008, 0.0),
    projection=(265.0, 268.0, 160.5, 118.5),
)

cameras = st.builds(
    CameraModel,
    width=st.integers(2, 60), height=st.integers(2, 60),
    fx=st.floats(5, 900), fy=st.floats(5, 900), cx=st.floats(-20, 90), cy=st.floats(-20, 90),
)


def camera_info(**changes: object) -> SimpleNamespace:
    """Return a message as rclpy gives it."""
    fields: dict[str, object] = {
        'width': 640, 'height': 480, 'distortion_model': 'plumb_bob',
        'd': [0.0] * 5, 'k': [525.0, 0, 318.5, 0, 520.0, 241.25, 0, 0, 1],
        'r': [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        'p': [525.0, 0, 318.5, 0, 0, 520.0, 241.25, 0, 0, 0, 1, 0],
        'binning_x': 0, 'binning_y': 0,
        'roi': SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    fields.update(changes)
    return SimpleNamespace(**fields)


@given(camera=cameras, width=st.integers(1, 90), height=st.integers(1, 90),
       point=st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.2, 9)))
def test_scaling_moves_pixels_as_resizing_the_image_does(camera, width, height, point):
    # The left border of the image, x = -0.5, must stay the left border; the right one too.
    before = camera.project(np.array(point))
    after = camera.scaled(width, height).project(np.array(point))
    expected = (before + 0.5) * (width / camera.width, height / camera.height) - 0.5
    np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-6)


@given(camera=cameras, x=st.integers(-9, 9), y=st.integers(-9, 9),
       point=st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.2, 9)))
def test_cropping_shifts_pixels(camera, x, y, point):
    cropped = camera.cropped(x, y, 7, 5)
    shift = camera.project(np.array(point)) - cropped.project(np.array(point))
    np.testing.assert_allclose(shift, (x, y), atol=1e-6)
    assert (cropped.width, cropped.height) == (7, 5)


@given(camera=cameras, depth=st.floats(0.1, 20))
def test_back_projected_pixels_project_onto_themselves(camera, depth):
    points = camera.back_project(np.full((camera.height, camera.width), depth, np.float32))
    pixels = camera.project(points)
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    np.testing.assert_allclose(pixels[..., 0], columns, atol=2e-3)
    np.testing.assert_allclose(pixels[..., 1], rows, atol=2e-3)
    np.testing.assert_allclose(points[..., 2], depth, rtol=1e-6)


@given(camera=cameras, point=st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.2, 9)))
def test_the_mirrored_camera_sees_the_mirrored_point_in_the_mirrored_pixel(camera, point):
    x, y, z = point
    pixel = camera.project(np.array([x, y, z]))
    mirrored = camera.flipped().project(np.array([-x, y, z]))
    np.testing.assert_allclose(mirrored, (camera.width - 1 - pixel[0], pixel[1]), atol=1e-6)


def test_project_agrees_with_opencv():
    points = np.random.default_rng(0).uniform((-2, -2, 1), (2, 2, 6), (50, 3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), CAMERA.matrix, None)
    np.testing.assert_allclose(CAMERA.project(points), expected[:, 0], atol=1e-6)


def test_rectified_image_puts_a_distorted_point_where_the_pinhole_expects_it():
    # A white dot drawn where the distorted lens images a point must appear, rectified, where
    # the pinhole from P images it. cv2.projectPoints is the independent lens.
    pinhole = DISTORTED.rectified()
    assert pinhole.is_rectified
    assert (pinhole.fx, pinhole.fy, pinhole.cx, pinhole.cy) == DISTORTED.projection
    for point in ([0.3, -0.2, 1.0], [-0.4, 0.3, 1.0], [0.05, 0.1, 1.0]):
        seen, _ = cv2.projectPoints(
            np.array([point]), np.zeros(3), np.zeros(3), DISTORTED.matrix,
            np.array(DISTORTED.distortion),
        )
        image = np.zeros((240, 320), np.uint8)
        # Sixteenths of a pixel, so that the dot sits at the exact sub-pixel place.
        centre = tuple(round(value * 16) for value in seen[0, 0])
        cv2.circle(image, centre, 4 * 16, 255, -1, cv2.LINE_AA, 4)
        moments = cv2.moments(DISTORTED.rectify(image))
        found = np.array([moments['m10'], moments['m01']]) / moments['m00']
        np.testing.assert_allclose(found, pinhole.project(np.array(point)), atol=0.25)


def rotation_deg(x: float, y: float, z: float) -> np.ndarray:
    """Return the rotation matrix of three turns, one axis after the other."""
    result = np.eye(3)
    for first, second, angle in ((1, 2, x), (2, 0, y), (0, 1, z)):
        turn = np.eye(3)
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        result = turn @ result
    return result


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant', 'rational_polynomial', 'none', ''])
@pytest.mark.parametrize('coefficients', [0, 4, 5])
def test_an_undistorted_camera_that_is_turned_is_rectified_by_its_rays(model, coefficients):
    # One half of a stereo pair, say: D = 0, but R turns its rays into the rectified frame.
    rotation = rotation_deg(2.0, -3.0, 1.5)
    camera = CameraModel.from_camera_info(camera_info(
        d=[0.0] * coefficients, distortion_model=model, r=list(rotation.ravel()),
        p=[500.0, 0, 310.0, 0, 0, 505.0, 236.0, 0, 0, 0, 1, 0],
    ))
    assert not camera.is_rectified
    pinhole = camera.rectified()
    assert pinhole.is_rectified
    assert (pinhole.fx, pinhole.fy, pinhole.cx, pinhole.cy) == (500.0, 505.0, 310.0, 236.0)
    # A smooth picture, x in one channel and y in the other, reads back where each pixel is from.
    columns, rows = np.meshgrid(np.arange(640.0), np.arange(480.0))
    seen = camera.rectify(np.dstack((columns, rows)).astype(np.float32))
    for u, v in ((320, 240), (100, 80), (550, 400)):
        ray = rotation.T @ [(u - 310.0) / 500.0, (v - 236.0) / 505.0, 1.0]
        expected = 525.0 * ray[0] / ray[2] + 318.5, 520.0 * ray[1] / ray[2] + 241.25
        np.testing.assert_allclose(seen[v, u], expected, atol=0.05)


def test_camera_info_binning_and_region_of_interest():
    # REP-104 by hand: the region starts at (100, 60), then two by two pixels become one.
    message = camera_info(
        binning_x=2, binning_y=2,
        roi=SimpleNamespace(x_offset=100, y_offset=60, width=400, height=300),
    )
    camera = CameraModel.from_camera_info(message)
    assert (camera.width, camera.height) == (200, 150)
    assert camera.fx == pytest.approx(262.5)
    assert camera.fy == pytest.approx(260.0)
    assert camera.cx == pytest.approx((318.5 - 100 + 0.5) / 2 - 0.5)
    assert camera.cy == pytest.approx((241.25 - 60 + 0.5) / 2 - 0.5)


def test_camera_info_reads_upper_case_fields_of_older_types():
    message = camera_info()
    for name in 'kdrp':
        setattr(message, name.upper(), getattr(message, name))
        delattr(message, name)
    assert CameraModel.from_camera_info(message) == CameraModel.from_camera_info(camera_info())


def test_an_undistorted_image_keeps_its_own_matrix():
    camera = CameraModel.from_camera_info(
        camera_info(p=[400.0, 0, 300.0, 0, 0, 400.0, 200.0, 0, 0, 0, 1, 0])
    )
    assert camera.rectified().fx == 525.0
    assert camera.rectified().is_rectified


@pytest.mark.parametrize(('changes', 'words'), [
    ({'k': [0.0] * 9}, 'not calibrated'),
    ({'k': [np.nan, 0, 1, 0, 1, 1, 0, 0, 1]}, 'finite'),
    ({'k': [500.0, 0, 1, 0, -500, 1, 0, 0, 1]}, 'positive'),
    ({'width': 0}, '0x480'),
    ({'d': [0.1, 0.2, 0.3], 'distortion_model': 'plumb_bob'}, '3'),
    ({'d': [0.1] * 5, 'distortion_model': 'bent'}, 'bent'),
    ({'d': [float('inf')] * 5}, 'finite'),
])
def test_intrinsics_that_cannot_be_used_are_named(changes, words):
    with pytest.raises(CameraError, match=words):
        CameraModel.from_camera_info(camera_info(**changes))


def test_pinhole_operations_refuse_a_distorted_image():
    with pytest.raises(CameraError, match='rectify'):
        DISTORTED.rays()
    with pytest.raises(CameraError, match='rectify'):
        DISTORTED.flipped()


@settings(max_examples=25)
@given(camera=cameras, left=st.integers(0, 9), top=st.integers(0, 9))
def test_padding_then_cropping_is_nothing(camera, left, top):
    padded = camera.padded(left, top, 3, 4)
    again = padded.cropped(left, top, camera.width, camera.height)
    assert again.cx == pytest.approx(camera.cx, abs=1e-9)
    assert again.cy == pytest.approx(camera.cy, abs=1e-9)
    assert (padded.width, padded.height) == (camera.width + left + 3, camera.height + top + 4)
