# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union of object parts, over the images that show any."""

from __future__ import annotations

from mtl_perception.metrics.semantic import SemanticMetric
from mtl_perception.values import UNLABELLED
import torch
from torch import Tensor

BACKGROUND = 0


class PartsMetric(SemanticMetric):
    """
    mIoU and pixel accuracy as `SemanticMetric`, of images whose target has at least one part.

    Part 0 is the background; an image of nothing else would only reward saying so (the rule of
    the MTI-Net code on PASCAL-Context). Background counts as a class in the images that remain.
    """

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count label maps (B, H, W), integers below the number of classes or 255.

        Raises
        ------
        MetricError
            If shapes differ or a label is out of range.

        """
        shows_part = ((target != BACKGROUND) & (target != UNLABELLED)).flatten(1).any(1)
        if prediction.shape == target.shape:
            target = torch.where(shows_part[:, None, None], target, UNLABELLED)
        super().update(prediction, target)
