# SPDX-License-Identifier: Apache-2.0
"""`replay`: the evaluation's command, with the running node at hand for --live."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.evaluation.perception_source import PerceivesLive
from mtl_perception.ros.arguments import split_ros_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """
    Replay the bags; return 0, or 130 if Ctrl-C ended it early (results are written).

    ROS arguments (after --ros-args) are for the nodes of --live.
    """
    from mtl_perception.evaluation.replay_command import main as replay

    own, ros_arguments = split_ros_arguments(argv)
    return replay(own, partial(_open_live, ros_arguments))


def _open_live(
    ros_arguments: list[str],
    reader: BagReader,
    model: Path,
    directory: Path,
    options: dict[str, Any],
) -> AbstractContextManager[PerceivesLive]:
    # Without --live no ROS is needed, and none is loaded.
    from mtl_perception.ros.live_node import LiveOptions
    from mtl_perception.ros.live_replay import LivePerception

    settings = LiveOptions(**options, ros_arguments=tuple(ros_arguments))
    return LivePerception(reader, model, directory, settings)
