# SPDX-License-Identifier: Apache-2.0
"""A camera that walks through rendered rooms, with everything there is to know about them."""

from __future__ import annotations

from collections.abc import Iterator

from mtl_perception.ros.sources.frame_source import SourceOptions
from mtl_perception.values import Sample

SIZE = (320, 240)  # two cores render and perceive this ten times a second
RATE_HZ = 10.0
_SECONDS_PER_WORLD = 60.0


class RoomsSource:
    """
    Renders an endless walk with one camera; the walk leads through another flat each minute.

    The samples carry ground truth and pose. The same seed gives the same frames.
    """

    def __init__(self, options: SourceOptions) -> None:
        self.rate_hz = RATE_HZ if options.rate_hz is None else options.rate_hz
        self._seed = options.seed
        self._size = options.size or SIZE

    def frames(self) -> Iterator[Sample | None]:
        """Yield frames, `1 / rate_hz` seconds of walking apart."""
        from mtl_perception.simulation.rooms import draw_camera, rooms_frames

        yield from rooms_frames(
            self._seed,
            None,
            draw_camera(self._seed, *self._size),
            frames_per_world=max(1, round(_SECONDS_PER_WORLD * self.rate_hz)),
            rate_hz=self.rate_hz,
        )

    def __enter__(self) -> RoomsSource:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is kept open between frames."""
