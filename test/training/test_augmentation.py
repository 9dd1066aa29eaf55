# SPDX-License-Identifier: Apache-2.0
"""Augmentation keeps geometry true: depth, intrinsics and normals still describe one surface."""

from __future__ import annotations

import colorsys
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.inference.fitting import FittedGeometry
from mtl_perception.manifest import IMAGENET_MEAN, padding_colour
from mtl_perception.tasks import standard_tasks
from mtl_perception.training.augmentation import augment
from mtl_perception.training.data import ValidationFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.geometry_augmentation import (
    fitted,
    flipped,
    letterboxed,
    random_window,
    rotated,
    window,
    with_camera,
)
from mtl_perception.training.photometric import distort_colours, vary_photometry
from mtl_perception.training.recipe import AugmentationRecipe, NetworkRecipe
import numpy as np
import pytest

TASKS = standard_tasks('rooms')
FILL = (124, 116, 104)
NETWORK = NetworkRecipe(
    system='multi_task', backbone='mobilenetv2_100', size=(96, 128), reference_focal_px=80.0
)


def _surface_angles(sample):
    """Angle between stored normals and those of the back-projected depth, away from borders."""
    points = sample.camera.back_project(sample.targets['depth']).astype(np.float64)
    across = points[3:-3, 6:] - points[3:-3, :-6]
    down = points[6:, 3:-3] - points[:-6, 3:-3]
    computed = np.cross(down, across)
    computed /= np.linalg.norm(computed, axis=-1, keepdims=True)
    stored = sample.targets['normals'][3:-3, 3:-3]
    edges = sample.targets['edges']
    near = np.zeros(edges.shape, bool)
    for y in range(-6, 7):
        for x in range(-6, 7):
            near |= np.roll(edges != 0, (y, x), (0, 1))
    valid = ~near[3:-3, 3:-3] & np.isfinite(stored).all(-1) & np.isfinite(computed).all(-1)
    cosine = np.clip((computed * stored).sum(-1)[valid], -1, 1)
    return np.degrees(np.arccos(cosine))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_back_projected_depth_has_the_augmented_normals(box_frame, seed):
    frame = box_frame(seed % 17, 192, 144, 150.0)
    recipe = AugmentationRecipe(
        flip=0.5, zoom=(0.6, 1.8), letterbox=0.5, photometric=1.0,
        rotation_deg=25.0 * (seed % 2),
    )
    result = augment(frame, TASKS, (96, 128), recipe, np.random.default_rng(seed), FILL)
    assert result.image.shape == (96, 128, 3)
    assert (result.camera.height, result.camera.width) == (96, 128)
    angles = _surface_angles(result)
    if angles.size > 50:
        # Nearest-pixel sampling moves depth by up to half a pixel: a few degrees of noise, and
        # twice that where the frame was turned before it was zoomed.
        assert np.median(angles) < (7.0 if seed % 2 else 3.5)
        assert np.mean(angles < 12.0) > 0.9


def test_the_surface_check_sees_a_wrong_normal(box_frame):
    frame = flipped(box_frame(3, 192, 144, 150.0), TASKS)
    assert np.median(_surface_angles(frame)) < 0.5
    wrong = dict(frame.targets, normals=frame.targets['normals'] * np.float32([-1, 1, 1]))
    assert np.median(_surface_angles(replace(frame, targets=wrong))) > 10


