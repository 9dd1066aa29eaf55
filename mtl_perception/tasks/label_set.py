# SPDX-License-Identifier: Apache-2.0
"""Label sets: class names and their fixed colours; the id is the position, 255 = unlabelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from mtl_perception.tasks.errors import TaskError
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LabelSet:
    """
    The classes of a semantic task.

    Raises
    ------
    TaskError
        If there is no class or more than 255, a name repeats, or the colours do not match.

    """

    name: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]  # RGB, one per class

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= UNLABELLED:
            msg = f'label set {self.name!r} has {len(self.names)} classes; 1 to 255 are possible'
            raise TaskError(msg)
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            msg = f'label set {self.name!r} names {", ".join(repeated)} more than once'
            raise TaskError(msg)
        if len(self.colours) != len(self.names):
            msg = (
                f'label set {self.name!r} has {len(self.names)} classes '
                f'but {len(self.colours)} colours'
            )
            raise TaskError(msg)
        for name, colour in zip(self.names, self.colours):
            if len(colour) != 3 or not all(0 <= int(value) <= 255 for value in colour):
                msg = f'label set {self.name!r}: colour {colour} of {name!r} is not RGB 0..255'
                raise TaskError(msg)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colour by label value, (256, 3) RGB; ids without a class, 255 among them, are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colours
        palette.setflags(write=False)
        return palette

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            'name': self.name,
            'names': list(self.names),
            'colours': [list(colour) for colour in self.colours],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LabelSet:
        """
        Read what `to_json` wrote.

        Raises
        ------
        TaskError
            If a field is missing or has the wrong type.

        """
        try:
            return cls(
                name=str(values['name']),
                names=tuple(str(name) for name in values['names']),
                colours=tuple(
                    (int(red), int(green), int(blue)) for red, green, blue in values['colours']
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = f'label set field {error} is missing or malformed'
            raise TaskError(msg) from error


def load_label_set(name: str) -> LabelSet:
    """
    Load a label set that ships with the package, by the name of its file in labels/.

    Raises
    ------
    TaskError
        If there is none of that name; the message lists those there are.

    """
    import yaml

    directory = resources.files('mtl_perception') / 'labels'
    file = directory / f'{name}.yaml'
    if not file.is_file():
        known = sorted(
            entry.name[: -len('.yaml')]
            for entry in directory.iterdir()
            if entry.name.endswith('.yaml')
        )
        msg = f'no label set {name!r}; there are {", ".join(known)}'
        raise TaskError(msg)
    rows = yaml.safe_load(file.read_text(encoding='utf-8'))['classes']
    return LabelSet(
        name=name,
        names=tuple(row['name'] for row in rows),
        colours=tuple((row['colour'][0], row['colour'][1], row['colour'][2]) for row in rows),
    )
