# SPDX-License-Identifier: Apache-2.0
"""The fused point cloud: position, colour, normal and label of each pixel in one buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mtl_perception.camera import CameraModel
from mtl_perception.geometry.errors import GeometryError
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt

COLOR_MODES: Final = ('camera', 'semantic')
# Name and scalar type, in storage order, 4 bytes each. Names and the packed colour follow PCL
# (PointXYZRGBNormal, PointXYZL), so that its readers and RViz find them.
CLOUD_FIELDS: Final = (
    ('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('rgb', 'f4'),
    ('normal_x', 'f4'), ('normal_y', 'f4'), ('normal_z', 'f4'), ('label', 'u4'),
)  # fmt: skip
_RGB, _LABEL = 3, 7
# The arrays of a band stay in a core's cache from one operation to the next.
_BAND_POINTS = 20_000


@dataclass(frozen=True)
class Cloud:
    """
    An organised cloud in the optical frame (x right, y down, z forward), metres.

    Column by column of `points`: x y z, the colour as the bits of 0x00RRGGBB, the unit normal
    that faces the camera, the label as the bits of an unsigned integer.
    """

    points: npt.NDArray[np.float32]  # (h, w, 8), C-contiguous

    @property
    def rgb(self) -> npt.NDArray[np.uint32]:
        """Packed colours 0x00RRGGBB, a (h, w) view."""
        return self.points.view(np.uint32)[..., _RGB]

    @property
    def labels(self) -> npt.NDArray[np.uint32]:
        """Class ids, 255 = unlabelled, a (h, w) view."""
        return self.points.view(np.uint32)[..., _LABEL]


def cloud_shape(camera: CameraModel, stride: int) -> tuple[int, int, int]:
    """Return the shape (h, w, 8) of the cloud that takes every `stride`-th row and column."""
    return -(-camera.height // stride), -(-camera.width // stride), len(CLOUD_FIELDS)


def fused_cloud(
    maps: Mapping[str, npt.NDArray[Any]],
    image: npt.NDArray[np.uint8],
    camera: CameraModel,
    *,
    stride: int = 1,
    range_m: tuple[float, float] = (0.0, float('inf')),
    color_mode: str = 'camera',
    label_colours: npt.NDArray[np.uint8] | None = None,
    out: npt.NDArray[np.float32] | None = None,
) -> Cloud:
    """
    Fuse the maps of one frame into an organised cloud, 32 bytes a point.

    `maps` holds `depth` (H, W) float32 metres along Z, and where the model has them `normals`
    (H, W, 3) float32 and `semantic` (H, W) uint8; without them normals are NaN and labels 255.
    `image` is (H, W, 3) uint8 RGB. Point (r, c) is pixel (r * stride, c * stride), never an
    average. Its position is NaN where depth is invalid or outside `range_m` (both ends
    included); colour, normal and label stay. `color_mode` 'semantic' takes the colour from
    `label_colours` (n <= 256, 3) RGB, unblended; ids without a colour are black.

    `out`, of `cloud_shape()`, receives the points; a new array is made without it.

    Raises
    ------
    GeometryError
        A map is missing or has another size than the camera, the camera is distorted, or an
        option is out of its range.

    """
    _validate(maps, image, camera, stride, range_m)
    shape = cloud_shape(camera, stride)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        msg = f'out is {out.dtype} {out.shape}; a C-contiguous float32 {shape} is needed'
        raise GeometryError(msg)
    every = np.s_[::stride, ::stride]
    # Never the open ends: zero and infinite depths have no position.
    limits = np.finfo(np.float32)
    nearest = np.float32(max(range_m[0], float(limits.tiny)))
    farthest = np.float32(min(range_m[1], float(limits.max)))
    columns = (np.arange(0, camera.width, stride) - camera.cx) / camera.fx
    rows = (np.arange(0, camera.height, stride) - camera.cy) / camera.fy
    columns, rows = columns.astype(np.float32), rows.astype(np.float32)[:, None]
    depth, semantic, normals = (maps.get(kind) for kind in ('depth', 'semantic', 'normals'))
    assert depth is not None
    # Without colours of its own a class is black; the picture's colours need no table.
    table = None if color_mode == 'camera' else _packed_palette(color_mode, label_colours)
    height, width = shape[:2]
    band = max(1, _BAND_POINTS // width)
    for start in range(0, height, band):
        part = np.s_[start : start + band]
        z = depth[every][part]
        valid = (z >= nearest) & (z <= farthest)  # NaN compares false
        z = np.where(valid, z, np.float32(np.nan)).astype(np.float32, copy=False)
        size = z.shape
        if semantic is None:
            labels = np.full(size, UNLABELLED, np.uint8)
        else:
            labels = semantic[every][part]
        if normals is None:
            oriented = np.full((*size, 3), np.nan, np.float32)
        else:
            oriented = np.ascontiguousarray(normals[every][part], np.float32)
        rgb = _packed_image(image[every][part]) if table is None else table[labels]
        _interleave(
            (
                z * columns,
                z * rows[part],
                z,
                rgb.view(np.float32),
                oriented,
                labels.astype(np.uint32).view(np.float32),
            ),
            out[part],
        )
    return Cloud(out)


def _validate(
    maps: Mapping[str, npt.NDArray[Any]],
    image: npt.NDArray[np.uint8],
    camera: CameraModel,
    stride: int,
    range_m: tuple[float, float],
) -> None:
    if not camera.is_rectified:
        raise GeometryError('a cloud needs a rectified camera; use rectify() and rectified()')
    if stride < 1:
        raise GeometryError(f'cloud stride {stride} must be 1 or more')
    if not 0.0 <= range_m[0] < range_m[1]:
        raise GeometryError(f'cloud range {range_m} m must be 0 <= minimum < maximum')
    if 'depth' not in maps:
        raise GeometryError(f'a cloud needs depth; the maps are {", ".join(maps) or "empty"}')
    expected = {'depth': (), 'normals': (3,), 'semantic': (), 'image': (3,)}
    for name, array in (*maps.items(), ('image', image)):
        shape = (camera.height, camera.width, *expected.get(name, array.shape[2:]))
        if array.shape != shape:
            raise GeometryError(
                f'{name} has shape {array.shape}, but the camera of the cloud asks for {shape}'
            )


def _packed_image(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Pack RGB (h, w, 3) to 0x00RRGGBB (h, w)."""
    import cv2

    # BGRA bytes are 0xAARRGGBB on a little-endian machine, the only ones that ROS 2 and the
    # engines run on.
    packed = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGRA).view(np.uint32)[..., 0]
    packed &= 0x00FFFFFF
    return packed


def _packed_palette(
    color_mode: str, label_colours: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint32]:
    """Pack the class colours into a table of 256, black where a label has none."""
    if color_mode not in COLOR_MODES:
        raise GeometryError(
            f'cloud color_mode {color_mode!r} is unknown; use {" or ".join(COLOR_MODES)}'
        )
    if label_colours is None:
        raise GeometryError("cloud color_mode 'semantic' needs label_colours of a semantic task")
    table = np.zeros(256, np.uint32)
    colours = np.asarray(label_colours, np.uint32)
    table[: len(colours)] = colours @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return table


def _interleave(planes: tuple[npt.NDArray[np.float32], ...], out: npt.NDArray[Any]) -> None:
    """Write the channels of `planes` one after the other into `out`, bit by bit."""
    import cv2

    # One pass over the 32-byte points; eight strided NumPy writes would fetch each cache line
    # eight times.
    channels = range(out.shape[-1])
    cv2.mixChannels(list(planes), [out], [value for index in channels for value in (index, index)])