def test_flip_mirrors_every_map_and_the_principal_point(box_frame):
    frame = box_frame(1)
    result = flipped(frame, TASKS)
    assert result.camera.cx == pytest.approx(frame.image.shape[1] - 1 - frame.camera.cx)
    for y, x in ((0, 0), (10, 50), (71, 95)):
        there = 95 - x
        assert (result.image[y, x] == frame.image[y, there]).all()
        assert result.targets['depth'][y, x] == frame.targets['depth'][y, there]
        n = frame.targets['normals'][y, there]
        assert result.targets['normals'][y, x].tolist() == [-n[0], n[1], n[2]]
    assert result.pose is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_point_keeps_its_label_and_depth_under_its_new_pixel(box_frame, seed):
    frame = box_frame(5, 192, 144, 150.0)
    recipe = AugmentationRecipe(zoom=(0.7, 1.7))
    result = random_window(frame, TASKS, (96, 128), recipe, np.random.default_rng(seed), FILL)
    points = frame.camera.back_project(frame.targets['depth'])
    pixels = np.rint(result.camera.project(points)).astype(int)
    inside = ((pixels >= 2) & (pixels < (126, 94))).all(-1)
    near = result.targets['depth'][pixels[inside][:, 1], pixels[inside][:, 0]]
    true = frame.targets['depth'][inside]
    assert inside.sum() > 1000
    assert np.nanmedian(np.abs(near - true) / true) < 0.004
    labels = result.targets['semantic'][pixels[inside][:, 1], pixels[inside][:, 0]]
    assert np.mean(labels == frame.targets['semantic'][inside]) > 0.97


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-40, 40), seed=st.integers(0, 16))
def test_a_turned_camera_sees_the_turned_world(box_frame, angle, seed):
    """Every point of the frame, turned by hand about the optical axis, is where it is seen."""
    frame = box_frame(seed, 192, 144, 150.0)
    frame = replace(frame, pose=np.eye(4))
    result = rotated(frame, TASKS, angle, FILL)
    assert result.camera == frame.camera
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    points = frame.camera.back_project(frame.targets['depth']).astype(np.float64)
    turned = np.stack(
        (c * points[..., 0] - s * points[..., 1], s * points[..., 0] + c * points[..., 1],
         points[..., 2]), -1,
    )
    pixels = np.rint(result.camera.project(turned)).astype(int)
    inside = ((pixels >= 2) & (pixels < (190, 142))).all(-1)
    columns, rows = pixels[inside].T
    assert inside.sum() > 8000
    depth, true = result.targets['depth'][rows, columns], frame.targets['depth'][inside]
    assert np.mean(np.abs(depth - true) < 0.03 * true) > 0.95
    n = frame.targets['normals'][inside]
    expected = np.stack((c * n[:, 0] - s * n[:, 1], s * n[:, 0] + c * n[:, 1], n[:, 2]), -1)
    same = np.abs(result.targets['normals'][rows, columns] - expected).max(-1) < 1e-4
    assert same.mean() > 0.95
    labels = result.targets['semantic'][rows, columns]
    assert np.mean(labels == frame.targets['semantic'][inside]) > 0.95
    # The pose turns the other way: in the world nothing has moved.
    world = turned @ result.pose[:3, :3].T
    np.testing.assert_allclose(world, points, atol=1e-6)
    # The frame that a camera turned back sees is the first again, but for the corners.
    back = rotated(result, TASKS, -angle, FILL)
    known = np.isfinite(back.targets['depth'])
    close = np.abs(back.targets['depth'] - frame.targets['depth'])[known] < 0.05
    assert close.mean() > 0.95
    if abs(angle) > 5:
        corner = result.targets
        assert np.isnan(corner['depth'][0, 0]) or np.isnan(corner['depth'][0, -1])
        assert (corner['semantic'] == 255).any()
        assert (corner['edges'] == 255).any()
        assert np.isnan(corner['normals']).any()
    # A point right of the centre moves down when the picture turns by a positive angle.
    if angle > 10:
        row, column = np.argwhere(inside)[np.argmax(np.argwhere(inside)[:, 1])]
        assert pixels[row, column][1] > row


def test_zoom_factors_are_the_only_ones_drawn(box_frame):
    recipe = AugmentationRecipe(zoom_factors=(1.0, 1.2, 1.5))
    generator = np.random.default_rng(0)
    focal = [
        random_window(box_frame(1), TASKS, (72, 96), recipe, generator, FILL).camera.fx
        for _ in range(60)
    ]
    found, counts = np.unique(np.round(focal, 3), return_counts=True)
    # Whole pixels: 72 x 1.2 is 86.4 rows; the columns decide fx.
    assert found == pytest.approx([80.0, 80.0 * 115 / 96, 120.0], abs=1e-3)
    assert counts.min() > 10
    with pytest.raises(TrainingError, match='replaces zoom'):
        AugmentationRecipe(zoom=(1.0, 2.0), zoom_factors=(1.0,))


def test_the_law_of_the_zoom(box_frame):
    """The median of U(0.5, 2) is 1.25, that of its logarithm 1."""
    frame, drawn = box_frame(1, 192, 144, 160.0), {}
    for law in ('uniform', 'log_uniform'):
        recipe = AugmentationRecipe(zoom=(0.5, 2.0), zoom_law=law)
        generator = np.random.default_rng(4)
        drawn[law] = np.array([
            random_window(frame, (), (72, 96), recipe, generator, FILL).camera.fx / 80
            for _ in range(300)
        ])
        assert drawn[law].min() > 0.49
        assert drawn[law].max() < 2.02
    assert np.median(drawn['uniform']) == pytest.approx(1.25, abs=0.12)
    assert np.median(drawn['log_uniform']) == pytest.approx(1.0, abs=0.1)


