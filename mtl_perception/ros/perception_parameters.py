# SPDX-License-Identifier: Apache-2.0
"""The parameters of the perception node."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_perception.geometry.cloud import COLOR_MODES
from mtl_perception.inference.engine import ENGINE_NAMES, PRECISIONS
from mtl_perception.inference.serving import BUILD_MODES
from mtl_perception.ros.parameters import declare_parameters, ParameterSpec, Value
from rclpy.node import Node

PARAMETERS = (
    ParameterSpec(
        'model',
        '',
        'Directory of the bundle to run; empty for the one that ships with the package.',
        read_only=True,
    ),
    ParameterSpec(
        'engine',
        'onnxruntime',
        'What runs the network; auto takes the best that can run here.',
        choices=ENGINE_NAMES,
        read_only=True,
    ),
    ParameterSpec(
        'engine_precision',
        'default',
        'Precision that the engine computes in; each has its own default.',
        choices=('default', *PRECISIONS),
        read_only=True,
    ),
    ParameterSpec(
        'engine_build',
        'background',
        'When to build a compiled engine that is not in the cache: background serves with another '
        'one meanwhile, blocking builds before the first frame, never leaves the other serving.',
        choices=BUILD_MODES,
        read_only=True,
    ),
    ParameterSpec(
        'threads',
        0,
        'Threads for one frame; 0 takes every core the process may use.',
        limits=(0, 256),
        read_only=True,
    ),
    ParameterSpec(
        'autostart',
        True,
        'Configure and activate without a lifecycle manager; false waits for one.',
        read_only=True,
    ),
    ParameterSpec(
        'image_transport',
        'raw',
        'raw subscribes to `image`, compressed to `image` + "/compressed" (JPEG or PNG).',
        choices=('raw', 'compressed'),
        read_only=True,
    ),
    ParameterSpec(
        'image_is_rectified',
        False,
        'The image is rectified already (image_rect): its camera is P of camera_info, and D is '
        'not applied again.',
        read_only=True,
    ),
    ParameterSpec(
        'assume_focal_px',
        0.0,
        'Focal length in pixels to assume for images without a usable camera_info; 0 assumes '
        'none: such images get no metric depth and no cloud.',
        limits=(0.0, 100000.0),
        read_only=True,
    ),
    ParameterSpec(
        'image_timeout_s',
        2.0,
        'Seconds without an image after which diagnostics report an error.',
        limits=(0.1, 3600.0),
    ),
    ParameterSpec(
        'cloud.stride',
        1,
        'The cloud takes every n-th row and column.',
        limits=(1, 64),
    ),
    ParameterSpec(
        'cloud.range_min_m',
        0.0,
        'Points nearer than this (depth along Z) are NaN in the cloud.',
        limits=(0.0, 1000.0),
    ),
    ParameterSpec(
        'cloud.range_max_m',
        1000.0,
        'Points farther than this (depth along Z) are NaN in the cloud.',
        limits=(0.0, 1000.0),
    ),
    ParameterSpec(
        'cloud.color_mode',
        'camera',
        'Colour of the points: camera, or semantic for the flat colour of the class.',
        choices=COLOR_MODES,
    ),
)


@dataclass(frozen=True)
class CloudSettings:
    """What may change from one cloud to the next."""

    stride: int
    range_m: tuple[float, float]
    color_mode: str


def _check(values: dict[str, Value]) -> str:
    low, high = values['cloud.range_min_m'], values['cloud.range_max_m']
    if float(low) >= float(high):
        return f'cloud.range_min_m ({low}) must be less than cloud.range_max_m ({high})'
    return ''


def declare_perception_parameters(node: Node) -> None:
    """
    Declare all parameters on `node`.

    Raises
    ------
    RosError
        If a value given at start is not possible.

    """
    declare_parameters(node, PARAMETERS, _check)


def cloud_settings(node: Node) -> CloudSettings:
    """Return the present values of `cloud.*`."""

    def value(name: str) -> Value:
        present: Value = node.get_parameter(f'cloud.{name}').value
        return present

    return CloudSettings(
        stride=int(value('stride')),
        range_m=(float(value('range_min_m')), float(value('range_max_m'))),
        color_mode=str(value('color_mode')),
    )
