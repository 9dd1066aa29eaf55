# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union from one confusion matrix over everything seen."""

from __future__ import annotations

from mtl_perception.metrics.errors import MetricError, require_same_shape
from mtl_perception.values import UNLABELLED
import torch
from torch import Tensor
from torchmetrics import Metric


class SemanticMetric(Metric):
    """
    mIoU and pixel accuracy of label maps.

    `miou` is the mean over the classes that occur in prediction or target of
    tp / (tp + fp + fn), all counted over the whole split (MTI-Net, DeMT, PASCAL VOC).
    `pixel_accuracy` is the share of labelled pixels with the right class. A pixel whose target
    is 255 does not count; a predicted 255 on a labelled pixel is a miss of its class.
    """

    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        if not 1 <= classes <= UNLABELLED:
            msg = f'{classes} classes: give 1 to {UNLABELLED}'
            raise MetricError(msg)
        self.classes = classes
        # Rows target, columns prediction; the last column collects predictions of 255.
        shape = (classes, classes + 1)
        self.add_state('confusion', torch.zeros(shape, dtype=torch.int64), dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count label maps (B, H, W), integers below the number of classes or 255.

        Raises
        ------
        MetricError
            If shapes differ or a label is out of range.

        """
        require_same_shape('labels', prediction, target)
        labelled = target != UNLABELLED
        rows = target[labelled].long()
        columns = prediction[labelled].long()
        columns = torch.where(columns == UNLABELLED, self.classes, columns)
        for values, what, limit in (
            (rows, 'target', self.classes), (columns, 'prediction', self.classes + 1)
        ):
            if values.numel() and (int(values.max()) >= limit or int(values.min()) < 0):
                worst = int(values.max()) if int(values.max()) >= limit else int(values.min())
                msg = f'{what} holds label {worst}, but there are {self.classes} classes'
                raise MetricError(msg)
        width = self.classes + 1
        counts = torch.bincount(rows * width + columns, minlength=self.classes * width)
        self.confusion += counts.view(self.classes, width)

    def class_iou(self) -> Tensor:
        """Return the intersection over union of each class (C,); NaN where it never occurs."""
        matrix = self.confusion.double()
        hits = matrix.diagonal()
        union = matrix.sum(1) + matrix[:, : self.classes].sum(0) - hits
        return hits / union

    def compute(self) -> dict[str, float]:
        """Return `miou` and `pixel_accuracy`; NaN where nothing was labelled."""
        total = self.confusion.sum().double()
        hits = self.confusion.diagonal().sum().double()
        return {
            'miou': float(self.class_iou().nanmean()),
            'pixel_accuracy': float(hits / total),
        }
