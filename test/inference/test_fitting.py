# SPDX-License-Identifier: Apache-2.0
"""The geometry of fitting: exact both ways, at any size and aspect."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.inference import FittedGeometry
import numpy as np
import pytest

SIDES = st.integers(8, 900)
SIZES = st.tuples(SIDES, SIDES)
NETWORK = st.tuples(st.integers(4, 60), st.integers(4, 60)).map(lambda s: (s[0] * 8, s[1] * 8))
STEPS = st.sampled_from([1, 2, 4])


@settings(max_examples=200, deadline=None)
@given(SIZES, NETWORK, STEPS)
def test_content_is_the_rounded_image_inside_the_network(
    camera: tuple[int, int], network: tuple[int, int], step: int
) -> None:
    geometry = FittedGeometry.fit(camera, network, step)
    scale = min(Fraction(network[0], camera[0]), Fraction(network[1], camera[1]))
    for axis, start in enumerate((geometry.top, geometry.left)):
        content = geometry.content_size[axis]
        assert content % step == 0
        assert start % step == 0
        assert 0 <= start <= start + content <= network[axis]
        # As near to the ideal as whole steps allow, and never nothing.
        assert abs(content - max(scale * camera[axis], step)) <= Fraction(step, 2)
        # Centred as well as whole steps allow.
        assert abs((network[axis] - content) / 2 - start) < step
    assert any(c == n for c, n in zip(geometry.content_size, network))


@settings(max_examples=200, deadline=None)
@given(SIZES, NETWORK, STEPS, st.integers(0, 2**32 - 1))
def test_points_map_there_and_back(
    camera: tuple[int, int], network: tuple[int, int], step: int, seed: int
) -> None:
    geometry = FittedGeometry.fit(camera, network, step)
    points = np.random.default_rng(seed).uniform(-0.5, 900.0, (20, 2))
    np.testing.assert_allclose(geometry.to_camera(geometry.to_network(points)), points, atol=1e-9)
    # The borders of the image are the borders of the content: half a pixel outside the centres.
    height, width = camera
    corners = geometry.to_network([(-0.5, -0.5), (width - 0.5, height - 0.5)])
    rows, columns = geometry.content_size
    low = np.array([geometry.left, geometry.top]) - 0.5
    np.testing.assert_allclose(corners, [low, low + np.array([columns, rows])], atol=1e-9)


def test_it_is_the_camera_model_that_is_scaled_and_padded() -> None:
    camera = CameraModel(641, 361, 500.0, 510.0, 317.3, 181.9)
    geometry = FittedGeometry.fit((361, 641), (240, 320))
    height, width = geometry.content_size
    fitted = camera.scaled(width, height).padded(geometry.left, geometry.top, 0, 0)
    points = np.array([[0.3, -0.2, 1.5], [-0.8, 0.4, 3.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(
        geometry.to_network(camera.project(points)), fitted.project(points), atol=1e-9
    )
    assert camera.focal_px * geometry.scale == pytest.approx(fitted.focal_px)


@pytest.mark.parametrize(
    ('camera', 'content', 'origin'),
    [
        ((480, 640), (240, 320), (0, 0)),
        ((720, 1280), (180, 320), (30, 0)),
        ((640, 480), (240, 180), (0, 70)),
        ((120, 160), (240, 320), (0, 0)),
        ((1, 5000), (1, 320), (119, 0)),
    ],
)
def test_usual_cameras(
    camera: tuple[int, int], content: tuple[int, int], origin: tuple[int, int]
) -> None:
    geometry = FittedGeometry.fit(camera, (240, 320))
    assert geometry.content_size == content
    assert (geometry.top, geometry.left) == origin


@settings(max_examples=60, deadline=None)
@given(SIZES, NETWORK, st.floats(0.25, 0.75), st.floats(0.25, 0.75))
def test_fitted_image_shows_things_where_the_geometry_says(
    camera: tuple[int, int], network: tuple[int, int], x: float, y: float
) -> None:
    """A soft spot in the camera's image, found again by its centre of mass."""
    geometry = FittedGeometry.fit(camera, network)
    # Coarser is too coarse to measure a fraction of a pixel with.
    assume(min(camera) >= 40 and min(geometry.content_size) >= 24)
    height, width = camera
    centre = np.array([x * (width - 1), y * (height - 1)])
    sigma = max(min(camera) / 12, 1.0 / geometry.scale)
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * sigma**2))
    image = np.repeat(np.rint(spot * 255).astype(np.uint8)[..., None], 3, axis=-1)
    canvas = np.zeros((*network, 3), np.uint8)
    geometry.fit_image(image, canvas)
    mass = np.where(canvas[..., 1] > 20, canvas[..., 1], 0).astype(np.float64)
    rows, columns = np.mgrid[: network[0], : network[1]]
    found = np.array([(mass * columns).sum(), (mass * rows).sum()]) / mass.sum()
    assert np.abs(found - geometry.to_network(centre)).max() < 0.25


def test_padding_is_left_alone() -> None:
    geometry = FittedGeometry.fit((50, 100), (64, 64))
    canvas = np.full((64, 64, 3), 7, np.uint8)
    geometry.fit_image(np.full((50, 100, 3), 200, np.uint8), canvas)
    assert (canvas[16:48] == 200).all()
    assert (canvas[:16] == 7).all()
    assert (canvas[48:] == 7).all()


def test_shrinking_averages_instead_of_picking() -> None:
    """Every fourth line is white: a quarter of the light, wherever single pixels are picked."""
    lines = np.zeros((240, 320, 3), np.uint8)
    lines[::4] = 255
    canvas = np.zeros((60, 80, 3), np.uint8)
    FittedGeometry.fit((240, 320), (60, 80)).fit_image(lines, canvas)
    assert np.abs(canvas.astype(int) - 64).max() <= 1
