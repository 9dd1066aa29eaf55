# SPDX-License-Identifier: Apache-2.0
"""Flip, turn, zoom and crop of a labelled frame, its camera following: geometry stays true."""

from __future__ import annotations

from dataclasses import replace
import math
from typing import Any

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.tasks import Task
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import AugmentationRecipe, UNIFORM
from mtl_perception.values import Sample, UNLABELLED
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Colour = tuple[int, int, int]  # RGB


def with_camera(sample: Sample, size: tuple[int, int], reference_focal_px: float) -> Sample:
    """
    Return `sample` with a usable pinhole camera.

    A frame without intrinsics gets a camera that has the reference focal length once the frame
    is fitted to `size`: its depth is then learned as it stands, and zooming divides it (what
    the published recipes do).

    Raises
    ------
    TrainingError
        If the camera is for another size, or the frame is distorted: its targets would not be
        those of a pinhole.

    """
    height, width = sample.image.shape[:2]
    if sample.camera is None:
        focal = reference_focal_px / min(size[0] / height, size[1] / width)
        camera = CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        return replace(sample, camera=camera)
    if (sample.camera.height, sample.camera.width) != (height, width):
        msg = (
            f'{sample.name}: the image is {width}x{height}, but its camera is for '
            f'{sample.camera.width}x{sample.camera.height}'
        )
        raise TrainingError(msg)
    if not sample.camera.is_rectified:
        msg = f'{sample.name}: the frame has lens distortion; rectify the dataset first'
        raise TrainingError(msg)
    return sample


def flipped(sample: Sample, tasks: tuple[Task, ...]) -> Sample:
    """Return the mirror image: x of normals negated, principal point mirrored."""
    targets = {}
    for task in tasks:
        if task.name in sample.targets:
            values = sample.targets[task.name][:, ::-1]
            if task.kind == 'normals':
                values = values * np.array([-1.0, 1.0, 1.0], values.dtype)
            targets[task.name] = values
    camera = None if sample.camera is None else sample.camera.flipped()
    # A mirrored world has no pose in the old one.
    return replace(
        sample, image=sample.image[:, ::-1], targets=targets, camera=camera, pose=None
    )


def rotated(
    sample: Sample, tasks: tuple[Task, ...], angle_deg: float, fill: Colour
) -> Sample:
    """
    Return the frame as the camera sees it when it turns about its optical axis.

    What lies right of the centre moves down for a positive angle. Depth along the axis and the
    intrinsics stay; normals turn with the picture. What the turned frame does not show is filled
    and unlabelled. Focal lengths may differ: the pixels move as the rays do.
    """
    camera = sample.camera
    assert camera is not None
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    matrix = camera.matrix @ turn @ np.linalg.inv(camera.matrix)
    size = (camera.width, camera.height)
    targets = {}
    for task in tasks:
        if task.name in sample.targets:
            target = sample.targets[task.name]
            empty = np.nan if task.kind in ('depth', 'normals') else UNLABELLED
            values = cv2.warpAffine(
                np.ascontiguousarray(target), matrix[:2], size, flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT, borderValue=(empty,) * 4,
            )
            if task.kind == 'normals':
                values = values @ turn.T.astype(values.dtype)
            targets[task.name] = values
    image = cv2.warpAffine(
        np.ascontiguousarray(sample.image), matrix[:2], size,
        borderMode=cv2.BORDER_CONSTANT, borderValue=fill,
    )
    pose = None if sample.pose is None else sample.pose.copy()
    if pose is not None:
        pose[:3, :3] = pose[:3, :3] @ turn.T
    return replace(sample, image=image, targets=targets, pose=pose)


def window(
    sample: Sample,
    tasks: tuple[Task, ...],
    resized: tuple[int, int],
    corner: tuple[int, int],
    size: tuple[int, int],
    fill: Colour,
) -> Sample:
    """
    Resize the frame, then cut a window; outside the frame the window is filled and unlabelled.

    Metric depth and normals keep their values: the camera carries the change.

    :param resized: (height, width) of the whole frame after resizing
    :param corner: (x, y) of the window's top left pixel in the resized frame; may be negative
    :param size: (height, width) of the window
    :param fill: RGB outside the frame
    """
    x, y = corner
    top, left = max(0, y), max(0, x)
    bottom, right = min(resized[0], y + size[0]), min(resized[1], x + size[1])
    inside = (slice(top - y, bottom - y), slice(left - x, right - x))
    image = np.empty((*size, 3), np.uint8)
    image[:] = fill
    image[inside] = _resized_image(sample.image, resized)[top:bottom, left:right]
    targets = {}
    for task in tasks:
        if task.name in sample.targets:
            target = sample.targets[task.name]
            empty = np.nan if task.kind in ('depth', 'normals') else UNLABELLED
            cut = np.full((*size, *target.shape[2:]), empty, target.dtype)
            cut[inside] = _resized_target(task, target, resized, (top, bottom, left, right))
            targets[task.name] = cut
    camera = sample.camera
    if camera is not None:
        camera = camera.scaled(resized[1], resized[0]).cropped(x, y, size[1], size[0])
    return replace(sample, image=image, targets=targets, camera=camera)


