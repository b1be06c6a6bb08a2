"""Everything known about one submission: its phase, its facts, and who listens for its outcome.

The life of a submission
------------------------
A submission is one request under one idempotency key. It begins as NEW, is written down (QUEUED), is sent (SENDING),
and in the good case the server accepts it (RUNNING) and polls bring its outcome (FINISHED). The other phases are the
ways in which this goes wrong, or was done before: an attempt whose outcome is unknown (UNANSWERED, RESENDING), a result
that an earlier run has already stored (STORED) or has thrown away (REFETCHING), a second submission of something that
is already running here (MERGED), one whose row another session holds (FOLLOWING), and one that nobody waits for any
more (DETACHED).

A phase refines a state of the journal's row; it does not replace it. Four phases stand on the row state SENDING,
because a crash makes no difference between them and a running session does. `ROWS` says which row states each phase
stands on, and a test proves that every transition of `NEXT` is a step of the journal's table or none. A phase changes
after the store's step has returned, never before: whoever is cancelled in between leaves the more cautious of the two
behind.

Wanting a result is not progress. A time limit, a slot of `max_in_flight`, a tag and an index belong to a `Listener`;
the submission itself has none of them. One submission can have many listeners, and one that has none is not retried.

Only `_core.lifecycle` calls `to` and writes these facts. This module knows nothing of how a submission is sent, polled
or written down.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from aiopplx._events import Event, EventKind
from aiopplx._job import Job, JobStatus, Snapshot, make_job
from aiopplx._wire.kinds import Kind
from aiopplx.journal._records import Claim, Origin, State

if TYPE_CHECKING:
    from aiopplx._errors import AiopplxError
    from aiopplx._policy.polling import Polls
    from aiopplx._wire.api import API
    from aiopplx._wire.call import Call
    from aiopplx._wire.request import Request


class Phase(enum.IntEnum):
    """How far a submission has come in this session. An `IntEnum`, because a plain one hashes in Python code."""

    NEW = 0
    """Not written down yet, or to be looked up anew; no promise was made to anybody."""
    FOLLOWING = 1
    """Another session holds its row: what that one makes of it is the outcome here too."""
    QUEUED = 2
    """Written down. Nothing was sent, or everything that was sent was refused: nothing was paid."""
    SENDING = 3
    """An attempt is on the wire, or its answer is being written down. It may be paid for."""
    UNANSWERED = 4
    """An attempt was sent and its outcome is unknown: a job may exist. Nothing is on the wire."""
    RESENDING = 5
    """The same bytes are on the wire again, after an attempt whose outcome is unknown."""
    RUNNING = 6
    """The server has it, under `job_id`; it is polled as long as somebody listens."""
    REFETCHING = 7
    """It ended in an earlier run and its result is not stored: polled, and nothing is written at its end."""
    STORED = 8
    """It ended in an earlier run; the store reads the result back when it is handed out."""
    FINISHED = 9
    """Its outcome is known and was delivered."""
    MERGED = 10
    """Another submission of this session has its job; its listeners moved there."""
    DETACHED = 11
    """Nobody listens any more. What runs at the server goes on, and is billed."""


NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.NEW: frozenset({
        Phase.FOLLOWING,
        Phase.QUEUED,
        Phase.UNANSWERED,
        Phase.RUNNING,
        Phase.REFETCHING,
        Phase.STORED,
        Phase.FINISHED,
        Phase.MERGED,
        Phase.DETACHED,
    }),
    Phase.FOLLOWING: frozenset({Phase.NEW, Phase.FINISHED, Phase.DETACHED}),
    Phase.QUEUED: frozenset({Phase.NEW, Phase.SENDING, Phase.FINISHED, Phase.DETACHED}),
    Phase.SENDING: frozenset({
        Phase.NEW,
        Phase.QUEUED,
        Phase.UNANSWERED,
        Phase.RUNNING,
        Phase.FINISHED,
        Phase.MERGED,
        Phase.DETACHED,
    }),
    Phase.UNANSWERED: frozenset({Phase.NEW, Phase.RESENDING, Phase.FINISHED, Phase.DETACHED}),
    Phase.RESENDING: frozenset({
        Phase.NEW,
        Phase.UNANSWERED,
        Phase.RUNNING,
        Phase.FINISHED,
        Phase.MERGED,
        Phase.DETACHED,
    }),
    Phase.RUNNING: frozenset({Phase.NEW, Phase.FINISHED, Phase.DETACHED}),
    Phase.REFETCHING: frozenset({Phase.FINISHED, Phase.DETACHED}),
    Phase.STORED: frozenset(),
    Phase.FINISHED: frozenset(),
    Phase.MERGED: frozenset(),
    Phase.DETACHED: frozenset(),
}
"""From each phase, the phases that may follow it. NEW follows where another session took the row, and where a row that
was followed is over or free: it is looked up anew."""

_FINAL_ROWS = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.REJECTED})
ROWS: Mapping[Phase, frozenset[State | None]] = {
    Phase.NEW: frozenset({None, *State}),
    Phase.FOLLOWING: frozenset(State),
    Phase.QUEUED: frozenset({State.QUEUED}),
    Phase.SENDING: frozenset({State.SENDING}),
    Phase.UNANSWERED: frozenset({State.SENDING, State.IN_DOUBT}),
    Phase.RESENDING: frozenset({State.SENDING}),
    Phase.RUNNING: frozenset({State.ACCEPTED, State.SENDING}),
    Phase.REFETCHING: _FINAL_ROWS,
    Phase.STORED: _FINAL_ROWS,
    Phase.FINISHED: frozenset({State.QUEUED, State.SENDING, State.ACCEPTED, State.IN_DOUBT, *_FINAL_ROWS}),
    Phase.MERGED: frozenset({None, *State}),
    Phase.DETACHED: frozenset({None, *State}),
}
"""The row states that each phase stands on; None: the store has no row. RUNNING stands on SENDING where the acceptance
could not be written down."""

ON_WIRE = frozenset({Phase.SENDING, Phase.RESENDING})
"""Whoever leaves now waits a moment for the answer: it may name a job that is paid for."""
DOUBTFUL = frozenset({Phase.SENDING, Phase.UNANSWERED, Phase.RESENDING})
"""A job may exist whose id is not known."""
POLLABLE = frozenset({Phase.RUNNING, Phase.REFETCHING})
"""There is a job at the server to ask for."""
TERMINAL = frozenset({Phase.STORED, Phase.FINISHED, Phase.MERGED, Phase.DETACHED})
"""Nothing more happens to it in this session."""

_RUNS_ON = (JobStatus.CREATED, JobStatus.IN_PROGRESS, JobStatus.TIMED_OUT)
"""Of a job that stands so it can be foretold when it ends."""

# One number for each phase: whether a transition is allowed is one shift, on the way of every submission.
_MAY_FOLLOW = tuple(sum(1 << after for after in NEXT[phase]) for phase in Phase)


class Listener(msgspec.Struct, eq=False, kw_only=True):
    """Somebody who waits for the outcome of a submission: a place in a batch, or a call.

    Attributes:
        tag, index: the listener's own names for the job: one job may be wanted under two tags.
        deadline: monotonic seconds at which this listener stops waiting; the job does not.
        takes_slot: whether it counts towards `max_in_flight`.
        has_slot: whether it has a slot now.
        asked: the question in the listener's own words; `""` if it asked by an id.
        meta: the listener's own columns.
        is_late: it asked for a job that already existed, and may come back for it.
        is_bulk: it is one of many, and those who wait for a single job go first.
        context: where it began to wait, such as a web request with its span and its id for the log.
    """

    sub: Submission
    tag: str | int | None
    index: int | None = None
    deadline: float = math.inf
    takes_slot: bool = False
    has_slot: bool = False
    is_late: bool = False
    asked: str = ""
    meta: dict[str, Any] = {}
    is_bulk: bool = False
    context: Context = msgspec.field(default_factory=copy_context)

    def has_room(self) -> bool:
        """Whether it can accept one more result. If not, it asks for a poll (`Poller.unpark`) once it can."""
        return True

    def polled(self, snapshot: Snapshot | None) -> None:
        """A poll ended and the job runs on: the room that `has_room` set aside is free again.

        Args:
            snapshot: what the poll brought; None if it brought nothing usable.
        """

    def accepted(self, snapshot: Snapshot) -> None:
        """The server accepted the submission; `snapshot` is its answer."""

    def deliver(self, job: Job | None) -> None:
        """Receive the outcome: None if it is in the store and is read back when it is handed out. Must not raise."""

    def named(self, job: Job) -> Job:
        """The job under this listener's own names, question and columns."""
        if job.tag == self.tag and job.index == self.index and job.question == self.asked and job.meta is self.meta:
            return job
        return msgspec.structs.replace(
            under(job, self.tag), index=self.index, question=self.asked or job.question, meta=self.meta or job.meta
        )


