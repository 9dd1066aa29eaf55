# SPDX-License-Identifier: Apache-2.0
"""A recipe: everything that decides a training run, read from one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
import os
from pathlib import Path
import re
from typing import Any

from mtl_perception.tasks import standard_tasks, Task, TaskError
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.parsing import parse
from mtl_perception.training.task_recipe import TaskRecipe
import yaml

PRECISIONS = ('float32', 'bfloat16')
OPTIMISERS = ('adamw', 'adam', 'sgd')
SCHEDULES = ('cosine', 'poly', 'step', 'constant')
IMAGENET = 'imagenet'
_VARIABLE = re.compile(r'\$\{(\w+)\}')


def _require(condition: bool, name: str, value: Any, remedy: str) -> None:
    if not condition:
        msg = f'{name}: {value!r} {remedy}'
        raise TrainingError(msg)


@dataclass(frozen=True)
class NetworkRecipe:
    """Which network, at which size, and what its depth refers to."""

    system: str
    backbone: str
    size: tuple[int, int]  # (height, width), pixels
    reference_focal_px: float  # at `size`
    mode: str = 'corrected'
    neck: tuple[int, ...] | None = None  # None = the system's own; empty = none
    # `imagenet` fetches the weights of timm's hub; else a safetensors file, where ${VARIABLE} is
    # taken from the environment.
    pretrained: str | None = None
    depth_range_m: tuple[float, float] = (0.2, 20.0)

    def __post_init__(self) -> None:
        _require(min(self.size) >= 32, 'size', self.size, 'should be at least 32 by 32')
        focal = self.reference_focal_px
        _require(focal > 0, 'reference_focal_px', focal, 'should be positive')
        low, high = self.depth_range_m
        _require(0 < low < high, 'depth_range_m', (low, high), 'should rise from above 0')


@dataclass(frozen=True)
class DataRecipe:
    """Where the labelled frames lie: a dataset of `mtl_perception.datasets`."""

    root: str  # ${VARIABLE} is taken from the environment; `--data` replaces it
    kind: str = 'rooms'
    # Folders below the root for rooms, and for rosbag if they exist, else names of splits.
    train: str = 'train'
    validation: str = 'validation'
    options: Mapping[str, Any] = field(default_factory=dict)  # of the kind
    workers: int = 1

    def __post_init__(self) -> None:
        _require(self.workers >= 0, 'workers', self.workers, 'should be 0 or more')


@dataclass(frozen=True)
class AugmentationRecipe:
    """How frames are varied; geometry stays true."""

    flip: float = 0.5  # probability of mirroring
    zoom: tuple[float, float] = (1.0, 1.0)  # factors on the focal length, log-uniform
    photometric: float = 0.0  # 0 = none, 1 = strong
    early_size: tuple[int, int] | None = None  # (height, width) of frames in the first steps
    early_share: float = 0.0  # of all steps at `early_size`: smaller frames, more steps an hour

    def __post_init__(self) -> None:
        _require(0 <= self.flip <= 1, 'flip', self.flip, 'should be a probability')
        low, high = self.zoom
        _require(0 < low <= high, 'zoom', self.zoom, 'should rise from above 0')
        strength = self.photometric
        _require(0 <= strength <= 1, 'photometric', strength, 'should be between 0 and 1')
        share = self.early_share
        _require(0 <= share <= 1, 'early_share', share, 'should be between 0 and 1')
        early = self.early_size
        _require(early is not None or share == 0, 'early_share', share, 'needs early_size')
        _require(early is None or min(early) >= 32, 'early_size', early, 'is below 32 by 32')


@dataclass(frozen=True)
class LossRecipe:
    """Weights and losses by task name; what is absent is as published (losses/)."""

    # See `MultiTaskLoss` for the choices.

    weights: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    auxiliary_at: str = 'label'
    scales: str = 'sum'
    balancing: str = 'fixed'


@dataclass(frozen=True)
class OptimiserRecipe:
    """
    The optimiser, its schedule after a linear warm-up, and averaged weights.

    `cosine` descends to zero; `poly` is (1 - step / steps)^power, changed at every step or, as
    MTI-Net's code does, every `epoch_steps`; `step` multiplies by 0.1 at `drop_at`.
    """

    steps: int
    batch_size: int
    learning_rate: float
    backbone_factor: float = 1.0  # learning rate of the backbone over the rest's
    name: str = 'adamw'
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam and AdamW
    momentum: float = 0.9  # of SGD
    schedule: str = 'cosine'
    power: float = 0.9
    epoch_steps: int = 1
    drop_at: int | None = None
    weight_decay: float = 1e-2  # on convolution and linear weights only
    warmup_steps: int = 0
    gradient_clip: float = 10.0  # global norm; 0 = none
    average_decay: float = 0.0  # of the exponential moving average; 0 = none

    def __post_init__(self) -> None:
        _require(self.name in OPTIMISERS, 'name', self.name, f'is not in {OPTIMISERS}')
        schedule = self.schedule
        _require(schedule in SCHEDULES, 'schedule', schedule, f'is not in {SCHEDULES}')
        drop = self.drop_at
        goes = (drop is not None) == (schedule == 'step')
        _require(goes, 'drop_at', drop, 'goes with schedule step')
        for name in ('steps', 'batch_size', 'epoch_steps'):
            _require(getattr(self, name) >= 1, name, getattr(self, name), 'should be at least 1')
        _require(self.learning_rate > 0, 'learning_rate', self.learning_rate, 'should be positive')
        for name in ('backbone_factor', 'weight_decay', 'warmup_steps', 'gradient_clip', 'power'):
            value = getattr(self, name)
            _require(value >= 0, name, value, 'should not be negative')
        decay = self.average_decay
        _require(0 <= decay < 1, 'average_decay', decay, 'should be at least 0 and below 1')


@dataclass(frozen=True)
class LoopRecipe:
    """How the run is carried out; none of it changes what is learned but `seed`."""

    seed: int = 0
    precision: str = 'float32'
    threads: int | None = None  # None = as many as the machine has cores
    checkpoint_every_steps: int = 200
    validate_every_steps: int = 400  # a multiple of the former
    validation_frames: int = 64  # while training; the final scores use all
    picture_rows: int = 6

    def __post_init__(self) -> None:
        _require(
            self.precision in PRECISIONS, 'precision', self.precision, f'is not in {PRECISIONS}'
        )
        names = ('checkpoint_every_steps', 'validate_every_steps', 'validation_frames')
        for name in names:
            _require(getattr(self, name) >= 1, name, getattr(self, name), 'should be at least 1')
        every = self.validate_every_steps
        _require(
            every % self.checkpoint_every_steps == 0,
            'validate_every_steps', every, 'should be a multiple of checkpoint_every_steps',
        )
        _require(self.threads is None or self.threads >= 1, 'threads', self.threads, 'is below 1')


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    name: str
    # A label set of mtl_perception/labels: the four standard tasks with it. Or a list of tasks.
    tasks: str | tuple[TaskRecipe, ...]
    network: NetworkRecipe
    data: DataRecipe
    optimiser: OptimiserRecipe
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    auxiliary: tuple[TaskRecipe, ...] = ()  # supervised inside the network only
    description: str = ''
    limitations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(re.fullmatch(r'\w+', self.name)), 'name', self.name, 'should be one word')
        self.task_list()
        self.auxiliary_list()

    def task_list(self) -> tuple[Task, ...]:
        """Return the tasks that the network learns."""
        if not isinstance(self.tasks, str):
            _require(bool(self.tasks), 'tasks', self.tasks, 'should name at least one task')
            return tuple(each.task() for each in self.tasks)
        try:
            return standard_tasks(self.tasks)
        except TaskError as error:
            msg = f'tasks: {error}'
            raise TrainingError(msg) from error

    def auxiliary_list(self) -> tuple[Task, ...]:
        """Return the tasks that only supervise inner scales of the network."""
        return tuple(each.task() for each in self.auxiliary)

    def single_task_twin(self, name: str) -> Recipe:
        """
        Return the recipe of a network for one task alone, all else equal: what Delta_m divides by.

        Raises
        ------
        TrainingError
            If no final task has that name.

        """
        found = [task for task in self.task_list() if task.name == name]
        names = ', '.join(task.name for task in self.task_list())
        _require(bool(found), 'tasks', name, f'is not one of {names}')
        loss = replace(
            self.loss,
            weights={key: each for key, each in self.loss.weights.items() if key == name},
            kinds={key: each for key, each in self.loss.kinds.items() if key == name},
        )
        network = replace(self.network, system='single_task')
        return replace(
            self, name=f'{self.name}_{name}_alone', network=network, loss=loss,
            tasks=(TaskRecipe.of(found[0]),), auxiliary=(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, environment variables left as written."""
        return asdict(self)


def expand(value: str, where: str) -> Path:
    """
    Replace every ${VARIABLE} in a path and the leading ~.

    Raises
    ------
    TrainingError
        If a variable is not set.

    """
    for name in _VARIABLE.findall(value):
        if not os.environ.get(name):
            msg = (
                f'{where}: {value!r} needs the environment variable {name}, which is not set; '
                'set it, or write the path'
            )
            raise TrainingError(msg)
    return Path(_VARIABLE.sub(lambda match: os.environ[match.group(1)], value)).expanduser()


def load_recipe(path: Path | str) -> Recipe:
    """
    Read a recipe.

    Raises
    ------
    TrainingError
        If the file is missing or no YAML, or a field is unknown, missing or out of range.

    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        msg = f'recipe {path} cannot be read: {error.strerror}'
        raise TrainingError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f'recipe {path} is not YAML: {" ".join(str(error).split())}'
        raise TrainingError(msg) from error
    return parse(Recipe, values, path.name)