def test_a_centred_window_keeps_the_centre(box_frame):
    frame = box_frame(1)
    centre = np.array([(96 - 1) / 2, (72 - 1) / 2])
    offset = np.array([frame.camera.cx, frame.camera.cy]) - centre
    for factor in (0.75, 1.0, 1.25, 1.5):
        recipe = AugmentationRecipe(zoom_factors=(factor,), centred=True)
        camera = random_window(
            frame, TASKS, (72, 96), recipe, np.random.default_rng(0), FILL
        ).camera
        moved = np.array([camera.cx, camera.cy]) - centre
        np.testing.assert_allclose(moved, factor * offset, atol=1.0)
    with pytest.raises(TrainingError, match='needs windows that move'):
        AugmentationRecipe(centred=True, largest_class=0.75)


def test_a_crop_that_one_class_fills_is_drawn_again(box_frame):
    frame = box_frame(0)
    labels = np.zeros(frame.image.shape[:2], np.uint8)
    labels[:, 80:] = 1  # a sixth, at the right
    frame = replace(frame, targets={'semantic': labels})
    share = {}
    for limit in (1.0, 0.7):
        recipe = AugmentationRecipe(zoom=(2.0, 2.0), largest_class=limit)
        generator = np.random.default_rng(1)
        share[limit] = [
            np.mean(
                random_window(frame, TASKS, (72, 96), recipe, generator, FILL)
                .targets['semantic'] == 0
            )
            for _ in range(80)
        ]
    within = {limit: np.mean(np.array(values) <= 0.7) for limit, values in share.items()}
    # A window over 16 of 48 columns of the other class: one place in forty-nine, or ten tries.
    assert within[1.0] < 0.1
    assert within[0.7] > within[1.0] + 0.05


def test_outside_the_frame_nothing_is_annotated(box_frame):
    result = window(box_frame(2), TASKS, (36, 48), (-10, -6), (60, 80), fill=(1, 2, 3))
    outside = np.ones((60, 80), bool)
    outside[6:42, 10:58] = False
    assert (result.image[outside] == (1, 2, 3)).all()
    assert (result.targets['semantic'][outside] == 255).all()
    assert (result.targets['edges'][outside] == 255).all()
    assert np.isnan(result.targets['depth'][outside]).all()
    assert np.isnan(result.targets['normals'][outside]).all()
    assert np.isfinite(result.targets['depth'][~outside]).all()
    assert (result.targets['semantic'][~outside] != 255).all()


def test_thin_edges_stay_connected_when_the_frame_shrinks(box_frame):
    edges = np.zeros((90, 120), np.uint8)
    edges[:, 61] = 1
    edges[44, :] = 1
    frame = box_frame(0, 120, 90)
    frame = replace(frame, targets={'edges': edges})
    shrunk = window(frame, TASKS, (40, 53), (0, 0), (40, 53), FILL).targets['edges']
    assert (shrunk == 1).any(axis=1).all()
    assert (shrunk == 1).any(axis=0).all()
    assert (shrunk == 1).mean() < 0.1


def test_fitting_keeps_the_aspect_and_centres(box_frame):
    result = fitted(box_frame(0, 160, 90), TASKS, (96, 128), FILL)
    assert result.camera.fx == pytest.approx(80.0 * 0.8)
    assert result.camera.fy == pytest.approx(80.0 * 1.02 * 0.8)
    rows = np.isfinite(result.targets['depth']).all(axis=1)
    assert rows.nonzero()[0].tolist() == list(range(12, 84))


def test_letterboxed_is_what_the_live_node_makes_of_a_wider_camera(box_frame):
    """The middle rows of a camera are another camera: `FittedGeometry` draws it for the node."""
    frame = box_frame(4, 128, 96)
    geometry = FittedGeometry.fit((72, 128), (96, 128))
    canvas = np.full((96, 128, 3), FILL, np.uint8)
    geometry.fit_image(frame.image[12:84], canvas)
    result = letterboxed(frame, TASKS, 72, FILL)
    np.testing.assert_array_equal(result.image, canvas)
    seen = np.isfinite(result.targets['depth']).any(axis=1).nonzero()[0]
    assert (seen.min(), seen.max()) == (12, 83)
    np.testing.assert_array_equal(
        result.targets['semantic'][12:84], frame.targets['semantic'][12:84]
    )
    assert result.camera == frame.camera


def test_letterboxes_are_as_frequent_as_asked_and_no_wider_than_16_to_9(box_frame):
    recipe, generator = AugmentationRecipe(flip=0, letterbox=0.6), np.random.default_rng(3)
    frames = [
        augment(box_frame(1), TASKS, (72, 96), recipe, generator, FILL) for _ in range(200)
    ]
    rows = np.array([(each.targets['semantic'] != 255).any(axis=1).sum() for each in frames])
    assert rows.min() == 54
    # 0.6 of them, less the one in nineteen that is drawn as high as the frame.
    assert np.mean(rows < 72) == pytest.approx(0.6 * 18 / 19, abs=0.1)
    with pytest.raises(TrainingError, match='letterbox'):
        AugmentationRecipe(letterbox=1.5)


