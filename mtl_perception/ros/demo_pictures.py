# SPDX-License-Identifier: Apache-2.0
"""The pictures that a headless demo saves: one per output and a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl_perception.pictures import legend, Picture, Tile, titled_grid, write_png
from mtl_perception.ros.observer import CAMERA_IMAGE, message_pixels, Observer, STEADY
from mtl_perception.tasks import LabelSet, Task
import numpy as np

_DEPTH = Task('depth', 'depth')
_NORMALS = Task('normals', 'normals')
_EDGES = Task('edges', 'edges', edge_meaning='label_borders')


def save_pictures(observer: Observer, directory: Path) -> None:
    """Write a PNG per output that arrived, and `contact_sheet.png` with all of them."""
    tiles = []
    for topic, record in observer.records.items():
        if record.received == 0:
            continue
        picture = topic_picture(topic, record.latest)
        if picture is None:
            continue
        write_png(directory / f'{topic.replace("/", "_")}.png', picture)
        rate = f'{record.encoding}, {record.rate_hz:.1f} Hz, {record.latency_ms:.0f} ms'
        tiles.append(Tile(f'{topic}: {rate}', picture))
    if not tiles:
        return
    sheet = titled_grid([tiles[i : i + 3] for i in range(0, len(tiles), 3)])
    names = observer.label_names
    if names:
        label_set = LabelSet.from_json(names['label_set'])
        sheet = np.concatenate((sheet, legend(label_set, width=sheet.shape[1])))
    write_png(directory / 'contact_sheet.png', sheet)


def topic_picture(topic: str, message: Any) -> Picture | None:
    """Return a message as a picture for people, or None if it is not made of pixels."""
    if topic in STEADY:
        return None
    pixels = message_pixels(message)
    if topic == CAMERA_IMAGE or topic.endswith('_color/image_raw'):
        return np.asarray(pixels, np.uint8)
    if topic == 'depth/image_rect':
        return _DEPTH.colourise(pixels)
    if topic == 'normals/image_raw':
        return _NORMALS.colourise(pixels)
    if topic == 'edges/image_raw':
        return _EDGES.colourise(pixels)
    if topic == 'points':
        return view_from_above(pixels)
    # Labels are ids and confidence is 0 to 1: grey values, spread to be seen.
    scale = 255.0 if pixels.dtype == np.float32 else 255.0 / max(1, int(_largest_id(pixels)))
    grey = np.clip(np.nan_to_num(pixels * scale), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _largest_id(labels: Any) -> int:
    known = labels[labels != 255]
    return int(known.max()) if known.size else 1


def view_from_above(
    points: Any, *, size: tuple[int, int] = (480, 640), depth_m: float = 6.0
) -> Picture:
    """
    Draw a cloud (h, w, 8) as seen from behind and above the camera, nearer points on top.

    The eye stands 1.2 m behind and 1.6 m above the camera and looks 25 degrees down.
    """
    cloud = points.reshape(-1, points.shape[-1])
    cloud = cloud[np.isfinite(cloud[:, 0]) & (cloud[:, 2] < depth_m)]
    packed = cloud[:, 3].copy().view(np.uint32)
    colours = np.stack(((packed >> 16) & 255, (packed >> 8) & 255, packed & 255), axis=-1)
    angle = np.deg2rad(25.0)
    y, z = cloud[:, 1] + 1.6, cloud[:, 2] + 1.2
    down = y * np.cos(angle) - z * np.sin(angle)
    forward = y * np.sin(angle) + z * np.cos(angle)
    height, width = size
    focal = 0.9 * width
    column = np.rint(focal * cloud[:, 0] / forward + width / 2).astype(int)
    row = np.rint(focal * down / forward + height / 2).astype(int)
    inside = (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
    order = np.argsort(-forward[inside])
    column, row, colours = column[inside][order], row[inside][order], colours[inside][order]
    canvas = np.full((height, width, 3), 24, np.uint8)
    for dx, dy in ((1, 1), (1, 0), (0, 1), (0, 0)):
        canvas[row + dy, column + dx] = colours
    return canvas
