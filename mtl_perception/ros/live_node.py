# SPDX-License-Identifier: Apache-2.0
"""How the perception node of a live replay is started, and the intrinsics that it is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtl_perception.camera import CameraModel
from mtl_perception.ros.camera_node import raw_camera_info
from mtl_perception.values import Frame
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header


@dataclass(frozen=True)
class LiveOptions:
    """How a live replay plays its bag and which node hears it."""

    step: bool = False  # the next frame goes when the last one's outputs have come
    rate: float = 1.0  # factor of the pace of the recording; without `step`
    timeout_s: float = 20.0  # for the outputs of a frame
    attach: bool = False  # use the node that runs already
    engine: str = 'onnxruntime'
    threads: int | None = None  # None = every core
    ros_arguments: tuple[str, ...] = ()  # of our own nodes: a namespace


def node_arguments(
    options: LiveOptions, model: Path, topic: str, info: str, *, is_compressed: bool,
    is_rectified: bool,
) -> list[str]:
    """
    Return the arguments of `live` for a node that hears a bag.

    :param topic: of the bag's images
    :param info: of their camera_info
    """
    image = topic.removesuffix('/compressed')
    settings = {
        'use_sim_time': 'true', 'engine': options.engine, 'threads': options.threads or 0,
        # A frame is scored with the engine that was asked for, not with its stand-in.
        'engine_build': 'blocking',
        'image_transport': 'compressed' if is_compressed else 'raw',
        'image_is_rectified': 'true' if is_rectified else 'false',
    }  # fmt: skip
    if options.step:
        for name in (topic, info):
            settings[f'qos_overrides.{name}.subscription.reliability'] = 'reliable'
    remaps = {'image': image, 'camera_info': info}
    if is_compressed:
        remaps[f'{image}/compressed'] = topic
    return [
        '--model', str(model), '--ros-args',
        *(word for pair in remaps.items() for word in ('-r', '{}:={}'.format(*pair))),
        *(word for pair in settings.items() for word in ('-p', '{}:={}'.format(*pair))),
    ]  # fmt: skip


def camera_info(frame: Frame, camera: CameraModel) -> CameraInfo:
    """Return the camera_info of a frame, with the distortion of its camera."""
    header = Header(frame_id=frame.frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(frame.stamp_ns, 10**9)
    height, width = frame.image.shape[:2]
    return raw_camera_info(header, camera, width, height)
