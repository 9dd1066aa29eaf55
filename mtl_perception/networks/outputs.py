# SPDX-License-Identifier: Apache-2.0
"""What every network returns: raw maps per task, and auxiliary raw maps while training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """
    Raw network outputs, before any activation and at the resolution the network works at.

    ``maps`` holds one tensor (B, task.channels, h, w) per main task, by task name and in task
    order. ``auxiliary`` holds, while training, one such dictionary per supervised inner scale
    (finest first), including the tasks that are only supervised inside; it is empty in eval mode,
    where nobody reads it and an exported graph should not compute it.
    """

    maps: dict[str, Tensor]
    auxiliary: tuple[dict[str, Tensor], ...] = ()
