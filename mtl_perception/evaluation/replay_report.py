# SPDX-License-Identifier: Apache-2.0
"""What a replay found, as a value and as metrics.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
from typing import Any

from mtl_perception.files import atomic_write

METRICS_FILE = 'metrics.json'
NORMALS_WINDOW = 11
# What differs between two runs of the same: times and memory.
MEASURED = ('latency_ms', 'frames_per_second', 'seconds', 'peak_memory_mib')


@dataclass
class ReplayReport:
    """
    What a replay found; `to_json()` is what metrics.json holds.

    `scores` are over all frames, by task (or check, see `FrameScores`) and metric; `confusion`
    has pixels by semantic task, rows truth, columns prediction, the last unlabelled; `notes`
    counts, by sentence, what could not be compared or read. All but the `MEASURED` are the same
    in every run.
    """

    bag: str
    topics: dict[str, str | None]
    name: str = ''
    model: str = ''
    engine: str = ''
    frames: int = 0  # messages of the image topic
    processed: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    class_iou: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    frames_scored: Counter[str] = field(default_factory=Counter)  # by task or check
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    notes: Counter[str] = field(default_factory=Counter)  # by sentence
    warnings: list[str] = field(default_factory=list)  # what is wrong with the recording
    worst_segments: dict[str, Any] = field(default_factory=dict)  # see `WorstSegments`
    damage: tuple[str, ...] = ()
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)  # topic -> read, expected
    interrupted: bool = False
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    frames_per_second: float = math.nan
    # Of the wall, and of what overlaps in it: perceive on one thread, the others on another.
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: float = math.nan  # of the process that perceives, during the run

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; NaN becomes null."""
        document = {**vars(self), 'normals_window_px': NORMALS_WINDOW}
        document['lost'] = {
            topic: {'read': read, 'recorded': recorded}
            for topic, (read, recorded) in self.lost.items()
        }
        plain: dict[str, Any] = plain_values(document)
        return plain


def write_report(report: ReplayReport, directory: Path) -> None:
    """Write metrics.json; see `ReplayReport.to_json`."""
    text = json.dumps(report.to_json(), indent=2, allow_nan=False)
    atomic_write(directory / METRICS_FILE, text + '\n')


def plain_values(value: Any) -> Any:
    """Return `value` as JSON has it: NaN and infinity become null, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
