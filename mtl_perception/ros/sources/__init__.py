# SPDX-License-Identifier: Apache-2.0
"""Where camera frames come from: one file for each source, none of which knows ROS topics."""

from __future__ import annotations

from mtl_perception.ros.sources.frame_source import FrameSource, SourceOptions
from mtl_perception.ros.sources.open_source import KINDS, open_source

__all__ = ['FrameSource', 'KINDS', 'SourceOptions', 'open_source']
