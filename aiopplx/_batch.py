"""One batch: reads a source lazily, submits what it reads, and is the async iterator of finished jobs.

A batch owns its submitters and its queue, nothing else; the session's poller watches its jobs. Memory is bounded by
what the consumer has not taken yet: nothing more is read while `max_in_flight` items are out, and nothing more is
polled while the queue is full. This module knows nothing of aiohttp or of how a submission is retried.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import types
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Self, TypeAlias, cast

import anyio
import msgspec

from aiopplx._core.engine import Engine
from aiopplx._core.watch import Watch, make_job
from aiopplx._errors import AiopplxError, BudgetReached, ConfigError, InDoubt, InvalidRequest
from aiopplx._events import Event, EventKind
from aiopplx._job import Job, JobStatus
from aiopplx._submission import Submission
from aiopplx._wire.request import Request

Item: TypeAlias = "str | Mapping[str, object] | Request"
Items: TypeAlias = "Iterable[Item] | AsyncIterable[Item]"

SUBMITTERS = 16
# Finished results held in memory for a consumer that is slower than the service. Any further ones wait at the server.
READY = 32


class _Ended(msgspec.Struct, frozen=True):
    """A job that ended; without `job`, the journal has it."""

    index: int
    job: Job | None
    sub: Submission | None


class _End(Exception):
    pass


class Batch(AsyncIterator[Job]):
    """Submissions watched together: `async with session.batch(questions) as jobs: async for job in jobs: ...`.

    Every item that is read from the source comes out exactly once, as a `Job`: finished, failed, refused, timed out or
    in doubt. What no job can survive (bad key, no credit, retired endpoint, no such server) ends the submissions; what
    was accepted by then is still waited for and handed out, and then that error is raised. An error of the source
    itself is raised the same way, bare.

    Leaving the block, by `break`, by an exception or by cancellation, ends its work at once. Jobs that the server has
    go on there and are billed: `pending` tells which.
    """

    def __init__(
        self, engine: Engine, source: Items, *, ordered: bool, timeout: float, limit: int, cancel_on_exit: bool = False
    ) -> None:
        self._engine = engine
        self._given = source
        self._is_async = isinstance(source, AsyncIterable)
        self._ordered = ordered
        self._timeout = timeout
        self._limit = limit
        self._cancel_on_exit = cancel_on_exit
        self._iterator: Iterator[Item] | AsyncIterator[Item] | None = None
        self._reading = asyncio.Lock()
        self._room = anyio.Semaphore(limit)
        self._news = asyncio.Event()
        self._read = 0
        self._taken = 0
        self._exhausted = False
        self._trouble: BaseException | None = None
        self._submitters: list[asyncio.Task[None]] = []
        self._sending: dict[Submission, asyncio.Task[None]] = {}
        self._watches: dict[Watch, Submission] = {}
        self._parked: list[tuple[int, Watch]] = []
        self._looking: set[Watch] = set()
        self._ready: deque[_Ended] = deque()
        self._ready_by_index: dict[int, _Ended] = {}
        self._last: Submission | None = None
        self._left: list[Job] = []
        self._state = "new"
        self._ended = asyncio.Event()

    # --- what users see ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise ConfigError("a batch can be entered once; make another with session.batch(...)")
        self._engine.open()
        self._iterator = _iterator_of(self._given)
        self._state = "open"
        self._engine.batches.add(self)
        self._engine.unread(True)
        loop = asyncio.get_running_loop()
        self._submitters = [loop.create_task(self._submitter()) for _ in range(min(SUBMITTERS, self._limit))]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job:
        """The next finished job, in the order of finishing (or of the source, if so asked).

        Raises:
            AiopplxError: what ended the submissions, after all that was accepted has been handed out.
        """
        if self._state == "new":
            raise ConfigError(
                "a batch is iterated inside its block: async with session.batch(...) as jobs: async for job in jobs"
            )
        while True:
            if self._state == "closed":
                raise ConfigError("the batch is closed: iterate it inside its block")
            ended = self._next_ready()
            if ended is not None:
                return await self._hand_out(ended)
            self._took_last()
            if self._is_over():
                raise self._last_word()
            self._news.clear()
            await self._news.wait()

    @property
    def pending(self) -> list[Job]:
        """Jobs that the server has accepted and this batch has not handed out, as last known.

        After the block was left: those that were left behind. What runs goes on, and is billed, at the service; what
        had finished has its result. A submission whose answer never came in that time is there too, `IN_DOUBT`.
        """
        return [*self._left, *self._held(), *(self._as_pending(watch) for watch in self._watches)]

    async def aclose(self) -> None:
        """Stop submitting and watching; what leaving the block does.

        A submission that is on its way is waited for, for at most `RetryPolicy.leave_grace`, so that its id is known:
        it may be paid for.
        """
        if self._state == "new":
            self._state = "closed"
            return
        if self._state == "closed":
            await self._ended.wait()
            return
        self._state = "closed"
        self._news.set()
        looks = self._forget()
        with anyio.CancelScope(shield=True):
            try:
                await self._let_ids_come()
            finally:
                await self._end(looks)

    def wake(self) -> None:
        """Something changed for the whole session: look again."""
        self._news.set()

    # --- handing out -------------------------------------------------------------------------------------------------

    def _next_ready(self) -> _Ended | None:
        if self._ordered:
            return self._ready_by_index.pop(self._taken, None)
        return self._ready.popleft() if self._ready else None

    async def _hand_out(self, ended: _Ended) -> Job:
        self._took_last()
        job, sub = ended.job, ended.sub
        if job is None and sub is not None:
            try:
                job = await self._engine.load(sub)
            except BaseException:
                self._put_back(ended)
                raise
        self._last = sub
        self._taken += 1
        self._room.release()
        self._unpark()
        return cast("Job", job)

    def _took_last(self) -> None:
        """Asking for the next one says that the last one was dealt with: a crash before that hands it out again."""
        if self._last is not None:
            self._engine.taken(self._last)
            self._last = None

    def _put_back(self, ended: _Ended) -> None:
        if self._ordered:
            self._ready_by_index[ended.index] = ended
        else:
            self._ready.appendleft(ended)

    def _put(self, index: int, job: Job | None, sub: Submission | None = None) -> None:
        """A job ended. What the journal has is read back when it is taken, beyond the few that are kept at hand."""
        held = len(self._ready) + len(self._ready_by_index)
        kept = held >= READY and self._engine.stores_results and sub is not None and sub.claim is not None
        ended = _Ended(index, None if kept and job is not None and job.ok else job, sub)
        if self._ordered:
            self._ready_by_index[index] = ended
        else:
            self._ready.append(ended)
        self._news.set()

    def _is_over(self) -> bool:
        submitting = any(not task.done() for task in self._submitters)
        if not submitting and self._taken == self._read:
            return True
        return self._engine.client.gate.looks_refused and not submitting

    def _last_word(self) -> BaseException:
        """What ends the iteration: nothing, the source's own error, or what stopped the session."""
        trouble = self._trouble
        if trouble is None and self._taken < self._read:
            stop = self._engine.client.gate.stop
            trouble = stop.about() if stop is not None else None
        self._trouble = None
        if trouble is None:
            return StopAsyncIteration()
        if self._watches and isinstance(trouble, AiopplxError):
            trouble = trouble.about()
            trouble.message += (
                f". {len(self._watches)} accepted jobs could not be collected; they go on at the service"
                " (batch.pending has their ids)"
            )
        return trouble

    # --- the sink of the poller --------------------------------------------------------------------------------------

    def may_look(self, watch: Watch) -> bool:
        """Room for one more result? The next one in order always has it, or the order could never go on."""
        sub = self._watches.get(watch)
        if sub is None:
            return False
        if self._engine.stores_results:
            return True
        held = len(self._ready) + len(self._ready_by_index) + len(self._looking)
        index = sub.index or 0
        if held >= READY and not (self._ordered and index == self._taken):
            heapq.heappush(self._parked, (index, watch))
            return False
        self._looking.add(watch)
        return True

    def looked(self, watch: Watch) -> None:
        """A look ended and the job runs on."""
        self._looking.discard(watch)
        self._unpark()

    def done(self, watch: Watch, job: Job) -> None:
        """A job ended."""
        self._looking.discard(watch)
        self._watches.pop(watch, None)
        self._put(job.index or 0, job, watch.sub)

    def _unpark(self) -> None:
        if self._parked:
            _, watch = heapq.heappop(self._parked)
            self._engine.poller.unpark(watch)

    # --- submitting --------------------------------------------------------------------------------------------------

    async def _submitter(self) -> None:
        try:
            while self._may_submit():
                # Cheaper than to ask twice whether there is a queue, which is what `acquire` does.
                if self._room.value:
                    self._room.acquire_nowait()
                else:
                    await self._room.acquire()
                if self._read % SUBMITTERS == 0:
                    await asyncio.sleep(0)  # a long list must not hold the loop
                try:
                    item = await self._next_awaited() if self._is_async else self._next()
                except _End:
                    self._room.release()
                    return
                index = self._read
                self._read += 1
                sub = self._frozen(index, item)
                if sub is not None:
                    await self._send(index, sub)
        finally:
            self._news.set()

    def _may_submit(self) -> bool:
        return self._state == "open" and not self._exhausted and self._trouble is None

    def _next(self) -> Item:
        if not self._may_submit():
            raise _End
        try:
            return next(cast("Iterator[Item]", self._iterator))
        except (Exception, asyncio.CancelledError) as error:
            self._reading_ended(error)
            raise _End from None

    async def _next_awaited(self) -> Item:
        async with self._reading:
            if not self._may_submit():
                raise _End
            try:
                return await anext(cast("AsyncIterator[Item]", self._iterator))
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                self._reading_ended(error)
                raise _End from None

    def _reading_ended(self, error: BaseException) -> None:
        if isinstance(error, StopIteration | StopAsyncIteration):
            self._exhausted = True
            self._engine.unread(False)
        else:
            # The user's own: it ends the reading, and comes out bare after what is paid was handed out.
            self._trouble = error

    def _frozen(self, index: int, item: Item) -> Submission | None:
        """What is to be sent; None if the item was refused, which is its outcome."""
        try:
            return self._engine.freeze(item, index=index, timeout=self._timeout)
        except InvalidRequest as error:
            self._refuse(index, error)
        except Exception as error:  # an item of the user's own making, which fails when it is read
            self._refuse(index, InvalidRequest(f"the item cannot be read: {type(error).__name__}"))
        return None

    async def _send(self, index: int, sub: Submission) -> None:
        try:
            over = await self._engine.begin(sub)
            if over is not None:
                self._ended_early(over, sub)
            elif sub.stored:
                self._put(index, None, sub)
            else:
                await self._submit(sub)
        finally:
            self._engine.let_go(sub)

    async def _submit(self, sub: Submission) -> None:
        slots = self._engine.slots
        if slots.value:
            slots.acquire_nowait()
        else:
            await slots.acquire()
        self._sending[sub] = cast("asyncio.Task[None]", asyncio.current_task())
        watching = False
        try:
            outcome = await self._engine.submit(sub, patience=float("inf"))
            if isinstance(outcome, Job):
                self._ended_early(outcome, sub)
                return
            watch = self._engine.watch_of(sub, outcome, self)
            watching = watch.holds_slot = True
            self._accepted(watch, sub)
        finally:
            del self._sending[sub]
            if not watching:
                slots.release()

    def _refuse(self, index: int, error: InvalidRequest) -> None:
        job = Job(status=JobStatus.REJECTED, error=error, tag=error.tag, index=index)
        self._engine.client.tell(
            Event(kind=EventKind.FINISHED, tag=job.tag, index=index, status=job.status, reason=error.message)
        )
        self._put(index, job)

    def _ended_early(self, job: Job, sub: Submission) -> None:
        """There is nothing to watch: refused, in doubt, stopped, or finished in the answer to the submission."""
        if job.status is JobStatus.STOPPED and self._trouble is None and not isinstance(job.error, BudgetReached):
            self._trouble = self._engine.stop_of(job)
        if self._state == "closed":
            if job.id or isinstance(job.error, InDoubt):
                self._left.append(job)
            return
        self._put(sub.index or 0, job, sub)

    def _accepted(self, watch: Watch, sub: Submission) -> None:
        self._watches[watch] = sub
        if self._state == "closed":
            self._left.append(self._as_pending(watch))
            del self._watches[watch]
            self._engine.release(watch)
            self._engine.unwatched(sub)
        else:
            self._engine.watch(watch)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _as_pending(self, watch: Watch) -> Job:
        return make_job(watch.job_id, JobStatus.IN_PROGRESS, None, None, watch.sub, looks=watch.looks)

    def _held(self) -> list[Job]:
        """Jobs of the server's that ended and were not taken."""
        ended = (*self._ready, *self._ready_by_index.values())
        jobs = [one.job for one in ended if one.job is not None]
        return [job for job in jobs if job.id or isinstance(job.error, InDoubt)]

    def _forget(self) -> list[asyncio.Task[None]]:
        """Let go of everything that can be let go of at once. Returns the looks that were out."""
        self._left = self.pending
        looks = self._engine.poller.drop(list(self._watches))
        self._watches.clear()
        self._parked.clear()
        self._ready.clear()
        self._ready_by_index.clear()
        for sub in self._sending:
            sub.leaving = True
        out = self._out()
        for task in self._submitters:
            if task not in out:
                task.cancel()
        return looks

    def _out(self) -> dict[asyncio.Task[None], Submission]:
        """Submissions that are on the wire at this moment."""
        return {task: sub for sub, task in self._sending.items() if sub.sending}

    async def _let_ids_come(self) -> None:
        out = self._out()
        if out:
            await asyncio.wait(out, timeout=self._engine.grace())

    async def _end(self, looks: list[asyncio.Task[None]]) -> None:
        self._left += [self._engine.unanswered(sub) for sub in self._out().values()]
        tasks = [*looks, *self._submitters]
        for task in tasks:
            task.cancel()
        ending: set[str] = set()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close_source()
            if self._cancel_on_exit:
                await self._engine.cancel_all(self._left, ending)
        finally:
            self._engine.batches.discard(self)
            self._ended.set()
            for job in self._left:
                if not job.id or not (job.done or job.id in ending):
                    self._engine.left(job)

    async def _close_source(self) -> None:
        """End a generator that was not read to its end: nobody else will, and it may hold a file or a cursor."""
        iterator = self._iterator
        try:
            if isinstance(iterator, types.AsyncGeneratorType):
                await iterator.aclose()
            elif inspect.isgenerator(iterator):
                iterator.close()
        except Exception as error:
            self._engine.client.tell(
                Event(kind=EventKind.WARNING, reason=f"the source failed while it was closed: {type(error).__name__}")
            )


def _is_cancelled() -> bool:
    """Is it this task that is being cancelled, and not something that a source of the user's waits for?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _iterator_of(source: Items) -> Iterator[Item] | AsyncIterator[Item]:
    if isinstance(source, (str, bytes, Mapping, Request)):
        raise InvalidRequest(
            "a batch takes an iterable of questions; for a single one use session.ask(question) or batch([question])"
        )
    if isinstance(source, AsyncIterable):
        return aiter(source)
    try:
        return iter(source)
    except TypeError:
        raise InvalidRequest(
            f"a batch takes an iterable or async iterable of questions, not {type(source).__name__}"
        ) from None
