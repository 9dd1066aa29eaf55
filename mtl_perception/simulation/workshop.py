# SPDX-License-Identifier: Apache-2.0
"""What every builder of furniture shares: the mesh, the textures, the lights, the house style."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.simulation import patterns, prints, textures
from mtl_perception.simulation.lighting import AreaLight
from mtl_perception.simulation.mesh import Material, MeshBuilder
from mtl_perception.simulation.patterns import Colour, Tile
from mtl_perception.tasks import load_label_set
import numpy as np

LABEL_IDS = {name: index for index, name in enumerate(load_label_set('rooms').names)}
_CLOTHS = (textures.cloth, textures.cloth, textures.leather, textures.carpet)


class Workshop:
    """
    The tools and the stock of one world.

    Textures are drawn once per use and kept, so that the chairs around a table match.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.builder = MeshBuilder(LABEL_IDS)
        self.tiles: list[Tile] = []
        self.lights: list[AreaLight] = []
        self._stock: dict[str, list[int]] = {}
        self.white = self.surface(textures.paint, patterns.colour(0.1, 0.03, 0.9))
        self.black = self.surface(textures.paint, patterns.colour(0.6, 0.1, 0.08), gloss=0.04)
        self.chrome = self.surface(textures.metal, patterns.colour(0.6, 0.03, 0.7), gloss=0.35)

    def add_tile(self, tile: Tile) -> int:
        """Keep a texture and return its number."""
        self.tiles.append(tile)
        return len(self.tiles) - 1

    def surface(
        self,
        pattern: Callable[[np.random.Generator, int, Colour], Tile],
        base: Colour,
        *,
        scale: float = 0.6,
        gloss: float = 0.0,
        size: int = 128,
    ) -> int:
        """Return a new material of a pattern in a colour (sRGB), `scale` metres per tile."""
        tile = self.add_tile(pattern(self.rng, size, base))
        return self.builder.material(Material(tile, scale=scale, gloss=gloss))

    def picture(
        self,
        pattern: Callable[[np.random.Generator, int], Tile],
        *,
        size: int = 128,
        gloss: float = 0.0,
        emission: float = 0.0,
        tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> int:
        """Return a new material that shows one picture whole."""
        tile = self.add_tile(pattern(self.rng, size))
        return self.builder.material(Material(tile, tint, 1.0, gloss, emission))

    def emitter(self, tint: tuple[float, float, float], radiance: float) -> int:
        """Return a material that shines evenly."""
        return self.builder.material(Material(0, tint, scale=0.6, emission=radiance))

    def choose(self, stock: str, make: Callable[[], int], most: int) -> int:
        """Return a material of a stock, which grows to at most `most` different ones."""
        known = self._stock.setdefault(stock, [])
        if len(known) < most and (not known or self.rng.random() < 1.5 / (1 + len(known))):
            known.append(make())
            return known[-1]
        return known[int(self.rng.integers(len(known)))]

    def wood(self) -> int:
        """Return one of the world's woods."""

        def make() -> int:
            return self.surface(
                textures.wood, patterns.wood_colour(self.rng), scale=self.rng.uniform(0.4, 1.0),
                gloss=float(self.rng.choice((0.0, 0.03, 0.06))), size=256,
            )

        return self.choose('wood', make, 4)

    def lacquer(self) -> int:
        """Return painted board: white, grey or a colour."""

        def make() -> int:
            shade = (
                patterns.random_colour(self.rng, (0.0, 0.1), (0.2, 0.95))
                if self.rng.random() < 0.66
                else patterns.random_colour(self.rng, (0.12, 0.75), (0.25, 0.8))
            )
            gloss = float(self.rng.choice((0.0, 0.03, 0.08)))
            return self.surface(textures.paint, shade, scale=0.8, gloss=gloss)

        return self.choose('lacquer', make, 4)

    def board(self) -> int:
        """Return what cabinets and shelves are made of: wood or painted board."""
        return self.wood() if self.rng.random() < 0.55 else self.lacquer()

    def cloth(self) -> int:
        """Return one of the world's covers: cloth, leather, velvet."""

        def make() -> int:
            pattern = _CLOTHS[int(self.rng.integers(len(_CLOTHS)))]
            vivid = 0.65 if self.rng.random() < 0.35 else 0.3
            shade = patterns.random_colour(self.rng, (0.03, vivid), (0.15, 0.9))
            return self.surface(pattern, shade, scale=self.rng.uniform(0.3, 0.8))

        return self.choose('cloth', make, 7)

    def metal(self) -> int:
        """Return the metal or painted tube of the world's legs and handles."""
        return (self.chrome, self.black, self.white)[int(self.rng.integers(3))]

    def stone(self) -> int:
        """Return a worktop stone."""

        def make() -> int:
            shade = patterns.random_colour(self.rng, (0.0, 0.2), (0.15, 0.9))
            return self.surface(textures.stone, shade, scale=0.9, gloss=0.06, size=256)

        return self.choose('stone', make, 2)

    def ceramic(self) -> int:
        """Return glazed earthenware or plastic in one colour."""

        def make() -> int:
            vivid = 0.85 if self.rng.random() < 0.45 else 0.15
            shade = patterns.random_colour(self.rng, (0.0, vivid), (0.1, 1.0))
            return self.surface(textures.paint, shade, scale=0.5, gloss=0.05, size=32)

        return self.choose('ceramic', make, 10)

    def package(self) -> int:
        """Return the print of a package."""
        return self.choose('package', lambda: self.picture(prints.package), 10)

    def carton(self) -> int:
        """Return cardboard."""

        def make() -> int:
            shade = patterns.colour(0.09, self.rng.uniform(0.3, 0.5), self.rng.uniform(0.5, 0.8))
            tile = self.add_tile(textures.cardboard(self.rng, 128, shade))
            return self.builder.material(Material(tile))

        return self.choose('carton', make, 3)

    def painting(self) -> int:
        """Return a painting, portrait or poster, each shown once."""
        kinds = (
            prints.landscape, prints.abstract, prints.abstract, prints.portrait, prints.page,
            prints.package,
        )
        return self.picture(kinds[int(self.rng.integers(len(kinds)))], size=256)
