"""A cache bounded by size: an answer that is asked for again need not be generated again.

This module knows nothing of what is cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SIZE = 16 * 1024 * 1024


class Cache(Generic[T]):
    """Values by key; the least recently used are dropped when all together exceed `size` bytes."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._used = 0

    def get(self, key: bytes, make: Callable[[], tuple[T, int]]) -> T:
        """The value of this key; if it is missing, `make` returns it with its size in bytes."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found[0]
        thing, bytes_ = make()
        self._kept[key] = thing, bytes_
        self._used += bytes_
        while self._used > self._size and self._kept:
            self._used -= self._kept.popitem(last=False)[1][1]
        return thing
