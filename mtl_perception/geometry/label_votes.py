# SPDX-License-Identifier: Apache-2.0
"""
Votes for class labels in a few slots per place, whatever the number of classes.

Each place keeps `SLOTS` labels with their weights and counts as Misra and Gries do
("Finding repeated elements", Science of Computer Programming 2, 1982), here with weights: a
label that has no slot takes an empty one, or else its vote and every slot shrink by the least
of them. What a slot says is at most the label's true weight and falls short of it by at most
1 / (SLOTS + 1) of all votes cast at that place, so a label with a clear majority is never lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt

SLOTS: Final = 4
_CHUNK = 16384  # places whose full histograms are in memory at a time


@dataclass(frozen=True, eq=False)
class Winners:
    """The label with most votes of each place, 255 without any; its share of the kept votes."""

    labels: npt.NDArray[np.uint8]  # (n,)
    shares: npt.NDArray[np.float32]  # (n,) in [0, 1]


def cast_votes(
    slot_labels: npt.NDArray[np.uint8],
    slot_weights: npt.NDArray[np.float32],
    places: npt.NDArray[np.integer],
    labels: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.floating],
) -> None:
    """
    Count votes, in place.

    `slot_labels` and `slot_weights` are (p, SLOTS), weight 0 = empty slot. Vote i says that
    place `places[i]` has class `labels[i]`, with weight `weights[i]` > 0; votes of the same
    place and label are added up first, heavier sums are counted first.
    """
    pairs, inverse = np.unique(places.astype(np.int64) * 256 + labels, return_inverse=True)
    sums = np.bincount(inverse.ravel(), weights, len(pairs)).astype(np.float32)
    order = np.lexsort((pairs & 255, -sums, pairs >> 8))
    pairs, sums = pairs[order], sums[order]
    place = pairs >> 8
    first = np.flatnonzero(np.r_[True, place[1:] != place[:-1]]) if len(place) else place
    rank = np.arange(len(place)) - np.repeat(first, np.diff(np.r_[first, len(place)]))
    # One vote per place at a time; few places see more than two or three labels in a frame.
    for number in range(int(rank.max(initial=-1)) + 1):
        chosen = rank == number
        _cast_one(
            slot_labels, slot_weights, place[chosen],
            (pairs[chosen] & 255).astype(np.uint8), sums[chosen],
        )


def _cast_one(
    slot_labels: npt.NDArray[np.uint8],
    slot_weights: npt.NDArray[np.float32],
    place: npt.NDArray[np.int64],
    label: npt.NDArray[np.uint8],
    weight: npt.NDArray[np.float32],
) -> None:
    """Count one vote at each of some different places."""
    held, kept = slot_labels[place], slot_weights[place]
    rows = np.arange(len(place))
    matching = (held == label[:, None]) & (kept > 0)
    has_slot = matching.any(axis=1)
    least = kept.argmin(axis=1)
    slot = np.where(has_slot, matching.argmax(axis=1), least)
    # An empty slot has weight 0, so taking it costs nobody anything.
    loss = np.where(has_slot, np.float32(0), np.minimum(weight, kept[rows, least]))
    kept -= loss[:, None]
    left = weight - loss
    taken = left > 0
    held[rows[taken], slot[taken]] = label[taken]
    kept[rows, slot] += left
    slot_labels[place], slot_weights[place] = held, kept


def count_votes(
    slot_labels: npt.NDArray[np.uint8], slot_weights: npt.NDArray[np.floating]
) -> Winners:
    """
    Return the winner of each row of slots (n, s), which may join the slots of several places.

    The weights of equal labels are added; of labels with the same weight the least wins.
    """
    count = len(slot_labels)
    labels = np.full(count, UNLABELLED, np.uint8)
    shares = np.zeros(count, np.float32)
    classes = int(slot_labels.max(initial=0)) + 1
    for start in range(0, count, _CHUNK):
        part = np.s_[start : start + _CHUNK]
        rows = len(slot_labels[part])
        bins = np.arange(rows)[:, None] * classes + slot_labels[part]
        histogram = np.bincount(
            bins.ravel(), slot_weights[part].ravel(), rows * classes
        ).reshape(rows, classes)
        total = histogram.sum(axis=1)
        voted = total > 0
        labels[part][voted] = histogram.argmax(axis=1)[voted]
        shares[part][voted] = histogram.max(axis=1)[voted] / total[voted]
    return Winners(labels, shares)
