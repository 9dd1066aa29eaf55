# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""

from __future__ import annotations

from mtl_perception.errors import MtlPerceptionError


class DatasetError(MtlPerceptionError):
    """A dataset that cannot be read or written; the message names the file and the remedy."""


class LabelRangeError(DatasetError):
    """Labels that the dataset or the label set does not define: no file's fault, but the map's."""
