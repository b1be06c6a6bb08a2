"""Tells what becomes of submissions and jobs, and counts them: the end of each is told once, however often it is asked
for in a session.

This module knows nothing of why something happened, or of who hears of it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from aiopplx._errors import AiopplxError
from aiopplx._events import Emitter, Event, EventKind, log
from aiopplx._http.clock import Clock
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._policy.retry import Fault
from aiopplx._submission import Listener, Submission
from aiopplx._text.amounts import many
from aiopplx.apis._registry import Routing
from aiopplx.journal._errors import JournalError
from aiopplx.journal._unwritten import Unwritten, latest, meaning

FEW = 10
"""Up to so many jobs that are left at once have a line of the log each; more have one line together."""
IN_A_LINE = 100
"""Ids in one line of the log."""
REMEMBERED = 10_000
"""Jobs whose end is remembered to have been told, and jobs that were only submitted and are to be told at the end."""
_COUNTED, _TOLD = 1, 2
"""What is done once about the end of a job."""


class Announcer:
    """Makes the events of one session's submissions.

    Args:
        emitter: delivers them.
        clock: measures the age of jobs.
        has_journal: ids can be found again by a later session.
        is_awaited: whether anybody here waits for the job with this id.

    Attributes:
        accepted: how many submissions the server accepted.
        ended: how many submissions ended, by what they ended as.
        left_jobs: tells of those that nobody here waits for any more.
    """

    __slots__ = (
        "_clock",
        "_ended",
        "_is_store_broken",
        "accepted",
        "emitter",
        "ended",
        "left_jobs",
    )

    def __init__(self, emitter: Emitter, clock: Clock, *, has_journal: bool, is_awaited: Callable[[str], bool]) -> None:
        self.emitter: Emitter = emitter
        self.accepted: int = 0
        self.ended: dict[JobStatus, int] = {}
        self._clock = clock
        self.left_jobs: LeftJobs = LeftJobs(emitter, has_journal=has_journal, is_awaited=is_awaited)
        self._ended: OrderedDict[str, int] = OrderedDict()  # by id, or else by key: what was done about each end
        self._is_store_broken = False

    def warn(self, sub: Submission, reason: str) -> None:
        """Something went wrong with it, and it goes on."""
        self.emitter.emit(sub.event(EventKind.WARNING, self._clock.now(), reason=reason))

    def went_over(self, routing: Routing, error: AiopplxError) -> None:
        """The first API is retired for the key, and the session's questions go to the next one."""
        was, now = routing.first.name, routing.api.name
        reason = f"the {was} API is retired for this key ({error.type}); going on with {now}"
        self.emitter.emit(Event(kind=EventKind.WARNING, reason=reason))

    def was_rephrased(self, sub: Submission, error: AiopplxError) -> None:
        """It was refused for a word that the server does not know, and is sent in other words."""
        self.emitter.emit(sub.event(EventKind.RETRYING, self._clock.now(), delay=0.0, reason=error.message))

    def was_accepted(self, sub: Submission, snapshot: Snapshot, asked: str | None, now: float) -> None:
        """The server has it. `asked` is the model that it asked for, where the answer names one."""
        self.accepted += 1
        if self.emitter.has_handlers():
            # A call of `submit` returns with the acceptance; it waits for no slot either.
            awaited = any(listener.takes_slot or listener.is_late for listener in sub.listeners)
            self.emitter.emit(sub.event(EventKind.SUBMITTED, now, status=snapshot.status, awaited=awaited))
        if asked and snapshot.model and asked != snapshot.model:
            self.warn(sub, f"asked for model {asked[:80]!r}, the server says {snapshot.model[:80]!r}")

    def has_ended(self, job: Job, *, is_told: bool = False) -> None:
        """A submission ended in this session, or before: an earlier run or another session has told it (`is_told`)."""
        if self._is_news(job, _COUNTED):
            self.ended[job.status] = self.ended.get(job.status, 0) + 1
        left_jobs = self.left_jobs
        if left_jobs.withheld or left_jobs.submitted:
            left_jobs.has_ended(job)
        if job.status is JobStatus.IN_DOUBT or self.emitter.has_handlers():
            self.end_of(job, is_told=is_told)

    def end_of(self, job: Job, *, is_told: bool) -> None:
        """How it ended. Only the first time is told, by its id, or else by its key; its cost only if it was not told.

        What becomes of one that another session has in hand may stay unknown here: that is the end of no submission.
        """
        if (is_told and job.status is JobStatus.STOPPED) or not self._is_news(job, _TOLD):
            return
        kind = EventKind.LOADED if is_told else EventKind.FINISHED
        event = _event_of(job, kind, job.error.message if job.error is not None else "")
        usage = job.usage if not is_told else None
        cost = usage.cost if usage is not None else None
        facts = {"seconds": job.seconds, "polls": job.polls, "attempt": job.attempts, "cost": cost, "usage": usage}
        self.emitter.emit(msgspec.structs.replace(event, **facts))

    def _is_news(self, job: Job, what: int) -> bool:
        """Whether this was not done before about the end of the job, among the last ones; it is from now on."""
        name, ended = job.id or job.idempotency_key, self._ended
        done = ended.get(name, 0)
        if done & what:
            return False
        if name:
            ended[name] = done | what
            if len(ended) > REMEMBERED:
                ended.popitem(last=False)
        return True

    def timed_out(self, sub: Submission, overdue: Sequence[Listener], reason: str) -> None:
        """These listeners wait for it no more, each under its own names, and each has its id."""
        self.left_jobs.timed_out(sub.job_id)
        event = sub.event(EventKind.TIMED_OUT, self._clock.now(), status=JobStatus.TIMED_OUT, reason=reason)
        for remaining, listener in zip(range(len(overdue))[::-1], overdue, strict=True):
            awaited = bool(remaining or sub.listeners)
            told = msgspec.structs.replace(event, tag=listener.tag, index=listener.index, awaited=awaited)
            listener.context.copy().run(self.emitter.emit, told)  # whatever timer this is

    def cancelling(self, job: Job, *, awaited: bool) -> None:
        """The server agreed to cancel it. `awaited`: its end is waited for here."""
        self.emitter.emit(msgspec.structs.replace(_event_of(job, EventKind.CANCELLING), awaited=awaited))

    def not_cancelled(self, job: Job, error: AiopplxError) -> None:
        """The server did not agree, and it goes on."""
        self.emitter.emit(_event_of(job, EventKind.WARNING, f"not cancelled: {error.message}"))

    def store_failed(self, error: JournalError) -> bool:
        """A store that fails ends what is to be sent by this session, and by no other of the account. True if news."""
        if self._is_store_broken:
            return False
        self._is_store_broken = True
        self.emitter.emit(Event(kind=EventKind.STOPPED, reason=error.message, fault=Fault.STOP.value))
        return True

    def store_works(self) -> None:
        """It has taken a step: whoever was told that it had failed is told, and if it fails again, that is news."""
        if self._is_store_broken:
            self._is_store_broken = False
            self.emitter.emit(Event(kind=EventKind.RESUMED, reason="the journal works again"))


