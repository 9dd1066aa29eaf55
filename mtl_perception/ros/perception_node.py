# SPDX-License-Identifier: Apache-2.0
"""The perception node: camera topics in, labels, depth, normals, edges and a cloud out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
import time
import traceback
from typing import Any

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.inference import Perceiver, PerceiverConfig
from mtl_perception.inference.serving import ServingEngine
from mtl_perception.manifest import default_bundle
from mtl_perception.ros import qos
from mtl_perception.ros.camera_infos import CameraInfos
from mtl_perception.ros.diagnostics import DiagnosticsPublisher, FrameTimings, Snapshot
from mtl_perception.ros.frame_pipeline import Arrival, Begun, FramePipeline
from mtl_perception.ros.label_info import LabelInfoPublisher
from mtl_perception.ros.mailbox import Mailbox
from mtl_perception.ros.outputs import Outputs
from mtl_perception.ros.perception_parameters import cloud_settings, declare_perception_parameters
from mtl_perception.ros.problems import ProblemLog
from mtl_perception.ros.worker import Worker
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

NODE_NAME = 'mtl_perception'


class PerceptionNode(LifecycleNode):
    """
    A lifecycle node around one `Perceiver`.

    configure opens the model and makes the publishers, activate subscribes; deactivate,
    cleanup and shutdown undo it. A transition that fails logs the thing, the value and the
    remedy and leaves the node alive in the state it came from. A bad frame is counted as
    refused, named in the log, and the next one is taken.

    Raises
    ------
    RosError
        If a parameter given at start is not possible.

    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(NODE_NAME, **arguments)
        self._state = 'unconfigured'
        self._transition_problem = ''
        self._mismatch = ''
        self._unheard = 0
        self._last_image_s = 0.0
        self._engine: ServingEngine | None = None
        self._outputs: Outputs | None = None
        self._label_infos: list[LabelInfoPublisher] = []
        self._pipeline: FramePipeline | None = None
        self._worker: Worker[Arrival, Begun] | None = None
        self._inputs: list[Any] = []
        self._mailbox: Mailbox[Arrival] = Mailbox()
        self._timings = FrameTimings()
        declare_perception_parameters(self)
        self._cameras = CameraInfos(self.resolve_topic_name('camera_info'))
        self._problems = ProblemLog(self.get_logger().warning)
        # A camera that is not calibrated stays so: no need to repeat it every second.
        self._camera_problems = ProblemLog(self.get_logger().warning, period_s=10.0)
        self._image_type: Any = Image
        self._image_topic = self.resolve_topic_name('image')
        if self.get_parameter('image_transport').value == 'compressed':
            self._image_type = CompressedImage
            self._image_topic += '/compressed'
        self._diagnostics = DiagnosticsPublisher(self, self._snapshot)

    @property
    def autostart(self) -> bool:
        """Whether the node takes itself to active."""
        return bool(self.get_parameter('autostart').value)

    def start(self) -> bool:
        """Configure and activate; return whether both succeeded."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def report_defect(self, error: Exception) -> None:
        """Log a callback that failed; at most once a second, should it fail every time."""
        self._problems.report('defect', _describe(error))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the model and make the publishers."""
        return self._transition('configure', 'inactive', self._configure, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and begin."""
        return self._transition('activate', 'active', self._resume, undo=self._pause)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking frames; those in hand are finished."""
        return self._transition('deactivate', 'inactive', self._pause)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model and the publishers back."""
        return self._transition('clean up', 'unconfigured', self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back, from any state."""
        return self._transition('shut down', 'finalized', self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back, to be configured anew."""
        return self._transition('recover', 'unconfigured', self._release)

    def destroy_node(self) -> None:
        """Stop the worker before the handles that it publishes with are gone."""
        self._release()
        super().destroy_node()

    def _transition(
        self,
        name: str,
        goal: str,
        work: Callable[[], None],
        undo: Callable[[], None] = lambda: None,
    ) -> TransitionCallbackReturn:
        try:
            work()
        # rclpy itself would swallow the exception without a word.
        except Exception as error:
            undo()
            self._transition_problem = f'cannot {name}: {_describe(error)}'
            self.get_logger().error(self._transition_problem)
            return TransitionCallbackReturn.FAILURE
        self._transition_problem = ''
        self._state = goal
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        model = self.get_parameter('model').value
        bundle = Path(model).expanduser() if model else default_bundle()
        precision = self.get_parameter('engine_precision').value
        self._engine = ServingEngine(
            bundle,
            self.get_parameter('engine').value,
            threads=self.get_parameter('threads').value or None,
            precision=None if precision == 'default' else precision,
            build=self.get_parameter('engine_build').value,
            say=self._say_of_engine,
            warn=self._warn_of_engine,
        )
        tasks = self._engine.manifest.tasks
        self._outputs = Outputs(self, tasks, self._report_mismatch)
        self._label_infos = [
            LabelInfoPublisher(self, task) for task in tasks if task.label_set is not None
        ]
        needs_camera = any(task.kind == 'depth' for task in tasks)
        self._pipeline = FramePipeline(
            Perceiver(self._engine, PerceiverConfig(assume_focal_px=self._assumed_focal_px)),
            self._outputs,
            self._cameras,
            partial(cloud_settings, self),
            self._timings,
            self._report_camera if needs_camera else None,
            image_is_rectified=self.get_parameter('image_is_rectified').value,
        )
        self._worker = Worker(
            self._mailbox, self._pipeline.begin, self._pipeline.end, self._refuse
        )
        names = ', '.join(task.name for task in tasks)
        self.get_logger().info(f'{self._engine.name} runs {bundle}: {names}')

    def _resume(self) -> None:
        assert self._worker is not None
        self._cameras.clear()
        self._timings.clear()
        self._last_image_s = time.monotonic()
        for label_info in self._label_infos:
            label_info.publish()
        self._worker.start()
        # camera_info first: where both wait, the executor hands it out before its image.
        for message_type, topic, profile, callback in (
            (CameraInfo, 'camera_info', qos.camera_info_input(), self._cameras.add),
            (self._image_type, self._image_topic, qos.image_input(), self._on_image),
        ):
            self._inputs.append(
                qos.create_subscription(
                    self, message_type, topic, profile, callback, self._report_mismatch
                )
            )

    def _pause(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._mismatch = ''  # who has gone since is not told, so this is where it is forgotten
        if self._worker is not None:
            self._worker.stop()

    def _release(self) -> None:
        self._pause()
        for resource in (*self._label_infos, self._outputs, self._engine):
            if resource is not None:
                resource.close()
        self._label_infos, self._outputs, self._engine = [], None, None
        self._pipeline, self._worker = None, None

    def _on_image(self, message: Any) -> None:
        self._last_image_s = time.monotonic()
        if self._outputs is None or not self._outputs.wanted():
            self._unheard += 1
            return
        stamp = message.header.stamp
        # In numbers: rclpy's Time refuses stamps before 1970, and a stamp is not worth a frame.
        age_ns = self.get_clock().now().nanoseconds - stamp.sec * 10**9 - stamp.nanosec
        self._mailbox.put(Arrival(message, age_ns * 1e-6, time.perf_counter()))

    def _refuse(self, error: Exception) -> None:
        # On the way out the context goes before the worker is done with its last frame.
        if self.context.ok():
            self._problems.report('frame', f'frame refused: {_describe(error)}')

    @property
    def _assumed_focal_px(self) -> float | None:
        return self.get_parameter('assume_focal_px').value or None

    def _report_camera(self, problem: str) -> None:
        focal_px, consequence = self._assumed_focal_px, 'no metric depth and no cloud'
        if focal_px is not None:
            if self._cameras.is_silent:  # which is what it is assumed for
                return
            consequence = f'depth and cloud by the assumed focal length of {focal_px:g} px'
        self._camera_problems.report('camera', f'{consequence}: {problem}')

    def _say_of_engine(self, text: str) -> None:
        # A build may end while the node does.
        if self.context.ok():
            self.get_logger().info(text)

    def _warn_of_engine(self, text: str) -> None:
        if self.context.ok():
            self.get_logger().warning(text)

    def _report_mismatch(self, text: str) -> None:
        self._mismatch = text
        self.get_logger().error(text)

    def _snapshot(self) -> Snapshot:
        is_active = self._state == 'active'
        focal_px = self._assumed_focal_px
        camera_problem = '' if self._pipeline is None else self._pipeline.camera_problem
        if focal_px is not None and self._cameras.is_silent:
            camera_problem = ''
        return Snapshot(
            state=self._state,
            engine='' if self._engine is None else self._engine.name,
            engine_status=None if self._engine is None else self._engine.status(),
            model='' if self._engine is None else self._engine.manifest.name,
            counts=self._mailbox.counts(),
            unheard=self._unheard,
            is_heard=self._outputs is not None and bool(self._outputs.wanted()),
            image_topic=self._image_topic,
            silence_s=time.monotonic() - self._last_image_s if is_active else 0.0,
            image_timeout_s=self.get_parameter('image_timeout_s').value,
            camera_problem=camera_problem,
            assumed_focal_px=focal_px,
            transition_problem=self._transition_problem,
            mismatch=self._mismatch,
            last_error=self._problems.last,
            medians_ms=self._timings.medians(),
        )


def _describe(error: Exception) -> str:
    """Return what the user can mend as one sentence, a defect with its traceback."""
    if isinstance(error, MtlPerceptionError):
        return str(error)
    return ''.join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
