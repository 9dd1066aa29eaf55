# SPDX-License-Identifier: Apache-2.0
"""What holds a resource is closed where its `with` block ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

Resource = TypeVar('Resource', bound='Closing')


class Closing(ABC):
    """Gives a class with `close` the two methods of a context manager."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""

    def __enter__(self: Resource) -> Resource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
