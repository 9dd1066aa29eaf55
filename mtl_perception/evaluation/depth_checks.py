# SPDX-License-Identifier: Apache-2.0
"""Depth by distance, and the depth jumps of prediction and sensor."""

from __future__ import annotations

from itertools import pairwise
import math

import cv2
from mtl_perception.datasets.depth_edges import depth_jump_edges
from mtl_perception.evaluation.checks import Array, Scene
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt

DISTANCES_M = (0.0, 1.0, 2.0, 4.0, 8.0, math.inf)
BANDS = tuple(
    f'{near:g}_{far:g}m' if math.isfinite(far) else f'{near:g}m_on'
    for near, far in pairwise(DISTANCES_M)
)
# Where there is no usable prediction it counts as this, as in the depth metric.
_FLOOR_M = 1e-3
EDGE_TOLERANCE_PX = 2
# Sums over pixels by band; the root is taken of those of squares.
_SUMS = (
    'abs_rel', 'rmse_m', 'log10', 'delta1', 'delta2', 'delta3', 'scaled_abs_rel', 'scaled_rmse_m',
)  # fmt: skip
_EDGE_COUNTS = ('predicted', 'hit', 'true', 'found')


class DepthByDistance:
    """
    Depth errors over the pixels whose true depth lies in [0, 1), [1, 2), [2, 4) ... m.

    AbsRel, RMSE, log10 and delta1-3, and after `scaled_` AbsRel and RMSE of predictions that are
    multiplied by median(truth) / median(prediction) of the whole frame.
    """

    name = 'depth_by_distance'
    columns: tuple[str, ...] = tuple(
        f'{metric}_{band}' for metric in (*_SUMS, 'pixels') for band in BANDS
    )

    def __init__(self) -> None:
        self.arrays = {'sums': np.zeros((1 + len(_SUMS), len(BANDS)))}  # the first row: pixels
        self.memory: Scene | None = None

    def score(self, scene: Scene) -> dict[str, float]:
        """Compare predicted with measured depth."""
        if 'depth' not in scene.predicted or 'depth' not in scene.truth:
            return {}
        truth = scene.truth['depth']
        valid = np.isfinite(truth) & (truth > 0)
        true = truth[valid].astype(np.float64)
        if not true.size:
            return {}
        predicted = np.maximum(np.nan_to_num(
            scene.predicted['depth'][valid].astype(np.float64), nan=0, posinf=0, neginf=0
        ), _FLOOR_M)  # fmt: skip
        ratio = predicted / true
        off = np.maximum(ratio, 1 / ratio)
        error = np.abs(predicted - true)
        scaled = np.abs(predicted * (np.median(true) / np.median(predicted)) - true)
        band = np.searchsorted(DISTANCES_M[1:-1], true, side='right')
        sums = np.stack([
            np.bincount(band, weights, len(BANDS))
            for weights in (
                np.ones_like(true), error / true, error**2, np.log10(off),
                *(off < 1.25**power for power in (1, 2, 3)), scaled / true, scaled**2,
            )
        ])  # fmt: skip
        self.arrays['sums'] += sums
        return _bands(sums)

    def totals(self) -> dict[str, float]:
        """Return the values over every pixel of every frame."""
        return _bands(self.arrays['sums'])


def _bands(sums: Array) -> dict[str, float]:
    result = {}
    for band, (count, *totals) in zip(BANDS, sums.T):
        if count:
            for name, total in zip(_SUMS, totals):
                mean = float(total / count)
                result[f'{name}_{band}'] = math.sqrt(mean) if 'rmse' in name else mean
            result[f'pixels_{band}'] = float(count)
    return result


class DepthEdges:
    """
    The jumps of predicted depth against those of measured depth, both by `depth_jump_edges`.

    Precision: the share of predicted jump pixels with a measured one within 2 pixels; recall
    the reverse; pixels without measured depth count on neither side.
    """

    name = 'depth_edges'
    columns: tuple[str, ...] = ('precision', 'recall', 'f')

    def __init__(self) -> None:
        self.arrays = {'counts': np.zeros(len(_EDGE_COUNTS))}
        self.memory: Scene | None = None

    def score(self, scene: Scene) -> dict[str, float]:
        """Compare the jumps of one frame."""
        if 'depth' not in scene.predicted or 'depth' not in scene.truth:
            return {}
        true = depth_jump_edges(scene.truth['depth'])
        if (true == UNLABELLED).all():
            return {}
        predicted = depth_jump_edges(scene.predicted['depth']) == 1
        counts = edge_counts(predicted, true == 1, true != UNLABELLED)
        self.arrays['counts'] += counts
        return precision_recall(counts)

    def totals(self) -> dict[str, float]:
        """Return the values over every pixel of every frame."""
        return precision_recall(self.arrays['counts'])


def edge_counts(predicted: Array, true: Array, known: Array) -> npt.NDArray[np.float64]:
    """
    Count edge pixels that agree within 2 pixels (square neighbourhood), where `known`.

    Returns the predicted pixels, those of them near a true one, the true pixels, those of them
    near a predicted one.
    """
    size = 2 * EDGE_TOLERANCE_PX + 1
    square = np.ones((size, size), np.uint8)
    predicted, true = predicted & known, true & known
    near_true = cv2.dilate(true.astype(np.uint8), square) > 0
    near_predicted = cv2.dilate(predicted.astype(np.uint8), square) > 0
    return np.array(
        [predicted.sum(), (predicted & near_true).sum(), true.sum(),
         (true & near_predicted).sum()], np.float64,
    )  # fmt: skip


def precision_recall(counts: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return precision, recall and F of `edge_counts`; empty without a single true edge."""
    predicted, hit, true, found = (float(value) for value in counts)
    if not true:
        return {}
    precision, recall = hit / predicted if predicted else 0.0, found / true
    both = precision + recall
    return {
        'precision': precision, 'recall': recall, 'f': 2 * precision * recall / max(both, 1e-12),
    }  # fmt: skip
