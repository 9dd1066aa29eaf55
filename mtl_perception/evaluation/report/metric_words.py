# SPDX-License-Identifier: Apache-2.0
"""How the page names metrics, orders them, and knows which way is better."""

from __future__ import annotations

import re

# By the metric's name; the first that matches. None = neither way is better.
_BETTER: tuple[tuple[str, bool | None], ...] = (
    (r'^(pixels|overlap|factor|rise)', None),
    (r'(delta\d|miou|pixel_accuracy|accuracy|precision|recall|within|_f$|^f$|^f_|_f_|max_f|iou)',
     True),
    (r'(abs_rel|sq_rel|rmse|log10|log_ratio|_deg|flicker|error|mae)', False),
)  # fmt: skip
# Shown first, and without asking: what a task is judged by, and how it holds together.
HEADLINES = (
    'depth.abs_rel', 'depth.rmse_m', 'depth.delta1', 'depth.scaled_abs_rel', 'semantic.miou',
    'normals.mean_deg', 'normals.median_deg', 'edges.f_best_tolerance', 'depth_edges.f',
    'temporal.depth_log_ratio', 'temporal.label_flicker', 'temporal.normals_deg',
    'consistency.normals_vs_depth_deg', 'consistency.edges_f',
)  # fmt: skip


def higher_is_better(metric: str) -> bool | None:
    """Return which way a metric (its name without the task) is better; None = not known."""
    for pattern, better in _BETTER:
        if re.search(pattern, metric):
            return better
    return None


def band_words(band: str) -> str:
    """Say a distance band of the scores in words: 1_2m is 1–2 m, 8m_on is 8 m and on."""
    if band.endswith('_on'):
        return f'{band.removesuffix("m_on")} m and on'
    near, _, far = band.removesuffix('m').partition('_')
    return f'{near}–{far} m'


def number(value: object) -> str:
    """Write a number for a table, '–' where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return '–'
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f'{int(value):,}'.replace(',', '\u202f')
    size = abs(value)
    return f'{value:.1f}' if size >= 100 else f'{value:.2f}' if size >= 10 else f'{value:.3f}'
