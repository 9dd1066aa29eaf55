# SPDX-License-Identifier: Apache-2.0
"""The one error class of the training room."""

from __future__ import annotations

from mtl_perception.errors import MtlPerceptionError


class TrainingError(MtlPerceptionError):
    """A recipe, data folder or run that cannot be used; the message names value and remedy."""
