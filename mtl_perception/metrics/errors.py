# SPDX-License-Identifier: Apache-2.0
"""The one error class of the metrics room."""

from __future__ import annotations

from mtl_perception.errors import MtlPerceptionError


class MetricError(MtlPerceptionError):
    """Maps that cannot be compared; the message gives the shapes and what was expected."""
