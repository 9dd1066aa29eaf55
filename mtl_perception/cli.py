# SPDX-License-Identifier: Apache-2.0
"""One command line: `python3 -m mtl_perception <command>`, `ros2 run mtl_perception <command>`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
import os
import signal
import sys

from mtl_perception.errors import MtlPerceptionError

USAGE_ERROR = 2
FAILURE = 1
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True)
class Command:
    """Where a command lives and what it does, in one line."""

    module: str
    summary: str


COMMANDS = {
    'demo': Command('mtl_perception.ros.demo_command', 'a rendered camera and the live node'),
    'live': Command('mtl_perception.ros.live_command', 'the perception node'),
    'camera': Command('mtl_perception.ros.camera_command', 'publish a camera, video, bag, rooms'),
    'rooms': Command('mtl_perception.datasets.rooms_command', 'render labelled rooms'),
    'train': Command('mtl_perception.training.command', 'train a network, write a bundle'),
    'import-weights': Command(
        'mtl_perception.training.import_command', 'published weights into a bundle'
    ),
    'evaluate': Command('mtl_perception.training.evaluate_command', 'score a model on a dataset'),
    'study': Command('mtl_perception.training.study_command', 'compare networks by Delta_m'),
    'compile': Command('mtl_perception.inference.compile_command', 'build an engine beforehand'),
    'replay': Command('mtl_perception.ros.replay_command', 'score a model on a rosbag'),
    'benchmark': Command('mtl_perception.ros.benchmark_command', 'time every stage of a frame'),
    'models': Command('mtl_perception.networks.command', 'list the networks and what they cost'),
}

# Which extra brings a package that may be absent; the message names the remedy.
_EXTRAS = {
    'rclpy': 'ros',
    'rosbags': 'ros',
    'onnxruntime': 'cpu',
    'openvino': 'openvino',
    'onnx': 'tensorrt-rtx',
    'matplotlib': 'train',
    'tensorrt_rtx': 'tensorrt-rtx',
    'embreex': 'rooms',
    'trimesh': 'rooms',
    'torch': 'train',
    'timm': 'train',
    'lightning': 'train',
    'torchmetrics': 'train',
    'scipy': 'train',
    'PIL': 'train',
    'open3d': 'map',
    'rerun': 'viewer',
    'cv2': 'cpu',
    'numpy': 'cpu',
    'rich': 'cpu',
    'safetensors': 'cpu',
    'yaml': 'cpu',
}


def usage() -> str:
    """Return the help of the command line itself."""
    width = max(len(name) for name in COMMANDS)
    rows = '\n'.join(
        f'  {name:<{width}}  {command.summary}' for name, command in COMMANDS.items()
    )
    return (
        'usage: python3 -m mtl_perception <command> [options]\n\n'
        f'commands:\n{rows}\n\n'
        'Each command explains itself: python3 -m mtl_perception live --help\n'
        'example: python3 -m mtl_perception demo --headless --duration 20 --out out\n'
    )


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or '').partition('.')[0]
    extra = _EXTRAS.get(package)
    if extra is None and package.endswith('_msgs'):
        extra = 'ros'
    if extra is None:
        return f'the Python package {error.name!r} is missing from {sys.executable}'
    return (
        f'the Python package {package!r} is missing from {sys.executable}; '
        f"install it with: pip install 'mtl_perception[{extra}]' (from a clone: '.[{extra}]')"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 (the work failed) or 2 (wrong usage)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage(), end='')
        return 0 if arguments else USAGE_ERROR
    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is None:
        print(f'mtl_perception: no command {name!r}\n{usage()}', end='', file=sys.stderr)
        return USAGE_ERROR
    try:
        entry: Callable[[Sequence[str]], int] = import_module(command.module).main
        return entry(rest)
    except ModuleNotFoundError as error:
        if (error.name or '').startswith('mtl_perception'):
            raise
        print(f'mtl_perception {name}: {_missing(error)}', file=sys.stderr)
        return FAILURE
    except MtlPerceptionError as error:
        print(f'mtl_perception {name}: {error}', file=sys.stderr)
        return FAILURE
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED


def __getattr__(name: str) -> Callable[[], int]:
    """Return a command as the function that its console script in setup.py calls."""
    command = name.replace('_', '-')
    if command not in COMMANDS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def script() -> int:
        return main([command, *sys.argv[1:]])

    return script
