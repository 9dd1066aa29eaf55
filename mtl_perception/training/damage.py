# SPDX-License-Identifier: Apache-2.0
"""Names and counts the frames that a run passed over because they could not be read."""

from __future__ import annotations

from typing import Any

import lightning as L
from mtl_perception.training.data import Batch
from rich.console import Console
import torch


class DamagedFrames(L.Callback):
    """Says once of each damaged frame that it is skipped; knows how many there were."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.messages: list[str] = []

    def note(self, batch: Batch) -> None:
        """Take what a batch says."""
        for message in batch.damaged:
            if message not in self.messages:
                self.messages.append(message)
                self._console.print(f'skipped: {message}', highlight=False, soft_wrap=True)

    def on_train_batch_start(self, _: Any, __: Any, batch: Batch, index: int) -> None:
        """Note a training batch."""
        self.note(batch)

    def on_validation_batch_start(self, _: Any, __: Any, batch: Batch, *___: Any) -> None:
        """Note a validation batch."""
        self.note(batch)

    def leave_together(self) -> None:
        """Where several processes trained, learn of the others' frames and part from them."""
        if not torch.distributed.is_initialized():
            return
        self.messages = self._of_all()
        # What follows is done by one process alone, and must not wait for the others.
        torch.distributed.destroy_process_group()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint should remember; all processes ask for it together."""
        return {'messages': self._of_all()}

    def _of_all(self) -> list[str]:
        """Return the messages of every process that trains, each once."""
        if not torch.distributed.is_initialized():
            return list(self.messages)
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, self.messages)
        return list(dict.fromkeys(each for part in gathered for each in part))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember again."""
        self.messages = list(state['messages'])
