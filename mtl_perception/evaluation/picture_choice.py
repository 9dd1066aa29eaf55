# SPDX-License-Identifier: Apache-2.0
"""Which frames of a recording are shown: some spread evenly, and the worst and best ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math

# Worst and best frames come from different stretches: neighbours look alike.
_STRETCHES = 20
_MOST_SAMPLES = 80
_SHEET_ROWS = 4
_USUAL_FRAMES = 100  # where a damaged bag does not say how many it holds


def stretch_length(frame_count: int | None) -> int:
    """Return how many frames in a row give one worst and one best frame at most."""
    return max(1, (frame_count or _USUAL_FRAMES) // _STRETCHES)


def sheet_step(frame_count: int | None, rows: int = _SHEET_ROWS) -> int:
    """Return how far apart the frames of a sheet with so many rows are."""
    return max(1, (frame_count or _USUAL_FRAMES) // rows)


def slider_step(frame_count: int, largest: int = _MOST_SAMPLES) -> int:
    """Return how far apart the frames of the page's slider are: a power of two."""
    # Powers of two, so that runs over the same recording keep the same frames.
    step = 1
    while frame_count > step * largest:
        step *= 2
    return step


def frames_for_pictures(
    rows: Sequence[Mapping[str, str]], frame_count: int | None, ranking: str
) -> frozenset[int]:
    """
    Return the frames that an ended replay has to show again for its pictures to be whole.

    :param rows: of per_frame.csv, one per frame from the first on
    :param ranking: the column by which frames are worst or best; '' = none
    """
    shown = [index for index, row in enumerate(rows) if not row['refused']]
    step = slider_step(frame_count or len(rows))
    chosen = {index for index in shown if index % step == 0}
    for start in range(0, len(rows), sheet_step(frame_count)):
        chosen.update([index for index in shown if index >= start][:1])
    scores = [float(row.get(ranking) or 'nan') for row in rows]
    length = stretch_length(frame_count)
    for start in range(0, len(rows), length):
        stretch = range(start, min(start + length, len(rows)))
        finite = [index for index in stretch if math.isfinite(scores[index])]
        if finite:
            chosen.add(min(finite, key=scores.__getitem__))
            chosen.add(max(finite, key=scores.__getitem__))
    return frozenset(chosen)
