# SPDX-License-Identifier: Apache-2.0
"""A replay through the running perception node: a bag's topics in, the node's topics back."""

from __future__ import annotations

from contextlib import ExitStack
import math
from pathlib import Path
from threading import Event, Thread
import time
from types import TracebackType
from typing import Any, NoReturn

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.frames import BagReader
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.bags.stamps import header_stamp_ns
from mtl_perception.bags.topics import COMPRESSED_IMAGE
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.evaluation.memory import peak_mib
from mtl_perception.manifest import load_manifest, Manifest
from mtl_perception.output_topics import (
    camera_info_topics,
    CLOUD_TOPIC,
    image_outputs,
    Pinhole,
)
from mtl_perception.ros.bag_player import BagPlayer
from mtl_perception.ros.bag_stepper import BagStepper
from mtl_perception.ros.child import child
from mtl_perception.ros.dds import stay_on_this_machine, use_large_message_profile
from mtl_perception.ros.delivery import wait_for_delivery
from mtl_perception.ros.engine_listener import EngineListener
from mtl_perception.ros.errors import RosError
from mtl_perception.ros.live_node import camera_info, LiveOptions, node_arguments
from mtl_perception.ros.output_collector import OutputCollector
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo

LOG_FILE = 'live.log'
# As long as an engine may take to compile.
_START_LIMIT_S = 600.0
_ATTACH_LIMIT_S = 120.0
# Discovery is not the same moment at both ends.
_SETTLE_S = 1.0
_REPEAT_S = 5.0
_SPIN_S = 0.05
# The node says once a second how it fares.
_DIAGNOSTICS_LIMIT_S = 5.0
# The topics of one frame come one after the other: a frame is given up a little after a later
# one is there.
_OVERTAKEN_S = 0.5


