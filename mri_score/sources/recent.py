"""A small cache of the latest items, one in each training process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Recent(Generic[Item]):
    """Keeps the last `size` items that were made, by number. Pickling leaves the items out."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: dict[int, Item] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": {}}

    def get(self, number: int, make: Callable[[], Item]) -> Item:
        """Item `number`; calls `make` if it is not in the cache."""
        if number in self._items:
            return self._items[number]
        item = self._items[number] = make()
        while len(self._items) > self.size:
            del self._items[next(iter(self._items))]
        return item

    def __len__(self) -> int:
        return len(self._items)
