# SPDX-License-Identifier: Apache-2.0
"""
`live` with an engine whose maps are simple functions of the image's own pixels.

Started as a process by the tests. Environment: FAKE_SIZE (HxW of the network), FAKE_ENGINE_MS
(how long a frame takes), FAKE_RUNS (a file that gets one byte per run), FAKE_TASKS (which of
the standard tasks the model has).
"""

from __future__ import annotations

import os
from pathlib import Path
import sys
import time
from typing import Any

from mtl_perception.cli import main
from mtl_perception.inference import serving
from mtl_perception.manifest import BundleError, Manifest
from mtl_perception.tasks import standard_tasks
import numpy as np


class FakeEngine:
    """Stands in for a network; takes any bundle directory that exists."""

    name = 'fake'

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise BundleError(f'{directory} is not a bundle: there is no such directory')
        height, width = (int(side) for side in os.environ.get('FAKE_SIZE', '48x64').split('x'))
        names = os.environ.get('FAKE_TASKS', 'semantic,depth,normals,edges').split(',')
        self.manifest = Manifest(
            name='fake',
            system='mti_net',
            backbone='none',
            tasks=tuple(task for task in standard_tasks('rooms') if task.name in names),
            network_size=(height, width),
            reference_focal_px=50.0,
            depth_range_m=(0.1, 100.0),
        )
        self._pause_s = float(os.environ.get('FAKE_ENGINE_MS', '0')) / 1e3
        self._runs = os.environ.get('FAKE_RUNS')

    def run(self, image: np.ndarray, depth_scale: np.ndarray) -> dict[str, Any]:
        time.sleep(self._pause_s)
        if self._runs:
            with open(self._runs, 'ab') as stream:
                stream.write(b'.')
        red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
        x, y = (green - 128) / 200, (blue - 128) / 200
        outputs = {
            'semantic': np.where(red < 250, red % 18, 255).astype(np.uint8),
            'semantic_confidence': green / np.float32(255),
            'depth': (0.5 + blue / 64) * depth_scale[:, None, None],
            'normals': np.stack((x, y, -np.sqrt(1 - x * x - y * y)), axis=-1),
            'edges': (255 - red).astype(np.uint8),
        }
        return {name: outputs[name] for name in self.manifest.output_names}

    def close(self) -> None:
        pass


if __name__ == '__main__':
    serving.open_engine = lambda directory, engine, **options: FakeEngine(directory)
    sys.exit(main(['live', *sys.argv[1:]]))
