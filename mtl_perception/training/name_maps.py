# SPDX-License-Identifier: Apache-2.0
"""Name maps: what a checkpoint calls its tensors, and what they are called and look like here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

import mtl_perception
from mtl_perception.networks.network import Network
from mtl_perception.training.errors import TrainingError
import torch
from torch import Tensor
import yaml

_MAPS = Path('config', 'name_maps')
# What a rule may say beside `to`, and as what.
_OPTIONS: dict[str, type] = {
    'axis': int, 'part': str, 'blocks': int, 'logit': bool, 'reversed': list,
}
Position = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Rule:
    """What becomes of a tensor whose whole name fits ``pattern``; the options in `read_rules`."""

    pattern: re.Pattern[str]
    to: tuple[str, ...]  # none: the tensor is left out
    axis: int = 0
    part: str | None = None
    blocks: int | None = None
    logit: bool = False
    reversed: tuple[int, ...] = ()


@dataclass(frozen=True)
class NameMap:
    """Rules, the first that fits counts, and what the words of their new names become."""

    rules: tuple[Rule, ...]
    words: Mapping[str, str]


def find_map(names: str | Path) -> Path:
    """
    Return the file of a name map: a path, or the name of one that is shipped.

    Raises
    ------
    TrainingError
        If there is neither.

    """
    path = Path(names)
    if path.suffix in ('.yaml', '.yml') or path.is_file():
        return path
    shipped = shipped_maps()
    if str(names) not in shipped:
        msg = f'name map {names} is neither a file nor shipped; shipped are {", ".join(shipped)}'
        raise TrainingError(msg)
    return shipped[str(names)]


def shipped_maps() -> dict[str, Path]:
    """Return the shipped name maps by name: of the source tree, or under share/ as installed."""
    package = Path(mtl_perception.__file__).resolve().parent
    roots = [package.parent, *(up / 'share' / package.name for up in package.parents)]
    found = next((root / _MAPS for root in roots if (root / _MAPS).is_dir()), None)
    return {path.stem: path for path in sorted(found.glob('*.yaml'))} if found else {}


def read_rules(path: Path) -> NameMap:
    r"""
    Return the name map of a YAML file: a mapping of regular expressions to new names.

    The first expression that fits a whole name renames it; its groups are \1, \2, ... in the
    new name; null leaves the tensor out. Names that no rule fits stay. With the rules under
    `rules:`, `words:` translates the words between the dots of their new names; those that are
    tasks of the network stand in the order of the file's tasks, and {i} is the i-th of them.

    For layers that are cut otherwise here a rule is a mapping:

    * `{to: [a, b], axis: 1}` cuts the tensor along an axis to the lengths that a, b have here;
      those that this network lacks are passed over.
    * `{to: a, part: '\1.0'}` joins parts along axis 0, ordered by tasks and numbers.
    * `{to: a, blocks: 1}` has a block for each task along an axis: to the order of this network.
    * `{to: a, logit: true}` makes the scores of no and yes, a softmax, one logit.
    * `{to: a, reversed: [-1, 2, 2]}` reads the last axis as these axes and turns them round.

    Raises
    ------
    TrainingError
        If the file cannot be read, is no such mapping, or an expression is wrong.

    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f'name map {path} cannot be read: {" ".join(str(error).split())}'
        raise TrainingError(msg) from error
    words: Any = {}
    if isinstance(values, Mapping) and isinstance(values.get('rules'), Mapping):
        words, values = values.get('words', {}), values['rules']
    if not (isinstance(values, Mapping) and isinstance(words, Mapping)):
        msg = f'name map {path} should be a mapping of regular expressions to new names or null'
        raise TrainingError(msg)
    return NameMap(
        tuple(_read_rule(path, str(pattern), value) for pattern, value in values.items()),
        {str(word): str(new) for word, new in words.items()},
    )


def _read_rule(path: Path, pattern: str, value: Any) -> Rule:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        msg = f'name map {path}: {pattern!r} is no regular expression: {error}'
        raise TrainingError(msg) from error
    options: dict[str, Any] = {'to': value or []}
    if isinstance(value, Mapping):
        options = {str(option): what for option, what in value.items()}
    to = options.pop('to', None)
    to = [to] if isinstance(to, str) else to
    if (
        not isinstance(to, list)
        or not all(isinstance(name, str) for name in to)
        or not set(options) <= set(_OPTIONS)
        or not all(isinstance(what, _OPTIONS[key]) for key, what in options.items())
        or (options and not to)
    ):
        msg = f'name map {path}: {pattern!r} becomes {value!r}; write a name or null'
        raise TrainingError(msg)
    options['reversed'] = tuple(options.get('reversed', ()))
    return Rule(expression, tuple(to), **options)


