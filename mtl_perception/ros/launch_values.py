# SPDX-License-Identifier: Apache-2.0
"""Read the values of launch arguments, which are all text."""

from __future__ import annotations

from mtl_perception.ros.errors import RosError

_WORDS = {
    **dict.fromkeys(('true', '1', 'yes', 'on'), True),
    **dict.fromkeys(('false', '0', 'no', 'off'), False),
}


def as_bool(name: str, text: str) -> bool:
    """
    Read a truth value as the launch files of nav2 do: true, 1, yes, on and their opposites.

    Raises
    ------
    RosError
        If the text is neither.

    """
    value = _WORDS.get(text.strip().lower())
    if value is None:
        msg = f'{name}:={text} is neither true nor false'
        raise RosError(msg)
    return value
