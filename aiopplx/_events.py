"""What happened in a session, as values, and their delivery: to the log, to the caller's own handler, and to streams.

The same values serve progress bars, logs, traces and tests. Telling never fails: whatever a handler, or a log handler
or filter, raises ends here. Only `KeyboardInterrupt` and `SystemExit` pass, because they end the program. A
`CancelledError` out of code that was called and not awaited cancels nobody. This module knows nothing
of what causes an event.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import logging
import sys
import traceback
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self

import msgspec

from aiopplx._job import JobStatus, Usage

logger = logging.getLogger("aiopplx")


class _LastResort(logging.Handler):
    """Shows warnings of this package where nobody has set up logging, as `logging` itself would, by its last resort.

    That one shows the bare message: neither how grave it is, nor whose. Nothing else is touched: once any handler hears
    these records, this one is silent, and it is as silent as the last resort where that was taken away.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Show it, unless somebody else does."""
        shown = logging.lastResort
        if shown is None or _is_heard(logging.getLogger(record.name)):
            return
        bare = copy.copy(record)
        bare.msg, bare.args = f"{record.levelname}:{record.name}:{record.getMessage()}", None
        shown.handle(bare)


def _is_heard(origin: logging.Logger | None) -> bool:
    """Whether a handler of the program's own hears what this logger says."""
    while origin is not None:
        if any(not isinstance(handler, _LastResort) for handler in origin.handlers):
            return True
        origin = origin.parent if origin.propagate else None
    return False


logger.addHandler(_LastResort(logging.WARNING))


class EventKind(enum.StrEnum):
    """What happened."""

    SUBMITTED = "submitted"
    """The server accepted a submission: `job_id` is known from here on."""
    RETRYING = "retrying"
    """An attempt failed and will be made again after `delay` seconds; `reason` says why."""
    POLLED = "polled"
    """A job was polled and is still running; `status` is the server's, `polls` the count."""
    POLL_FAILED = "poll_failed"
    """A poll failed. The job is not affected; it is polled again after `delay` seconds."""
    STALLED = "stalled"
    """A job has run for longer than 999 of 1,000 such jobs take. It is still polled, every two minutes; told once."""
    FINISHED = "finished"
    """A submission ended: `status`, `cost`, and `reason` if it has no result. Once for each whose end is seen here: not
    for one that is left, or that nobody waits for after its time limit."""
    LOADED = "loaded"
    """A submission had ended before: an earlier run, or another session on the journal, told its `FINISHED`, with the
    cost. `status` and `reason` as there; `cost` and `usage` are None, so that no sum has them twice. Once a session for
    each, when its outcome is handed out here."""
    TIMED_OUT = "timed_out"
    """A time limit for a job was reached; `tag` is that of the caller or batch item that waited. The job continues, and
    is still polled only if somebody else waits for it (`awaited`)."""
    PAUSED = "paused"
    """No request leaves for `delay` seconds: the server asked for silence, or does not answer."""
    STOPPED = "stopped"
    """Submissions stopped: bad key, no credit, retired endpoint; or a journal that fails or does not answer. `reason`
    says what to do."""
    RESUMED = "resumed"
    """Submissions continue after a stop. Or the server, or a journal, that was said not to answer does so again
    (`reason`)."""
    LEFT = "left"
    """A block or a call was left while `job_id` ran; it continues, and is billed, at the service. Or it ended as its
    call was cancelled, so that nobody had its answer: `status` and `reason` say so, and `wait(job_id)` collects it."""
    CANCELLING = "cancelling"
    """The server agreed to cancel `job_id`. Nobody waits for its end where a batch was left (`awaited`)."""
    WARNING = "warning"
    """Something that a person should know, and that ends nothing. It may cost money: a job that was not cancelled and
    goes on, questions that were asked before, what a journal may not have. Or it is odd: an unknown status, another
    model than was asked for. Or the server has not answered for eight seconds; told once, until it does."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened in a session. Which fields are set depends on `kind`; the rest keep their defaults.

    Attributes:
        kind: what happened.
        job_id, idempotency_key, tag, index: which submission, as on `Job`.
        api, model: the API, and the model or preset that was asked for; at its end the one that the server names.
        status: where the job stands.
        seconds: since the server accepted the submission; None before that, and of a job whose age nobody knows.
        polls: polls of this job so far.
        attempt: which HTTP exchange of this call, from 1.
        delay: seconds until the next one, or of silence.
        cost: US dollars, on FINISHED.
        usage: tokens and searches, on FINISHED; None if the server did not say.
        reason: a sentence for a person; no key and no prompt in it.
        fault: the class of fault, one of N, R, T, D, P (docs/reliability.md), on RETRYING and POLL_FAILED.
        awaited: whether anybody here waits for the job after this. False on SUBMITTED of `Session.submit`, on TIMED_OUT
            of the last who waited, on LEFT, and on CANCELLING of a batch that is left.
    """

    kind: EventKind
    job_id: str = ""
    idempotency_key: str = ""
    tag: str | int | None = None
    index: int | None = None
    api: str = ""
    model: str = ""
    status: JobStatus | None = None
    seconds: float | None = None
    polls: int = 0
    attempt: int = 0
    delay: float = 0.0
    cost: float | None = None
    usage: Usage | None = None
    reason: str = ""
    fault: str = ""
    awaited: bool = True


