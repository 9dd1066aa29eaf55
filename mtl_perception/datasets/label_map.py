# SPDX-License-Identifier: Apache-2.0
"""From the numbers or colours in a dataset's label files to the classes of a label set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from mtl_perception.datasets.errors import DatasetError, LabelRangeError
from mtl_perception.tasks import LabelSet, load_label_set
from mtl_perception.values import Array, UNLABELLED
import numpy as np
import numpy.typing as npt

_UNDEFINED = 254  # in a table: a number that the dataset does not define
_COLOUR_SHIFTS = np.array([16, 8, 0], np.uint32)


@dataclass(frozen=True)
class LabelMap:
    """
    Which class each number in a label file becomes.

    `table` is uint8 by number (or by R << 16 | G << 8 | B where files hold colours): the class,
    255 for what is known and not taken, 254 for what the dataset does not define.
    """

    label_set: LabelSet
    table: npt.NDArray[np.uint8]
    colours: bool = False

    def apply(self, stored: Array, where: str) -> npt.NDArray[np.uint8]:
        """
        Map labels (H, W), or colours (H, W, 3) uint8 RGB, to class ids.

        Raises
        ------
        LabelRangeError
            If a number is not one that the dataset defines: the file is not what it should be.

        """
        keys = (stored.astype(np.uint32) << _COLOUR_SHIFTS).sum(-1) if self.colours else stored
        outside = (keys < 0) | (keys >= len(self.table))
        labels = self.table[np.where(outside, 0, keys)]
        wrong = outside | (labels == _UNDEFINED)
        if wrong.any():
            value = tuple(int(part) for part in np.atleast_1d(stored[wrong][0]))
            kind = 'colour' if self.colours else 'label'
            msg = (
                f'{where}: holds {kind} {", ".join(map(str, value))} in {int(wrong.sum())} '
                'pixels, which the dataset does not define'
            )
            raise LabelRangeError(msg)
        return labels


def make_label_map(
    label_set: LabelSet,
    sources: Mapping[str, int],
    taken: Mapping[str, tuple[str, ...]],
    where: str,
    *,
    colours: bool = False,
) -> LabelMap:
    """
    Build the table: a class takes the source of its own name, or those listed in `taken`.

    :param sources: name -> number in the files
    :param taken: class of `label_set` -> names of sources
    :param where: for messages
    :raises DatasetError: if a class or a source does not exist, or a source goes to two classes
    """
    unknown = sorted(set(taken) - set(label_set.names))
    if unknown:
        msg = f'{where}: {label_set.name} has no class {unknown[0]!r}'
        raise DatasetError(msg)
    table = np.full(max(sources.values()) + 1, _UNDEFINED, np.uint8)
    table[list(sources.values())] = UNLABELLED
    for index, name in enumerate(label_set.names):
        for source in taken.get(name, (name,)):
            if source not in sources:
                msg = f'{where}: class {name!r} takes {source!r}, which is not in the files'
                raise DatasetError(msg)
            if table[sources[source]] != UNLABELLED:
                msg = f'{where}: {source!r} goes to two classes, one of them {name!r}'
                raise DatasetError(msg)
            table[sources[source]] = index
    return LabelMap(label_set, table, colours)


@lru_cache(maxsize=8)
def load_label_map(dataset: str, label_set: str) -> LabelMap:
    """
    Load the map of a dataset's labels to `label_set` from labels/maps/<dataset>.yaml.

    Raises
    ------
    DatasetError
        If there is no map to that label set; the message lists those there are.

    """
    values = load_table(dataset)
    if label_set not in values['maps']:
        msg = (
            f'{dataset} has no labels {label_set!r}; there are {", ".join(sorted(values["maps"]))}'
        )
        raise DatasetError(msg)
    numbers, colours = {}, False
    for name, value in values['sources'].items():
        colours = isinstance(value, list)
        numbers[name] = value[0] << 16 | value[1] << 8 | value[2] if colours else value
    taken = {name: tuple(names) for name, names in values['maps'][label_set].items()}
    where = f'labels/maps/{dataset}.yaml'
    return make_label_map(load_label_set(label_set), numbers, taken, where, colours=colours)


def load_table(name: str) -> dict[str, Any]:
    """Return the content of labels/maps/<name>.yaml, which ships with the package."""
    import yaml

    file = resources.files('mtl_perception') / 'labels' / 'maps' / f'{name}.yaml'
    return dict(yaml.safe_load(file.read_text(encoding='utf-8')))