def renamed(
    weights: Mapping[str, Tensor], names: NameMap, network: Network | None = None
) -> dict[str, Tensor]:
    """
    Return the weights under their new names, in the shapes that ``network`` has for them.

    Axes of length one are added or dropped as the network has them: a linear layer is a 1x1
    convolution. Whatever does not fit keeps its shape and is told by who loads it.

    Raises
    ------
    TrainingError
        If two tensors get one name, or a new name has a group that its expression lacks.

    """
    renaming = _Renaming(names, network)
    found: dict[str, dict[Position, Tensor]] = {}
    origin: dict[tuple[str, Position], str] = {}
    for name, tensor in weights.items():
        for new, position, piece in renaming.pieces(name, tensor):
            if (new, position) in origin:
                first = origin[new, position]
                msg = f'name map: {first!r} and {name!r} both become {new!r}; keep one (null)'
                raise TrainingError(msg)
            origin[new, position] = name
            found.setdefault(new, {})[position] = piece
    return {new: renaming.joined(new, parts) for new, parts in found.items()}


class _Renaming:
    """One name map, applied for one network."""

    def __init__(self, names: NameMap, network: Network | None) -> None:
        self.names = names
        self.own = network.state_dict() if network is not None else {}
        self.tasks = [task.name for task in network.all_tasks] if network is not None else []
        self.theirs = [task for task in names.words.values() if task in self.tasks]

    def pieces(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Position, Tensor]]:
        """Yield new names, the place among the parts of that name, and what goes there."""
        for rule in self.names.rules:
            if fit := rule.pattern.fullmatch(name):
                break
        else:
            yield name, (), tensor
            return
        try:
            to = [self._translated(fit.expand(template)) for template in rule.to]
            part = self._translated(fit.expand(rule.part or ''))
            tensor = self._rearranged(tensor, rule)
        except (re.error, IndexError, RuntimeError) as error:
            msg = f'name map: {rule.to!r} for {rule.pattern.pattern!r}, {name}: {error}'
            raise TrainingError(msg) from error
        position = tuple(self._place(word) for word in part.split('.')) if part else ()
        for new, piece in self._cut(tensor, to, rule.axis):
            yield new, position, piece

    def joined(self, new: str, parts: Mapping[Position, Tensor]) -> Tensor:
        """Join the parts of one new tensor, in the shape that the network has for it."""
        pieces = [parts[position] for position in sorted(parts)]
        if len({piece.shape[1:] for piece in pieces}) > 1:
            msg = f'name map: the parts of {new!r} do not fit together'
            raise TrainingError(msg)
        tensor = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        shape = self.own[new].shape if new in self.own else tensor.shape
        alike = [size for size in shape if size > 1] == [s for s in tensor.shape if s > 1]
        return tensor.reshape(shape) if alike else tensor

    def _translated(self, name: str) -> str:
        name = re.sub(r'\{(\d+)\}', lambda found: self.theirs[int(found[1])], name)
        return '.'.join(self.names.words.get(word, word) for word in name.split('.'))

    def _place(self, word: str) -> tuple[int, str]:
        if word.isdigit():
            return int(word), ''
        return (self.tasks.index(word), '') if word in self.tasks else (len(self.tasks), word)

    def _rearranged(self, tensor: Tensor, rule: Rule) -> Tensor:
        if rule.logit and tensor.shape[0] == 2:
            tensor = tensor[1:] - tensor[:1]
        if rule.blocks is not None and len(self.theirs) == len(self.tasks) > 1:
            blocks = tensor.chunk(len(self.tasks), rule.blocks)
            tensor = torch.cat([blocks[self.theirs.index(t)] for t in self.tasks], rule.blocks)
        if rule.reversed:
            tensor = tensor.unflatten(-1, rule.reversed)
            last = range(-1, -1 - len(rule.reversed), -1)
            tensor = tensor.permute(*range(tensor.dim() - len(last)), *last).flatten(-len(last))
        return tensor

    def _cut(
        self, tensor: Tensor, to: Sequence[str], axis: int
    ) -> Iterator[tuple[str, Tensor]]:
        if len(to) > 1:
            known = [name for name in to if name in self.own]
            sizes = [self.own[name].shape[axis] for name in known]
            if known and sum(sizes) == tensor.shape[axis]:
                yield from zip(known, tensor.split(sizes, axis))
                return
        for name in to:
            yield name, tensor
