# SPDX-License-Identifier: Apache-2.0
"""Open3D where it is used, or what to install where it cannot be."""

from __future__ import annotations

from typing import Any

from mtl_perception.geometry.errors import GeometryError

_REMEDY = (
    "the fused map needs Open3D: pip install 'open3d>=0.19' (the `map` extra of this package), "
    'and on Debian and Ubuntu: sudo apt install libusb-1.0-0 libgl1 libgomp1'
)


def import_open3d() -> Any:
    """
    Return the module open3d.

    Raises
    ------
    GeometryError
        If it cannot be imported; the message says what to install.

    """
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise GeometryError(f'{_REMEDY} ({error})') from error
    return open3d
