# SPDX-License-Identifier: Apache-2.0
"""The Perceiver with engines whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

import cv2
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.closing import Closing
from mtl_perception.inference import InferenceError, Perceiver, PerceiverConfig
from mtl_perception.manifest import Manifest
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import pytest


class EchoEngine(Closing):
    """Sees depth as brightness (m = value / 10 * scale), edges as red; keeps what it was given."""

    name = 'echo'

    def __init__(self, size: tuple[int, int] = (48, 64), label_scale: float = 1.0) -> None:
        self.manifest = Manifest(
            name='echo',
            system='echo',
            backbone='none',
            tasks=standard_tasks('rooms'),
            network_size=size,
            reference_focal_px=50.0,
            depth_range_m=(0.1, 100.0),
            label_scale=label_scale,
            mean=(0.2, 0.4, 0.6),
        )
        self.image = np.empty(0)
        self.scale = 0.0
        self.runs = 0

    def run(self, image: np.ndarray, depth_scale: np.ndarray) -> dict[str, np.ndarray]:
        self.image, self.scale = image[0].copy(), float(depth_scale[0])
        self.runs += 1
        height, width = self.manifest.label_size
        step = self.manifest.label_step
        small = image[:, ::step, ::step][:, :height, :width]
        return {
            'semantic': small[..., 0] // 16,
            'semantic_confidence': small[..., 0].astype(np.float32) / 255,
            'depth': image[..., 1].astype(np.float32) / 10 * depth_scale[:, None, None],
            'normals': np.tile(np.float32([0, 0, -1]), (*image.shape[:3], 1)),
            'edges': image[..., 0].copy(),
        }

    def close(self) -> None:
        """Nothing to free."""


def camera_for(width: int, height: int, focal: float = 100.0) -> CameraModel:
    return CameraModel(width, height, focal, focal * 1.02, width / 2 - 3.0, height / 2 + 2.0)


def frame_of(image: np.ndarray, camera: CameraModel | None) -> Frame:
    return Frame(image=image, stamp_ns=5, frame_id='camera', camera=camera)


def grey(width: int, height: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def all_maps(maps: PerceptionMaps) -> Mapping[str, np.ndarray]:
    confidence = {f'{name}_confidence': values for name, values in maps.confidence.items()}
    return {**maps.maps, **confidence}


@pytest.mark.parametrize('size', [(640, 480), (1280, 720), (480, 640), (33, 57), (64, 48)])
def test_maps_have_the_size_and_type_of_the_contract(size: tuple[int, int]) -> None:
    width, height = size
    perceiver = Perceiver(EchoEngine())
    maps = perceiver.perceive(frame_of(grey(width, height), camera_for(width, height)))
    found = {name: (values.dtype.str[1:], values.shape) for name, values in all_maps(maps).items()}
    assert found == {
        'semantic': ('u1', (height, width)),
        'semantic_confidence': ('f4', (height, width)),
        'depth': ('f4', (height, width)),
        'normals': ('f4', (height, width, 3)),
        'edges': ('u1', (height, width)),
    }
    assert set(maps.timings_ms) == {'fit', 'engine', 'finish'}
    assert min(maps.timings_ms.values()) >= 0.0


@pytest.mark.parametrize(('width', 'height'), [(640, 480), (641, 363), (100, 300), (40, 30)])
def test_depth_scale_is_the_focal_length_at_network_size(width: int, height: int) -> None:
    engine = EchoEngine((48, 64))
    camera = CameraModel(width, height, 300.0, 330.0, 5.0, 5.0)
    maps = Perceiver(engine).perceive(frame_of(grey(width, height), camera))
    scale = min(48 / height, 64 / width)
    content = (math.floor(width * scale + 0.5), math.floor(height * scale + 0.5))
    focal = math.sqrt(300.0 * content[0] / width * 330.0 * content[1] / height)
    assert engine.scale == pytest.approx(focal / 50.0, rel=1e-6)
    np.testing.assert_allclose(maps.maps['depth'], 10.0 * focal / 50.0, rtol=1e-5)


def test_padding_is_the_mean_colour_and_content_the_image() -> None:
    engine = EchoEngine((48, 64))
    Perceiver(engine).perceive(frame_of(grey(128, 48, 9), None))
    assert (engine.image[12:36] == 9).all()
    for rows in (engine.image[:12], engine.image[36:]):
        assert (rows == [51, 102, 153]).all()


def test_change_of_the_camera_size_leaves_no_trace_of_the_old_one() -> None:
    engine = EchoEngine((48, 64))
    perceiver = Perceiver(engine)
    perceiver.perceive(frame_of(grey(64, 48, 255), None))
    perceiver.perceive(frame_of(grey(128, 48, 9), None))
    again = EchoEngine((48, 64))
    Perceiver(again).perceive(frame_of(grey(128, 48, 9), None))
    np.testing.assert_array_equal(engine.image, again.image)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(60, 700), st.integers(60, 700)),
    st.sampled_from([(96, 128), (64, 64), (120, 96)]),
    st.sampled_from([1.0, 0.5]),
    st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
)
def test_what_the_network_sees_comes_back_where_it_was(
    size: tuple[int, int],
    network: tuple[int, int],
    label_scale: float,
    place: tuple[float, float],
) -> None:
    """A soft spot goes through fit and finish; its centre of mass stays within half a pixel."""
    width, height = size
    assume(max(size) / min(size) <= 3)  # else the content is a few pixels wide
    scale = min(network[0] / height, network[1] / width)
    centre = np.array([place[0] * (width - 1), place[1] * (height - 1)])
    sigma = max(min(size) / 12, 1.5 / scale)
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * sigma**2))
    image = np.repeat(np.rint(spot * 255).astype(np.uint8)[..., None], 3, axis=-1)
    maps = Perceiver(EchoEngine(network, label_scale)).perceive(frame_of(image, camera_for(*size)))
    for name in ('depth', 'edges'):
        values = maps.maps[name].astype(np.float64)
        mass = np.where(values > 0.08 * values.max(), values, 0.0)
        found = np.array([(mass * columns).sum(), (mass * rows).sum()]) / mass.sum()
        # Half a pixel of whichever grid is coarser.
        assert np.abs(found - centre).max() < 0.5 * max(1.0, 1.0 / scale)


def test_only_wanted_outputs_are_finished() -> None:
    perceiver = Perceiver(EchoEngine())
    frame = frame_of(grey(64, 48), camera_for(64, 48))
    assert set(all_maps(perceiver.perceive(frame, ['depth']))) == {'depth'}
    assert set(all_maps(perceiver.perceive(frame, {'semantic_confidence', 'edges'}))) == {
        'semantic_confidence', 'edges'
    }
    assert all_maps(perceiver.perceive(frame, ())) == {}
    with pytest.raises(InferenceError, match=r"'dept' is unknown.*semantic, semantic_confidence"):
        perceiver.perceive(frame, ['dept'])


def test_frames_may_be_inferred_ahead_of_those_being_finished() -> None:
    random = np.random.default_rng(4)
    sizes = ((64, 48), (64, 48), (100, 60), (64, 48))
    frames = [
        frame_of(random.integers(0, 256, (height, width, 3), dtype=np.uint8),
                 camera_for(width, height, 80.0 + index))
        for index, (width, height) in enumerate(sizes)
    ]  # fmt: skip
    expected = [Perceiver(EchoEngine()).perceive(frame) for frame in frames]
    perceiver = Perceiver(EchoEngine())
    inferred = [perceiver.infer(frame) for frame in frames]
    for one, wanted in zip(inferred, expected):
        maps = perceiver.finish(one)
        assert maps.camera == wanted.camera
        for name, values in all_maps(wanted).items():
            np.testing.assert_array_equal(all_maps(maps)[name], values)
        assert set(maps.timings_ms) == {'fit', 'engine', 'finish'}


@pytest.mark.parametrize(
    ('wanted', 'has_camera', 'runs'),
    [
        ((), True, 0), (['depth'], False, 0), (['depth'], True, 1), (['edges'], False, 1),
        (['depth', 'edges'], False, 1), (None, False, 1),
    ],
)  # fmt: skip
def test_the_engine_rests_where_nothing_wanted_can_come_out(
    wanted: list[str] | None, has_camera: bool, runs: int
) -> None:
    engine = EchoEngine()
    camera = camera_for(64, 48) if has_camera else None
    maps = Perceiver(engine).perceive(frame_of(grey(64, 48), camera), wanted)
    assert engine.runs == runs
    assert ('engine' in maps.timings_ms) == bool(runs)
    assert maps.camera == camera
    assert bool(all_maps(maps)) == bool(runs)


def test_without_intrinsics_there_is_no_depth_but_all_else() -> None:
    engine = EchoEngine()
    maps = Perceiver(engine).perceive(frame_of(grey(64, 48), None), ['depth', 'normals', 'edges'])
    assert set(maps.maps) == {'normals', 'edges'}
    assert maps.camera is None
    assert engine.scale == 1.0


def test_assumed_focal_length_gives_depth_and_a_camera() -> None:
    engine = EchoEngine((48, 64))
    perceiver = Perceiver(engine, PerceiverConfig(assume_focal_px=200.0))
    maps = perceiver.perceive(frame_of(grey(128, 96), None))
    assert engine.scale == pytest.approx(200.0 / 2 / 50.0)
    assert maps.camera == CameraModel(128, 96, 200.0, 200.0, 63.5, 47.5)
    assert 'depth' in maps.maps
    # Intrinsics that came are better than those assumed.
    perceiver.perceive(frame_of(grey(128, 96), CameraModel(128, 96, 100.0, 100.0, 64, 48)))
    assert engine.scale == pytest.approx(1.0)


@pytest.mark.parametrize('focal', [0.0, -3.0, float('nan'), float('inf')])
def test_senseless_assumed_focal_length_is_refused(focal: float) -> None:
    with pytest.raises(InferenceError, match='assume_focal_px'):
        PerceiverConfig(assume_focal_px=focal)


def test_distorted_image_is_rectified_once_and_everything_belongs_to_it() -> None:
    engine = EchoEngine((48, 64))
    matrix = np.array([[120.0, 0, 66], [0, 121.0, 46], [0, 0, 1]])
    coefficients = (-0.25, 0.08, 0.001, -0.002, 0.0)
    camera = CameraModel(128, 96, 120.0, 121.0, 66.0, 46.0, distortion=coefficients)
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(image, (128, 96), interpolation=cv2.INTER_CUBIC)
    maps = Perceiver(engine).perceive(frame_of(image, camera))
    reference = cv2.undistort(image, matrix, np.array(coefficients))
    assert np.abs(maps.image.astype(int) - reference).max() <= 1
    assert np.abs(image.astype(int) - reference).max() > 20
    assert maps.camera == CameraModel(128, 96, 120.0, 121.0, 66.0, 46.0)
    small = cv2.resize(maps.image, (64, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(engine.image, small)


def test_image_without_distortion_is_passed_on_untouched() -> None:
    image = grey(64, 48)
    camera = camera_for(64, 48)
    perceiver = Perceiver(EchoEngine())
    maps = perceiver.perceive(frame_of(image, camera))
    assert maps.image is image
    assert maps.camera == camera
    # An equal model of a later message is the same object, with its tables already computed.
    again = perceiver.perceive(frame_of(image, camera_for(64, 48)))
    assert again.camera is maps.camera


def test_pinhole_of_another_camera_is_not_kept() -> None:
    engine = EchoEngine((48, 64))
    perceiver = Perceiver(engine)
    perceiver.perceive(frame_of(grey(64, 48), camera_for(64, 48, 100.0)))
    maps = perceiver.perceive(frame_of(grey(64, 48), camera_for(64, 48, 200.0)))
    assert maps.camera == camera_for(64, 48, 200.0)
    assert engine.scale == pytest.approx(200.0 * math.sqrt(1.02) / 50.0)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((48, 64, 3), np.float32),
    ],
)
def test_what_is_no_rgb_image_is_refused(image: Any) -> None:
    with pytest.raises(InferenceError, match=r'image is .*; it must be uint8'):
        Perceiver(EchoEngine()).perceive(frame_of(image, None))


def test_camera_of_another_size_is_refused() -> None:
    with pytest.raises(InferenceError, match='camera_info is for 64x48 but the image is 128x96'):
        Perceiver(EchoEngine()).perceive(frame_of(grey(128, 96), camera_for(64, 48)))


def test_views_that_are_not_contiguous_are_welcome() -> None:
    """A bgr8 message is a view with its channels reversed, a padded one has a longer step."""
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    rows = np.zeros((96, 140, 3), np.uint8)
    rows[:, :128] = image[..., ::-1]
    engine, reference = EchoEngine(), EchoEngine()
    Perceiver(engine).perceive(frame_of(rows[:, :128, ::-1], None))
    Perceiver(reference).perceive(frame_of(image, None))
    np.testing.assert_array_equal(engine.image, reference.image)
