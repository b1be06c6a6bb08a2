"""What users hold: opens and closes all the rest, and turns their words into the engine's.

This module knows nothing of aiohttp's requests, of retries or of how jobs are polled.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import os
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import aiohttp
import anyio
import msgspec

from aiopplx._apis import request_of
from aiopplx._batch import Batch, Item, Items
from aiopplx._config import find_apis, find_base_url, find_key, find_rule, one_of, positive, usable, whole
from aiopplx._core.assembly import Opened, Settings, make_engine, open_journal
from aiopplx._core.engine import Engine
from aiopplx._core.keeper import Keeper, OnDoubt
from aiopplx._core.listing import JobList
from aiopplx._core.waiting import Waiter, Waiting
from aiopplx._core.watch import Watch, make_job, outcome_error
from aiopplx._errors import AiopplxError, APIError, ConfigError, InvalidRequest, JobError
from aiopplx._events import Event, EventKind
from aiopplx._http.clock import Clock
from aiopplx._job import Job, JobStatus, named_by
from aiopplx._policy.polling import PollPolicy, PollRule
from aiopplx._policy.retry import RetryPolicy
from aiopplx._submission import Submission
from aiopplx._wire.api import API
from aiopplx._wire.request import Request, ResearchRequest
from aiopplx.journal._protocol import Journal, Results

logger = logging.getLogger("aiopplx")
logger.addHandler(logging.NullHandler())

MIB = 1024 * 1024
CANCEL_TAKES = 3.0
"""Seconds after an accepted cancel at which the job is looked at: looks go on to say `in_progress` for a moment."""
_ENDED_AT_SERVER = frozenset({JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INCOMPLETE, JobStatus.REJECTED})


class Session:
    """Deep-research jobs at Perplexity: submitted many at once, polled together, handed out as they finish.

    One session for the life of a program or a web app: all that it does shares one connection pool, one poller and one
    gate (rate, pauses, cool-down), which sessions with the same key share too. Use it as `async with Session() as
    session:`, or call `await session.aclose()` at the end. It belongs to the event loop that it is first used on.

    Args:
        api_key: the API key. Default: `PERPLEXITY_API_KEY`, then `PPLX_API_KEY`, from the environment.
        base_url: the server, `https` (plain `http` only to this machine). Default: `PERPLEXITY_BASE_URL`, then
            `https://api.perplexity.ai`. An `aiopplx.emulator.Emulator`'s `url` goes here.
        api: `"sonar"` for `/async/chat/completions`, `"sonar-v1"` for its twin `/v1/async/sonar`; `"agent"` for
            `/v1/responses`, `"agent-v1"` for its twin `/v1/agent`; `"auto"`, the default, is Sonar until the server
            says that it is retired for this key, then the Agent API. `AIOPPLX_API` sets it too. See docs/apis.md.
        rpm: submissions a minute, evenly spaced. Default None: as fast as the server takes them, learnt from its 429s.
        max_in_flight: jobs running at the service at once, over all batches and calls. Default 1000.
        timeout: seconds for each job, from its first attempt to its result. Default 3600: jobs take 3 to 6 minutes,
            and one in a hundred gets stuck. A job that times out here goes on at the service.
        poll: when to look at a running job: a `PollPolicy`, or a function from a `Look` to seconds. Default: nothing
            for 30 seconds, then every 10 (`PollPolicy`).
        http: an `aiohttp.ClientSession` of yours, for proxies or TLS of your own. It is never closed here.
        on_event: called with every `Event`, on the loop, synchronously: keep it short. Its exceptions are logged.
        journal: a file that makes all of it durable: what was submitted under which key, what became of it, and every
            result. The same program run again goes on where it was and pays for nothing twice. Or an open `Journal` of
            your own. A session with a journal is opened with `async with`.
        results: what the journal does with results: `"keep"` them (default), keep them `"until_taken"`, or store none
            and `"refetch"` them from the server, which has them for days.
        same_account: the API key is another one of the account that the journal belongs to, which is refused otherwise:
            jobs of another account cannot be collected.
        on_doubt: what happens to a submission that left and was not answered: `"resend"` the same bytes under the same
            key, `"hold"` it for you to decide. Default: resend where the API honours keys (Sonar), hold where it has
            none (the Agent API), since there a second sending may be a second bill.
        retry_failed: submit what failed, expired or was refused in an earlier run again, under a new key.
        max_cost: US dollars that may be spent; with a journal, over all its runs. Each running job holds what such jobs
            have cost (the 95th percentile of what was seen, $1.30 before 20 have ended); when no more fits, what runs
            is collected and the rest comes out as `STOPPED`. Default None: no bound.
        retry: bounds on trying again, and time limits of one exchange (`RetryPolicy`).
        max_response_bytes: an answer larger than this, decompressed, is not read. Default 64 MiB.
        allow_insecure: allow `http` to another machine.

    Raises:
        ConfigError: no key, or a key, a URL or a number that cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        api: str | None = None,
        rpm: float | None = None,
        max_in_flight: int = 1000,
        timeout: float = 3600.0,
        poll: PollPolicy | PollRule | None = None,
        http: aiohttp.ClientSession | None = None,
        on_event: Callable[[Event], object] | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        results: Results = "keep",
        same_account: bool = False,
        on_doubt: OnDoubt | None = None,
        retry_failed: bool = False,
        max_cost: float | None = None,
        retry: RetryPolicy | None = None,
        max_response_bytes: int = 64 * MIB,
        allow_insecure: bool = False,
        _clock: Clock | None = None,
    ) -> None:
        self._engine: Engine | None = None
        self._closed = False
        api_now, successor = find_apis(api)
        self._settings = Settings(
            key=find_key(api_key),
            base_url=find_base_url(base_url, allow_insecure=allow_insecure),
            api=api_now,
            successor=successor,
            rpm=positive("rpm", rpm) if rpm is not None else None,
            max_in_flight=whole("max_in_flight", max_in_flight),
            timeout=positive("timeout", timeout),
            rule=find_rule(poll),
            http=usable("http", http, "request", "an aiohttp.ClientSession"),
            journal=journal
            if isinstance(journal, (str, os.PathLike))
            else usable("journal", journal, "find_or_queue", "a path or an open Journal"),
            results=one_of("results", results, ("keep", "until_taken", "refetch")),
            same_account=same_account,
            on_doubt=one_of("on_doubt", on_doubt, (None, "resend", "hold")),
            retry_failed=retry_failed,
            max_cost=positive("max_cost", max_cost) if max_cost is not None else None,
            retry=usable("retry", retry, "delay", "a RetryPolicy") or RetryPolicy(),
            max_response_bytes=whole("max_response_bytes", max_response_bytes),
            clock=_clock or Clock(),
        )
        self._on_event = usable("on_event", on_event, "__call__", "a function that takes an Event")
        self._clock = self._settings.clock
        self._timeout = self._settings.timeout
        self._retry = self._settings.retry
        self._opened: Opened | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._waiting: Waiting | None = None

    # --- opening and closing -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._opened is None:
            self._opened = await open_journal(self._settings)
        try:
            self._running()
        except BaseException:
            await self._close_journal()
            raise
        return self

    async def _close_journal(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End everything: batches, waiting calls, polls, connections. Jobs at the service go on there."""
        engine, self._engine = self._engine, None
        self._closed = True
        if engine is None:
            return
        # A cancelled anyio scope would cancel each await here anew, and leave connections open.
        with anyio.CancelScope(shield=True):
            async with contextlib.AsyncExitStack() as stack:  # each is closed, also if another fails or is cancelled
                stack.push_async_callback(self._close_journal)
                stack.push_async_callback(engine.client.transport.close)
                await engine.aclose()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None:
            warnings.warn(
                f"{self!r} was never closed: use 'async with' or 'await session.aclose()'", ResourceWarning, 2
            )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._engine else "new"
        return f"<Session {self._settings.api.name} at {self._settings.base_url}, {state}>"

    def _open(self) -> None:
        self._running()

    def _running(self) -> Engine:
        """The engine, started at the first use; refuses a use that cannot work, with the reason."""
        if self._closed:
            raise ConfigError("the session is closed; make another")
        if self._engine is not None and self._pid != os.getpid():
            raise ConfigError("the session was opened before this process forked; open one in each process")
        loop = _running_loop()
        if self._engine is not None:
            if self._loop is not loop:
                raise ConfigError("the session belongs to another event loop; open one in each loop")
            return self._engine
        if self._opened is None and self._settings.journal is not None:
            raise ConfigError(
                "a session with a journal is opened as a block: async with Session(journal=...) as session"
            )
        self._loop, self._pid = loop, os.getpid()
        self._engine = make_engine(
            self._settings, self._opened, tell=self._tell, listened=self._is_heard, open=self._open
        )
        self._waiting = Waiting(self._engine.poller, self._clock, self._engine.waiters)
        return self._engine

    @property
    def base_url(self) -> str:
        """The server that is asked, without a trailing slash."""
        return self._settings.base_url

    @property
    def limits(self) -> Mapping[str, int]:
        """What the server last said of this key's requests (`x-ratelimit-*`): `limit`, `remaining`, `used`, and `reset`
        in seconds since 1970. Empty as long as it has said nothing; the Agent API says it on every answer.
        """
        return self._engine.client.limits if self._engine is not None else {}

    # --- many jobs ---------------------------------------------------------------------------------------------------

    def batch(
        self,
        source: Items,
        *,
        ordered: bool = False,
        timeout: float | None = None,
        max_in_flight: int | None = None,
        cancel_on_exit: bool = False,
    ) -> Batch:
        """Submit everything that `source` gives and hand out each job as it finishes.

        Args:
            source: an iterable or async iterable of questions, mappings of request fields, or `ResearchRequest`s; read
                lazily, as there is room. A plain iterable is read on the loop, so its `next` should not block for long.
                A generator that is not read to its end is closed with the block.
            ordered: hand out in the order of the source; then a slow job holds up later ones, which wait at the server.
            timeout: seconds for each job of this batch; default the session's.
            max_in_flight: items that may be read and not yet handed out; default the session's. The session's own bound
                on running jobs holds over all batches together.
            cancel_on_exit: leaving the block asks the server to cancel what still runs, where the API can (the Agent
                API). Default False: what is left goes on, and can be collected later.

        Returns:
            A `Batch`, to be entered: `async with session.batch(questions) as jobs: async for job in jobs: ...`
        """
        engine = self._running()
        return Batch(
            engine,
            source,
            ordered=ordered,
            timeout=positive("timeout", timeout) if timeout is not None else self._timeout,
            limit=whole("max_in_flight", max_in_flight) if max_in_flight is not None else self._settings.max_in_flight,
            cancel_on_exit=cancel_on_exit,
        )

    # --- one job -----------------------------------------------------------------------------------------------------

    async def ask(
        self,
        question: Item,
        *,
        tag: str | int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **fields: Any,  # the fields of ResearchRequest, checked by it
    ) -> Job:
        """Submit one question, wait, return its job.

        Args:
            question: the question, or a whole request.
            tag: comes back on the job.
            idempotency_key: your own key; default: a new one.
            timeout: seconds for all of it; default the session's.
            fields: any further field of `ResearchRequest`, such as `reasoning_effort="high"`.

        Returns:
            The job, whatever became of it: look at `job.ok`, or call `job.result()` to have its error raised.

        Raises:
            InvalidRequest: the request breaks a rule; nothing was sent.
            AuthenticationError, OutOfCredit, EndpointRetired, TransportError: nothing can be submitted; nothing was
            billed.
        """
        engine = self._running()
        sub = engine.freeze(
            _request(question, tag, idempotency_key, timeout, fields), index=None, timeout=self._timeout
        )
        until = self._clock.now() + sub.timeout
        try:
            return await self._asked(engine, sub, until)
        finally:
            engine.let_go(sub)

    async def _asked(self, engine: Engine, sub: Submission, until: float) -> Job:
        try:
            async with asyncio.timeout(sub.timeout / self._clock.speed):
                over = await engine.begin(sub)
        except TimeoutError:
            return make_job("", JobStatus.REJECTED, _same_under_way(), None, sub)
        if over is None and sub.stored:
            over = await engine.load(sub)
        if over is not None:
            engine.taken(sub)
            return _raised_if_mine(over)
        if not await self._slot(engine, sub.timeout):
            return make_job("", JobStatus.REJECTED, _no_slot(), None, sub)
        try:
            outcome = await engine.submit_owned(sub, patience=self._retry.patience, until=until)
        except BaseException:
            engine.slots.release()
            raise
        if isinstance(outcome, Job):
            engine.slots.release()
            return _raised_if_mine(outcome)
        waiter = Waiter(engine.waiters.discard)
        watch = engine.watch_of(sub, outcome, waiter)
        watch.holds_slot = True
        waiter.watch = watch
        engine.watch(watch)
        job = await self._await(engine, waiter, watch)
        engine.taken(sub)
        return job

    async def _slot(self, engine: Engine, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds / self._clock.speed):
                await engine.slots.acquire()
        except TimeoutError:
            return False
        return True

    async def _await(self, engine: Engine, waiter: Waiter, watch: Watch) -> Job:
        done = False
        engine.waiters.add(waiter)
        try:
            job = await waiter.wait(None)
            done = True
            return cast("Job", job)
        finally:
            engine.waiters.discard(waiter)
            if not done:
                tasks = engine.poller.drop([watch])
                engine.left(make_job(watch.job_id, JobStatus.IN_PROGRESS, None, None, watch.sub))
                await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(
        self,
        question: Item,
        *,
        tag: str | int | None = None,
        idempotency_key: str | None = None,
        **fields: Any,  # the fields of ResearchRequest, checked by it
    ) -> Job:
        """Submit one question and return its job as soon as the server has it; `wait(job)` or `wait(job.id)` later.

        Arguments as for `ask`. A job that is only submitted does not count towards `max_in_flight`.

        Raises:
            InvalidRequest: the request breaks a rule; nothing was sent.
            InDoubt: a job may exist whose id is unknown.
            AiopplxError: the server refused it, or nothing could be sent; nothing was billed.
        """
        engine = self._running()
        sub = engine.freeze(_request(question, tag, idempotency_key, None, fields), index=None, timeout=self._timeout)
        try:
            over = await engine.begin(sub)
            if over is None and sub.stored:
                over = await engine.load(sub)
            if over is not None:
                return over if over.id else over.result()
            return await self._submit(engine, sub)
        finally:
            engine.let_go(sub)

    async def _submit(self, engine: Engine, sub: Submission) -> Job:
        outcome = await engine.submit_owned(sub, patience=self._retry.patience, until=self._clock.now() + sub.timeout)
        if isinstance(outcome, Job):
            return outcome if outcome.id else outcome.result()
        engine.unwatched(sub)
        return make_job(outcome.id, outcome.status, None, outcome, sub)

    async def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:
        """Wait for a job that exists, of this session or of any other: polled with all the others.

        Any number of callers may wait for one job; it is polled once for all of them.

        Args:
            job: a `Job`, or the id or the token of one.
            timeout: seconds from now; default the session's.

        Returns:
            The job, whatever became of it (`TIMED_OUT` if it still runs then).

        Raises:
            InvalidRequest: that is no job id.
        """
        engine = self._running()
        if isinstance(job, Job):
            if job.ok or not job.id or (job.error is not None and job.status in _ENDED_AT_SERVER):
                return job
            job_id, key, tag, api = job.id, job.idempotency_key, job.tag, engine.api_of(job.id, job.api)
        else:
            named = named_by(job)
            job_id, api = named.job_id, engine.api_of(named.job_id, named.api)
            key, tag = engine.known(job_id)
            key = key or named.idempotency_key
        found = await engine.found(job_id)
        if found is not None:
            if found.raw:
                return found
            key, tag, api = found.idempotency_key, found.tag, engine.api_of(job_id, found.api)
        seconds = positive("timeout", timeout) if timeout is not None else self._timeout
        waiting = cast("Waiting", self._waiting)
        try:
            ended = await waiting.wait(api, job_id, seconds)
        except AiopplxError as error:
            raise error.about(job_id=job_id, idempotency_key=key, tag=tag) from None
        return _with_names(ended, key, tag)

    async def get(self, id: str) -> Job:
        """Look at a job once.

        Args:
            id: the server's id, or the token of a job or of an error.

        Raises:
            NotFound: the server knows no such job (it keeps results for 7 days).
            InvalidRequest: that is no job id.
            AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
        """
        engine = self._running()
        named = named_by(id)
        return await self._look(engine, engine.api_of(named.job_id, named.api), named.job_id)

    async def _look(self, engine: Engine, api: API, id: str) -> Job:
        key, tag = engine.known(id)
        found = await engine.found(id)
        if found is not None:
            if found.raw:
                return found
            key, tag, api = found.idempotency_key, found.tag, engine.api_of(id, found.api)
        snapshot = await engine.client.call(api.get(id), lambda reply: api.read_job(reply, id))
        return make_job(id, snapshot.status, outcome_error(snapshot), snapshot, None, api=api.name, key=key, tag=tag)

    def list(self, *, limit: int | None = None) -> JobList:
        """The account's jobs, as summaries without results: `async for job in session.list()`, or `await` it.

        Args:
            limit: at most so many jobs; default all. Pages are followed as far as needed.

        Raises (when read):
            AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
        """
        engine = self._running()
        return JobList(engine, engine.api, whole("limit", limit) if limit is not None else None)

    async def cancel(self, job: Job | str) -> Job:
        """Cancel a running job at the server, where the API can (the Agent API), and wait until it has ended.

        Args:
            job: a `Job`, or the id of one. What it has searched for by then is billed.

        Returns:
            The job as it ended: `CANCELLED`, or `COMPLETED` if it was faster. A job that had ended before is returned
            as it is, and nothing is asked of the server but a look.

        Raises:
            InvalidRequest: the API has no cancellation (Sonar has none: the job goes on and is billed).
            NotFound: the server knows no such job.
        """
        engine = self._running()
        job_id, name = (job.id, job.api) if isinstance(job, Job) else named_by(job)[:2]
        api = engine.api_of(job_id, name)
        call = api.cancel(job_id)
        # The server says "already terminal" of finished and of unknown ids alike, so look before asking.
        found = await self._look(engine, api, job_id)
        if found.done:
            return found
        try:
            await engine.client.call(call, api.read_cancel)
        except APIError as error:
            found = await self._look(engine, api, job_id)
            if not found.done:
                raise error.about(job_id=job_id) from None
            return found
        engine.client.tell(Event(kind=EventKind.CANCELLING, job_id=job_id, tag=found.tag))
        await self._clock.sleep(CANCEL_TAKES)
        return await self.wait(found)

    # --- what is in doubt --------------------------------------------------------------------------------------------

    async def in_doubt(self) -> builtins.list[Job]:
        """Submissions of the journal that left and whose fate is unknown: each may be a job that is billed.

        Resolve each by your own word: `resubmit`, `adopt` or `drop`.
        """
        return await self._needs_journal().in_doubt()

    async def resubmit(self, job: Job, *, pay_again: bool) -> Job:
        """Submit a question of the journal again, under a new key, in the place of a job that has no result.

        Args:
            job: one that is in doubt, failed, expired or was refused.
            pay_again: must be True: a job in doubt may exist already, and this makes another.

        Raises:
            InvalidRequest: `pay_again` is not True, the journal does not know the job, or it has a result.
            AiopplxError: as `submit`.
        """
        if not pay_again:
            raise InvalidRequest(
                "a job in doubt may exist already: resubmit(job, pay_again=True) makes and pays another"
            )
        engine = self._running()
        sub = await self._needs_journal().resubmission(job, timeout=self._timeout)
        try:
            return await self._submit(engine, sub)
        finally:
            engine.let_go(sub)

    async def adopt(self, job_id: str, *, instead_of: Job | None = None, tag: str | int | None = None) -> Job:
        """Take a job that the server has into the journal.

        Args:
            job_id: the server's id, found by `list()` or elsewhere.
            instead_of: a job in doubt that this one is known to be.
            tag: a tag for a job from elsewhere; a later submission under it finds this job.

        Raises:
            InvalidRequest: that is no job id, or the journal does not know `instead_of`.
        """
        engine = self._running()
        return await self._needs_journal().adopt(job_id, engine.api_of(job_id), instead_of=instead_of, tag=tag)

    async def drop(self, job: Job) -> Job:
        """Give up a job in doubt: it is not sent again unasked. Nothing is said to the server."""
        return await self._needs_journal().drop(job)

    def _needs_journal(self) -> Keeper:
        keeper = self._running().keeper
        if keeper is None:
            raise ConfigError('only a journal knows what is in doubt: Session(journal="research.db")')
        return keeper

    def resume(self) -> None:
        """Let submissions go on at once after a stop (bad key, no credit), when its cause is mended.

        Without it they go on by themselves: half a minute after a stop the next submission is sent to see.
        """
        self._running().client.resume()

    def _is_heard(self) -> bool:
        """Is there anybody to whom each submission and each job is told?"""
        return self._on_event is not None or logger.isEnabledFor(logging.DEBUG)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if event.kind is EventKind.STOPPED and self._engine is not None:
            self._engine.stopped()
        level = _LEVELS.get(event.kind, logging.DEBUG)
        if logger.isEnabledFor(level):
            logger.log(level, "%s %s", event.kind.value, _line(event), extra={"job_id": event.job_id})
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event failed on %s", event.kind.value)


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "a session is used inside an event loop: async def main(): ...; asyncio.run(main())"
        ) from None


_LEVELS = {
    EventKind.STOPPED: logging.ERROR,
    EventKind.LEFT: logging.WARNING,
    EventKind.WARNING: logging.WARNING,
    EventKind.PAUSED: logging.WARNING,
    EventKind.RESUMED: logging.WARNING,
    EventKind.RETRYING: logging.INFO,
    EventKind.POLL_FAILED: logging.INFO,
}


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
    return ", ".join(facts) + (f": {event.reason}" if event.reason else "")


def _raised_if_mine(job: Job) -> Job:
    """What is the caller's to mend, or nobody's fault but the session's, is raised; all else is the job's own end."""
    mine = job.status is JobStatus.STOPPED or isinstance(job.error, InvalidRequest)
    return job.result() if mine else job


def _request(
    question: Item,
    tag: str | int | None,
    idempotency_key: str | None,
    timeout: float | None,
    fields: Mapping[str, object],
) -> Request:
    """One request from a question and the words beside it; what is given beside it holds."""
    beside = {
        name: value
        for name, value in (("tag", tag), ("idempotency_key", idempotency_key), ("timeout", timeout))
        if value is not None
    }
    more = {**fields, **beside}
    if isinstance(question, Request):
        if fields:
            raise InvalidRequest(f"give fields in the {type(question).__name__}, not beside it")
        return request_of(msgspec.structs.replace(question, **beside) if beside else question)
    if isinstance(question, str):
        return ResearchRequest.of({"question": question, **more} if more else question)
    if not isinstance(cast("object", question), Mapping):
        return ResearchRequest.of(question)  # refuses it by what it is
    return request_of({**question, **more})


def _no_slot() -> JobError:
    return JobError(
        "not sent: max_in_flight jobs were running for as long as this call's time limit; nothing was billed"
    )


def _same_under_way() -> JobError:
    return JobError(
        "not sent: another call was sending the same for as long as this call's time limit; this one billed nothing"
    )


def _with_names(job: Job, key: str, tag: str | int | None) -> Job:
    error = job.error
    return msgspec.structs.replace(
        job,
        idempotency_key=job.idempotency_key or key,
        tag=job.tag if job.tag is not None else tag,
        error=error.about(idempotency_key=key, tag=tag) if error is not None else None,
    )
