"""The slices that a training process holds: the last few that it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Recent(Generic[Item]):
    """The last `size` items that were made, by number; none of them travels to another process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: dict[int, Item] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": {}}

    def get(self, number: int, make: Callable[[], Item]) -> Item:
        """Item `number`, made where it is not held."""
        if number in self._items:
            return self._items[number]
        item = self._items[number] = make()
        while len(self._items) > self.size:
            del self._items[next(iter(self._items))]
        return item

    def __len__(self) -> int:
        return len(self._items)
