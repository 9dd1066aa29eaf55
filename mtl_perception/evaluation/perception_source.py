# SPDX-License-Identifier: Apache-2.0
"""Where the maps of a replay come from: an engine in this process, or the running node."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mtl_perception.bags.frames import BagReader
from mtl_perception.evaluation.memory import peak_mib
from mtl_perception.evaluation.replay import ENGINE_STAGES
from mtl_perception.evaluation.replay_runs import Run
from mtl_perception.inference.engine import open_engine
from mtl_perception.inference.perceiver import Perceiver
from mtl_perception.manifest import Manifest
from mtl_perception.values import Frame, PerceptionMaps


class PerceivesLive(Protocol):
    """What a replay needs of the running node."""

    manifest: Manifest
    name: str  # of the engine and the way of playing
    stages: tuple[str, ...]  # what its maps are timed by

    def peak_memory_mib(self) -> float:
        """Return the most memory that the node has taken; NaN where it is not known."""

    def perceive(self, frame: Frame) -> PerceptionMaps:
        """Return the maps that the node published of a frame."""


# (reader, model, directory, options by name) -> the node at work
OpenLive = Callable[[BagReader, Path, Path, dict[str, Any]], AbstractContextManager[PerceivesLive]]


@dataclass(frozen=True)
class PerceptionSource:
    """What gives maps, what they are, and what to call it in the report."""

    perceive: Callable[[Frame], PerceptionMaps]
    manifest: Manifest
    engine: str
    stages: tuple[str, ...] = ENGINE_STAGES  # what `perceive` times
    peak_memory_mib: Callable[[], float] = peak_mib  # of the process that perceives


def add_live_arguments(parser: ArgumentParser) -> None:
    """Add --live and what goes with it."""
    group = parser.add_argument_group(
        'live', 'play the bag into the running perception node over ROS 2 topics (needs rclpy)'
    )
    group.add_argument(
        '--live', action='store_true', help='start the node, and score what it publishes'
    )
    group.add_argument(
        '--step', action='store_true',
        help='the next frame goes when the outputs of the last one have come',
    )  # fmt: skip
    group.add_argument(
        '--rate', type=float, metavar='X', help='factor of the pace of the recording (default: 1)'
    )
    group.add_argument(
        '--attach', action='store_true', help='use the perception node that runs already'
    )


def check_live_arguments(parser: ArgumentParser, arguments: Namespace) -> None:
    """End with a usage error where options do not go together."""
    for name in ('step', 'rate', 'attach'):
        if getattr(arguments, name) and not arguments.live:
            parser.error(f'--{name} goes with --live')
    if arguments.rate is not None and not arguments.rate > 0:
        parser.error('--rate must be positive')
    if arguments.step and arguments.rate is not None:
        parser.error('--step waits for each frame: it has no --rate')
    if arguments.live and arguments.camera is not None and not arguments.step:
        parser.error('--live plays the camera_info of the bag; with --camera it needs --step')
    if arguments.live and arguments.resume:
        parser.error('--live plays the whole bag: it cannot --resume')


@contextmanager
def perception_source(
    run: Run, reader: BagReader, arguments: Namespace, open_live: OpenLive
) -> Iterator[PerceptionSource]:
    """
    Open what the options ask for.

    Raises
    ------
    InferenceError, BundleError
        If the model or the engine cannot be opened.
    RosError
        If the node does not come up.

    """
    if not arguments.live:
        with open_engine(run.model, run.engine, threads=arguments.threads) as engine:
            yield PerceptionSource(Perceiver(engine).perceive, engine.manifest, engine.name)
        return
    options = {
        'step': arguments.step, 'rate': arguments.rate or 1.0, 'attach': arguments.attach,
        'engine': run.engine, 'threads': arguments.threads,
    }  # fmt: skip
    with open_live(reader, run.model, run.directory, options) as live:
        yield PerceptionSource(
            live.perceive, live.manifest, live.name, live.stages, live.peak_memory_mib
        )
