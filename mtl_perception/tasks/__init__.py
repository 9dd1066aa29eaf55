# SPDX-License-Identifier: Apache-2.0
"""What a task is: its name, kind, channels, label set and colours (numpy and YAML only)."""

from mtl_perception.tasks.label_set import LabelSet, load_label_set
from mtl_perception.tasks.task import (
    KINDS,
    LABELLED_KINDS,
    PROBABILITY_KINDS,
    standard_tasks,
    Task,
    TaskError,
)

__all__ = [
    'KINDS',
    'LABELLED_KINDS',
    'LabelSet',
    'PROBABILITY_KINDS',
    'Task',
    'TaskError',
    'load_label_set',
    'standard_tasks',
]
