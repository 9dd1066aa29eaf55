# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every room's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import os
from pathlib import Path
from typing import Any

from mtl_perception.camera import CameraModel
import numpy as np
import pytest


@pytest.fixture(scope='session')
def sample_data() -> Path:
    """Return the folder of real recordings, or skip with the reason."""
    value = os.environ.get('MTL_PERCEPTION_SAMPLE_DATA')
    if not value:
        pytest.skip('MTL_PERCEPTION_SAMPLE_DATA is not set: no real recordings to test against')
    path = Path(value).resolve()
    if not path.is_dir():
        pytest.skip(f'MTL_PERCEPTION_SAMPLE_DATA={value} is not a folder')
    return path


@pytest.fixture(scope='session')
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Return a bundle of MTI-Net at 96x128 with random weights whose maps vary as trained ones do.

    Read only: a test that changes a file copies the directory first.
    """
    torch = pytest.importorskip('torch')
    from mtl_perception.bundle import save_bundle
    from mtl_perception.manifest import Manifest
    from mtl_perception.networks.build import build_network
    from mtl_perception.tasks import standard_tasks

    tasks = standard_tasks('rooms')
    neck = (8, 8, 8, 8)
    generator = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network('mti_net', tasks, backbone='mobilenetv2_100', neck=neck)
    coarse = torch.from_numpy(generator.normal(0.0, 1.5, (4, 3, 6, 8)).astype(np.float32))
    images = torch.nn.functional.interpolate(coarse, size=(96, 128), mode='bicubic')
    last: dict[int, torch.nn.Module] = {}
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda layer, _, output: last.__setitem__(id(output), layer)
            )
    with torch.no_grad():
        # Statistics of BatchNorm first, then raw maps of the spread that trained ones have.
        for _ in range(3):
            network.train()(images)
        maps = network.eval()(images).maps
        for name, spread in (('semantic', 3.0), ('depth', 0.4), ('normals', 0.6), ('edges', 2.0)):
            layer, start = last[id(maps[name])], last[id(maps[name])].bias.clone()
            gain = spread / maps[name].std(dim=(0, 2, 3))
            layer.weight *= gain.view(-1, 1, 1, 1)
            # Each channel varies about what an untrained one says everywhere.
            layer.bias.copy_(start - gain * (maps[name].mean(dim=(0, 2, 3)) - start))
    for module in network.modules():
        module._forward_hooks.clear()
    manifest = Manifest(
        name='small',
        system='mti_net',
        backbone='mobilenetv2_100',
        tasks=tasks,
        network_size=(96, 128),
        reference_focal_px=120.0,
        depth_range_m=(0.2, 20.0),
        neck=neck,
    )
    directory = tmp_path_factory.mktemp('bundles') / 'small'
    check = generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    save_bundle(network, manifest, directory, check)
    return directory


class BagMaker:
    """Makes sensor messages with rosbags' own classes and writes them as a rosbag2."""

    def __init__(self, distribution: str = 'ROS2_HUMBLE') -> None:
        from rosbags.typesys import get_typestore, Stores

        self.typestore = get_typestore(Stores[distribution])
        self._types = self.typestore.types

    def header(self, stamp_ns: int, frame_id: str = 'optical') -> Any:
        stamp = self._types['builtin_interfaces/msg/Time'](
            sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        return self._types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)

    def image(
        self, pixels: np.ndarray, encoding: str, stamp_ns: int, frame_id: str = 'optical'
    ) -> Any:
        pixels = np.ascontiguousarray(pixels)
        return self._types['sensor_msgs/msg/Image'](
            header=self.header(stamp_ns, frame_id),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.strides[0],
            data=np.frombuffer(pixels.tobytes(), np.uint8),
        )

    def compressed(self, data: bytes, stamp_ns: int, frame_id: str = 'optical') -> Any:
        return self._types['sensor_msgs/msg/CompressedImage'](
            header=self.header(stamp_ns, frame_id),
            format='jpeg',
            data=np.frombuffer(data, np.uint8),
        )

    def camera_info(
        self, camera: CameraModel, stamp_ns: int, frame_id: str = 'optical'
    ) -> Any:
        fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
        region = self._types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._types['sensor_msgs/msg/CameraInfo'](
            header=self.header(stamp_ns, frame_id),
            height=camera.height,
            width=camera.width,
            distortion_model=camera.distortion_model,
            d=np.array(camera.distortion, np.float64),
            k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], np.float64),
            r=np.eye(3).ravel(),
            p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], np.float64),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def write(
        self,
        path: Path,
        messages: Iterable[tuple[str, int, Any]],
        *,
        storage: str = 'MCAP',
        compression: str | None = None,
        version: int = 9,
        type_name: Callable[[str], str] = str,
        silent: Mapping[str, str] | None = None,
    ) -> Path:
        """
        Write (topic, recorded_ns, message) to the new folder `path`; return it.

        :param version: of the metadata, 8 or 9
        :param type_name: how the recording calls a type
        :param silent: types of topics without a message
        """
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage])
        if compression is not None:
            writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
        connections: dict[str, Any] = {}

        def opened(topic: str, name: str) -> Any:
            if topic not in connections:
                definition, _ = self.typestore.generate_msgdef(name, ros_version=2)
                connections[topic] = writer.add_connection(
                    topic, type_name(name), msgdef=definition,
                    rihs01=self.typestore.hash_rihs01(name),
                )
            return connections[topic]

        with writer:
            for topic, name in (silent or {}).items():
                opened(topic, name)
            for topic, recorded_ns, message in messages:
                name = message.__msgtype__
                data = self.typestore.serialize_cdr(message, name)
                writer.write(opened(topic, name), recorded_ns, data)
        return path


