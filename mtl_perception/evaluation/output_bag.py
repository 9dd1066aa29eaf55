# SPDX-License-Identifier: Apache-2.0
"""Write a recording anew with everything the perception node would have published beside it."""

from __future__ import annotations

from contextlib import ExitStack
import json
from pathlib import Path
import tempfile
from types import TracebackType
from typing import TYPE_CHECKING

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.message_writer import MessageWriter
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.files import atomic_directory
from mtl_perception.output_topics import (
    camera_info_topics,
    cloud_tasks,
    CLOUD_TOPIC,
    image_outputs,
    label_names,
    output_cloud,
)

if TYPE_CHECKING:
    from mtl_perception.evaluation.replay import ReplayReport

OUTPUT_BAG = 'bag'
# Where the outputs go in a recording that has topics of these names already.
_NAMESPACE = '/mtl_perception'


class OutputBag:
    """
    A replay observer that writes `bag/` (rosbag2, MCAP) into the run's directory.

    The recorded messages are copied byte by byte with their types and times. The outputs have
    the topics, encodings and headers of the perception node's, and the time of recording of
    their image. What was written when Ctrl-C came is a whole bag; after any other failure there
    is none. A disk that fills up ends the bag, not the replay: the report says so. A context
    manager around the run.
    """

    needs_every_frame = True

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._failure = ''
        self._frames_missing = 0

    def __enter__(self) -> OutputBag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def begin(self, context: ReplayContext) -> None:
        """Open the new bag and the topics that are copied."""
        self._context = context
        self._path = context.directory / OUTPUT_BAG
        self._bag = self._stack.enter_context(BagFile(context.bag))
        self._temporary = Path(
            self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f'.{OUTPUT_BAG}.', dir=context.directory)
            )
        )
        # Files are named after their folder.
        self._writer = MessageWriter(self._temporary / OUTPUT_BAG)
        self._writer.__enter__()
        self._stack.callback(self._writer.abandon)
        self._uncopied = self._writer.take_over(self._bag, tuple(self._bag.topics))
        self._messages = self._bag.messages(self._bag.topics)
        self._image_index = -1
        self._image_recorded_ns = 0
        self._images = [
            output for task in context.tasks for output in image_outputs(task)
        ]
        self._camera_infos = camera_info_topics(context.tasks)
        self._cloud_tasks = cloud_tasks(context.tasks)
        names = [output.topic for output in self._images] + [*self._camera_infos, CLOUD_TOPIC]
        is_taken = any(f'/{name}' in self._bag.topics for name in names)
        self._namespace = _NAMESPACE if is_taken else ''
        self._names_are_said = False

    def frame(self, result: FrameResult) -> None:
        """Copy what was recorded up to the frame's image; write its outputs."""
        if self._failure:
            self._frames_missing += 1
            return
        try:
            self._copy_to_image(result.index)
            self._write_outputs(result)
        except OSError as error:
            self._failure = f'{self._path} could not be written: {error.strerror or error}'
            self._frames_missing = 1
            self._stack.close()

    def finish(self, report: ReplayReport) -> None:
        """Copy the rest of the recording and put the bag in its place."""
        if not self._failure:
            try:
                if not report.interrupted:
                    for message in self._messages:
                        self._writer.copy(message)
                self._put_in_place()
            except OSError as error:
                self._failure = f'{self._path} could not be written: {error.strerror or error}'
                self._stack.close()
        if self._failure:
            report.notes[self._failure] += max(1, self._frames_missing)
        for topic in self._uncopied:
            sentence = f'{topic} is not in the written bag: its type is not defined anywhere'
            report.notes[sentence] += 1

    def _copy_to_image(self, index: int) -> None:
        while self._image_index < index:
            message = next(self._messages, None)
            if message is None:
                return
            self._writer.copy(message)
            if message.topic == self._context.topics.image:
                self._image_index += 1
                self._image_recorded_ns = message.recorded_ns

    def _write_outputs(self, result: FrameResult) -> None:
        maps, frame = result.maps, result.frame
        if maps is None or frame is None:
            return
        writer, recorded_ns = self._writer, self._image_recorded_ns
        if not self._names_are_said:
            self._names_are_said = True
            for task in self._context.tasks:
                if task.label_set is not None:
                    topic = f'{self._namespace}/{task.name}/label_names'
                    writer.write_text(topic, recorded_ns, json.dumps(label_names(task)))
        header = writer.header(frame.stamp_ns, frame.frame_id)
        for output in self._images:
            values = output.values(maps)
            if values is not None:
                topic = f'{self._namespace}/{output.topic}'
                writer.write_image(topic, recorded_ns, header, output.encoding, values)
        if maps.camera is None:
            return
        for name in self._camera_infos:
            topic = f'{self._namespace}/{name}'
            writer.write_camera_info(topic, recorded_ns, header, maps.camera)
        if self._cloud_tasks:
            cloud = output_cloud(self._cloud_tasks, maps)
            writer.write_cloud(f'{self._namespace}/{CLOUD_TOPIC}', recorded_ns, header, cloud)

    def _put_in_place(self) -> None:
        self._writer.close()
        with atomic_directory(self._path) as directory:
            for file in (self._temporary / OUTPUT_BAG).iterdir():
                file.rename(directory / file.name)
        self._stack.close()
