# SPDX-License-Identifier: Apache-2.0
"""What happens to one frame: decode, find its camera, infer; then finish and publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import time
from typing import Any, Protocol

from mtl_perception.camera import CameraModel
from mtl_perception.inference.perceiver import Inferred, Memory, new_memory
from mtl_perception.ros.camera_infos import CameraInfos
from mtl_perception.ros.codec import rgb_from_compressed, rgb_from_image
from mtl_perception.ros.diagnostics import FrameTimings
from mtl_perception.ros.outputs import Outputs, Wanted
from mtl_perception.ros.perception_parameters import CloudSettings
from mtl_perception.values import Frame, PerceptionMaps
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header


class PerceivesFrames(Protocol):
    """What the pipeline needs of a `mtl_perception.inference.Perceiver`."""

    def infer(self, frame: Frame, wanted: frozenset[str] | None = None) -> Inferred:
        """Run the network on one frame, if anything of `wanted` can come out."""

    def finish(
        self,
        inferred: Inferred,
        wanted: frozenset[str] | None = None,
        memory: Memory = new_memory,
    ) -> PerceptionMaps:
        """Return the maps of that frame, those in `wanted` only, in arrays from `memory`."""


@dataclass(frozen=True)
class Arrival:
    """A message as it came in."""

    message: Any  # sensor_msgs/Image or CompressedImage
    age_ms: float  # now minus stamp, at receipt, by the node's clock
    moment_s: float  # of receipt, by time.perf_counter


@dataclass(frozen=True)
class Begun:
    """A frame that went through the network and waits to be finished and published."""

    header: Header
    inferred: Inferred
    wanted: Wanted
    needs: frozenset[str]
    timings_ms: dict[str, float]
    moment_s: float  # when it was ready, by time.perf_counter


class FramePipeline:
    """
    Turns arrivals into published outputs, in two halves for the worker's two threads.

    The engine is used in `begin` only. The messages, of which there is one for each output, are
    filled and published in `end` only.

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

    def begin(self, arrival: Arrival) -> Begun | None:
        """
        Decode one frame, find its camera and run the network; None if nobody wants anything.

        Raises
        ------
        MtlPerceptionError
            If the image cannot be used.

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
            return None
        frame = Frame(image, stamp.sec * 10**9 + stamp.nanosec, message.header.frame_id, camera)
        # Those who report a missing camera assume none: without depth there is no cloud.
        lacks_depth = camera is None and self._report_camera is not None
        needs = wanted.image_needs if lacks_depth else wanted.needs
        inferred = self._perceiver.infer(frame, needs)
        timings = {
            'age_at_receipt': arrival.age_ms,
            'wait': (taken - arrival.moment_s) * 1e3,
            'decode': (decoded - taken) * 1e3,
        }
        return Begun(message.header, inferred, wanted, needs, timings, time.perf_counter())

    def end(self, begun: Begun) -> None:
        """
        Publish everything that is wanted of one frame, under its own header.

        Raises
        ------
        MtlPerceptionError
            If what the network makes of it cannot be used.

        """
        handover_s = time.perf_counter() - begun.moment_s
        maps = self._perceiver.finish(begun.inferred, begun.needs, self._outputs.memory)
        published = self._outputs.publish(begun.header, maps, begun.wanted, self._settings())
        self._timings.add(
            {
                **begun.timings_ms,
                **maps.timings_ms,
                'handover': handover_s * 1e3,
                **published,
            }
        )

    def _pinhole(self, camera: CameraModel) -> CameraModel:
        """Return the camera of an image that somebody else has rectified."""
        if self._rectified is None or self._rectified[0] is not camera:
            self._rectified = camera, camera.of_rectified_image()
        return self._rectified[1]
