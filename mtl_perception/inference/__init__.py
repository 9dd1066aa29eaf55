# SPDX-License-Identifier: Apache-2.0
"""Run a bundle on camera frames: engines behind one protocol, and the Perceiver (no torch)."""

from mtl_perception.inference.engine import (
    choose_engine,
    Engine,
    EngineChoice,
    InferenceError,
    open_engine,
)
from mtl_perception.inference.fitting import FittedGeometry
from mtl_perception.inference.perceiver import Inferred, Perceiver, PerceiverConfig

__all__ = [
    'choose_engine',
    'Engine',
    'EngineChoice',
    'FittedGeometry',
    'Inferred',
    'InferenceError',
    'open_engine',
    'Perceiver',
    'PerceiverConfig',
]
