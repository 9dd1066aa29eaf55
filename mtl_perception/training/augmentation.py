# SPDX-License-Identifier: Apache-2.0
"""The chain of variations a training frame goes through."""

from __future__ import annotations

from dataclasses import replace

from mtl_perception.tasks import Task
from mtl_perception.training.geometry_augmentation import flipped, random_window, rotated
from mtl_perception.training.photometric import vary_photometry
from mtl_perception.training.recipe import AugmentationRecipe
from mtl_perception.values import Sample
import numpy as np


def augment(
    sample: Sample,
    tasks: tuple[Task, ...],
    size: tuple[int, int],
    recipe: AugmentationRecipe,
    generator: np.random.Generator,
) -> Sample:
    """
    Return a variation of `sample` at `size` (height, width).

    Targets stay in metres and in the optical frame of the returned camera: back-projecting the
    augmented depth with the augmented intrinsics gives surfaces with the augmented normals.
    """
    if generator.random() < recipe.flip:
        sample = flipped(sample, tasks)
    if recipe.rotation_deg > 0:
        angle = generator.uniform(-recipe.rotation_deg, recipe.rotation_deg)
        sample = rotated(sample, tasks, angle)
    sample = random_window(sample, tasks, size, recipe, generator)
    image = vary_photometry(sample.image, recipe.photometric, generator)
    return replace(sample, image=image)
