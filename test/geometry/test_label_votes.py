# SPDX-License-Identifier: Apache-2.0
"""Votes in four slots against exact counts."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.geometry.label_votes import cast_votes, count_votes, SLOTS
import numpy as np

VOTE = st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 2, 3, 7, 40, 254]),
                 st.integers(1, 64).map(lambda value: value / 64))  # fmt: skip


def fresh(places: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((places, SLOTS), np.uint8), np.zeros((places, SLOTS), np.float32)


@settings(max_examples=80, deadline=None)
@given(frames=st.lists(st.lists(VOTE, max_size=20), min_size=1, max_size=6))
def test_what_is_kept_is_close_to_the_true_counts(frames: list) -> None:
    labels, weights = fresh(6)
    exact: dict[int, Counter] = {place: Counter() for place in range(6)}
    for frame in frames:
        for place, label, weight in frame:
            exact[place][label] += weight
        columns = [np.array(column) for column in zip(*frame)] or [np.zeros(0)] * 3
        cast_votes(
            labels, weights, columns[0].astype(np.int64), columns[1].astype(np.uint8), columns[2]
        )
    for place, counts in exact.items():
        total = sum(counts.values())
        kept = {
            int(label): float(weight)
            for label, weight in zip(labels[place], weights[place])
            if weight > 0
        }
        assert len(kept) == np.count_nonzero(weights[place])  # no label has two slots
        for label, count in counts.items():
            # Weights are multiples of 1/64, so these sums are exact.
            assert count - total / (SLOTS + 1) <= kept.get(label, 0.0) <= count
        if len(counts) <= SLOTS:
            assert kept == counts
    winners = count_votes(labels, weights)
    for place, counts in exact.items():
        if not counts:
            assert winners.labels[place] == 255
            assert winners.shares[place] == 0
        elif len(counts) <= SLOTS:
            best = max(counts.values())
            assert winners.labels[place] == min(k for k, v in counts.items() if v == best)
            assert np.isclose(winners.shares[place], best / sum(counts.values()))


def test_slots_of_several_places_add_up() -> None:
    labels = np.array([[3, 9, 0, 0, 9, 4, 0, 0]], np.uint8)
    weights = np.array([[2.0, 1.5, 0, 0, 1.0, 0.5, 0, 0]], np.float32)
    winners = count_votes(labels, weights)
    assert winners.labels.tolist() == [9]
    assert winners.shares.tolist() == [0.5]


def test_a_majority_survives_any_number_of_rare_labels() -> None:
    labels, weights = fresh(1)
    for label in range(200):
        cast_votes(
            labels, weights, np.zeros(2, np.int64), np.array([label, 230], np.uint8), np.ones(2)
        )
    assert count_votes(labels, weights).labels[0] == 230
