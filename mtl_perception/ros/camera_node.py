# SPDX-License-Identifier: Apache-2.0
"""
A camera driver for everything that is not a camera: video files, pictures, rendered rooms.

Topics (relative, so that namespace and remaps work as with any driver):

* `camera/image_raw` rgb8 and `camera/camera_info`, always;
* `ground_truth/<output of the perception node>`, for example `ground_truth/depth/image_rect`
  with its `ground_truth/depth/camera_info`, and `odom` (`odom` -> optical frame), where the
  source knows the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
import time
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.output_topics import image_outputs
from mtl_perception.ros import qos
from mtl_perception.ros.codec import camera_info_message, image_message
from mtl_perception.ros.delivery import wait_for_delivery, wait_for_subscribers
from mtl_perception.ros.odometry import odometry_message
from mtl_perception.ros.parameters import declare_parameters, ParameterSpec
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Array, PerceptionMaps, Sample, UNLABELLED
from nav_msgs.msg import Odometry
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

IMAGE_TOPIC = 'camera/image_raw'
CAMERA_INFO_TOPIC = 'camera/camera_info'
GROUND_TRUTH = 'ground_truth'
ODOMETRY_TOPIC = 'odom'

PARAMETERS = (
    ParameterSpec(
        'frame_id',
        'camera_color_optical_frame',
        'frame of the images: x right, y down, z forward (REP-103)',
        read_only=True,
    ),
)


class CameraNode(Node):
    """Publishes samples as a camera driver would: reliable, stamped at capture (REP-2003)."""

    def __init__(self) -> None:
        super().__init__('camera')
        declare_parameters(self, PARAMETERS)
        self._frame_id = self.get_parameter('frame_id').value
        self.image_publisher = self.create_publisher(Image, IMAGE_TOPIC, qos.output())
        self._camera_info = self.create_publisher(CameraInfo, CAMERA_INFO_TOPIC, qos.output())
        self._truth: dict[str, Any] = {}  # publishers by topic, made when first needed

    @property
    def all_publishers(self) -> list[Any]:
        """The publishers made so far."""
        return [self.image_publisher, self._camera_info, *self._truth.values()]

    def publish(self, sample: Sample, stamp: Any) -> None:
        """Publish one frame, captured at `stamp` (builtin_interfaces/Time)."""
        header = Header(stamp=stamp, frame_id=self._frame_id)
        height, width = sample.image.shape[:2]
        # The info first: who pairs the two by stamp then has it when the image comes.
        self._camera_info.publish(raw_camera_info(header, sample.camera, width, height))
        self.image_publisher.publish(image_message(header, 'rgb8', sample.image))
        if sample.targets:
            self._publish_truth(header, sample)
        if sample.pose is not None:
            publisher = self._truth_publisher(Odometry, ODOMETRY_TOPIC)
            publisher.publish(odometry_message(header, sample.pose))

    def _truth_publisher(self, kind: Any, topic: str) -> Any:
        if topic not in self._truth:
            self._truth[topic] = self.create_publisher(kind, topic, qos.output())
        return self._truth[topic]

    def _publish_truth(self, header: Header, sample: Sample) -> None:
        truth = PerceptionMaps(
            {name: _as_output(name, target) for name, target in sample.targets.items()},
            confidence={},
            image=sample.image,
            camera=sample.camera,
        )
        for task in standard_tasks('rooms'):
            if task.name not in truth.maps:
                continue
            for output in image_outputs(task):
                # The truth is certain: there is no confidence to show.
                if output.needs != task.name:
                    continue
                publisher = self._truth_publisher(Image, f'{GROUND_TRUTH}/{output.topic}')
                if not publisher.get_subscription_count():
                    continue
                values = output.values(truth)
                if values is not None:
                    publisher.publish(image_message(header, output.encoding, values))
            if task.kind == 'depth' and truth.camera is not None:
                topic = f'{GROUND_TRUTH}/{task.name}/camera_info'
                publisher = self._truth_publisher(CameraInfo, topic)
                publisher.publish(camera_info_message(header, truth.camera))

    def run(self, frames: Iterator[Sample | None], rate_hz: float, wait_s: float) -> None:
        """
        Publish `frames` until they end or the context is shut down.

        `rate_hz` = 0 publishes each frame as it comes. The first frame waits for a subscriber
        of the image, at most `wait_s` seconds.
        """
        wait_for_subscribers([self.image_publisher], wait_s, self.context)
        pace = Pace(rate_hz)
        for sample in frames:
            stamp = self.get_clock().now().to_msg()
            if not self.context.ok():
                return
            if sample is None:
                continue
            self.publish(sample, stamp)
            pace.sleep()
        wait_for_delivery(self.all_publishers)


class Pace:
    """Keeps a loop at a rate, without a burst after a frame that took too long."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s = 1.0 / rate_hz if rate_hz > 0 else 0.0
        self._due = time.monotonic()

    def sleep(self) -> None:
        """Wait for the next turn."""
        now = time.monotonic()
        self._due = max(self._due + self._period_s, now)
        time.sleep(self._due - now)


def _as_output(name: str, target: Array) -> Array:
    """Return a target in the form of the output of the same name."""
    if name != 'edges':
        return target
    return np.where(target == UNLABELLED, 0, target * 255).astype(np.uint8)


def raw_camera_info(
    header: Header, camera: CameraModel | None, width: int, height: int
) -> CameraInfo:
    """
    Return the CameraInfo of an image as the camera gave it: K, D, R and P.

    Without a camera all matrices are zero, which says "not calibrated" (sensor_msgs/CameraInfo).
    """
    if camera is None:
        return CameraInfo(header=header, width=width, height=height)
    # R and P are those of the rectified image.
    message = camera_info_message(header, camera.rectified())
    message.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    if camera.distortion:
        message.distortion_model = camera.distortion_model
        message.d = [float(value) for value in camera.distortion]
    if camera.rectification is not None:
        message.r = [float(value) for value in camera.rectification]
    return message
