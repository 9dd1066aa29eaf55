# SPDX-License-Identifier: Apache-2.0
"""What happens to one frame: decode, find its camera, perceive, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import time
from typing import Any, Protocol

from mtl_perception.camera import CameraModel
from mtl_perception.inference.perceiver import Memory, new_memory
from mtl_perception.ros.camera_infos import CameraInfos
from mtl_perception.ros.codec import rgb_from_compressed, rgb_from_image
from mtl_perception.ros.diagnostics import FrameTimings
from mtl_perception.ros.outputs import Outputs
from mtl_perception.ros.perception_parameters import CloudSettings
from mtl_perception.values import Frame, PerceptionMaps
from sensor_msgs.msg import CompressedImage


class PerceivesFrames(Protocol):
    """What the pipeline needs of a `mtl_perception.inference.Perceiver`."""

    def perceive(
        self, frame: Frame, wanted: frozenset[str] | None = None, memory: Memory = new_memory
    ) -> PerceptionMaps:
        """Return the maps of one frame, those in `wanted` only, in arrays from `memory`."""


@dataclass(frozen=True)
class Arrival:
    """A message as it came in."""

    message: Any  # sensor_msgs/Image or CompressedImage
    age_ms: float  # now minus stamp, at receipt, by the node's clock
    moment_s: float  # of receipt, by time.perf_counter


class FramePipeline:
    """
    Turns arrivals into published outputs; used by the worker's thread alone.

    `report_camera` is told of each frame without metric depth and why, and `camera_problem`
    keeps the reason of the last frame or is empty; without `report_camera` nobody minds.
    """

    def __init__(
        self,
        perceiver: PerceivesFrames,
        outputs: Outputs,
        cameras: CameraInfos,
        settings: Callable[[], CloudSettings],
        timings: FrameTimings,
        report_camera: Callable[[str], None] | None,
        *,
        image_is_rectified: bool = False,
    ) -> None:
        self._perceiver = perceiver
        self._outputs = outputs
        self._cameras = cameras
        self._settings = settings
        self._timings = timings
        self._report_camera = report_camera
        self._image_is_rectified = image_is_rectified
        self._rectified: tuple[CameraModel, CameraModel] | None = None
        self.camera_problem = ''

    def process(self, arrival: Arrival) -> None:
        """
        Publish everything that is wanted of one frame, under its own header.

        Raises
        ------
        MtlPerceptionError
            If the image or what the network makes of it cannot be used.

        """
        taken = time.perf_counter()
        message = arrival.message
        is_compressed = isinstance(message, CompressedImage)
        image = rgb_from_compressed(message) if is_compressed else rgb_from_image(message)
        decoded = time.perf_counter()
        stamp = message.header.stamp
        height, width = image.shape[:2]
        camera, problem = self._cameras.camera_for(stamp, width, height)
        if self._report_camera is not None:
            self.camera_problem = problem
            if problem:
                self._report_camera(problem)
        if camera is not None and self._image_is_rectified:
            camera = self._pinhole(camera)
        wanted = self._outputs.wanted()
        if not wanted:
            return
        frame = Frame(image, stamp.sec * 10**9 + stamp.nanosec, message.header.frame_id, camera)
        maps = self._perceiver.perceive(frame, wanted.needs, self._outputs.memory)
        published = self._outputs.publish(message.header, maps, wanted, self._settings())
        self._timings.add(
            {
                'age_at_receipt': arrival.age_ms,
                'wait': (taken - arrival.moment_s) * 1e3,
                'decode': (decoded - taken) * 1e3,
                **maps.timings_ms,
                **published,
            }
        )

    def _pinhole(self, camera: CameraModel) -> CameraModel:
        """Return the camera of an image that somebody else has rectified."""
        if self._rectified is None or self._rectified[0] is not camera:
            self._rectified = camera, camera.of_rectified_image()
        return self._rectified[1]
