# SPDX-License-Identifier: Apache-2.0
"""From a frame's maps to all that a replay says of it."""

from __future__ import annotations

import time

from mtl_perception.bags.frames import RefusedFrame
from mtl_perception.evaluation.frame_scores import FrameScores
from mtl_perception.evaluation.pipeline import Perceived
from mtl_perception.evaluation.replay_observer import FrameResult


def frame_result(perceived: Perceived, scores: FrameScores) -> FrameResult:
    """Score a frame, counting it into `scores`; one that was refused says why instead."""
    entry, maps = perceived.entry, perceived.maps
    if isinstance(entry, RefusedFrame):
        return FrameResult(entry.index, entry.stamp_ns, entry.reason)
    frame = entry.frame
    if maps is None:
        return FrameResult(
            entry.index, frame.stamp_ns, perceived.reason, frame, notes=entry.notes
        )
    started = time.perf_counter()
    targets, values, notes = scores.score(frame, maps, entry.targets, entry.pose)
    score_ms = (time.perf_counter() - started) * 1e3
    return FrameResult(
        index=entry.index,
        stamp_ns=frame.stamp_ns,
        frame=frame,
        maps=maps,
        targets=targets,
        scores=values,
        pose=entry.pose,
        ranking=scores.ranking(),
        notes=(*entry.notes, *notes),
        stages_ms={'decode': perceived.decode_ms, **maps.timings_ms, 'score': score_ms},
    )
