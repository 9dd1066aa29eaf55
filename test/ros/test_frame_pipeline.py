# SPDX-License-Identifier: Apache-2.0
"""The two halves of a frame, with an engine that counts and outputs that only note."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.inference import Perceiver
from mtl_perception.inference.perceiver import new_memory
from mtl_perception.manifest import Manifest
from mtl_perception.tasks import standard_tasks
import numpy as np
import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')

CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)


class CountingEngine:
    """Depth is the image's red, labels its green."""

    name = 'counting'
    manifest = Manifest(
        name='counting', system='none', backbone='none', tasks=standard_tasks('rooms')[:2],
        network_size=(48, 64), reference_focal_px=50.0, depth_range_m=(0.1, 300.0),
    )  # fmt: skip

    def __init__(self) -> None:
        self.runs = 0

    def run(self, image: np.ndarray, depth_scale: np.ndarray) -> dict[str, np.ndarray]:
        self.runs += 1
        return {
            'semantic': image[..., 1].copy(),
            'semantic_confidence': np.ones(image.shape[:3], np.float32),
            'depth': image[..., 0].astype(np.float32),
        }


class NotingOutputs:
    """Wants what the test says and keeps what it is given."""

    memory = staticmethod(new_memory)

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted
        self.published: list[tuple[Any, Any, Any]] = []

    def wanted(self) -> Any:
        return self._wanted

    def publish(self, header: Any, maps: Any, wanted: Any, settings: Any) -> dict[str, float]:
        self.published.append((header, maps, wanted))
        return {'cloud': 0.0, 'publish': 1.0}


def pipeline_of(wanted: Any, camera: CameraModel | None) -> tuple[Any, Any, Any, Any]:
    from mtl_perception.ros.diagnostics import FrameTimings
    from mtl_perception.ros.frame_pipeline import FramePipeline

    engine, outputs, timings = CountingEngine(), NotingOutputs(wanted), FrameTimings()
    cameras: Any = SimpleNamespace(camera_for=lambda *_: (camera, '' if camera else 'no info'))
    pipeline = FramePipeline(
        Perceiver(engine), outputs, cameras, lambda: None, timings, lambda problem: None
    )  # type: ignore[arg-type]
    return pipeline, engine, outputs, timings


def arrival(red: int, nanosec: int = 0) -> Any:
    from mtl_perception.ros.frame_pipeline import Arrival
    from sensor_msgs.msg import Image

    pixels = np.full((48, 64, 3), (red, 3, 0), np.uint8)
    message = Image(encoding='rgb8', height=48, width=64, step=192)
    message.header.stamp.nanosec = nanosec
    message.data.frombytes(pixels.tobytes())
    return Arrival(message, 0.0, 0.0)


def wanting(*, images: tuple[str, ...] = (), infos: bool = False, cloud: bool = False) -> Any:
    from mtl_perception.ros.outputs import Wanted

    outputs: Any = tuple(SimpleNamespace(needs=name) for name in images)
    needs = {*images, *(('depth', 'semantic') if cloud else ())}
    return Wanted(outputs, ('depth/camera_info',) * infos, cloud, frozenset(needs))


@pytest.mark.parametrize(
    ('options', 'camera', 'runs', 'maps'),
    [
        ({'cloud': True}, CAMERA, 1, {'depth', 'semantic'}),
        ({'cloud': True}, None, 0, set()),
        ({'images': ('depth',)}, None, 0, set()),
        ({'images': ('depth',), 'cloud': True}, None, 0, set()),
        ({'images': ('semantic',), 'cloud': True}, None, 1, {'semantic'}),
        ({'infos': True}, CAMERA, 0, set()),
        ({'infos': True}, None, 0, set()),
    ],
)
def test_the_engine_rests_where_nothing_can_come_out(
    options: dict[str, Any], camera: CameraModel | None, runs: int, maps: set[str]
) -> None:
    pipeline, engine, outputs, timings = pipeline_of(wanting(**options), camera)
    pipeline.end(pipeline.begin(arrival(7)))
    assert engine.runs == runs
    ((_, found, wanted),) = outputs.published
    assert set(found.maps) == maps
    assert found.camera == camera  # camera_info goes out without the engine
    assert wanted.cloud == options.get('cloud', False)
    assert ('engine' in timings.medians()) == bool(runs)


def test_nobody_wants_anything() -> None:
    pipeline, engine, outputs, _ = pipeline_of(wanting(), CAMERA)
    assert pipeline.begin(arrival(7)) is None
    assert engine.runs == 0
    assert outputs.published == []


def test_a_frame_begun_later_does_not_touch_one_that_is_still_to_be_ended() -> None:
    wanted = wanting(images=('depth', 'semantic'))
    pipeline, _, outputs, timings = pipeline_of(wanted, CAMERA)
    begun = [pipeline.begin(arrival(red, red)) for red in (10, 20, 30)]
    for one in begun:
        pipeline.end(one)
    for red, (header, maps, _) in zip((10, 20, 30), outputs.published):
        assert header.stamp.nanosec == red
        np.testing.assert_array_equal(maps.maps['depth'], np.full((48, 64), red, np.float32))
        assert (maps.image[..., 0] == red).all()
    stages = {'age_at_receipt', 'wait', 'decode', 'fit', 'engine', 'handover', 'finish'}
    assert stages <= set(timings.medians())
