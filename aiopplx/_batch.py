"""One batch: submits the items of a source, and iterates over the finished jobs.

A batch owns its submitters, its source and its results, and nothing else; the session's poller polls its jobs. No more
items are read while `max_in_flight` of them are not handed out. This module knows nothing of HTTP or of how a
submission is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import types
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, cast

import anyio

from aiopplx._config import check_whole
from aiopplx._core.assembly import Core
from aiopplx._core.batch.asked import Repeats
from aiopplx._core.batch.board import BatchFollow
from aiopplx._core.batch.foreseeing import count_of_new, warning_of
from aiopplx._core.batch.results import Place, Results
from aiopplx._core.batch.source import Source, SourceEnded
from aiopplx._core.calls import Member
from aiopplx._core.leaving import leave
from aiopplx._core.loading import load
from aiopplx._core.outcomes import may_be_billed, state_of, stop_of
from aiopplx._errors import AiopplxError, BudgetReached, ConfigError, InvalidRequest
from aiopplx._events import Event, EventKind
from aiopplx._http.apart import is_ours
from aiopplx._http.line import SUBMITS_AT_ONCE
from aiopplx._job import Job, JobStatus, TagT
from aiopplx._policy.given import Frame
from aiopplx._policy.retry import Bounds
from aiopplx._submission import POLLABLE, Submission
from aiopplx._wire.request import Request, asked_in, meta_in
from aiopplx.journal._errors import JournalAway
from aiopplx.journal._names import Names
from aiopplx.journal._records import Claim, State

if TYPE_CHECKING:
    from aiopplx._core.batch.notebook import Shown
    from aiopplx.report._notebook import Standing

Item: TypeAlias = "str | Mapping[str, object] | Request"
Items: TypeAlias = "Iterable[Item] | AsyncIterable[Item] | Frame"

SUBMITTERS = 16
"""Submitters that a batch begins with. More are added while none of them waits at the gate, up to `SUBMITS_AT_ONCE`.
Where submissions wait there are no more than this: whoever comes after them would have to wait as long."""

_OF_ONE = (BudgetReached, JournalAway)
"""Errors of a STOPPED job that say nothing about the next one."""

_RUNS = itertools.count(1)
"""Numbers the batches of this process: a store keeps the items of each in the order of its source."""


class Batch(AsyncIterator[Job[TagT]], Generic[TagT]):
    """Submissions handed out together: `async with session.batch(questions) as jobs: async for job in jobs: ...`.

    Every item that is read from the source comes out exactly once, as a `Job`: finished, failed, refused, timed out or
    in doubt. An error that no job can survive (bad key, no credit, retired endpoint, no such server) ends the
    submissions: nothing that the source gives after it is taken. Jobs that were accepted before it are still waited for
    and handed out; then the error is raised. An error of the source itself is raised in the same way, unchanged.

    Several tasks may iterate over one batch. A job counts as delivered once the task that has it asks for its next one;
    until then, a session that begins again after a crash hands it out once more.

    Leaving the block, by `break`, by an exception or by cancellation, ends its work at once. Jobs that the server has
    continue there and are billed: `pending` lists them.
    """

    def __init__(
        self,
        core: Core,
        source: Items,
        *,
        ordered: bool,
        timeout: float,
        limit: int,
        cancel_on_exit: bool = False,
        is_bulk: bool = True,
        prefers_results: bool = False,
        run: str = "",
        tenant: str = "",
        reuse: float | None = None,
    ) -> None:
        self._core = core
        self._given = source
        self._timeout = timeout
        self._cancel_on_exit = cancel_on_exit
        self._source: Source[Item] | None = None
        store = core.life.store
        self._results = Results(
            ordered=ordered,
            is_stored=store.results != "refetch",
            unpark=lambda sub: core.life.poller.unpark(sub),
            now=core.client.clock.now,
            is_bulk=is_bulk,
        )
        number = next(_RUNS)
        # Of this batch alone: the same source given again is the same questions, whatever was asked in between.
        self._names = Names(f"{number:08x}{uuid.uuid4().hex[:6]}", run_name=run, tenant=tenant, reuse=reuse)
        self._needs_run = store.shares and not run
        self._repeats = Repeats(core.asked, number, source, core.freeze, self._warn) if core.asked is not None else None
        self._shown = _shown(core, self._results, source, number, limit)
        self._prefers_results = prefers_results
        self._count: int | None = None  # of a source that has a length, until its first question is sent
        self._member = Member(self.aclose, self._results.news.set)
        self._limit = limit
        self._room = anyio.Semaphore(limit)
        self._trouble: BaseException | None = None
        self._submitters: list[asyncio.Task[None]] = []
        self._in_hand = 0  # items that a submitter works at
        # The job that each consumer works at, by its task; under None, those of calls that are a task by themselves.
        self._last: dict[asyncio.Task[Any] | None, tuple[Claim, str, State]] = {}  # Any: whatever the task returns
        self._left: list[Job] = []
        self._state = "new"
        self._has_closed = asyncio.Event()

    # --- what users see ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise ConfigError("a batch can be entered once; make another with session.batch(...)")
        self._core.ensure_open()
        self._source = source = Source(self._given, self._was_read)
        self._count = await count_of_new(self._core, self._given)
        self._core.ensure_open()  # it may have been closed meanwhile
        self._state = "open"
        self._core.calls.members.add(self._member)
        self._core.client.line.turns.prefers_results += self._prefers_results
        self._core.life.live.unread.add(self)
        self._core.life.store.exhausted(False)
        if self._shown is not None:
            self._shown.began()
        loop = asyncio.get_running_loop()
        self._submitters = [loop.create_task(self._submitter(source)) for _ in range(min(SUBMITTERS, self._limit))]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job[TagT]:
        """The next finished job, in the order of finishing (or of the source, if so asked).

        Raises:
            AiopplxError: what ended the submissions, once all accepted jobs have been handed out.
        """
        if self._state == "new":
            raise ConfigError(
                "a batch is iterated inside its block: async with session.batch(...) as jobs: async for job in jobs"
            )
        while True:
            if self._state == "closed":
                raise ConfigError("the batch is closed: iterate it inside its block")
            place = self._results.next()
            if place is not None:
                return cast("Job[TagT]", await self._hand_out(place))
            self._deliver_last()
            if self._has_finished():
                raise self._last_word()
            news = self._results.news
            news.clear()
            await news.wait()

    @property
    def pending(self) -> list[Job[TagT]]:
        """Jobs that the server has accepted and this batch has not handed out, as last known.

        After the block was left: those that were left behind. Running jobs continue, and are billed, at the service;
        finished jobs have their results. A submission without an answer by then is among them, as `IN_DOUBT`.
        """
        running = [
            place.named(place.sub.as_job(JobStatus.IN_PROGRESS))
            for place in self._results.out
            if place.sub.phase in POLLABLE
        ]
        return cast("list[Job[TagT]]", [*self._left, *self._undelivered(), *running])

    def follow(self, *, limit: int = 1000) -> BatchFollow:
        """How each job stands now, then each change, to the last end: `async for update in jobs.follow(): ...`.

        For a progress page. Any number of readers may follow a batch, at any time: each is told the ends of the 1000
        jobs that ended last, how those stand that run, and then whenever a job is accepted, has found more, or ends.
        An update is about one job (`update.job.index`, `.tag`, `.id`). Of a job that has ended it has a summary, as
        `Session.list` gives: status, error and `seconds`, without the answer, the question and the caller's columns.
        The jobs themselves are handed out by the batch, so another task has to iterate it meanwhile.

        It ends after the end of the last job; and when the block is left, without an outcome of those that run.

        Args:
            limit: the most updates that are kept for a reader who is slower than the jobs: the latest of each job. Of
                more, the oldest goes, and is counted (`BatchFollow.missed`). Default 1000, some hundred bytes each and
                what a running job has found so far.

        Returns:
            An async iterator of `Update`.

        Raises:
            ConfigError: the block was not entered yet, or `limit` is no positive whole number.
        """
        if self._state == "new":
            raise ConfigError("a batch is followed inside its block: async with session.batch(...) as jobs")
        return self._results.follow(check_whole("limit", limit), self._is_all_told)

    def _is_all_told(self) -> bool:
        if self._state == "closed":
            return True
        return not self._submits_on() and (self._results.are_told or self._core.client.gate.polls_refused)

    async def aclose(self) -> None:
        """Stop submitting and polling, as leaving the block does.

        A submission that is on its way may be paid for, so its answer is waited for, at most `RetryPolicy.leave_grace`
        seconds.
        """
        if self._state == "new":
            self._state = "closed"
            return
        if self._state == "closed":
            await self._has_closed.wait()
            return
        self._state = "closed"
        self._left = self._undelivered()
        places = self._results.let_go()
        with anyio.CancelScope(shield=True):
            try:
                await leave(self._core.life, places, self._submitters, self._left)
            finally:
                await self._end()

    # --- in a notebook -----------------------------------------------------------------------------------------------

    def display(self) -> None:
        """In a notebook, show below the cell how far this batch has come, and keep that up to date until it is left.

            async with session.batch(questions) as jobs:
                jobs.display()
                done = [job async for job in jobs]

        It is updated at most twice a second and needs no further package. Elsewhere, in a terminal or a script, it does
        nothing. A batch that is the last value of a cell is shown once, as it is at that moment.
        """
        if self._shown is not None:
            self._shown.display(self)

    def __repr__(self) -> str:
        if getattr(self, "_has_closed", None) is None:
            return "<Batch that is being made>"  # shown by a traceback with variables
        if self._shown is None:
            return f"<Batch: {self._results.handed_out:,} of {self._results.placed:,} read items handed out>"
        standing = self._standing(self._shown)
        return f"<{standing.title}: {', '.join(word for word, _ in standing.words())}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: counts, a bar and what was paid; no question and no answer."""
        if self._shown is None:  # another program that knows this method
            from html import escape  # all names of characters

            return f"<pre>{escape(repr(self))}</pre>"
        return self._shown.card(self._standing(self._shown))

    def _standing(self, shown: Shown) -> Standing:
        source = self._source
        is_read = source is not None and source.is_exhausted and source.error is None
        is_over = self._state == "closed" or (is_read and self._results.is_empty)
        return shown.standing(self._results.placed, self._left, is_read=is_read, is_over=is_over)

    # --- handing out -------------------------------------------------------------------------------------------------

    async def _hand_out(self, place: Place) -> Job:
        self._deliver_last()
        job = place.job
        if job is None:
            try:
                job = await load(self._core.life, place)
            except BaseException:
                self._results.put_back(place)
                raise
            self._results.read_back(place, job)
            self._deliver_last()  # again: meanwhile another call, a task by itself, may have had one of its own
        if place.sub.claim is not None and (state := state_of(job)) is not None:
            self._last[_consumer()] = place.sub.claim, place.sub.key, state
        self._room.release()
        self._results.count_handed_out()
        if self._shown is not None:
            self._shown.count(place, job)
        return job

    def _deliver_last(self) -> None:
        """Mark the last job of this consumer as delivered: it asks for the next one. After a crash before this it is
        handed out again.
        """
        if not self._last:
            return
        me = _consumer()
        for consumer in list(self._last):
            # One that has ended asks for nothing any more: each call may come from a task of its own.
            if consumer is None or consumer is me or consumer.done():
                self._core.life.store.delivered(*self._last.pop(consumer))

    def _was_read(self) -> None:
        """The source was read to its end. The store is told once no other batch of this session reads one."""
        unread = self._core.life.live.unread
        unread.discard(self)
        if not unread:
            self._core.life.store.exhausted(True)

    def _has_finished(self) -> bool:
        if self._submits_on():
            return False
        return self._results.is_empty or self._core.client.gate.polls_refused

    def _submits_on(self) -> bool:
        """Whether something more may be submitted, or is about to be."""
        # A submitter that only waits for an item which is not wanted any more holds up nobody.
        return bool(self._in_hand) or (self._may_submit() and any(not task.done() for task in self._submitters))

    def _last_word(self) -> BaseException:
        """What ends the iteration: the end of the jobs, the source's own error, or what stopped the session."""
        source = self._source
        trouble = self._trouble
        if trouble is None and source is not None:
            trouble, source.error = source.error, None
            if trouble is None and not self._results.is_empty:
                stop = self._core.client.gate.stop
                trouble = stop.about() if stop is not None else None
        self._trouble = None
        if trouble is None:
            return StopAsyncIteration()
        running = sum(place.sub.phase in POLLABLE for place in self._results.out)
        if running and isinstance(trouble, AiopplxError):
            trouble = trouble.about()
            trouble.message += (
                f". {running} accepted jobs could not be collected; they go on at the service"
                " (batch.pending has their ids)"
            )
        return trouble

    # --- submitting --------------------------------------------------------------------------------------------------

    async def _submitter(self, source: Source[Item]) -> None:
        task = asyncio.current_task()
        try:
            while self._may_submit() and not self._is_one_too_many(task):
                # Cheaper than to ask twice whether there is a queue, which is what `acquire` does.
                if self._room.value:
                    self._room.acquire_nowait()
                else:
                    await self._room.acquire()
                    if not self._may_submit():
                        self._room.release()
                        return
                try:
                    index, item = await source.read(self._may_submit)
                except SourceEnded:
                    self._room.release()
                    return
                if self._state != "open" or self._trouble is not None:
                    return  # it came while the batch was being left
                self._in_hand += 1
                self._call_another(source)
                try:
                    await self._submit(index, item, task)
                finally:
                    self._in_hand -= 1
        except BaseException as error:
            # Nobody of ours cancels one while the batch is open: its source did, or whoever cancels every task.
            if self._state == "open" or not isinstance(error, asyncio.CancelledError) or not is_ours(task):
                self._trouble = self._trouble or error
            raise
        finally:
            self._results.news.set()

    def _call_another(self, source: Source[Item]) -> None:
        """Have one more submitter if all have a submission, none of these waits, and there is room for one more job:
        more may be on the way.
        """
        count = len(self._submitters)
        is_enough = self._in_hand < count or count >= SUBMITS_AT_ONCE or not self._room.value
        if not is_enough and not self._core.client.line.submits_wait:
            self._submitters.append(asyncio.get_running_loop().create_task(self._submitter(source)))

    def _is_one_too_many(self, task: asyncio.Task[None] | None) -> bool:
        """Whether this submitter is more than a batch begins with, and submissions wait all the same. It then ends."""
        if len(self._submitters) <= SUBMITTERS or not self._core.client.line.submits_wait or task is None:
            return False
        self._submitters.remove(task)
        return True

    def _may_submit(self) -> bool:
        source = self._source
        return self._state == "open" and self._trouble is None and source is not None and not source.is_exhausted

    async def _submit(self, index: int, item: Item, task: asyncio.Task[None] | None) -> None:
        core = self._core
        try:
            sub = core.freeze(item, index=index, timeout=self._timeout)
        except InvalidRequest as error:
            self._refuse(index, item, error)
            return
        except BaseException as error:  # a request of the caller's own class may fail in any way when it is read
            self._refuse(index, item, InvalidRequest(f"the item cannot be read: {type(error).__name__}"))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return
        if self._needs_run and sub.tag is None:
            missing = _run_has_no_name()
            self._refuse(index, item, InvalidRequest(missing.message))
            self._trouble = self._trouble or missing
            return
        if self._repeats is not None:
            self._repeats.look(sub)
        if self._count is not None:
            self._foresee(sub, self._count)
        place = self._results.place(sub, index)
        core.life.listen(place)
        await core.life.submit(sub, self._names, Bounds.within(sub.timeout), task)
        job = place.job
        if job is not None and job.status is JobStatus.STOPPED and not isinstance(job.error, _OF_ONE):
            self._trouble = self._trouble or stop_of(job, core.client.gate.stop)
            self._results.news.set()  # a submitter that waits for its source may never come to say so

    def _foresee(self, sub: Submission, count: int) -> None:
        self._count = None
        at_once, prefers_results = self._limit, self._prefers_results
        if reason := warning_of(self._core, sub, count, at_once=at_once, prefers_results=prefers_results):
            self._warn(reason)

    def _refuse(self, index: int, item: Item, error: InvalidRequest) -> None:
        life = self._core.life
        sub = Submission(life.routing.api, "", tag=error.tag, index=index)
        place = self._results.place(sub, index)
        # Of a request of the caller's own class it may fail again.
        with contextlib.suppress(Exception):
            place.asked, place.meta = asked_in(item), meta_in(item)
        life.listen(place)
        life.reject(sub, error)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _undelivered(self) -> list[Job]:
        """Jobs that ended at the server, or may exist there, and were not handed out."""
        return [job for job in self._results.undelivered() if may_be_billed(job)]

    async def _end(self) -> None:
        ending: set[str] = set()
        try:
            await self._close_source()
            if self._cancel_on_exit:
                from aiopplx._core.job.cancelling import cancel_all  # seldom asked for

                await cancel_all(self._core.life, self._left, ending)
        finally:
            self._core.calls.members.discard(self._member)
            self._core.life.live.unread.discard(self)
            self._core.client.line.turns.prefers_results -= self._prefers_results
            self._has_closed.set()
            self._core.life.announcer.left_jobs.tell(
                (job for job in self._left if job.id not in ending), are_known=True
            )
            if self._shown is not None:
                self._shown.ended()

    async def _close_source(self) -> None:
        try:
            if self._source is not None:
                await self._source.close()
        except BaseException as error:
            is_mine = isinstance(error, asyncio.CancelledError) and is_ours(asyncio.current_task())
            if is_mine or isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                raise
            self._warn(f"the source failed while it was closed: {type(error).__name__}")

    def _warn(self, reason: str) -> None:
        self._core.emitter.emit(Event(kind=EventKind.WARNING, reason=reason))


def _consumer() -> asyncio.Task[Any] | None:
    """Who asks for a job: the task, or None for a call in a task of its own, as `asyncio.wait_for` makes them: the next
    call of that consumer comes from another one, so that any call is taken for it.
    """
    task = asyncio.current_task()
    return None if task is None or getattr(task.get_coro(), "cr_code", None) is _NEXT else task


_NEXT = Batch.__anext__.__code__


def _run_has_no_name() -> ConfigError:
    return ConfigError(
        "is missing: in a journal that several sessions share, questions without a tag belong to a run, by whose name"
        " they are found again. Nothing was sent",
        argument="run",
        remedy='JournalOptions(url, run="2026-11") or batch(run="2026-11") names it; or give each question a tag',
    )


def _shown(core: Core, results: Results, given: object, number: int, at_once: int) -> Shown | None:
    """What counts a batch, where this process may be a notebook's: elsewhere nobody looks at it."""
    if "IPython" not in sys.modules and "marimo" not in sys.modules:
        return None
    from aiopplx._core.batch.notebook import Shown

    return Shown(core, results, given, number, at_once)
