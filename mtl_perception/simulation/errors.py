# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""

from __future__ import annotations

from mtl_perception.errors import MtlPerceptionError


class SimulationError(MtlPerceptionError):
    """A world, camera or walk that cannot be simulated; the message says which value and why."""