def _resized_image(image: Array, resized: tuple[int, int]) -> Array:
    if image.shape[:2] == resized:
        return image
    shrinks = resized[0] < image.shape[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (resized[1], resized[0]), interpolation=interpolation))


def _resized_target(
    task: Task, target: Array, resized: tuple[int, int], box: tuple[int, int, int, int]
) -> Array:
    """Return rows and columns `box` of the resized target."""
    height, width = target.shape[:2]
    top, bottom, left, right = box
    if task.kind == 'edges' and resized[0] < height:
        return _shrunk_edges(target, resized)[top:bottom, left:right]
    # The pixel under the centre: means would invent classes, and surfaces between objects.
    rows = ((np.arange(top, bottom) + 0.5) * (height / resized[0])).astype(np.intp)
    columns = ((np.arange(left, right) + 0.5) * (width / resized[1])).astype(np.intp)
    return target[rows[:, None], columns]


def _shrunk_edges(target: Array, resized: tuple[int, int]) -> Array:
    """Keep thin lines connected: a cell is an edge where lines cover half its width."""
    size = (resized[1], resized[0])
    share = cv2.resize((target == 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    hidden = cv2.resize(
        (target == UNLABELLED).astype(np.float32), size, interpolation=cv2.INTER_AREA
    )
    edges = (share >= 0.5 * resized[0] / target.shape[0]).astype(np.uint8)
    edges[hidden > 0.5] = UNLABELLED
    return edges


def fitted(
    sample: Sample, tasks: tuple[Task, ...], size: tuple[int, int], fill: Colour
) -> Sample:
    """Return the frame as the live node sees it: whole, aspect kept, centred, bars filled."""
    height, width = sample.image.shape[:2]
    factor = min(size[0] / height, size[1] / width)
    resized = (
        min(size[0], max(1, round(height * factor))),
        min(size[1], max(1, round(width * factor))),
    )
    corner = (-((size[1] - resized[1]) // 2), -((size[0] - resized[0]) // 2))
    return window(sample, tasks, resized, corner, size, fill)


def letterboxed(
    sample: Sample, tasks: tuple[Task, ...], rows: int, fill: Colour
) -> Sample:
    """Keep `rows` rows about the centre, as a wider camera fitted by the live node has them."""
    height, width = sample.image.shape[:2]
    corner = (0, (height - rows) // 2)
    wide = window(sample, tasks, (height, width), corner, (rows, width), fill)
    return fitted(wide, tasks, (height, width), fill)


# How often a window is drawn again when one class fills it (mmsegmentation's random crop).
_DRAWS = 10


def random_window(
    sample: Sample,
    tasks: tuple[Task, ...],
    size: tuple[int, int],
    recipe: AugmentationRecipe,
    generator: np.random.Generator,
    fill: Colour,
) -> Sample:
    """
    Zoom by the recipe's factor over the fitted size and cut a window: centred, or anywhere.

    Factors below 1 leave borders, as a camera of another aspect does in the live node. Where
    the recipe limits the share of one class, windows are drawn until it is kept, ten at most.
    """
    height, width = sample.image.shape[:2]
    fit = min(size[0] / height, size[1] / width)
    if recipe.zoom_factors:
        factor = fit * float(generator.choice(recipe.zoom_factors))
    elif recipe.zoom_law == UNIFORM:
        factor = fit * generator.uniform(*recipe.zoom)
    else:
        low, high = recipe.zoom
        factor = fit * math.exp(generator.uniform(math.log(low), math.log(high)))
    resized = (max(1, round(height * factor)), max(1, round(width * factor)))
    spare_y, spare_x = resized[0] - size[0], resized[1] - size[1]
    if recipe.centred:
        return window(sample, tasks, resized, (spare_x // 2, spare_y // 2), size, fill)
    for _ in range(_DRAWS):
        # Positive spare: the window moves in the frame. Negative: the frame moves in the window.
        y = int(generator.integers(min(0, spare_y), max(0, spare_y) + 1))
        x = int(generator.integers(min(0, spare_x), max(0, spare_x) + 1))
        corner = (x, y)
        if recipe.largest_class >= 1 or _varied(sample, tasks, corner, size, factor, recipe):
            break
    return window(sample, tasks, resized, corner, size, fill)


def _varied(
    sample: Sample,
    tasks: tuple[Task, ...],
    corner: tuple[int, int],
    size: tuple[int, int],
    factor: float,
    recipe: AugmentationRecipe,
) -> bool:
    """Return whether no class fills more of a window's labelled pixels than the recipe allows."""
    left, top = (max(0, round(each / factor)) for each in corner)
    bottom, right = (
        max(0, round((start + length) / factor)) for start, length in zip(corner[::-1], size)
    )
    for task in tasks:
        if task.kind != 'semantic' or task.name not in sample.targets:
            continue
        labels = sample.targets[task.name][top:bottom, left:right]
        counts = np.bincount(labels[labels != UNLABELLED].ravel(), minlength=1)
        if counts.max() > recipe.largest_class * counts.sum():
            return False
    return True
