# SPDX-License-Identifier: Apache-2.0
"""What the page shows of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as a browser takes it, with the words beneath it."""

    title: str
    media_type: str  # image/jpeg or image/png
    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class FrameStrip:
    """The pictures of one frame: input, maps, what they are compared with, errors."""

    index: int
    stamp_ns: int
    caption: str  # its scores
    pictures: tuple[EncodedPicture, ...]

    @property
    def size(self) -> int:
        """Bytes of all pictures."""
        return sum(len(picture.data) for picture in self.pictures)


@dataclass(frozen=True)
class RunRecord:
    """
    One run: `document` is its metrics.json, `series` its per_frame.csv by column.

    Runs over the same bag are compared with the first of them.
    """

    name: str
    document: Mapping[str, Any]
    indices: Sequence[int] = ()  # of the rows of `series`
    series: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    samples: tuple[FrameStrip, ...] = ()
    worst: tuple[FrameStrip, ...] = ()
    best: tuple[FrameStrip, ...] = ()
    ranking: str = ''  # the score by which frames are worst and best
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()  # class names and colours
    map_document: Mapping[str, Any] = field(default_factory=dict)
    map_pictures: tuple[EncodedPicture, ...] = ()

    @property
    def bag(self) -> str:
        """The recording."""
        return str(self.document.get('bag', ''))