class LeftJobs:
    """Tells of the jobs that nobody in this session waits for any more, each once: they go on, and are billed.

    Args:
        emitter: delivers the events.
        has_journal: ids can be found again by a later session.
        is_awaited: whether anybody here waits for the job with this id.

    Attributes:
        withheld: jobs that one has left and another still waits for: told once the last one leaves, unless they end.
        submitted: jobs that were only submitted: nobody waits for them until somebody asks for them by their id.
    """

    __slots__ = ("_emitter", "_has_journal", "_is_awaited", "_named", "submitted", "withheld")

    def __init__(self, emitter: Emitter, *, has_journal: bool, is_awaited: Callable[[str], bool]) -> None:
        self.withheld: dict[str, Job] = {}  # no more than are waited for
        self.submitted: OrderedDict[str, None] = OrderedDict()
        self._emitter = emitter
        self._has_journal = has_journal
        self._is_awaited: Callable[[str], bool] = is_awaited
        self._named: OrderedDict[str, None] | None = None  # ids that were logged since the session began to end

    def tell(self, jobs: Iterable[Job], *, are_known: bool = False) -> None:
        """Nobody here waits for these any more. Those that are billed, or may be, are told.

        Each has an event. In the log, many that go on are one line, at whose level a person sees it.

        Args:
            jobs: them.
            are_known: the caller has their ids, or finds them in `batch.pending`: those that have ended are not told.
        """
        going: list[Job] = []
        unnamed: dict[str, None] = {}
        for job in jobs:
            if job.id and not job.done and self._is_awaited(job.id):
                self.withheld[job.id] = job  # whoever waits still hears of its end, or leaves it in turn
                continue
            self.withheld.pop(job.id, None)
            self.submitted.pop(job.id, None)
            if job.id and goes_on(job):
                going.append(job)
                if self._is_unnamed(job.id):
                    unnamed[job.id] = None
            elif not job.id and not job.ok:
                self._emitter.emit(_left_of(job, "may exist, and be billed, at the service"))
            elif not are_known:
                self._emitter.emit(_left_of(job, self._where_its_outcome_is(job)))
        is_many = len(unnamed) > FEW
        if is_many:
            self._sum_up(list(unnamed))
            unnamed = {}
        for job in going:
            event = _left_of(job, "goes on, and is billed, at the service")
            self._emitter.emit(event, level=None if job.id in unnamed else logging.DEBUG)
            unnamed.pop(job.id, None)  # others may have waited for the same job

    def _where_its_outcome_is(self, job: Job) -> str:
        """Where to find the outcome of a job that ended as its call was left."""
        said = "has ended as its call was left, and may be billed; nobody had its outcome: "
        if job.id:
            where = "the journal or the service" if self._has_journal else "the service"
            return f"{said}{where} has it, and session.wait() with its id collects it"
        where = "the journal has it, under its key" if self._has_journal else "it was not kept"
        return f"{said}{where}, and there is no id by which the service could be asked for it"

    def nobody_waits(self, job_id: str) -> None:
        """The last one who waited for it by its id has left. Who left it before, while they waited, was not told."""
        if self.withheld and (job := self.withheld.pop(job_id, None)) is not None:
            self.tell([job])

    def was_only_submitted(self, job_id: str) -> None:
        """A call returned while it runs, with its id. Nobody waits for it until somebody asks for it by that id."""
        if self._has_journal:
            return  # which has the id
        submitted = self.submitted
        submitted[job_id] = None
        if len(submitted) > REMEMBERED:
            submitted.popitem(last=False)

    def is_over(self, job_id: str) -> None:
        """This job has ended."""
        self.submitted.pop(job_id, None)

    def has_ended(self, job: Job) -> None:
        """How this one ended is told for itself."""
        self.withheld.pop(job.id, None)
        if not goes_on(job):
            self.is_over(job.id)

    def timed_out(self, job_id: str) -> None:
        """Somebody's time limit for it is up, and that is told for itself."""
        if self.withheld and not self._is_awaited(job_id):
            self.withheld.pop(job_id, None)

    def tell_submitted(self) -> None:
        """The session ends: the ids of those that were only submitted may be nowhere else, either."""
        ids, self.submitted = [each for each in self.submitted if self._is_unnamed(each)], OrderedDict()
        if ids:
            self._sum_up(ids)

    def session_ends(self) -> None:
        """The session ends, or is about to. From here on each id that goes on at the service is logged once."""
        if self._named is None:
            self._named = OrderedDict()

    def program_stops(self, job_ids: Iterable[str]) -> None:
        """The program is told to stop: log the ids of the jobs that run here, and of those that were only submitted."""
        self.session_ends()
        ids = [each for each in {**dict.fromkeys(job_ids), **self.submitted} if self._is_unnamed(each)]
        for at in range(0, len(ids), IN_A_LINE):
            some = ids[at : at + IN_A_LINE]
            go_on = "1 job goes on, and is" if len(some) == 1 else f"{len(some)} jobs go on, and are"
            log(logging.WARNING, f"stopping; {go_on} billed, at the service: %s", " ".join(some))

    def _is_unnamed(self, job_id: str) -> bool:
        """Whether its id is to be logged, since it was not yet in the end of this session."""
        named = self._named
        if named is None:
            return True
        if job_id in named:
            return False
        named[job_id] = None
        if len(named) > REMEMBERED:
            named.popitem(last=False)
        return True

    def _sum_up(self, ids: list[str]) -> None:
        if self._has_journal:
            log(logging.WARNING, f"{_left(len(ids))}; the journal has their ids, and the same questions collect them")
            return
        # Their ids may be nowhere else.
        for at in range(0, len(ids), IN_A_LINE):
            some = ids[at : at + IN_A_LINE]
            log(logging.WARNING, f"{_left(len(some))}: %s", " ".join(some))


