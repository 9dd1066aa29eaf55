# SPDX-License-Identifier: Apache-2.0
"""The neck: one 1x1 projection per level to declared widths."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, Tensor


class Neck(nn.Module):
    """
    Project level i from ``in_channels[i]`` to ``widths[i]``: 1x1 convolution, BatchNorm, ReLU.

    Multi-scale systems cost the square of the width times the number of tasks; the neck lets the
    system, not the backbone, choose that width.
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)
            )
            for before, after in zip(in_channels, widths)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Project each level (B, in_channels[i], h, w) to (B, widths[i], h, w)."""
        return [level(feature) for level, feature in zip(self.levels, features)]
