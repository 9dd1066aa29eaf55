# SPDX-License-Identifier: Apache-2.0
"""One-to-one matching of the pixels of two masks within a distance, as many as can be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.intp]
_NONE = -1


def match_boundaries(predicted: Mask, true: Mask, reach_px: float) -> tuple[Mask, Mask]:
    """
    Match pixels one to one within `reach_px`; return which of either mask were matched.

    No other one-to-one assignment matches more pixels. Near pairs are taken first, then
    augmenting paths raise the number to its maximum (Hopcroft and Karp, 1973), one forest of
    them at a time over whole arrays: the lines of a picture hang together over thousands of
    pixels, for which SciPy's matching needs a hundred times as long.

    The benchmark's own code (correspondPixels, with the assignment solver CSA++) minimises the
    summed distance, an unmatched pixel costing 100 px, over a graph with a few random edges for
    staying unmatched: as many matches up to that approximation, but in general other pairs.
    """
    matched = np.zeros(predicted.shape, bool), np.zeros(true.shape, bool)
    rows, columns = np.nonzero(predicted)
    true_rows, true_columns = np.nonzero(true)
    if not len(rows) or not len(true_rows):
        return matched
    margin = math.floor(reach_px)
    number = np.full(np.add(true.shape, 2 * margin), _NONE, np.intp)
    number[true_rows + margin, true_columns + margin] = np.arange(len(true_rows))
    steps = np.mgrid[-margin : margin + 1, -margin : margin + 1].reshape(2, -1)
    squared = (steps**2).sum(0)
    order = np.argsort(squared, kind='stable')
    steps = steps[:, order[squared[order] <= reach_px**2]]  # nearest first
    neighbours = number[rows[:, None] + margin + steps[0], columns[:, None] + margin + steps[1]]
    partner = _assign(neighbours, len(true_rows))
    found = partner != _NONE
    matched[0][rows[found], columns[found]] = True
    matched[1][true_rows[partner[found]], true_columns[partner[found]]] = True
    return matched


def _assign(neighbours: _Numbers, count: int) -> _Numbers:
    """
    Return each left node's partner, _NONE where it has none.

    :param neighbours: (left nodes, n) right nodes that each may have, _NONE = no such one; a
        column names no right node twice
    :param count: how many right nodes there are
    """
    partner = np.full(len(neighbours), _NONE, np.intp)
    owner = np.full(count, _NONE, np.intp)
    for right in neighbours.T:
        free = (partner == _NONE) & (right != _NONE)
        free[free] = owner[right[free]] == _NONE
        left = np.nonzero(free)[0]
        partner[left], owner[right[left]] = right[left], left
    while ends := _augmenting_paths(neighbours, partner, owner):
        for end, parent in ends:
            right = end
            while right != _NONE:
                left = parent[right]
                owner[right] = left
                partner[left], right = right, partner[left]
    return partner


def _augmenting_paths(
    neighbours: _Numbers, partner: _Numbers, owner: _Numbers
) -> list[tuple[Any, _Numbers]]:
    """
    Grow a tree of alternating paths from every left node without partner, level by level.

    :returns: for paths without a node in common, the free right node at the end, and the left
        node before each right node; empty only if there is no augmenting path
    """
    parent = np.full(len(owner), _NONE, np.intp)
    root = np.full(len(partner), _NONE, np.intp)
    front = np.nonzero(partner == _NONE)[0]
    root[front] = front
    finished = np.zeros(len(partner), bool)  # by root: it has its path
    ends: list[Any] = []
    while len(front):
        reached = neighbours[front]
        fresh = reached != _NONE
        fresh[fresh] = parent[reached[fresh]] == _NONE
        right, first = np.unique(reached[fresh], return_index=True)
        left = np.repeat(front, fresh.sum(1))[first]
        parent[right] = left
        free = owner[right] == _NONE
        # A tree gives one path: two would share its root.
        roots, place = np.unique(root[left[free]], return_index=True)
        ends.extend(right[free][place])
        finished[roots] = True
        following = owner[right[~free]]
        root[following] = root[left[~free]]
        front = following[~finished[root[following]]]
    return [(end, parent) for end in ends]
