# SPDX-License-Identifier: Apache-2.0
"""Maps at the camera's size: the right value at the right pixel."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.inference import FittedGeometry
from mtl_perception.inference.finishing import MapFinisher
import numpy as np

SIDES = st.integers(16, 500)
SIZES = st.tuples(SIDES, SIDES)
NETWORK = st.tuples(st.integers(4, 40), st.integers(4, 40)).map(lambda s: (s[0] * 8, s[1] * 8))


def pixels(size: tuple[int, int]) -> np.ndarray:
    """Return x and y of every pixel of the camera, (H, W, 2)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack((columns, rows), axis=-1).astype(np.float64)


@settings(max_examples=100, deadline=None)
@given(SIZES, NETWORK, st.sampled_from([1, 2, 4]))
def test_linear_map_is_linear_in_camera_coordinates(
    camera: tuple[int, int], network: tuple[int, int], step: int
) -> None:
    """An engine that answers with the network's own coordinates."""
    geometry = FittedGeometry.fit(camera, network, step)
    finisher = MapFinisher(geometry)
    centres = (np.arange(max(network) // step) + 0.5) * step - 0.5
    x_map = np.tile(centres[: network[1] // step], (network[0] // step, 1)).astype(np.float32)
    y_map = np.tile(centres[: network[0] // step, None], (1, network[1] // step))
    due = geometry.to_network(pixels(camera))
    # Within the outermost centres; beyond them the border repeats.
    low = np.array([geometry.left, geometry.top]) + (step - 1) / 2
    high = low + np.array(geometry.content_size[::-1]) - step
    due = np.clip(due, low, high)
    x_found = finisher.linear(x_map, step)
    y_found = finisher.linear(y_map.astype(np.float32), step)
    assert x_found.shape == camera
    np.testing.assert_allclose(x_found, due[..., 0], atol=2e-3)
    np.testing.assert_allclose(y_found, due[..., 1], atol=2e-3)


@settings(max_examples=100, deadline=None)
@given(SIZES, NETWORK, st.sampled_from([1, 2, 4]))
def test_label_is_the_nearest_one(
    camera: tuple[int, int], network: tuple[int, int], step: int
) -> None:
    geometry = FittedGeometry.fit(camera, network, step)
    finisher = MapFinisher(geometry)
    rows, columns = network[0] // step, network[1] // step
    due = geometry.to_network(pixels(camera))
    for axis, count in ((0, columns), (1, rows)):
        index = np.arange(count)
        labels = np.tile(index, (rows, 1)) if axis == 0 else np.tile(index[:, None], (1, columns))
        found = finisher.labels(labels.astype(np.uint8), step)  # at most 40 * 8 / 1 labels
        assert found.shape == camera
        found_index = found.astype(int)
        # Counting begins anew at 256: take the turn that is nearest to where it must be.
        place = (due[..., axis] + 0.5) / step - 0.5
        found_index += np.rint((place - found_index) / 256).astype(int) * 256
        assert np.abs(found_index - place).max() <= 0.5 + 1e-2


@settings(max_examples=50, deadline=None)
@given(SIZES, NETWORK, st.integers(0, 2**32 - 1))
def test_normals_are_interpolated_and_unit(
    camera: tuple[int, int], network: tuple[int, int], seed: int
) -> None:
    geometry = FittedGeometry.fit(camera, network)
    finisher = MapFinisher(geometry)
    normals = np.random.default_rng(seed).normal(size=(*network, 3)).astype(np.float32)
    normals[..., 2] -= 4.0
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    found = finisher.normals(normals)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0, atol=1e-5)
    vectors = np.dstack([finisher.linear(normals[..., axis]) for axis in range(3)])
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, vectors, atol=1e-5)


def test_normals_that_cancel_out_are_invalid() -> None:
    normals = np.zeros((2, 2, 3), np.float32)
    normals[:, 0, 2], normals[:, 1, 2] = -1.0, 1.0
    found = MapFinisher(FittedGeometry((2, 3), (2, 2), (2, 2), 0, 0)).normals(normals)
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(found[:, [0, 2], 2], [[-1.0, 1.0]] * 2)


def test_maps_of_two_frames_share_no_memory() -> None:
    finisher = MapFinisher(FittedGeometry.fit((48, 64), (24, 32)))
    ones = np.ones((24, 32, 3), np.float32)
    first = [finisher.normals(ones), finisher.linear(ones[..., 0]), finisher.labels(ones[..., 0])]
    kept = [values.copy() for values in first]
    for values in (finisher.normals(-ones), finisher.linear(ones[..., 0] * 5)):
        assert not any(np.shares_memory(values, other) for other in first)
    for values, copy in zip(first, kept):
        np.testing.assert_array_equal(values, copy)


def test_same_size_gives_a_copy() -> None:
    values = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    finisher = MapFinisher(FittedGeometry.fit((3, 4), (3, 4)))
    found = finisher.linear(values)
    np.testing.assert_array_equal(found, values)
    assert not np.shares_memory(found, values)


def test_maps_are_written_where_the_caller_says() -> None:
    """The given array is what comes back, with the values that a new one would have."""
    random = np.random.default_rng(1)
    finisher = MapFinisher(FittedGeometry.fit((48, 64), (24, 32)))
    normals = random.normal(size=(24, 32, 3)).astype(np.float32)
    labels = random.integers(0, 9, (24, 32), np.uint8)
    for out, new, again in (
        (np.zeros((48, 64, 3), np.float32), finisher.normals(normals),
         lambda out: finisher.normals(normals, out)),
        (np.zeros((48, 64), np.float32), finisher.linear(normals[..., 0]),
         lambda out: finisher.linear(normals[..., 0], out=out)),
        (np.zeros((48, 64), np.uint8), finisher.labels(labels),
         lambda out: finisher.labels(labels, out=out)),
    ):
        assert again(out) is out
        np.testing.assert_array_equal(out, new)


def test_where_memory_lies_changes_no_bit() -> None:
    """A live node and a replay score the same maps: the last digit has to be the same, too."""
    generator = np.random.default_rng(2)
    normals = generator.normal(size=(96, 128, 3)).astype(np.float32)
    geometry = FittedGeometry.fit((97, 131), (96, 128), 1)
    kept, found = [], set()
    for index in range(24):
        kept.append(np.empty(40_000 + 16 * index, np.uint8))  # moves what is allocated next
        kept.append(MapFinisher(geometry))
        found.add(kept[-1].normals(normals).tobytes())
    assert len(found) == 1