_LEVELS = {  # of the log; ends have the level of what they tell (`_level`)
    EventKind.STOPPED: logging.ERROR,
    EventKind.LEFT: logging.WARNING,
    EventKind.WARNING: logging.WARNING,
    EventKind.PAUSED: logging.WARNING,
    EventKind.RESUMED: logging.WARNING,
    EventKind.RETRYING: logging.INFO,
    EventKind.STALLED: logging.INFO,
    EventKind.POLL_FAILED: logging.INFO,
}


def _level(event: Event) -> int:
    if event.status is JobStatus.IN_DOUBT and event.kind in (EventKind.FINISHED, EventKind.LOADED):
        return logging.WARNING  # it may be paid for, and nobody will ever collect it unless somebody is told
    return _LEVELS.get(event.kind, logging.DEBUG)


class Emitter:
    """Delivers the events of one session.

    Args:
        on_event: the caller's handler, called with each event on the loop, synchronously. What it raises is logged,
            save `KeyboardInterrupt` and `SystemExit`.
    """

    __slots__ = ("_on_event", "_streams")

    def __init__(self, on_event: Callable[[Event], object] | None = None) -> None:
        self._on_event = on_event
        # Weak: a stream that its reader dropped in the midst is read by nobody any more.
        self._streams: weakref.WeakSet[EventStream] | None = None

    def has_handlers(self) -> bool:
        """Whether events of single submissions and polls are delivered to anybody; if not, they need not be made."""
        is_streamed = self._streams is not None and len(self._streams) > 0
        return self._on_event is not None or is_streamed or logger.isEnabledFor(logging.DEBUG)

    def stream(self, limit: int) -> EventStream:
        """A new stream of what happens from now on."""
        stream = EventStream(limit)
        if self._streams is None:
            self._streams = weakref.WeakSet()
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Nothing more happens: streams end once they are read."""
        for stream in self._streams or ():
            stream.end()

    def emit(self, event: Event, *, level: int | None = None) -> None:
        """Deliver an event. Raises nothing but `KeyboardInterrupt` and `SystemExit`.

        Args:
            event: it.
            level: of the log, in place of the kind's own.
        """
        level = _level(event) if level is None else level
        if logger.isEnabledFor(level):
            log(level, "%s%s", event.kind.value, _line(event), extra={"job_id": event.job_id})
        for stream in self._streams or ():
            stream.put(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                log(logging.ERROR, "on_event failed on %s", event.kind.value, exc_info=True)


class EventStream(AsyncIterator[Event]):
    """The events of a session from the call of `Session.events()` until the session is closed.

    A stream keeps at most so many events as were asked for. When its reader is slower than that, the oldest are dropped
    and counted in `missed`: a reader that hangs costs the session neither memory nor time. It is for one reader; others
    call `Session.events()` themselves.

    Attributes:
        missed: how many events were dropped so far because the reader was too slow.
    """

    def __init__(self, limit: int) -> None:
        self.missed: int = 0
        self._events: deque[Event] = deque(maxlen=limit)
        self._news = asyncio.Event()
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Ends with the session."""
        while not self._events:
            if self._is_closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()

    def put(self, event: Event) -> None:
        """An event happened."""
        if not self._is_closed:
            self.missed += len(self._events) == self._events.maxlen
            self._events.append(event)
            self._news.set()

    def end(self) -> None:
        """Nothing more happens."""
        self._is_closed = True
        self._news.set()


_broken_log_was_shown = False


def log(
    level: int, message: str, *args: object, exc_info: bool = False, extra: Mapping[str, object] | None = None
) -> None:
    """Write to the log of the package. Raises nothing but `KeyboardInterrupt` and `SystemExit`.

    A log handler or filter of the caller's that raises is shown on standard error, once, as `logging` itself does it
    with handlers that fail.
    """
    global _broken_log_was_shown
    try:
        logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=2)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if _broken_log_was_shown or not logging.raiseExceptions:
            return
        _broken_log_was_shown = True
        if sys.stderr is not None:  # as it is under pythonw
            traceback.print_exception(error, limit=-3)


def _line(event: Event) -> str:
    facts = [
        f"{name} {value}"
        for name, value in (
            ("job", event.job_id),
            ("key", event.idempotency_key),
            ("tag", event.tag),
            ("status", event.status),
            ("fault", event.fault),
            ("delay", f"{event.delay:.1f} s" if event.delay else ""),
        )
        if value not in ("", None)
    ]
    about = f" {', '.join(facts)}" if facts else ""
    return about + (f": {event.reason}" if event.reason else "")
