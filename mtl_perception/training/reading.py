# SPDX-License-Identifier: Apache-2.0
"""Frames that cannot be read: stop the run, or go on without them and count them."""

from __future__ import annotations

from typing import Protocol

from mtl_perception.datasets.errors import DatasetError, LabelRangeError
from mtl_perception.training.errors import TrainingError
from mtl_perception.values import Sample

# More than this in a row is no damaged file but a wrong folder or a wrong label map.
LONGEST_GAP = 20


class Frames(Protocol):
    """What a dataset of the datasets room offers: a length, and a `Sample` by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def next_readable(frames: Frames, index: int) -> tuple[Sample, tuple[str, ...]]:
    """
    Return the frame at `index`, or the first readable one after it, round the end.

    :returns: the frame, and the messages of those that were passed over

    Raises
    ------
    TrainingError
        If twenty frames in a row, or all there are, cannot be read.
    LabelRangeError
        If a frame holds labels that nobody defined: others will, and skipping would hide it.

    """
    damaged: list[str] = []
    for step in range(min(len(frames), LONGEST_GAP)):
        try:
            return frames[(index + step) % len(frames)], tuple(damaged)
        except LabelRangeError:
            raise
        except DatasetError as error:
            damaged.append(str(error))
    msg = (
        f'{len(damaged)} frames in a row cannot be read, the last because of {damaged[-1]}; '
        'that is no damaged file: look at the folder and its labels'
    )
    raise TrainingError(msg)
