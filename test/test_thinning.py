# SPDX-License-Identifier: Apache-2.0
"""Thinning: what it must keep, whatever the mask, and lines by hand."""

from __future__ import annotations

from hypothesis import given, settings, strategies
from mtl_perception.thinning import thin
import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3))


@settings(max_examples=60, deadline=None)
@given(strategies.integers(0, 2**32 - 1), strategies.floats(0.2, 0.9))
def test_pieces_and_holes_stay_as_many(seed, share):
    generator = np.random.default_rng(seed)
    mask = ndimage.zoom(generator.random((7, 9)) < share, 3, order=0)
    thinned = thin(mask)
    assert not (thinned.astype(bool) & ~mask).any(), 'nothing is added'
    assert ndimage.label(thinned, EIGHT)[1] == ndimage.label(mask, EIGHT)[1]
    assert ndimage.label(np.pad(thinned, 1) == 0)[1] == ndimage.label(np.pad(mask, 1) == 0)[1]
    np.testing.assert_array_equal(thin(thinned), thinned)


def test_a_thick_bar_becomes_a_line_of_its_length():
    mask = np.zeros((20, 40), np.uint8)
    mask[8:11, 5:35] = 255
    thinned = thin(mask)
    assert thinned.dtype == np.uint8
    rows, columns = np.nonzero(thinned)
    assert set(rows) == {9}, 'its middle row'
    assert len(columns) == len(set(columns)) >= 26


def test_a_thin_line_stays():
    for line in (np.eye(9, dtype=np.uint8), np.ones((1, 9), np.uint8), np.ones((9, 1), np.uint8)):
        np.testing.assert_array_equal(thin(line), line)
