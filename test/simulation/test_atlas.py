# SPDX-License-Identifier: Apache-2.0
"""The texture atlas against the tiles it was packed from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.simulation.atlas import pack_shelves, TextureAtlas
from mtl_perception.simulation.errors import SimulationError
from mtl_perception.simulation.patterns import noise
import numpy as np
import pytest


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=60))
def test_packed_rectangles_do_not_overlap(sizes):
    """Paint every rectangle: no cell is painted twice, none lies outside."""
    extents = np.array(sizes, np.int64)
    corners, height = pack_shelves(extents, 50)
    sheet = np.zeros((height, 50), int)
    for (x, y), (width, tall) in zip(corners, extents):
        assert x + width <= 50
        assert y + tall <= height
        sheet[y : y + tall, x : x + width] += 1
    assert sheet.max() == 1
    assert sheet.sum() == extents.prod(axis=1).sum()


def test_too_wide_a_rectangle_is_refused():
    """The message says how wide it is."""
    with pytest.raises(SimulationError, match='60'):
        pack_shelves(np.array([[60, 2]]), 50)


def test_texel_centres_give_the_tile_back():
    """At level 0, sampling at texel centres is a look-up; coordinates wrap around."""
    rng = np.random.default_rng(0)
    tiles = [rng.random((16, 16, 3)).astype(np.float32) for _ in range(3)]
    atlas = TextureAtlas.pack(tiles)
    rows, columns = np.indices((16, 16)).reshape(2, -1)
    for index, tile in enumerate(tiles):
        for shift in (0, -3, 2):
            found = atlas.sample(
                np.full(256, index), ((columns + 0.5) / 16 + shift).astype(np.float32),
                ((rows + 0.5) / 16 - shift).astype(np.float32), np.full(256, 1e-4, np.float32))
            expected = (np.rint(tile.reshape(-1, 3) * 255) / 255) ** 2.2
            np.testing.assert_allclose(found, expected, atol=0.006)


def test_between_texels_is_bilinear_and_wraps():
    """Half way across the tile's border lies the mean of its two sides."""
    tile = np.zeros((8, 8, 3), np.float32)
    tile[:, 0] = 1.0
    atlas = TextureAtlas.pack([tile])
    found = atlas.sample(
        np.array([0]), np.array([0.0], np.float32), np.array([0.5], np.float32),
        np.array([1e-4], np.float32))
    np.testing.assert_allclose(found, 0.5**2.2, atol=0.01)


def test_far_away_a_tile_is_its_mean():
    """A footprint as wide as the tile sees the mean colour."""
    rng = np.random.default_rng(1)
    tile = rng.random((64, 64, 3)).astype(np.float32)
    atlas = TextureAtlas.pack([tile])
    found = atlas.sample(
        np.zeros(5, int), rng.random(5).astype(np.float32), rng.random(5).astype(np.float32),
        np.ones(5, np.float32))
    np.testing.assert_allclose(found, np.full((5, 3), tile.mean() ** 2.2), atol=0.03)


def test_noise_is_periodic_and_fills_its_range():
    """The step across the border is no larger than the steps inside."""
    tile = noise(np.random.default_rng(3), 128, (5, 9), 3)
    assert tile.min() == 0
    assert tile.max() == pytest.approx(1, abs=1e-4)
    for axis in (0, 1):
        inside = np.abs(np.diff(tile, axis=axis)).max()
        border = np.abs(np.take(tile, 0, axis) - np.take(tile, -1, axis)).max()
        assert border <= inside * 1.5
