# SPDX-License-Identifier: Apache-2.0
"""What decides whether a built engine may be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
import hashlib
import json
from typing import Any

from mtl_perception.inference.device import Device


@dataclass(frozen=True)
class EngineKey:
    """All that decides whether a built engine may be used."""

    weights: str  # SHA-256
    graph: str  # SHA-256
    network_size: tuple[int, int]  # (height, width)
    batch: tuple[int, int]  # smallest and largest
    precision: str
    engine: str
    libraries: Mapping[str, str]  # version by package
    device: Device

    @property
    def digest(self) -> str:
        """SHA-256 of the key, the name of its entry."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()

    def fits(self, wanted: EngineKey) -> bool:
        """Whether an engine of this key may run where one of `wanted` is asked for."""
        mine, theirs = asdict(self), asdict(wanted)
        del mine['device'], theirs['device']
        low, high = mine.pop('batch')
        first, last = theirs.pop('batch')
        inside = low <= first and last <= high
        return inside and mine == theirs and self.device.covers(wanted.device)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EngineKey:
        """Read what `asdict` gave; raises KeyError, TypeError or ValueError."""
        values = dict(document)
        values['network_size'] = tuple(values['network_size'])
        values['batch'] = tuple(values['batch'])
        values['device'] = Device(**values['device'])
        return cls(**values)
