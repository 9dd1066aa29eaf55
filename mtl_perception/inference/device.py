# SPDX-License-Identifier: Apache-2.0
"""Which processor or GPU an engine is built for, and what decides whether it still fits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import platform
import re

# A driver that runs leaves one of these: desktop and server, Jetson, Windows' Linux.
_NVIDIA_FILES = ('/dev/nvidiactl', '/dev/nvhost-gpu', '/dev/dxg')


@dataclass(frozen=True)
class Device:
    """
    A processor or GPU.

    `capability` is the machine's name (`x86_64`) or the GPU's compute capability (`sm89`),
    `driver` the version of the GPU's driver; an engine built ahead of time has the name `any`
    and several capabilities, joined by commas.
    """

    name: str
    capability: str
    driver: str = ''

    def covers(self, other: Device) -> bool:
        """Whether an engine built for this device may run on `other`."""
        if self.name != 'any':
            return self == other
        return other.capability in self.capability.split(',')

    def __str__(self) -> str:
        name = 'any device' if self.name == 'any' else self.name
        return ', '.join(filter(None, (name, self.capability, self.driver)))


def processor() -> Device:
    """Return the processor of this machine."""
    return Device(_processor_name(), platform.machine())


def _processor_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(':')
        # ARM boards have no model name; their 'Model' line is the board's.
        if name.strip() in ('model name', 'Model'):
            return value.strip()
    return platform.processor() or platform.machine()


def nvidia_gpu_present() -> bool:
    """Whether a driver for NVIDIA GPUs runs; cheap, and loads nothing."""
    return any(Path(file).exists() for file in _NVIDIA_FILES)


def nvidia_driver() -> str:
    """Return the version of the NVIDIA driver, empty if the system does not tell."""
    try:
        text = Path('/proc/driver/nvidia/version').read_text()
    except OSError:
        return ''
    version = re.search(r'\b\d+\.\d+(?:\.\d+)?\b', text)
    return version.group() if version else ''
