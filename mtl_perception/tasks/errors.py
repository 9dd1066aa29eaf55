# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""

from mtl_perception.errors import MtlPerceptionError


class TaskError(MtlPerceptionError):
    """A task or a label set that makes no sense; the message names the field and the value."""
