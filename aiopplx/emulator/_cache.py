"""What was written last, kept up to a size: an answer that is asked for again need not be written again.

It knows nothing of what it keeps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SIZE = 16 * 1024 * 1024


class Cache(Generic[T]):
    """Things under keys; those not asked for longest go when all together are larger than `size` bytes."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._used = 0

    def get(self, key: bytes, make: Callable[[], tuple[T, int]]) -> T:
        """The thing under this key; `make` gives it and its bytes if it is not there."""
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
