# SPDX-License-Identifier: Apache-2.0
"""`benchmark replay`: whether reading and scoring keep the engine waiting, or it them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
import time

from mtl_perception.bags.frames import BagFrame, BagReader, RefusedFrame
from mtl_perception.command_line import positive
from mtl_perception.evaluation.benchmark import machine
from mtl_perception.evaluation.engine_report import writing_results
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.frame_result import frame_result
from mtl_perception.evaluation.frame_scores import FrameScores
from mtl_perception.evaluation.pipeline import Perceived, pipelined
from mtl_perception.evaluation.replay_report import NORMALS_WINDOW
from mtl_perception.files import write_json
from mtl_perception.inference.engine import ENGINE_NAMES, open_engine
from mtl_perception.inference.perceiver import Perceiver
from mtl_perception.manifest import default_bundle
from mtl_perception.tasks import Task
from mtl_perception.values import Frame, PerceptionMaps
from rich.console import Console

_EXAMPLE = """example:
  python3 -m mtl_perception benchmark replay my_bag --threads 1
"""
# The first runs of an engine and of the scores take longer than the others.
_WARM_UP_FRAMES = 2


@dataclass(frozen=True)
class Throughput:
    """Seconds for the same frames: each half of a replay alone, and both at once."""

    frames: int
    engine_s: float
    decode_and_score_s: float
    together_s: float

    @property
    def ratio(self) -> float:
        """Return the throughput of both at once as a part of the slower half's alone."""
        return max(self.engine_s, self.decode_and_score_s) / self.together_s


def measure(
    reader: BagReader,
    perceive: Callable[[Frame], PerceptionMaps],
    tasks: Sequence[Task],
    count: int,
) -> Throughput:
    """
    Time at most `count` frames of a recording; all frames and maps are held in memory.

    Raises
    ------
    EvaluationError
        If the recording has no frame that can be perceived.

    """
    frames = [entry for entry in _entries(reader, count) if isinstance(entry, BagFrame)]
    if not frames:
        msg = f'{reader.path} has no frame to measure with'
        raise EvaluationError(msg)
    for entry in frames[:_WARM_UP_FRAMES]:
        scores = FrameScores(tasks, NORMALS_WINDOW)
        frame_result(Perceived(entry, 0.0, perceive(entry.frame)), scores)

    started = time.perf_counter()
    maps = {entry.index: perceive(entry.frame) for entry in frames}
    engine_s = time.perf_counter() - started

    scores = FrameScores(tasks, NORMALS_WINDOW)
    started = time.perf_counter()
    for read in _entries(reader, count):
        frame_result(Perceived(read, 0.0, maps.get(read.index)), scores)
    decode_and_score_s = time.perf_counter() - started
    maps.clear()

    scores = FrameScores(tasks, NORMALS_WINDOW)
    started = time.perf_counter()
    for perceived in pipelined(_entries(reader, count), perceive):
        frame_result(perceived, scores)
    together_s = time.perf_counter() - started
    return Throughput(len(frames), engine_s, decode_and_score_s, together_s)


def _entries(reader: BagReader, count: int) -> Iterator[BagFrame | RefusedFrame]:
    return islice(reader.frames(), count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark replay',
        description='Time the engine alone, reading and scoring alone, and both at once as a '
        'replay runs them, over the same frames of a recording.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bag', type=Path, help='rosbag2 folder, or its .mcap or .db3 file')
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument('--engine', choices=ENGINE_NAMES, default='onnxruntime')
    parser.add_argument('--threads', type=positive, default=1, help='of the engine (default: 1)')
    parser.add_argument(
        '--frames', type=positive, default=70,
        help='at most; they stay in memory, 12 MB each at 640x480 (default: 70)',
    )  # fmt: skip
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 0."""
    arguments = _parser().parse_args(argv)
    model = arguments.model or default_bundle()
    with (
        BagReader(arguments.bag) as reader,
        open_engine(model, arguments.engine, threads=arguments.threads) as engine,
    ):
        perceive = Perceiver(engine).perceive
        found = measure(reader, perceive, engine.manifest.tasks, arguments.frames)
        document = {
            'bag': str(arguments.bag), 'model': engine.manifest.name, 'engine': engine.name,
            'threads': arguments.threads, **asdict(found), 'ratio': found.ratio,
            'machine': machine(),
        }  # fmt: skip
    Console().print(
        f'{found.frames} frames: engine alone {found.engine_s:.2f} s, reading and scoring alone '
        f'{found.decode_and_score_s:.2f} s, both at once {found.together_s:.2f} s: '
        f'{found.ratio:.2f} of the throughput of the slower alone',
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if arguments.json is not None:
        with writing_results():
            write_json(arguments.json, document)
    return 0
