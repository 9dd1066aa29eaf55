# SPDX-License-Identifier: Apache-2.0
"""Keep the worst and the best frames of a run, a few of each and not all from one place."""

from __future__ import annotations

from dataclasses import dataclass, field
import math

from mtl_perception.evaluation.picture_choice import stretch_length
from mtl_perception.evaluation.report.run_record import FrameStrip

_KEPT = 4


@dataclass(frozen=True, eq=False)
class _Entry:
    extremity: float
    index: int
    strip: FrameStrip


@dataclass
class Extremes:
    """The frames with the least and greatest `goodness`; one per twentieth of the recording."""

    frame_count: int | None
    _worst: list[_Entry] = field(default_factory=list)
    _best: list[_Entry] = field(default_factory=list)

    def wants(self, index: int, goodness: float) -> bool:
        """Return whether this frame would be kept for now."""
        if not math.isfinite(goodness):
            return False
        return any(
            self._rivals(kept, index, value) is not None
            for kept, value in ((self._worst, -goodness), (self._best, goodness))
        )

    def add(self, index: int, goodness: float, strip: FrameStrip) -> None:
        """Keep the frame where it is wanted, in place of a lesser one."""
        for kept, value in ((self._worst, -goodness), (self._best, goodness)):
            rivals = self._rivals(kept, index, value)
            if rivals is None:
                continue
            kept[:] = [entry for entry in kept if entry not in rivals]
            kept.append(_Entry(value, index, strip))
            kept.sort(key=lambda entry: (-entry.extremity, entry.index))

    @property
    def worst(self) -> tuple[FrameStrip, ...]:
        """The worst frames, the worst first."""
        return tuple(entry.strip for entry in self._worst)

    @property
    def best(self) -> tuple[FrameStrip, ...]:
        """The best frames, the best first, without those among the worst."""
        worst = {entry.index for entry in self._worst}
        return tuple(entry.strip for entry in self._best if entry.index not in worst)

    def _rivals(self, kept: list[_Entry], index: int, value: float) -> list[_Entry] | None:
        """Return what this frame takes the place of, or None if it does not get in."""
        stretch = stretch_length(self.frame_count)
        rivals = [entry for entry in kept if entry.index // stretch == index // stretch]
        if not rivals and len(kept) >= _KEPT:
            rivals = kept[-1:]
        return None if any(entry.extremity >= value for entry in rivals) else rivals
