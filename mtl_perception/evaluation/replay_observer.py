# SPDX-License-Identifier: Apache-2.0
"""What a replay tells those who look on: one run's beginning, every frame, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TYPE_CHECKING

from mtl_perception.bags.topics import BagTopics
from mtl_perception.tasks import Task
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtl_perception.evaluation.replay_report import ReplayReport


@dataclass(frozen=True)
class ReplayContext:
    """One run: a model on an engine over a bag."""

    name: str  # unique among the runs of a replay
    bag: Path
    topics: BagTopics
    tasks: tuple[Task, ...]
    directory: Path  # exists; where the run's files go
    frame_count: int | None  # None where damage leaves it unknown
    model: str = ''
    engine: str = ''


@dataclass(frozen=True, eq=False)
class FrameResult:
    """
    One message of the image topic and all that came of it.

    A refused one has the reason in `refused`, and no maps; it has no `frame` either where its
    bytes are no image. `targets` are by task kind, as large as the maps and rectified as they
    are (`complete_targets`); `scores` by task name, then metric. `maps.image` and `maps.camera`
    are the rectified image and its pinhole. Arrays are not to be written to.
    """

    index: int  # counted over all messages of the image topic
    stamp_ns: int
    refused: str = ''
    frame: Frame | None = None
    maps: PerceptionMaps | None = None
    targets: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pose: npt.NDArray[np.float64] | None = None  # (4, 4), optical frame -> world
    ranking: tuple[str, str, bool] | None = None  # task, metric, whether higher is better
    notes: tuple[str, ...] = ()
    stages_ms: Mapping[str, float] = field(default_factory=dict)


class ReplayObserver(Protocol):
    """
    Looks on at one run; all calls come from one thread, the frames in order.

    `finish` is called at the end, also after Ctrl-C, with the report that metrics.json will
    hold; once more where it raised OSError, as there may be room on the disk by then. When a
    replay goes on after it was ended, those that `need_every_frame` are told all frames again,
    others enough of them for their pictures; so the maps are computed once more.
    """

    needs_every_frame: bool

    def begin(self, context: ReplayContext) -> None:
        """Get ready for the run."""

    def frame(self, result: FrameResult) -> None:
        """Take one frame."""

    def finish(self, report: ReplayReport) -> None:
        """Write what was gathered into the run's directory."""
