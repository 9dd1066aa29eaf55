# SPDX-License-Identifier: Apache-2.0
"""Turns the text that names a frame source into the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources.frame_source import FrameSource, SourceOptions

KINDS = 'rooms, video:PATH, device:N, images:DIR or bag:PATH'


def open_source(
    text: str, options: SourceOptions, report: Callable[[str], None]
) -> FrameSource:
    """
    Open the frame source that `text` names; `report` is told of frames that are passed over.

    Bags are no frame source: their messages are passed through as they are (`BagPlayer`).

    Raises
    ------
    RosError
        If the text names no source, or the source cannot be opened.

    """
    kind, _, argument = text.partition(':')
    if text == 'rooms':
        from mtl_perception.ros.sources.rooms import RoomsSource

        return RoomsSource(options)
    if kind == 'images' and argument:
        from mtl_perception.ros.sources.images import ImagesSource

        return ImagesSource(Path(argument), options, report)
    if kind == 'video' and argument:
        from mtl_perception.ros.sources.video import VideoSource

        return VideoSource(Path(argument), options)
    if kind == 'device' and argument.isdecimal():
        from mtl_perception.ros.sources.device import DeviceSource

        return DeviceSource(int(argument), options, report)
    msg = f'{text!r} names no camera source: use {KINDS}'
    raise RosError(msg)
