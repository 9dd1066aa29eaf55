# SPDX-License-Identifier: Apache-2.0
"""The one error class of the metrics room, and the check that most metrics begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_perception.errors import MtlPerceptionError

if TYPE_CHECKING:
    from torch import Tensor


class MetricError(MtlPerceptionError):
    """Maps that cannot be compared; the message gives the shapes and what was expected."""


def require_same_shape(what: str, prediction: Tensor, target: Tensor) -> None:
    """
    Refuse maps that cannot be compared pixel by pixel.

    Raises
    ------
    MetricError
        If the shapes differ.

    """
    if prediction.shape != target.shape:
        msg = f'{what} of shape {tuple(prediction.shape)} against {tuple(target.shape)}'
        raise MetricError(msg)