@pytest.fixture(scope='session')
def bags() -> BagMaker:
    """Return what makes messages and bags, or skip without rosbags."""
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    return BagMaker()


@pytest.fixture(scope='session')
def walk_bag(bags: BagMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Return a bag in the layout that `rooms --bag` writes: 8 frames of 128x96, 250 ms apart.

    A camera comes nearer to a wall behind a floor; every seventh depth is unknown. Each image
    is recorded 4 ms after it was taken, depth before it, camera_info after it.
    """
    camera = CameraModel(128, 96, 120.0, 120.0, 63.5, 47.5)
    y = np.repeat((np.arange(96.0)[:, None] - 47.5) / 120.0, 128, axis=1)
    messages = []
    for index in range(8):
        stamp = 1_700_000_000_000_000_000 + index * 250_000_000
        generator = np.random.default_rng(index)
        coarse = generator.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        image = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
        wall = 4.0 - 0.2 * index
        floor = np.divide(1.2, y, out=np.full_like(y, np.inf), where=y > 0)
        depth = np.minimum(floor, wall).astype(np.float32)
        depth.ravel()[::7] = np.nan
        labels = np.where(floor < wall, 1, 0).astype(np.uint8)
        normals = np.where((floor < wall)[..., None], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0])
        edges = np.zeros((96, 128), np.uint8)
        edges[1:][labels[1:] != labels[:-1]] = 255
        frame = 'camera_color_optical_frame'
        truth = '/ground_truth'
        messages += [
            ('/camera/aligned_depth_to_color/image_raw', stamp + 2_000_000,
             bags.image(depth, '32FC1', stamp, frame)),
            ('/camera/color/image_raw', stamp + 4_000_000,
             bags.image(image, 'rgb8', stamp, frame)),
            ('/camera/color/camera_info', stamp + 5_000_000,
             bags.camera_info(camera, stamp, frame)),
            (f'{truth}/semantic/image_raw', stamp + 6_000_000,
             bags.image(labels, 'mono8', stamp, frame)),
            (f'{truth}/normals/image_raw', stamp + 6_000_000,
             bags.image(normals.astype(np.float32), '32FC3', stamp, frame)),
            (f'{truth}/edges/image_raw', stamp + 6_000_000,
             bags.image(edges, 'mono8', stamp, frame)),
        ]  # fmt: skip
    return bags.write(tmp_path_factory.mktemp('walk') / 'walk', messages)