class LivePerception:
    """
    Plays a bag into a perception node over real topics and gives its maps frame by frame.

    Starts the node as a process of its own that logs to `live.log` in `directory`, unless it is
    to attach to one that runs. `perceive` takes the place of `Perceiver.perceive`: frames in
    the order of the bag. Stamps are the recording's; `/clock` carries its time. A context
    manager.

    Raises
    ------
    RosError
        If the node does not come up; the message says where its log is.

    """

    def __init__(
        self, reader: BagReader, model: Path, directory: Path, options: LiveOptions
    ) -> None:
        self.manifest: Manifest = load_manifest(model)
        self.name = ''
        self.stages: tuple[str, ...] = ('live',)
        self._reader = reader
        self._model = model
        self._log = directory / LOG_FILE
        self._options = options
        self._stack = ExitStack()
        self._process: Any = None
        self._ended = Event()
        self._closing = False
        self._playing: Thread | None = None

    def __enter__(self) -> LivePerception:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._stack.close()

    def _open(self) -> None:
        # What is replayed here stays here: a robot on the same network must not see it.
        stay_on_this_machine()
        use_large_message_profile()
        # Ctrl-C is the replay's own to handle: it still wants the results.
        rclpy.init(
            args=list(self._options.ros_arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._stack.callback(rclpy.try_shutdown)
        node = rclpy.create_node('replay_evaluator')
        self._collector = OutputCollector(node, self.manifest.tasks)
        bag = self._stack.enter_context(BagFile(self._reader.path))
        topics = self._reader.topics
        is_compressed = bag.topics[str(topics.image)].type == COMPRESSED_IMAGE
        image = str(topics.image).removesuffix('/compressed')
        info = topics.camera_info or f'{image.rpartition("/")[0]}/camera_info'
        left_out = self._output_names(node)
        # Intrinsics that are not the bag's have to be said as well, and by nobody else.
        self._info_publisher = None
        if topics.camera_info is None and self._options.step:
            self._info_publisher = node.create_publisher(CameraInfo, info, 10)
            left_out |= {info}
        self._player = (
            BagStepper(bag, topics, left_out=left_out, on_send=self._note)
            if self._options.step
            else BagPlayer(
                bag, rate=self._options.rate, left_out=left_out, on_send=self._note
            )
        )
        engine = EngineListener(node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.add_node(self._player)
        spinning = Thread(target=self._spin, args=(executor,), name='collector', daemon=True)
        spinning.start()
        self._stack.callback(spinning.join)
        self._stack.callback(self._stop)
        if not self._options.attach:
            arguments = node_arguments(
                self._options, self._model, str(topics.image), info,
                is_compressed=is_compressed, is_rectified=self._reader.image_is_rectified,
            )  # fmt: skip
            log = self._stack.enter_context(self._log.open('wb'))
            self._process = self._stack.enter_context(child('live', arguments, output=log))
        self._wait_for_node(str(topics.image))
        running = engine.wait(_DIAGNOSTICS_LIMIT_S) or (
            'attached node' if self._options.attach else self._options.engine
        )
        self.name = f'{running}, live{" step by step" if self._options.step else ""}'
        if not self._options.step:
            self._playing = Thread(target=self._play, name='player', daemon=True)
            self._playing.start()
            self._stack.callback(self._playing.join)
            self._stack.callback(rclpy.try_shutdown)

    def _stop(self) -> None:
        self._closing = True

    def _note(self, message: RecordedMessage) -> None:
        if message.topic == self._reader.topics.image:
            stamp_ns = header_stamp_ns(message.data)
            if stamp_ns is not None:
                self._collector.note_sent(stamp_ns)

    def peak_memory_mib(self) -> float:
        """Return the most memory that the node has taken; NaN for one that ran already."""
        try:
            return math.nan if self._process is None else peak_mib(self._process.pid)
        except OSError:
            return math.nan  # it has ended

    def _output_names(self, node: Any) -> frozenset[str]:
        tasks = self.manifest.tasks
        names = [CLOUD_TOPIC, *camera_info_topics(tasks)]
        for task in tasks:
            names += [output.topic for output in image_outputs(task)]
            names += [f'{task.name}/label_names', f'{task.name}/label_info']
        return frozenset(node.resolve_topic_name(name) for name in names)

    def _spin(self, executor: SingleThreadedExecutor) -> None:
        while not self._closing:
            try:
                executor.spin_once(timeout_sec=_SPIN_S)
            except ExternalShutdownException:
                return

    def _wait_for_node(self, image: str) -> None:
        limit_s = _ATTACH_LIMIT_S if self._options.attach else _START_LIMIT_S
        deadline = time.monotonic() + limit_s
        while not (self._collector.is_connected and self._player.is_heard(image)):
            self._check_process()
            if time.monotonic() > deadline:
                msg = (
                    f'no perception node listens to {image} and publishes '
                    f'{", ".join(self._collector.topics)} within {limit_s:.0f} s'
                    + ('' if self._options.attach else f'; {self._log} may say why')
                )
                raise RosError(msg)
            time.sleep(_SPIN_S)
        time.sleep(_SETTLE_S)

    def _check_process(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            msg = (
                f'the perception node ended with code {self._process.returncode}; '
                f'{self._log} says why'
            )
            raise RosError(msg)

    def _play(self) -> None:
        try:
            self._player.play(wait_s=0.0)
        except MtlPerceptionError:
            pass  # damage of the bag: its reader reports it as well
        except Exception:
            # Every publisher raises once the context is shut down.
            if not self._closing:
                raise
        finally:
            self._ended.set()

    def perceive(self, frame: Frame) -> PerceptionMaps:
        """
        Return the maps that the node published of a frame.

        Raises
        ------
        RosError
            If they do not come: the frame was dropped, refused, or lost on the way.

        """
        expected = self._collector.expected(has_camera=frame.camera is not None)
        try:
            if isinstance(self._player, BagStepper):
                self._step(self._player, frame, expected)
            else:
                self._await(frame.stamp_ns, expected)
            return self._assemble(frame)
        finally:
            self._collector.forget(frame.stamp_ns)

    def _step(self, player: BagStepper, frame: Frame, expected: frozenset[str]) -> None:
        """Send the frame's image and wait for its outputs."""
        # Of an earlier frame with the same stamp.
        self._collector.forget(frame.stamp_ns)
        if self._info_publisher is not None and frame.camera is not None:
            self._info_publisher.publish(camera_info(frame, frame.camera))
            wait_for_delivery([self._info_publisher])
        if not player.step_to(frame.stamp_ns):
            msg = 'the bag ended before this image was played'
            raise RosError(msg)
        deadline = time.monotonic() + self._options.timeout_s
        while (left := deadline - time.monotonic()) > 0:
            missing = self._collector.wait(frame.stamp_ns, expected, min(left, _REPEAT_S))
            if not missing:
                return
            self._check_process()
            if deadline - time.monotonic() > 0:
                player.repeat()
        self._refuse(frame.stamp_ns, missing, expected, self._silence())

    def _await(self, stamp_ns: int, expected: frozenset[str]) -> None:
        """Wait until the outputs are there; refuse the frame when they cannot come any more."""
        deadline: float | None = None
        while True:
            missing = self._collector.wait(stamp_ns, expected, _SPIN_S)
            if not missing:
                return
            if self._collector.overtaken_s(stamp_ns) > _OVERTAKEN_S:
                reason = 'dropped: the node was busy with other frames'
                self._refuse(stamp_ns, missing, expected, reason)
            self._check_process()
            if self._ended.is_set():
                deadline = deadline or time.monotonic() + self._options.timeout_s
                if time.monotonic() > deadline:
                    self._refuse(stamp_ns, missing, expected, self._silence())

    def _silence(self) -> str:
        limit_s = self._options.timeout_s
        since = '' if self._options.step else ' of the end of the bag'
        return f'no outputs came within {limit_s:g} s{since}; see the log of the node'

    def _refuse(
        self, stamp_ns: int, missing: frozenset[str], expected: frozenset[str], reason: str
    ) -> NoReturn:
        """Raise RosError with the reason, unless some outputs came or could not be kept."""
        if self._collector.was_let_go(stamp_ns):
            reason = (
                'the outputs came faster than they could be scored and were let go at 1 GiB; '
                'play slower (--rate), or step by step (--step)'
            )
        elif missing != expected:
            reason = f'outputs were lost on the way: {", ".join(sorted(missing))}'
        raise RosError(reason)

    def _assemble(self, frame: Frame) -> PerceptionMaps:
        maps, confidence, info = self._collector.maps(frame.stamp_ns)
        image, pinhole = frame.image, None
        if frame.camera is not None:
            pinhole = frame.camera.rectified()
            if not frame.camera.is_rectified:
                image = frame.camera.rectify(image)
            if info is not None and not np.allclose(info.k, Pinhole.of(pinhole).k):
                msg = (
                    f'the node took another camera than the bag has: K = {list(info.k)}; is '
                    'another camera_info published on its topic?'
                )
                raise RosError(msg)
        latency_ms = self._collector.latency_ms(frame.stamp_ns)
        timings = {} if latency_ms is None else {'live': latency_ms}
        return PerceptionMaps(maps, confidence, image, pinhole, timings)
