"""A store of the caller's own, whose failures are those of a journal.

A store in the package raises `JournalError` and nothing else, and the lifecycle relies on it: what could not be written
is told, and the job goes on. A store from outside may have a fault. Whatever it raises becomes `JournalBroken` here, in
one place, so that no fault of a store costs a result or leaves somebody waiting. This module knows nothing of what the
calls do.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from typing import TypeVar, cast

from aiopplx._errors import AiopplxError
from aiopplx._events import log
from aiopplx._http.apart import is_closed, is_ours
from aiopplx.journal._errors import JournalBroken
from aiopplx.journal._protocol import Journal

T = TypeVar("T")


def contained(store: Journal) -> Journal:
    """The same store, whose calls raise errors of this package only."""
    return cast("Journal", _Contained(store))


class _Contained:
    """Stands for a store."""

    def __init__(self, store: Journal) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._store, name)
        if not callable(value):
            return value

        def call(*args: object, **words: object) -> object:
            try:
                outcome: object = value(*args, **words)
            except (AiopplxError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                # A call that returns at once only leaves a note in the store: what it is about must not fail with it.
                log(logging.ERROR, "the store failed in %s: %s", name, type(error).__name__, exc_info=True)
                return None
            return _awaited(name, outcome) if inspect.isawaitable(outcome) else outcome

        return call


async def _awaited(name: str, outcome: Awaitable[T]) -> T:
    task = asyncio.current_task()
    try:
        return await outcome
    except (AiopplxError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_ours(task):
            raise
        if isinstance(error, GeneratorExit) and is_closed(task):
            raise
        raise JournalBroken(f"the store failed in {name}: {type(error).__name__}: {error}", path="") from error
