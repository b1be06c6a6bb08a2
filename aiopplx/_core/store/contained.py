"""A store of the caller's own, whose failures are those of a journal.

A store in the package raises `JournalError` and nothing else, and ends when it is cancelled; the lifecycle relies on
both. A store from outside may have a fault. Whatever it raises becomes `JournalBroken` here, and each of its calls runs
in a task of its own, so that a cancellation reaches whoever waits for it, whatever the store does with that: in one
place, so that no fault of a store costs a result or leaves somebody waiting. This module knows nothing of what the
calls do, beyond which submission each is about.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple, TypeVar

from aiopplx._errors import AiopplxError
from aiopplx._events import log
from aiopplx._http.apart import end_begun
from aiopplx.journal._errors import JournalBroken, JournalClosed
from aiopplx.journal._protocol import Journal
from aiopplx.journal._steps import Step
from aiopplx.journal._unwritten import Unwritten

T = TypeVar("T")

SLOW: Final = 1.0
"""Real seconds after which a step that is cancelled counts as perhaps not written. A store that works is never so slow,
and finishes a step whose caller is gone."""
CUT: Final = 1_000
"""Such steps that are remembered."""


class _Call(NamedTuple):
    """A call that the store has not answered. `ended`: it has, or is not waited for any more."""

    what: Unwritten | None
    ended: asyncio.Future[None]
    since: float


class Contained:
    """Stands for a store: the same calls, which raise errors of this package only, and end when they are cancelled."""

    def __init__(self, store: Journal) -> None:
        self._store = store
        self._calls: dict[asyncio.Task[Any], _Call] = {}  # Any: whatever a call returns
        self._cut: dict[str, Unwritten] = {}
        self._is_abandoned = False

    def __getattr__(self, name: str) -> object:
        # One from before stores could be shared does not say that it is not.
        value: object = getattr(self._store, name, False) if name == "shares" else getattr(self._store, name)
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
            return self._answer(name, outcome, _written(name, args, words)) if inspect.isawaitable(outcome) else outcome

        return call

    async def _answer(self, name: str, outcome: Awaitable[T], what: Unwritten | None) -> T:
        loop = asyncio.get_running_loop()
        if self._is_abandoned:
            if inspect.iscoroutine(outcome):
                outcome.close()
            raise _left(name)
        asked, ended = loop.create_task(_awaited(outcome)), loop.create_future()
        self._calls[asked] = _Call(what, ended, loop.time())
        asked.add_done_callback(self._answered)
        try:
            await ended
        except asyncio.CancelledError:
            await end_begun(asked)
            raise
        if not asked.done():
            await end_begun(asked)
            raise _left(name)
        try:
            return asked.result()
        except (AiopplxError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise JournalBroken(f"the store failed in {name}: {type(error).__name__}: {error}", path="") from error

    def _answered(self, asked: asyncio.Task[Any]) -> None:
        what, ended, since = self._calls.pop(asked)
        if not ended.done():
            ended.set_result(None)
        if what is None:
            return
        name = what.key or what.job_id
        if not asked.cancelled():
            self._cut.pop(name, None)
        elif asked.get_loop().time() - since > SLOW:
            self._cut[name] = what
            if len(self._cut) > CUT:
                del self._cut[next(iter(self._cut))]

    def abandon(self) -> list[Unwritten]:
        """Wait for the store no longer: whoever does gets `JournalClosed`. Returns what may not be written."""
        self._is_abandoned = True
        calls = list(self._calls.values())
        for call in calls:
            if not call.ended.done():
                call.ended.set_result(None)
        return [*self._cut.values(), *(call.what for call in calls if call.what is not None)]


def _left(name: str) -> JournalClosed:
    return JournalClosed(f"the session was left before the store answered in {name}: it may be written or not")


async def _awaited(outcome: Awaitable[T]) -> T:
    return await outcome


def _written(name: str, args: tuple[object, ...], words: dict[str, object]) -> Unwritten | None:
    """What this call would write of a submission."""
    if name == "find_or_queue":
        return Unwritten("queued", str(words.get("key", "")))
    if name == "adopt":
        return Unwritten("adopted", job_id=str(args[0]))
    step = next((each for each in args if isinstance(each, Step)), None)
    return Unwritten(step.rule.name, step.key, step.job_id) if step is not None else None
