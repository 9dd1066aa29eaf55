# SPDX-License-Identifier: Apache-2.0
"""The pictures of a replay: samples along the way, the worst frames and the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import cv2
from mtl_perception.evaluation.picture_choice import sheet_step, stretch_length
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.pictures import legend, Picture, Tile, titled_grid, write_png
from mtl_perception.values import PerceptionMaps
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtl_perception.evaluation.replay_report import ReplayReport

_TILE_HEIGHT = 240
_LARGEST_ERROR = 0.5  # of the true depth, where the error picture is brightest
_INVALID = 128  # grey


@dataclass(frozen=True, eq=False)
class _Ranked:
    value: float
    index: int
    tiles: list[Tile]


class Gallery:
    """
    Keeps strips of pictures while a replay runs: few, whatever the length of the recording.

    `samples.png` has frames spread evenly, `worst.png` and `best.png` those with the extreme
    scores; each row is one frame: image, maps, what they are compared with, and depth error.
    """

    needs_every_frame = False

    def __init__(self, rows: int = 4) -> None:
        self._rows = rows
        self._samples: list[_Ranked] = []
        self._ranked: dict[str, list[_Ranked]] = {'worst': [], 'best': []}

    def begin(self, context: ReplayContext) -> None:
        """Plan the samples over the length of the recording."""
        self._tasks = context.tasks
        self._directory = context.directory
        self._step = sheet_step(context.frame_count, self._rows)
        self._stretch = stretch_length(context.frame_count)

    def frame(self, result: FrameResult) -> None:
        """Consider one frame; it is drawn only if it is to be kept for now."""
        if result.maps is None:
            return
        index, maps, ranking = result.index, result.maps, result.ranking
        targets, scores = result.targets, result.scores
        tiles: list[Tile] | None = None
        if index // self._step >= len(self._samples) and len(self._samples) < self._rows:
            tiles = self._strip(index, maps, targets, scores)
            self._samples.append(_Ranked(0.0, index, tiles))
        if ranking is None or ranking[0] not in scores:
            return
        task, metric, higher_is_better = ranking
        goodness = scores[task][metric] * (1 if higher_is_better else -1)
        if not np.isfinite(goodness):
            return
        for name, value in (('worst', goodness), ('best', -goodness)):
            kept = self._ranked[name]
            stretch = index // self._stretch
            near = [entry for entry in kept if entry.index // self._stretch == stretch]
            rivals = near or (kept[-1:] if len(kept) == self._rows else [])
            if any(value >= rival.value for rival in rivals):
                continue
            tiles = tiles or self._strip(index, maps, targets, scores)
            kept = [entry for entry in kept if entry not in rivals]
            kept.append(_Ranked(value, index, tiles))
            self._ranked[name] = sorted(kept, key=lambda entry: (entry.value, entry.index))

    def finish(self, report: ReplayReport) -> None:
        """Write the pictures that there are."""
        for name, entries in (('samples', self._samples), *self._ranked.items()):
            if not entries:
                continue
            sheet = titled_grid([entry.tiles for entry in entries], tile_height=_TILE_HEIGHT)
            for task in self._tasks:
                if task.label_set is not None:
                    sheet = np.concatenate((sheet, legend(task.label_set, width=sheet.shape[1])))
            write_png(self._directory / f'{name}.png', sheet)

    def _strip(
        self,
        index: int,
        maps: PerceptionMaps,
        targets: Mapping[str, npt.NDArray[Any]],
        scores: Mapping[str, Mapping[str, float]],
    ) -> list[Tile]:
        tiles = [Tile(f'frame {index}', _small(maps.image))]
        compared = set()
        for task in self._tasks:
            if task.name not in maps.maps:
                continue
            values = maps.maps[task.name]
            tiles.append(Tile(task.name, _small(task.colourise(values))))
            target = targets.get(task.kind)
            if target is None or task.kind in compared or task.name not in scores:
                continue
            compared.add(task.kind)
            # A target of edges is 0 or 1, of which the picture wants 255.
            shown = target * np.uint8(255) if task.kind == 'edges' else target
            tiles.append(Tile(f'{task.name} from the bag', _small(task.colourise(shown))))
            if task.kind == 'depth':
                score = scores[task.name]['abs_rel']
                title = f'relative error, 0 to {_LARGEST_ERROR:.0%} (AbsRel {score:.3f})'
                tiles.append(Tile(title, _small(error_picture(values, target))))
        return tiles


def error_picture(depth: npt.NDArray[Any], target: npt.NDArray[Any]) -> Picture:
    """Colour |depth - target| / target, black 0 to yellow 0.5 and more; grey = not measured."""
    with np.errstate(invalid='ignore'):
        error = np.abs(depth - target) / target
    valid = np.isfinite(target)
    level = np.clip(np.nan_to_num(error, nan=1.0, posinf=1.0) / _LARGEST_ERROR, 0, 1)
    colours = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    picture = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    picture[~valid] = _INVALID
    return np.asarray(picture, np.uint8)


def _small(picture: npt.NDArray[Any]) -> Picture:
    """Return a picture at the height at which it will be shown: keeping it costs less."""
    height, width = picture.shape[:2]
    size = (max(1, round(width * _TILE_HEIGHT / height)), _TILE_HEIGHT)
    interpolation = cv2.INTER_AREA if height > _TILE_HEIGHT else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.uint8)
