# SPDX-License-Identifier: Apache-2.0
"""The F-measures of the Berkeley boundary benchmark: odsF and oisF, matched one to one."""

from __future__ import annotations

from collections.abc import Iterator
import math
from typing import Any

from mtl_perception.metrics.boundary_matching import Mask, match_boundaries
from mtl_perception.metrics.errors import MetricError
from mtl_perception.thinning import thin
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

# Share of the image diagonal that a boundary may be off, by benchmark.
MAX_DISTANCE = {'bsds': 0.0075, 'pascal': 0.0075, 'nyud': 0.011}


class BoundaryMetric(Metric):
    """
    `ods_f` and `ois_f` of boundary probabilities against one or several annotators.

    At each threshold the map is thinned to lines of one pixel and matched one to one with each
    annotator's pixels within `max_distance` times the image diagonal. Precision: the share of
    predicted pixels that any annotator matches. Recall: the share of all annotators' pixels that
    are matched. `ods_f` is F at the best threshold for everything seen (counts summed over
    images), `ois_f` with each image at its own best threshold (Arbelaez et al., PAMI 2011).

    Neither F is interpolated between thresholds, as the benchmark's code does; at 99 thresholds
    that is a matter of the fourth decimal. Targets are taken as they are, not thinned.
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor
    image_counts: Tensor

    def __init__(self, max_distance: float, thresholds: int = 99) -> None:
        super().__init__()
        if not 0 < max_distance < 1 or thresholds < 1:
            msg = (
                f'max_distance {max_distance} and {thresholds} thresholds: give a share of the '
                'image diagonal, such as 0.0075 or 0.011, and at least one threshold'
            )
            raise MetricError(msg)
        self.max_distance = max_distance
        steps = np.arange(1, thresholds + 1, dtype=np.float64) / (thresholds + 1)
        self.thresholds = steps.astype(np.float32)
        # Rows: predicted pixels matched, all; true pixels matched, all. Whole numbers, so that
        # merging is exact.
        for name, shape in (('counts', (4, thresholds)), ('image_counts', (4,))):
            zeros = torch.zeros(shape, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count boundary probability (B, H, W) against annotators.

        :param target: (B, H, W), or (B, A, H, W) of A annotators; 1 on a boundary, 0 elsewhere,
            255 = not annotated. Where some annotator saw a pixel the prediction there counts;
            an annotator with nothing but 255 is none.

        Raises
        ------
        MetricError
            If the shapes do not fit.

        """
        several = target if target.ndim == 4 else target[:, None]
        fits = several.ndim == 4 and prediction.shape == (several.shape[0], *several.shape[2:])
        if not fits:
            msg = (
                f'boundaries of shape {tuple(prediction.shape)} against {tuple(target.shape)}; '
                'give (B, H, W) against (B, H, W) or (B, annotators, H, W)'
            )
            raise MetricError(msg)
        for predicted, annotators in zip(prediction.float().cpu(), several.cpu()):
            self._count(predicted.numpy(), annotators.numpy())

    def _count(self, probability: npt.NDArray[Any], annotators: npt.NDArray[Any]) -> None:
        known = (annotators != UNLABELLED).any(0)
        if not known.any():
            return
        true = [each == 1 for each in annotators if (each != UNLABELLED).any()]
        reach_px = self.max_distance * math.hypot(*probability.shape)
        counts = torch.tensor(
            [self._at(mask, known, true, reach_px) for mask in self._masks(probability)],
            dtype=torch.int64,
        ).T
        repeated = counts[:, self._last_mask_of(probability)]
        self.counts += repeated.to(self.counts.device)
        best = int(_f_measure(repeated)[2].argmax())
        self.image_counts += repeated[:, best].to(self.image_counts.device)

    def _levels(self, probability: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Return by threshold how many pixels lie at or above it: equal numbers, equal masks."""
        ordered = np.sort(np.nan_to_num(probability, nan=0.0), axis=None)
        return probability.size - np.searchsorted(ordered, self.thresholds, side='left')

    def _masks(self, probability: npt.NDArray[Any]) -> Iterator[Mask]:
        """Yield the different masks, lowest threshold first."""
        _, first = np.unique(-self._levels(probability), return_index=True)
        for threshold in self.thresholds[first]:
            yield np.asarray(probability >= threshold)

    def _last_mask_of(self, probability: npt.NDArray[Any]) -> Tensor:
        """Return for each threshold the place of its mask among `_masks`."""
        _, place = np.unique(-self._levels(probability), return_inverse=True)
        return torch.from_numpy(place)

    @staticmethod
    def _at(mask: Mask, known: Mask, true: list[Mask], reach_px: float) -> tuple[int, ...]:
        lines = thin(mask).astype(bool) & known
        hit = np.zeros(lines.shape, bool)
        found = 0
        for annotated in true:
            matched, matched_true = match_boundaries(lines, annotated, reach_px)
            hit |= matched
            found += int(matched_true.sum())
        total = sum(int(annotated.sum()) for annotated in true)
        return int(hit.sum()), int(lines.sum()), found, total

    def compute(self) -> dict[str, float]:
        """Return `ods_f` with its precision, recall and threshold, and `ois_f`."""
        precision, recall, f = _f_measure(self.counts)
        best = int(f.argmax())
        return {
            'ods_f': float(f[best]),
            'ods_precision': float(precision[best]),
            'ods_recall': float(recall[best]),
            'ods_threshold': round(float(self.thresholds[best]), 6),
            'ois_f': float(_f_measure(self.image_counts)[2]),
        }


def _f_measure(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return precision, recall and F; 0 where nothing is predicted, annotated or matched."""
    hit, predicted, found, total = counts.double()
    precision, recall = hit / predicted.clamp(min=1), found / total.clamp(min=1)
    return precision, recall, 2 * precision * recall / (precision + recall).clamp(min=1e-12)
