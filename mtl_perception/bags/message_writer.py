# SPDX-License-Identifier: Apache-2.0
"""Write rosbag2 recordings (MCAP) without ROS: our own messages, and copies of recorded ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
import sys
from types import TracebackType
from typing import Any

from mtl_perception.bags.bag_file import BagFile, normalised_type
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.camera import CameraModel
from mtl_perception.geometry.cloud import Cloud, CLOUD_FIELDS
from mtl_perception.output_topics import Pinhole
import numpy as np
import numpy.typing as npt

IMAGE, CAMERA_INFO = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo'
POINT_CLOUD, TEXT = 'sensor_msgs/msg/PointCloud2', 'std_msgs/msg/String'
_POINT_FIELD_TYPES = {'f4': 7, 'u4': 6}  # FLOAT32 and UINT32 of sensor_msgs/PointField
_FOREVER_S = 2**31 - 1


class MessageWriter:
    """
    A rosbag2 being written; a context manager that leaves a whole bag behind.

    A topic is opened by its first message. Stamps and times of recording are nanoseconds.
    """

    def __init__(self, directory: Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import get_typestore, Stores

        self._store: Any = get_typestore(Stores.ROS2_JAZZY)
        self._writer: Any = Writer(directory, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> MessageWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whatever ended it: what was written so far is a bag. A full disk takes no end of one.
        if isinstance(error, OSError):
            self.abandon()
        else:
            self.close()

    def close(self) -> None:
        """Write the index: the recording is whole."""
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file as it is; it is no recording."""
        with suppress(OSError):
            self._writer.abort()

    def make(self, name: str, /, **fields: Any) -> Any:
        """Return a message of the type `name`."""
        return self._store.types[name](**fields)

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Return a std_msgs/Header."""
        stamp = self.make(
            'builtin_interfaces/msg/Time', sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        return self.make('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)

    def write(
        self, topic: str, name: str, recorded_ns: int, message: Any, *, latched: bool = False
    ) -> None:
        """Write a message of the type `name`; `latched` is for what is said once."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, name, typestore=self._store,
                offered_qos_profiles=[_latched()] if latched else (),
            )  # fmt: skip
        data = self._store.serialize_cdr(message, name)
        self._writer.write(self._connections[topic], recorded_ns, data)

    def write_image(
        self, topic: str, recorded_ns: int, header: Any, encoding: str, values: npt.NDArray[Any]
    ) -> None:
        """Write an image (H, W) or (H, W, C); the encoding must be that of the array."""
        values = np.ascontiguousarray(values)
        self.write(topic, IMAGE, recorded_ns, self.make(
            IMAGE, header=header, height=values.shape[0], width=values.shape[1],
            encoding=encoding, is_bigendian=int(sys.byteorder == 'big'), step=values.strides[0],
            data=values.reshape(-1).view(np.uint8),
        ))

    def write_camera_info(
        self, topic: str, recorded_ns: int, header: Any, camera: CameraModel
    ) -> None:
        """Write the sensor_msgs/CameraInfo of a rectified image: K, P, D = 0, R = 1."""
        pinhole = Pinhole.of(camera)
        region = self.make(
            'sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
            do_rectify=False,
        )
        self.write(topic, CAMERA_INFO, recorded_ns, self.make(
            CAMERA_INFO, header=header, height=camera.height, width=camera.width,
            distortion_model=pinhole.distortion_model, d=np.array(pinhole.d),
            k=np.array(pinhole.k), r=np.array(pinhole.r), p=np.array(pinhole.p),
            binning_x=0, binning_y=0, roi=region,
        ))

    def write_cloud(self, topic: str, recorded_ns: int, header: Any, cloud: Cloud) -> None:
        """Write an organised sensor_msgs/PointCloud2 with the fields of `Cloud`."""
        fields = [
            self.make(
                'sensor_msgs/msg/PointField', name=name, offset=4 * index,
                datatype=_POINT_FIELD_TYPES[kind], count=1,
            )
            for index, (name, kind) in enumerate(CLOUD_FIELDS)
        ]
        height, width = cloud.points.shape[:2]
        step = 4 * len(fields)
        self.write(topic, POINT_CLOUD, recorded_ns, self.make(
            POINT_CLOUD, header=header, height=height, width=width, fields=fields,
            is_bigendian=sys.byteorder == 'big', point_step=step, row_step=step * width,
            data=cloud.points.reshape(-1).view(np.uint8), is_dense=False,  # NaN = invalid
        ))

    def write_text(self, topic: str, recorded_ns: int, text: str) -> None:
        """Write a std_msgs/String that is said once."""
        self.write(topic, TEXT, recorded_ns, self.make(TEXT, data=text), latched=True)

    def take_over(self, bag: BagFile, topics: Sequence[str]) -> tuple[str, ...]:
        """
        Open topics for `copy`, with the types, definitions and QoS that they were recorded with.

        Returns those that cannot be copied: the bag does not say what its messages are.
        """
        recorded = bag.connections()
        unknown = []
        for topic in topics:
            arguments = self._definition(bag, topic, recorded.get(topic))
            if arguments is None:
                unknown.append(topic)
            else:
                self._connections[topic] = self._writer.add_connection(topic, **arguments)
        return tuple(unknown)

    def copy(self, message: RecordedMessage) -> None:
        """Write a recorded message as it is, if `take_over` could open its topic."""
        connection = self._connections.get(message.topic)
        if connection is not None:
            self._writer.write(connection, message.recorded_ns, message.data)

    def _definition(self, bag: BagFile, topic: str, recorded: Any) -> dict[str, Any] | None:
        profiles = () if recorded is None else recorded.ext.offered_qos_profiles
        digest = '' if recorded is None else recorded.digest or _digest(recorded)
        if digest and recorded.msgdef.data:
            return {
                'msgtype': recorded.msgtype, 'msgdef': recorded.msgdef.data, 'rihs01': digest,
                'offered_qos_profiles': profiles,
            }  # fmt: skip
        # Recordings before Iron, and damaged ones, do not carry the definitions.
        name = normalised_type(bag.topics[topic].type)
        if name not in self._store.types:
            return None
        return {'msgtype': name, 'typestore': self._store, 'offered_qos_profiles': profiles}


def _digest(recorded: Any) -> str:
    """Return the type's hash (REP-2011) by its recorded definition, '' if that is unreadable."""
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores

    store = get_typestore(Stores.EMPTY)
    definition = recorded.msgdef
    try:
        if definition.format == MessageDefinitionFormat.IDL:
            store.register(get_types_from_idl(definition.data))
        else:
            store.register(get_types_from_msg(definition.data, recorded.msgtype))
        return str(store.hash_rihs01(recorded.msgtype))
    # Definitions by others may hold anything; the parser has errors of many kinds.
    except Exception:
        return ''


def _latched() -> Any:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(_FOREVER_S, 0)
    return Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
        forever, forever, QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