def under(job: Job, tag: str | int | None) -> Job:
    """The job, and its error, under this tag in place of another listener's."""
    error = job.error
    if error is not None:
        error = error.about()
        error.tag = tag
    return msgspec.structs.replace(job, tag=tag, error=error)


Named: TypeAlias = tuple[str, bytes, Origin | None]
"""The name of a row, the digest of its request, and where that comes from."""


class Submission(msgspec.Struct, eq=False):
    """One request under one idempotency key.

    Attributes:
        api: the API that it goes, or went, to.
        key: its idempotency key.
        body: the exact bytes that every attempt sends; dropped once the server has them.
        request: what the bytes were made from; dropped with them.
        kind: what kind of job it asks for; nothing is known of one whose bytes are not.
        timeout: seconds that a job of it may take, for the listener that made it.
        tag, index: the names it began with, for events and the journal. A job is handed out under its listener's own.
        phase: how far it has come.
        row, claim: its row in the store and the right to write it; 0 and None for a job that the store does not know.
        marks: how many times the store was told, over all sessions, that an attempt may leave.
        attempts: attempts that were sent in this session.
        job_id: the server's id, `""` before.
        deadline: monotonic seconds at which no further attempt is made; 0.0 before the first.
        call, polls: how it is polled, built once, and what is known of its polls so far.
        listeners: who waits for it.
        runner: the task that sends it; None when that is done.
        job: its outcome, if it ended and nobody was listening.
        was_elsewhere: another session has held its row since it began here.
        is_told: its end, and its cost, were told before: by an earlier run, or by another session.
        named: what its row was looked for by; None if it began with a row.
    """

    api: API
    key: str
    body: bytes = b""
    request: Request | None = None
    kind: Kind = Kind()
    timeout: float = math.inf
    tag: str | int | None = None
    index: int | None = None
    phase: Phase = Phase.NEW
    row: int = 0
    claim: Claim | None = None
    marks: int = 0
    attempts: int = 0
    job_id: str = ""
    deadline: float = 0.0
    call: Call | None = None
    polls: Polls | None = None
    listeners: tuple[Listener, ...] = ()
    runner: asyncio.Task[None] | None = None
    job: Job | None = None
    was_elsewhere: bool = False
    is_told: bool = False
    named: Named | None = None

    def to(self, phase: Phase) -> None:
        """Enter the next phase; `_core.lifecycle` is the only caller.

        Raises:
            RuntimeError: `NEXT` has no such transition: a fault in this library.
        """
        if not _MAY_FOLLOW[self.phase] >> phase & 1:
            raise RuntimeError(f"a submission that is {self.phase.name} cannot become {phase.name}")
        self.phase = phase

    @property
    def waits_for_a_slot(self) -> bool:
        """Whether it is a job of an earlier run that is not polled yet: `max_in_flight` jobs run as it is."""
        return self.phase in POLLABLE and self.runner is not None

    @property
    def is_bulk(self) -> bool:
        """Whether all who wait for it are bulk: one who waits for it alone makes it urgent."""
        listeners = self.listeners
        if len(listeners) == 1:
            return listeners[0].is_bulk
        return all(listener.is_bulk for listener in listeners)

    def first_deadline(self) -> float:
        """Monotonic seconds at which the first of its listeners stops waiting; infinite if none does."""
        listeners = self.listeners
        if len(listeners) == 1:
            return listeners[0].deadline
        return min((listener.deadline for listener in listeners), default=math.inf)

    def time_limit(self) -> float:
        """The same, at the latest the end of the time that the job may take, which has begun."""
        return min(self.first_deadline(), self.deadline)

    @property
    def last_deadline(self) -> float:
        """Monotonic seconds at which the last of its listeners stops waiting."""
        return max((listener.deadline for listener in self.listeners), default=math.inf)

    def event(
        self,
        kind: EventKind,
        now: float,
        *,
        status: JobStatus | None = None,
        delay: float = 0.0,
        cost: float | None = None,
        reason: str = "",
        fault: str = "",
        awaited: bool = True,
    ) -> Event:
        """An event about it at this moment (monotonic seconds), under the names that it began with."""
        polls = self.polls
        return Event(
            kind=kind,
            job_id=self.job_id,
            idempotency_key=self.key,
            tag=self.tag,
            index=self.index,
            api=self.api.name,
            model=self.kind.model,
            status=status,
            seconds=now - polls.since if polls is not None and polls.has_age else None,
            polls=polls.count if polls is not None else 0,
            attempt=self.attempts,
            delay=delay,
            cost=cost,
            reason=reason,
            fault=fault,
            awaited=awaited,
        )

    def as_job(
        self,
        status: JobStatus,
        error: AiopplxError | None = None,
        snapshot: Snapshot | None = None,
        seconds: float | None = None,
    ) -> Job:
        """The value that users get, under the names that it began with. Its error, if any, has the same names.

        Question and columns are the first listener's: nearly always there is no other.
        """
        first = self.listeners[0] if self.listeners else None
        return make_job(
            self.job_id,
            status,
            error,
            snapshot,
            api=self.api.name,
            key=self.key,
            tag=self.tag,
            index=self.index,
            question=first.asked if first is not None else "",
            meta=first.meta if first is not None else None,
            seconds=seconds,
            attempts=self.attempts,
            polls=self.polls.count if self.polls is not None else 0,
            eta=self.polls.eta() if self.polls is not None and status in _RUNS_ON else None,
        )

    def __repr__(self) -> str:
        # Without the question, which the body and the request have in them.
        return f"Submission({self.phase.name}, key={self.key!r}, job_id={self.job_id!r}, attempts={self.attempts})"
