# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""

from mtl_perception.errors import MtlPerceptionError


class GeometryError(MtlPerceptionError):
    """Maps and cameras that do not fit together; the message names both and the remedy."""
