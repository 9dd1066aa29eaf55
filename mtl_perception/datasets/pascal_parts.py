# SPDX-License-Identifier: Apache-2.0
"""Human parts out of the annotation files of PASCAL-Part."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from mtl_perception.datasets.errors import DatasetError, LabelRangeError
from mtl_perception.datasets.label_map import load_table
from mtl_perception.tasks import LabelSet, load_label_set
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=1)
def _table() -> tuple[int, LabelSet, dict[str, int]]:
    values = load_table('pascal_parts')
    label_set = load_label_set(values['label_set'])
    parts = {
        part: label_set.names.index(name)
        for name, parts in values['parts'].items()
        for part in parts
    }
    return int(values['category']), label_set, parts


def parts_label_set() -> LabelSet:
    """Return the classes: background and six parts."""
    return _table()[1]


def read_mat(path: Path, key: str) -> Any:
    """
    Return one variable of a MATLAB file (version 5), structures as objects with fields.

    Raises
    ------
    DatasetError
        If the file is missing or damaged, or has no such variable.

    """
    from scipy.io import loadmat

    try:
        return loadmat(str(path), struct_as_record=False, squeeze_me=True)[key]
    except KeyError as error:
        msg = f'{path} has no variable {key}'
        raise DatasetError(msg) from error
    # scipy raises whatever its parser stumbles over.
    except Exception as error:
        msg = f'{path} cannot be read as a MATLAB file: {error}'
        raise DatasetError(msg) from error


def read_human_parts(path: Path) -> npt.NDArray[np.uint8] | None:
    """
    Return the parts of every person (H, W), or None where no person has parts.

    A person whose parts nobody drew is 255, not background: it has parts all the same.

    Raises
    ------
    DatasetError
        If the file is damaged, or, as `LabelRangeError`, if it names a part that is unknown.

    """
    category, _, classes = _table()
    annotation = read_mat(path, 'anno')
    target: npt.NDArray[np.uint8] | None = None
    undrawn = []
    for person in np.atleast_1d(annotation.objects):
        if int(person.class_ind) != category:
            continue
        parts = np.atleast_1d(person.parts)
        if parts.size == 0:
            undrawn.append(np.asarray(person.mask) != 0)
            continue
        if target is None:
            target = np.zeros(np.shape(person.mask), np.uint8)
        for part in parts:
            name = str(part.part_name)
            if name not in classes:
                msg = f'{path}: a person has a part {name!r}; known are {", ".join(classes)}'
                raise LabelRangeError(msg)
            target[np.asarray(part.mask) != 0] = classes[name]
    if target is None:
        return None
    for mask in undrawn:
        # Where a person with parts stands before it, the drawn parts hold.
        target[mask & (target == 0)] = UNLABELLED
    return target
