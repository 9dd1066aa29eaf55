# SPDX-License-Identifier: Apache-2.0
"""Delta_m: what learning tasks together gained or lost against one network per task."""

from __future__ import annotations

from collections.abc import Mapping
import math

from mtl_perception.metrics.errors import MetricError


def delta_m(
    scores: Mapping[str, float],
    single_task: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
) -> float:
    """
    Return the mean relative gain over tasks in percent; positive = better than single-task.

    100 / T * sum over tasks of (-1)^l (M - S) / S, with l = 1 where lower is better (Maninis et
    al., CVPR 2019; MTI-Net, DeMT, DenseMTL). Compare only networks on one backbone under one
    protocol.

    :param scores: M by task, of the multi-task network
    :param single_task: S by task, of the networks with one task each
    :param higher_is_better: by task: true for mIoU and F, false for RMSE and mean angle

    Raises
    ------
    MetricError
        If the tasks differ, there is none, or a score is not finite or a single-task score not
        positive.

    """
    if not scores or not set(scores) == set(single_task) == set(higher_is_better):
        msg = (
            f'Delta_m needs the same tasks on both sides: scores of {sorted(scores)}, single-task '
            f'scores of {sorted(single_task)}, directions of {sorted(higher_is_better)}'
        )
        raise MetricError(msg)
    gains = []
    for task, score in scores.items():
        single = single_task[task]
        if not (math.isfinite(score) and math.isfinite(single) and single > 0):
            msg = (
                f'Delta_m of task {task!r}: score {score} against {single} of the single-task '
                'network; both must be finite and the latter positive'
            )
            raise MetricError(msg)
        gain = (score - single) / single
        gains.append(gain if higher_is_better[task] else -gain)
    return 100 * sum(gains) / len(gains)
