# SPDX-License-Identifier: Apache-2.0
"""The node with the shipped network: same maps as without ROS, no torch, little memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')
pytest.importorskip('onnxruntime')


def test_it_publishes_what_the_perceiver_gives_in_little_memory(
    start_command: Callable[..., Any],
    listener: Any,
    camera_on: Callable[..., Any],
) -> None:
    from mtl_perception.camera import CameraModel
    from mtl_perception.inference import open_engine, Perceiver
    from mtl_perception.manifest import default_bundle
    from mtl_perception.values import Frame
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2

    # The size of a real camera, but smooth: random pixels would put labels on a knife's edge.
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    pixels = np.kron(coarse, np.ones((80, 80, 1), np.uint8))
    with open_engine(default_bundle(), threads=1) as engine:
        camera_model = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0)
        expected = Perceiver(engine).perceive(Frame(pixels, 0, '', camera_model))

    process = start_command(
        'live', '--ros-args', '-p', 'threads:=1',
        '-r', 'image:=front/image_raw', '-r', 'camera_info:=front/camera_info',
    )  # fmt: skip
    camera = camera_on(image_topic='front/image_raw')
    infos = listener.node.create_publisher(CameraInfo, 'front/camera_info', 10)
    topics = {
        'semantic/image_raw': 'semantic', 'depth/image_rect': 'depth',
        'normals/image_raw': 'normals', 'edges/image_raw': 'edges',
    }  # fmt: skip
    heard = {topic: listener.subscribe(Image, topic) for topic in topics}
    for topic in ('semantic_color/image_raw', 'normals_color/image_raw', 'semantic/confidence'):
        heard[topic] = listener.subscribe(Image, topic)
    clouds = listener.subscribe(PointCloud2, 'points')
    k = [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]

    def send() -> bool:
        image = camera.image(pixels)
        infos.publish(camera.info(image.header, 480, 640, k=k))
        camera.images.publish(image)
        listener.spin_for(0.05)
        return len(clouds) >= 30 and all(heard.values())

    listener.spin_until(send, 60, [process])
    for topic, name in topics.items():
        message = heard[topic][-1]
        wanted = expected.maps[name]
        received = np.frombuffer(bytes(message.data), wanted.dtype).reshape(wanted.shape)
        np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-5, err_msg=topic)

    folder = Path('/proc', str(process.process.pid))
    status = (folder / 'status').read_text()
    resident, shared = (
        int(re.search(rf'{name}:\s+(\d+) kB', status)[1])  # type: ignore[index]
        for name in ('VmRSS', 'RssShmem')
    )
    assert resident - shared < 300 * 1024
    assert 'torch' not in (folder / 'maps').read_text()
    assert process.interrupt() == 0
    assert 'Traceback' not in process.output
