# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""

from mtl_perception.errors import MtlPerceptionError


class EvaluationError(MtlPerceptionError):
    """A bag or a comparison that makes no sense; the message names file, topic and remedy."""
