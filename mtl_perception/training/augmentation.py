# SPDX-License-Identifier: Apache-2.0
"""The chain of variations a training frame goes through."""

from __future__ import annotations

from dataclasses import replace

from mtl_perception.tasks import Task
from mtl_perception.training.geometry_augmentation import (
    Colour,
    flipped,
    letterboxed,
    random_window,
    rotated,
)
from mtl_perception.training.photometric import distort_colours, vary_photometry
from mtl_perception.training.recipe import AugmentationRecipe, COLOURS
from mtl_perception.values import Sample
import numpy as np

# Width over height: what cameras and video have.
WIDEST_ASPECT = 16 / 9


def augment(
    sample: Sample,
    tasks: tuple[Task, ...],
    size: tuple[int, int],
    recipe: AugmentationRecipe,
    generator: np.random.Generator,
    fill: Colour,
) -> Sample:
    """
    Return a variation of `sample` at `size` (height, width).

    Targets stay in metres and in the optical frame of the returned camera: back-projecting the
    augmented depth with the augmented intrinsics gives surfaces with the augmented normals.

    :param fill: the colour outside the frame; it is unlabelled
    """
    if generator.random() < recipe.flip:
        sample = flipped(sample, tasks)
    if recipe.rotation_deg > 0:
        angle = generator.uniform(-recipe.rotation_deg, recipe.rotation_deg)
        sample = rotated(sample, tasks, angle, fill)
    sample = random_window(sample, tasks, size, recipe, generator, fill)
    # Drawn only where asked for: recipes without it keep their sequence of draws.
    if recipe.letterbox and generator.random() < recipe.letterbox:
        fewest = min(size[0], round(size[1] / WIDEST_ASPECT))
        rows = int(generator.integers(fewest, size[0] + 1))
        sample = letterboxed(sample, tasks, rows, fill)
    vary = distort_colours if recipe.photometric_law == COLOURS else vary_photometry
    image = vary(sample.image, recipe.photometric, generator)
    return replace(sample, image=image)
