# SPDX-License-Identifier: Apache-2.0
"""What happens beside the learning: progress, checkpoints that survive a kill, pictures."""

from __future__ import annotations

import io
from pathlib import Path
import time
from typing import Any

import lightning as L
from lightning.pytorch.plugins.io import TorchCheckpointIO
from mtl_perception.command_line import progress_bar
from mtl_perception.files import atomic_write
from mtl_perception.training.best import validation_scores
from mtl_perception.training.scoring import describe
from rich.console import Console
import torch

LAST_CHECKPOINT = 'last.ckpt'


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints written whole or not at all, and read without running anything in them."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write to a temporary file beside `path`, then rename."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values only."""
        return dict(torch.load(path, map_location=map_location or 'cpu', weights_only=True))


class LastCheckpoint(L.Callback):
    """Keeps the newest state of the run as `last.ckpt`."""

    def __init__(self, directory: Path, every_steps: int) -> None:
        self._path = directory / LAST_CHECKPOINT
        self._every_steps = every_steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save every so many steps, and at the end."""
        step = trainer.global_step
        if step % self._every_steps == 0 or step == trainer.max_steps:
            trainer.save_checkpoint(self._path)


class WeightAveraging(L.Callback):
    """Moves the module's averaged weights after every step; must come before LastCheckpoint."""

    def on_train_batch_end(self, _: L.Trainer, module: Any, *__: Any) -> None:
        """Let the average follow."""
        if module.average is not None:
            module.average.update_parameters(module.network)


class RunProgress(L.Callback):
    """One bar over all steps with the time left; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = progress_bar('loss', console=console)
        self._began = 0.0
        self._first = 0
        self._mean_loss = 0.0

    def on_train_start(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Show the bar."""
        self._first = trainer.global_step
        self._began = time.monotonic()
        self._bar = self._progress.add_task(
            'training', total=trainer.max_steps, completed=self._first, loss=''
        )
        if self._console.is_terminal:
            self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Move the bar."""
        step, loss = trainer.global_step, float(outputs['loss'])
        done = step - self._first
        self._mean_loss += (loss - self._mean_loss) / min(done, 50)
        text = f'loss {self._mean_loss:.3f}'
        self._progress.update(self._bar, completed=step, loss=text)
        if not self._console.is_terminal and (done in (1, 10) or step % 50 == 0):
            pace = (time.monotonic() - self._began) / done
            left = pace * (trainer.max_steps - step) / 60
            self._console.print(
                f'step {step}/{trainer.max_steps}  {text}  {pace:.2f} s/step  '
                f'{left:.0f} min left', highlight=False, soft_wrap=True,
            )

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Say the headline scores."""
        line = describe(validation_scores(trainer), module.manifest.tasks)
        text = f'validation at step {trainer.global_step}: {line}'
        self._console.print(text, highlight=False, soft_wrap=True)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Leave the terminal tidy, also after an error."""
        self._progress.stop()
