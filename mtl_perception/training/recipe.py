# SPDX-License-Identifier: Apache-2.0
"""A recipe: everything that decides a training run, read from one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
import os
from pathlib import Path
import re
from typing import Any

from mtl_perception.manifest import IMAGENET_MEAN, IMAGENET_STD
from mtl_perception.tasks import standard_tasks, Task, TaskError
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.parsing import parse, read_yaml
from mtl_perception.training.task_recipe import TaskRecipe

PRECISIONS = ('float32', 'bfloat16', 'float16')
OPTIMISERS = ('adamw', 'adam', 'sgd')
SCHEDULES = ('cosine', 'poly', 'step', 'constant')
IMAGENET = 'imagenet'
SKIP, FAIL = CORRUPT = ('skip', 'fail')
LAST, BEST = KEPT = ('last', 'best')
LOG_UNIFORM, UNIFORM = ZOOM_LAWS = ('log_uniform', 'uniform')
CAMERA, COLOURS = PHOTOMETRIC_LAWS = ('camera', 'colours')
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
    # A bundle to start from, as far as names and shapes agree: a directory, where ${VARIABLE} is
    # taken from the environment, or `default` for the one that is shipped.
    initial: str | None = None
    depth_range_m: tuple[float, float] = (0.2, 20.0)
    # The network sees (RGB in 0..1 - mean) / std.
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    # Size of labels over `size`, in bundle and scores: 1 or 1/2; None = 1 below 480 rows or
    # columns, else 1/2, which is cheaper.
    label_scale: float | None = None

    def __post_init__(self) -> None:
        both = self.pretrained is not None and self.initial is not None
        _require(not both, 'initial', self.initial, 'replaces pretrained; give one of them')
        _require(min(self.size) >= 32, 'size', self.size, 'should be at least 32 by 32')
        focal = self.reference_focal_px
        _require(focal > 0, 'reference_focal_px', focal, 'should be positive')
        low, high = self.depth_range_m
        _require(0 < low < high, 'depth_range_m', (low, high), 'should rise from above 0')
        inside = all(0 <= each <= 1 for each in self.mean)
        _require(inside, 'mean', self.mean, 'should be between 0 and 1')
        _require(min(self.std) > 0, 'std', self.std, 'should be positive')
        scale = self.label_scale
        _require(scale in (None, 1.0, 0.5), 'label_scale', scale, 'should be 1, 0.5 or null')


@dataclass(frozen=True)
class DataRecipe:
    """Where the labelled frames lie: a dataset of `mtl_perception.datasets`."""

    root: str  # ${VARIABLE} is taken from the environment; `--data` replaces it
    kind: str = 'rooms'
    # Folders below the root for rooms on disk, and for rosbag if they exist, else names of splits.
    train: str = 'train'
    validation: str = 'validation'
    options: Mapping[str, Any] = field(default_factory=dict)  # of the kind
    workers: int = 1
    corrupt: str = FAIL  # a frame that cannot be read: `fail`, or `skip` it and count

    def __post_init__(self) -> None:
        _require(self.corrupt in CORRUPT, 'corrupt', self.corrupt, f'is not in {CORRUPT}')
        _require(self.workers >= 0, 'workers', self.workers, 'should be 0 or more')


@dataclass(frozen=True)
class AugmentationRecipe:
    """How frames are varied; geometry stays true."""

    flip: float = 0.5  # probability of mirroring
    zoom: tuple[float, float] = (1.0, 1.0)  # factors on the focal length
    zoom_law: str = LOG_UNIFORM  # of those factors: `log_uniform`, or `uniform`
    zoom_factors: tuple[float, ...] = ()  # one of these instead, each as likely
    centred: bool = False  # windows share the frame's centre; else they lie anywhere in it
    rotation_deg: float = 0.0  # at most this far about the optical axis, either way
    largest_class: float = 1.0  # crops are drawn anew while a class fills more than this share
    letterbox: float = 0.0  # probability of bars as a wider camera has in the live node
    photometric: float = 0.0  # 0 = none, 1 = strong
    photometric_law: str = CAMERA  # tone, sensor and lens of a camera, or `colours` alone (SSD)
    early_size: tuple[int, int] | None = None  # (height, width) of frames in the first steps
    early_share: float = 0.0  # of all steps at `early_size`: smaller frames, more steps an hour

    def __post_init__(self) -> None:
        for name in ('flip', 'letterbox'):
            share = getattr(self, name)
            _require(0 <= share <= 1, name, share, 'should be a probability')
        low, high = self.zoom
        _require(0 < low <= high, 'zoom', self.zoom, 'should rise from above 0')
        factors = self.zoom_factors
        _require(all(each > 0 for each in factors), 'zoom_factors', factors, 'should be positive')
        alone = not factors or self.zoom == (1.0, 1.0)
        _require(alone, 'zoom_factors', factors, 'replaces zoom; give one of them')
        law = self.zoom_law
        _require(law in ZOOM_LAWS, 'zoom_law', law, f'is not in {ZOOM_LAWS}')
        anywhere = not self.centred or self.largest_class == 1
        _require(anywhere, 'largest_class', self.largest_class, 'needs windows that move')
        angle, share = self.rotation_deg, self.largest_class
        _require(0 <= angle <= 90, 'rotation_deg', angle, 'should be between 0 and 90')
        _require(0 < share <= 1, 'largest_class', share, 'should be above 0 and at most 1')
        strength = self.photometric
        _require(0 <= strength <= 1, 'photometric', strength, 'should be between 0 and 1')
        law, laws = self.photometric_law, PHOTOMETRIC_LAWS
        _require(law in laws, 'photometric_law', law, f'is not in {laws}')
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
    align_corners: bool = False


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
    weight_decay: float = 1e-2  # on convolution and linear weights
    decay_all: bool = False  # on biases and norms as well
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
    compile: bool = False  # torch.compile: minutes at the start, faster steps after
    threads: int | None = None  # None = as many as the machine has cores
    checkpoint_every_steps: int = 200
    validate_every_steps: int = 400  # a multiple of the former
    validation_frames: int = 64  # while training; the final scores use all
    picture_rows: int = 6
    best_by: str | None = None  # the task whose headline makes a best.ckpt; None = all together
    bundle_from: str = LAST  # which weights become the bundle: `last` or `best`

    def __post_init__(self) -> None:
        _require(
            self.precision in PRECISIONS, 'precision', self.precision, f'is not in {PRECISIONS}'
        )
        _require(
            self.bundle_from in KEPT, 'bundle_from', self.bundle_from, f'is not in {KEPT}'
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
class TargetRecipe:
    """Where the frames of the other domain lie; those to train on need no labels, nor are read."""

    root: str  # ${VARIABLE} is taken from the environment; `--target` replaces it
    kind: str
    train: str = 'train'
    # Labelled frames to score on; None = the scores are those of the source's validation.
    validation: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the kind
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)

    def __post_init__(self) -> None:
        share = self.augmentation.early_share
        _require(share == 0, 'augmentation.early_share', share, 'is that of the labelled frames')


@dataclass(frozen=True)
class AdaptationRecipe:
    """
    Learn from labels of one domain and from bare images of another (DenseMTL's multi-task UDA).

    Discriminators learn to tell the maps of both domains apart; the network learns to make
    target maps that pass for source maps.
    """

    target: TargetRecipe
    # By task name, of the loss for fooling; absent = as published, 0 = this task is not aligned.
    weights: Mapping[str, float] = field(default_factory=dict)
    auxiliary: bool = True  # as published, the maps of inner scales are aligned as well
    learning_rate: float = 1e-4  # of the discriminators' Adam
    betas: tuple[float, float] = (0.9, 0.99)
    power: float = 0.9  # their rate falls as (1 - step / steps)^power

    def __post_init__(self) -> None:
        for name, value in self.weights.items():
            _require(value >= 0, f'weights.{name}', value, 'should not be negative')
        _require(self.learning_rate > 0, 'learning_rate', self.learning_rate, 'should be positive')
        _require(self.power >= 0, 'power', self.power, 'should not be negative')


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
    adaptation: AdaptationRecipe | None = None
    description: str = ''
    limitations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(re.fullmatch(r'\w+', self.name)), 'name', self.name, 'should be one word')
        names = [task.name for task in (*self.task_list(), *self.auxiliary_list())]
        if self.adaptation is not None:
            # Its losses would have to be scaled one by one.
            half = self.loop.precision == 'float16'
            _require(not half, 'loop.precision', 'float16', 'does not go with adaptation')
        for name in () if self.adaptation is None else self.adaptation.weights:
            remedy = f'is not one of {", ".join(names)}'
            _require(name in names, 'adaptation.weights', name, remedy)
        best_by, known = self.loop.best_by, [task.name for task in self.task_list()]
        _require(
            best_by is None or best_by in known,
            'loop.best_by', best_by, f'is not one of {", ".join(known)}',
        )

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
        adaptation = self.adaptation
        if adaptation is not None:
            kept = {key: each for key, each in adaptation.weights.items() if key == name}
            adaptation = replace(adaptation, weights=kept)
        return replace(
            self, name=f'{self.name}_{name}_alone', network=network, loss=loss,
            tasks=(TaskRecipe.of(found[0]),), auxiliary=(), adaptation=adaptation,
            loop=replace(self.loop, best_by=None),
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
    return parse(Recipe, read_yaml(path, 'recipe'), path.name)
