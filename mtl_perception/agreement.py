# SPDX-License-Identifier: Apache-2.0
"""How far two sets of a graph's maps are apart, in the terms of each task kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_perception.tasks import LABELLED_KINDS, PROBABILITY_KINDS, Task
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _limits(labels: float, depth: float, normals: float, probability: float) -> dict[str, float]:
    return {
        **dict.fromkeys(LABELLED_KINDS, labels),
        'depth': depth,
        'normals': normals,
        **dict.fromkeys(PROBABILITY_KINDS, probability),
    }


# What two fp32 engines may differ by, in the units of `disagreement`.
FP32_TOLERANCE = _limits(labels=1e-4, depth=1e-3, normals=0.1, probability=1.5 / 255.0)

# What an engine may be off, by its precision. Half precision moves labels and depth at the
# borders of things, where two answers are nearly equal; the largest difference is met there.
TOLERANCES = {
    'fp32': FP32_TOLERANCE,
    'fp16': _limits(labels=0.02, depth=0.05, normals=3.0, probability=0.1),
    'bf16': _limits(labels=0.05, depth=0.2, normals=10.0, probability=0.2),
}


def _labels(reference: Array, maps: Array) -> float:
    return float(np.mean(reference != maps))


def _depth(reference: Array, maps: Array) -> float:
    return float(np.max(np.abs(maps - reference) / reference))


def _normals(reference: Array, maps: Array) -> float:
    # From the chord: the arc cosine of a float32 dot product is lost below 0.03 degrees.
    chord = np.linalg.norm(maps.astype(np.float64) - reference.astype(np.float64), axis=-1)
    angle = 2.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0))
    return float(np.percentile(np.degrees(angle), 99))


def _probability(reference: Array, maps: Array) -> float:
    return float(np.max(np.abs(maps.astype(np.float32) - reference.astype(np.float32))) / 255.0)


_BY_KIND: dict[str, Callable[[Array, Array], float]] = {
    **dict.fromkeys(LABELLED_KINDS, _labels),
    'depth': _depth,
    'normals': _normals,
    **dict.fromkeys(PROBABILITY_KINDS, _probability),
}


def disagreement(
    tasks: Sequence[Task], reference: Mapping[str, Array], maps: Mapping[str, Array]
) -> dict[str, float]:
    """
    Return by task name how far `maps` are from `reference`; NaN where a map holds NaN.

    semantic and parts: the share of pixels with another label; depth: the largest relative
    difference; normals: the 99th percentile of the angle, degrees; edges and saliency: the
    largest difference of probability.
    """
    return {
        task.name: _BY_KIND[task.kind](reference[task.name], maps[task.name]) for task in tasks
    }