def test_bars_have_the_colour_that_they_have_in_the_live_node(box_frame):
    """Zero after normalisation, to half a grey level."""
    mean = np.array(IMAGENET_MEAN)
    assert np.abs(np.array(padding_colour(IMAGENET_MEAN)) / 255 - mean).max() <= 0.5 / 255
    network = replace(NETWORK, mean=(0.2, 0.4, 0.6))
    item = ValidationFrames([box_frame(0, 160, 90)], TASKS, network)[0]
    assert (item[0].numpy()[:12] == (51, 102, 153)).all()
    assert (item[0].numpy()[12] != (51, 102, 153)).any()


def test_a_frame_without_camera_gets_the_reference_focal_length_once_fitted(box_frame):
    frame = replace(box_frame(0, 160, 120), camera=None)
    result = fitted(with_camera(frame, (60, 80), 70.0), TASKS, (60, 80), FILL)
    assert result.camera.focal_px == pytest.approx(70.0)


def test_a_wrong_or_distorted_camera_is_refused_by_name(box_frame):
    frame = box_frame(0)
    other = replace(frame, camera=CameraModel(10, 10, 5, 5, 5, 5))
    with pytest.raises(TrainingError, match=r'box_0.*96x72.*10x10'):
        with_camera(other, (72, 96), 80.0)
    bent = replace(frame.camera, distortion=(0.1, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(TrainingError, match=r'box_0.*distortion'):
        with_camera(replace(frame, camera=bent), (72, 96), 80.0)


def test_distorted_colours_are_within_the_published_ranges():
    """
    Brightness +-32, contrast and saturation by 0.5 to 1.5, hue within 18 of OpenCV's half degrees.

    One pixel is followed by the standard library: the drawn values explain what became of it.
    """
    pixel = (120, 90, 60)
    image = np.full((1, 1, 3), pixel, np.uint8)
    hue = colorsys.rgb_to_hsv(*(each / 255 for each in pixel))[0]
    hues, saturations, values, same = [], [], [], 0
    for seed in range(1500):
        found = distort_colours(image, 1.0, np.random.default_rng(seed))[0, 0].astype(float)
        h, s, v = colorsys.rgb_to_hsv(*(found / 255))
        hues.append((h - hue + 0.5) % 1 - 0.5)
        values.append(v)
        saturations.append(s)
        same += tuple(found) == pixel
    # Rounding of bytes; a darker pixel rounds coarser.
    assert np.abs(hues).max() * 360 == pytest.approx(36, abs=3)
    # Brightest: (120 + 32) x 1.5; darkest: (120 - 32) x 0.5.
    assert max(values) * 255 == pytest.approx(228, abs=8)
    assert min(values) * 255 == pytest.approx(44, abs=6)
    # Brightness moves all channels: 60 of 152 is the least saturation left, 60 of 88 the most.
    assert 0.5 * 60 / 152 - 0.02 < min(saturations) < 0.5 * 60 / 120
    assert max(saturations) == pytest.approx(1.0, abs=0.03)
    assert same / 1500 == pytest.approx(0.5**4, abs=0.02)
    again = distort_colours(image, 0.0, np.random.default_rng(0))
    assert np.array_equal(again, image)


def test_photometry_changes_values_not_places():
    # A bright square must stay where it is under any variation.
    image = np.full((64, 80, 3), 60, np.uint8)
    image[20:40, 30:60] = 190
    mean = np.zeros((64, 80))
    for seed in range(40):
        varied = vary_photometry(image, 1.0, np.random.default_rng(seed))
        assert varied.shape == image.shape
        assert varied.dtype == np.uint8
        mean += varied.mean(-1) / 40
    bright = mean > (mean.min() + mean.max()) / 2
    expected = image[..., 0] > 100
    assert np.mean(bright == expected) > 0.99
    assert np.array_equal(vary_photometry(image, 0.0, np.random.default_rng(0)), image)


def test_photometry_at_full_strength_varies_brightness_and_colour():
    image = np.full((16, 16, 3), (150, 110, 90), np.uint8)
    means = np.array(
        [vary_photometry(image, 1.0, np.random.default_rng(s)).mean((0, 1)) for s in range(60)]
    )
    assert means.mean(1).std() > 15
    assert (means[:, 0] / means[:, 2]).std() > 0.1
    assert abs(means.mean(1).mean() - image.mean()) < 30