def store_left(emitter: Emitter, name: str, unwritten: Iterable[Unwritten]) -> None:
    """A session is left, and its store has not answered: what may not be written, and what that means.

    Args:
        emitter: delivers the events.
        name: of the journal, as people call it.
        unwritten: steps that it was given.
    """
    each = latest(unwritten)
    reason = f"left without the journal ({name}), which does not answer: its disk stalls, or the store hangs."
    if each:
        what = f"{len(each)} submissions" if len(each) != 1 else "one submission"
        reason += (
            f" What is known of {what} may not be written. If it comes back while this process runs, it still writes"
            " that, and is in use until then."
        )
    else:
        reason += " It is in use until it comes back, or this process ends."
    reason += " Begin again with the same journal"
    emitter.emit(Event(kind=EventKind.STOPPED, reason=reason, fault=Fault.STOP.value))
    for one in each:
        emitter.emit(Event(kind=EventKind.WARNING, job_id=one.job_id, idempotency_key=one.key, reason=meaning(one)))


def _left(count: int) -> str:
    which = "which goes on, and is billed" if count == 1 else "which go on, and are billed"
    return f"left {many(count, 'job')}, {which}, at the service"


def goes_on(job: Job) -> bool:
    """Whether a job that nobody waits for any more goes on, or may go on, at the service."""
    return not job.id or not job.done or job.status is JobStatus.TIMED_OUT


def _left_of(job: Job, reason: str) -> Event:
    return msgspec.structs.replace(_event_of(job, EventKind.LEFT, reason), awaited=False)


def _event_of(job: Job, kind: EventKind, reason: str = "") -> Event:
    return Event(
        kind=kind,
        job_id=job.id,
        idempotency_key=job.idempotency_key,
        tag=job.tag,
        index=job.index,
        api=job.api,
        model=job.model,
        status=job.status,
        reason=reason,
    )
