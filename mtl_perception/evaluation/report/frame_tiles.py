# SPDX-License-Identifier: Apache-2.0
"""The pictures of one frame, small and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
from mtl_perception.evaluation.gallery import error_picture
from mtl_perception.evaluation.replay_observer import FrameResult
from mtl_perception.evaluation.report.run_record import EncodedPicture, FrameStrip
from mtl_perception.pictures import Picture
from mtl_perception.tasks import LABELLED_KINDS, Task
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt

TILE_WIDTH = 256
_JPEG_QUALITY = 80
_LARGEST_ANGLE_DEG = 60.0
_INVALID = 128
_RIGHT, _WRONG = (70, 78, 86), (255, 120, 40)
# What a caption says of each kind of task.
_CAPTION = {
    'depth': ('abs_rel', 'AbsRel {:.3f}'),
    'semantic': ('miou', 'mIoU {:.3f}'),
    'parts': ('miou', 'parts mIoU {:.3f}'),
    'normals': ('mean_deg', 'normals {:.1f}°'),
    'edges': ('f_best_tolerance', 'edges F {:.2f}'),
}


def frame_strip(result: FrameResult, tasks: Sequence[Task]) -> FrameStrip:
    """Draw and encode the pictures of a frame that has maps."""
    words = []
    for task in tasks:
        metric, form = _CAPTION.get(task.kind, ('', ''))
        value = result.scores.get(task.name, {}).get(metric)
        if value is not None and np.isfinite(value):
            words.append(form.format(value))
    pictures = tuple(
        encode(title, picture, is_flat=is_flat)
        for title, picture, is_flat in _pictures(result, tasks)
    )
    return FrameStrip(result.index, result.stamp_ns, ', '.join(words), pictures)


def encode(
    title: str, picture: Picture, *, is_flat: bool, width: int = TILE_WIDTH
) -> EncodedPicture:
    """Shrink a picture (H, W, 3) RGB to `width` and encode it; flat colours without loss."""
    if picture.shape[1] > width:
        height = max(1, round(picture.shape[0] * width / picture.shape[1]))
        interpolation = cv2.INTER_NEAREST if is_flat else cv2.INTER_AREA
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation))
    reverse = np.ascontiguousarray(picture[..., ::-1])
    if is_flat:
        fine, data = cv2.imencode('.png', reverse, (cv2.IMWRITE_PNG_COMPRESSION, 6))
    else:
        fine, data = cv2.imencode('.jpg', reverse, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    if not fine:
        msg = f'OpenCV cannot encode a picture of shape {picture.shape}'
        raise ValueError(msg)
    media_type = 'image/png' if is_flat else 'image/jpeg'
    return EncodedPicture(
        title, media_type, bytes(data), picture.shape[1], picture.shape[0]
    )


def _pictures(
    result: FrameResult, tasks: Sequence[Task]
) -> Iterator[tuple[str, Picture, bool]]:
    """Yield title, picture and whether its colours are flat."""
    if result.maps is None:
        return
    yield 'camera', result.maps.image, False
    compared = set()
    for task in tasks:
        values = result.maps.maps.get(task.name)
        if values is None:
            continue
        is_flat = task.kind in LABELLED_KINDS or task.kind == 'edges'
        yield task.name, task.colourise(values), is_flat
        target = result.targets.get(task.kind)
        if target is None or task.kind in compared or target.shape != values.shape:
            continue
        compared.add(task.kind)
        shown = target
        if task.kind in ('edges', 'saliency'):
            # A target is 0, 1 or 255 = not annotated; the picture wants a probability times 255.
            shown = np.where(target == 1, 255, 0).astype(np.uint8)
        yield f'{task.name}, from the bag', task.colourise(shown), is_flat
        if task.kind == 'depth':
            yield 'depth error, 0 to 50 %', error_picture(values, target), False
        elif task.kind == 'normals':
            title = f'normal error, 0 to {_LARGEST_ANGLE_DEG:.0f}°'
            yield title, angle_picture(values, target), False
        elif task.kind in LABELLED_KINDS:
            yield f'{task.name}: wrong is orange', wrong_picture(values, target), True


def angle_picture(normals: npt.NDArray[Any], target: npt.NDArray[Any]) -> Picture:
    """Colour the angle between normals (H, W, 3), black 0 to yellow 60 degrees; grey = none."""
    cosine = np.clip(np.einsum('hwc,hwc->hw', normals, target), -1, 1)
    level = np.degrees(np.arccos(cosine)) / _LARGEST_ANGLE_DEG
    valid = np.isfinite(target).all(axis=-1)
    # A normal that is missing where one was measured is as wrong as can be.
    shade = (np.clip(np.nan_to_num(level, nan=1.0), 0, 1) * 255).astype(np.uint8)
    picture = np.array(cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO)[..., ::-1])
    picture[~valid] = _INVALID
    return picture


def wrong_picture(labels: npt.NDArray[Any], target: npt.NDArray[Any]) -> Picture:
    """Colour pixels (H, W) whose label is wrong orange, right ones dark, unlabelled ones grey."""
    colours = np.array((_WRONG, _RIGHT), np.uint8)
    picture = colours[(labels == target).astype(np.intp)]
    picture[target == UNLABELLED] = _INVALID
    return np.asarray(picture, np.uint8)
