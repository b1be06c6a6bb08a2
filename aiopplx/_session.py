"""What users hold: opens and closes everything else, and turns the arguments of users into calls of the core.

This module knows nothing of HTTP, of retries, or of how jobs are polled.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import types
import warnings
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Never, Self, TypeAlias, cast, get_args, overload

import anyio
import msgspec

from aiopplx._checks.builtin import as_builtin
from aiopplx._checks.unseen import unseen, unseen_call
from aiopplx._config import (
    JournalOptions,
    Settings,
    check_flag,
    check_hook,
    check_name,
    check_one_of,
    check_positive,
    check_span,
    check_tenant,
    check_whole,
    make_settings,
    unknown_argument,
)
from aiopplx._core.batch.source import Source
from aiopplx._errors import ConfigError, InvalidRequest
from aiopplx._events import Emitter, Event, EventStream
from aiopplx._http.clock import Clock
from aiopplx._http.proxy import proxy_for
from aiopplx._http.secret import Secret
from aiopplx._job import GivenT, Job, JobFile, JobStatus, Tag, named_by
from aiopplx._policy.forecast import Forecast
from aiopplx._policy.network import NetworkOptions
from aiopplx._policy.polling import PollPolicy, PollRule
from aiopplx._policy.retry import RetryPolicy
from aiopplx._text.amounts import dollars
from aiopplx._wire.headers import date_in
from aiopplx._wire.request import Request
from aiopplx.apis._registry import request_of
from aiopplx.journal._names import Names
from aiopplx.journal._postgres.url import hidden
from aiopplx.journal._protocol import Journal

if TYPE_CHECKING:
    from typing import Unpack

    import aiohttp

    from aiopplx._batch import Batch, Item, Items
    from aiopplx._core.assembly import Core
    from aiopplx._core.calls import Wanted
    from aiopplx._core.job.decisions import Decisions
    from aiopplx._core.job.following import Follow
    from aiopplx._core.job.listing import JobList
    from aiopplx._core.stats import SessionStats
    from aiopplx._core.store.opening import SessionStore
    from aiopplx._policy.estimate import Estimate
    from aiopplx._wire.fields import ResearchFields
    from aiopplx.apis._registry import Routing


BatchLane: TypeAlias = Literal["bulk", "interactive"]
Prefer: TypeAlias = Literal["submissions", "results"]

_ENDED_AT_SERVER = frozenset({JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INCOMPLETE, JobStatus.REJECTED})


class Session:
    """Deep-research jobs at Perplexity: submitted many at once, polled together, handed out as they finish.

    Make one session for the life of a program or a web app: everything it does shares one connection pool, one poller
    and one gate (rate, pauses, outages); sessions with the same key share that gate. Use it as `async with Session() as
    session:`, or call `await session.aclose()` at the end. It belongs to the event loop in which it is first used.

    Args:
        api_key: the API key. Default: `PERPLEXITY_API_KEY`, then `PPLX_API_KEY`, from the environment.
        base_url: the server, `https` (plain `http` only to this machine). Default: `PERPLEXITY_BASE_URL`, then
            `https://api.perplexity.ai`. An `aiopplx.emulator.Emulator`'s `url` goes here.
        api: `"sonar"` for `/async/chat/completions`, `"sonar-v1"` for its twin `/v1/async/sonar`; `"agent"` for
            `/v1/responses`, `"agent-v1"` for its twin `/v1/agent`; `"auto"`, the default, is Sonar until the server
            says that it is retired for this key, then the Agent API. `AIOPPLX_API` sets it too. See docs/apis.md.
        rpm: submissions a minute, evenly spaced. Default None: as fast as the server accepts them, which is found out
            from what it accepts and refuses, and from its `x-ratelimit-*` headers. See docs/polling.md.
        tier: instead of `rpm`, the usage tier of the account, 0 to 5: the published limits of the API hold, for polls
            too, and are used in full from the start.
        max_in_flight: jobs running at the service at once, over all batches and calls. Default 1000.
        timeout: seconds for each job, from its first attempt to its result. Default 3600: jobs take 3 to 6 minutes,
            and one in a hundred gets stuck. A job that times out here goes on at the service.
        max_cost: US dollars that may be spent; with a journal, over all its runs. Each running job reserves what jobs
            of its kind have cost (the 95th percentile of the costs seen, or the highest of the last 20; before 20 are
            known the highest that is published, $2.00 if nothing is). When no further job fits, running jobs are
            collected and the remaining ones come out as `STOPPED`. It can be exceeded by what running jobs cost
            above their reservations; so until the cost of a first job of a kind is known, further ones need room for
            three times what is published. Default None: no limit.
        journal: a file that makes a run durable: it records each submission with its key, its outcome and its result.
            The same program, run again, continues where it stopped and pays for nothing twice. A path, a
            `JournalOptions`, or an open `Journal`. A session with a journal is opened with `async with`.
        shared: a PostgreSQL database through which the processes of one account share its limits, as a URL:
            `postgresql://user@host/database?schema=aiopplx`. `rpm=` or `tier=` is then what all of them may send
            together, and a `Retry-After` that one was told is obeyed by all. Needs `aiopplx[postgres]`, and `async
            with`. Default None: each process has limits of its own, unless it has a journal in a database: these are
            then shared there, by its connections. Another database than the journal's takes three more. See
            docs/workers.md.
        poll: when to poll a running job: `"adaptive"`, the default, by what was learned of how long such jobs take
            (about 19 polls for a job of three minutes, and 5 seconds until its end is seen); a `PollPolicy`; or a
            function from a `RunningJob` to seconds. See docs/polling.md.
        retry: limits on retries, and whether a submission whose outcome is unknown is sent again (`RetryPolicy`).
        on_event: called with every `Event`, on the loop, synchronously: keep it short. Its exceptions are logged.
        http: your own `aiohttp.ClientSession`, for special TLS settings or a SOCKS proxy. The session never closes it.
        clock: the session's clock, for tests: `aiopplx.testing.Clock(60)` runs sixty times as fast, and
            `aiopplx.testing.JumpingClock()` skips all waiting. Default: real time.
        network: limits of one HTTP exchange, and its proxy and certificates (`NetworkOptions`).
        unknown: none. Whatever else is given is refused: by type checkers, and with a hint where it belongs.

    Raises:
        ConfigError: no key, or a key, a URL or a number that cannot be used; `shared` without `rpm` or `tier`.
    """

    @unseen
    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        api: str | None = None,
        rpm: float | None = None,
        tier: int | None = None,
        max_in_flight: int = 1000,
        timeout: float = 3600.0,
        max_cost: float | None = None,
        journal: str | os.PathLike[str] | JournalOptions | Journal | None = None,
        shared: str | None = None,
        poll: PollPolicy | PollRule | Literal["adaptive"] | None = "adaptive",
        retry: RetryPolicy | None = None,
        on_event: Callable[[Event], object] | None = None,
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
        network: NetworkOptions | None = None,
        **unknown: Never,
    ) -> None:
        key = Secret(api_key) if api_key is not None else None
        names = list(unknown)
        del api_key, unknown  # what follows may raise, and a traceback shows the variables of this frame
        journal, shared = hidden(journal), hidden(shared)
        self._core: Core | None = None
        self._closed = False
        if names:
            raise unknown_argument(names[0])
        self._settings = make_settings(
            api_key=key,
            base_url=base_url,
            api=api,
            rpm=rpm,
            tier=tier,
            max_in_flight=max_in_flight,
            timeout=timeout,
            max_cost=max_cost,
            journal=journal,
            shared=shared,
            poll=poll,
            retry=retry,
            http=http,
            clock=clock,
            network=network,
        )
        self._emitter = Emitter(check_hook("on_event", on_event, "a function that takes an Event"))
        self._opened: SessionStore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_closed: asyncio.Event | None = None
        self._pid = 0
        # The moving parts, and the HTTP library with them: not with this module, which many import for its names alone,
        # and not in a call, for which others would wait.
        import_module("aiopplx._core.assembly")

    # --- opening and closing -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        from aiopplx._core.store.opening import open_store

        if self._opened is None:
            self._opened = await open_store(self._settings, self._emitter)
        try:
            self._running()
        except BaseException:
            await self._close_store()
            raise
        return self

    async def _close_store(self) -> None:
        from aiopplx._core.announcing import store_left

        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close(partial(store_left, self._emitter, self._settings.journal_name))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End everything: batches, waiting calls, polls, connections. Jobs at the service go on there.

        Called again, it waits for the end that the first call brings about. It takes a few seconds at most, whatever
        a source, a session given as `http=` or a store does with its cancellation, and though a disk stalls. What a
        journal has not written by then is told (`STOPPED`, and a `WARNING` for each submission).
        """
        core, self._core = self._core, None
        self._closed = True
        if core is None:
            if self._has_closed is not None and self._loop is asyncio.get_running_loop():
                await self._has_closed.wait()
            return
        self._has_closed = closed = asyncio.Event()
        try:
            await self._end(core)
        finally:
            closed.set()

    async def _end(self, core: Core) -> None:
        # A cancelled anyio scope would cancel each await here anew, and leave connections open.
        with anyio.CancelScope(shield=True):
            async with contextlib.AsyncExitStack() as stack:  # each is closed, also if another fails or is cancelled
                stack.callback(self._emitter.close)
                stack.push_async_callback(self._close_store)
                stack.push_async_callback(core.learnt.keep)
                stack.push_async_callback(core.client.transport.close)
                stack.callback(core.membership.end)
                stack.push_async_callback(core.let_go)
                if core.pacing is not None:
                    stack.push_async_callback(core.pacing.aclose)
                await core.calls.aclose()

    def __del__(self) -> None:
        if getattr(self, "_core", None) is not None:
            warnings.warn(
                f"{self!r} was never closed: use 'async with' or 'await session.aclose()'", ResourceWarning, 2
            )

    def __repr__(self) -> str:
        settings: Settings | None = getattr(self, "_settings", None)
        if settings is None:
            return "<Session that was refused its arguments>"  # shown by a traceback with variables
        state = "closed" if self._closed else "open" if self._core else "new"
        return f"<Session {settings.api.name} at {settings.base_url}, {state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the API, what runs, what was spent of `max_cost`, and the journal. No key."""
        # Only notebooks need it.
        from aiopplx._core.stats import stats
        from aiopplx.report._notebook import session_card

        settings, core = self._settings, self._core
        now = stats(core) if core is not None else None
        spent = now.spent if now is not None else None
        return session_card([
            f"{settings.api.name} at {settings.base_url}",
            f"{now.running:,} running" if now is not None else "closed" if self._closed else "not used yet",
            now.stopped if now is not None else "",
            f"{dollars(spent)} of {dollars(settings.max_cost or 0.0)} spent" if spent is not None else "",
            f"journal {settings.journal_name}" if settings.journal is not None else "no journal",
        ])

    def _running(self) -> Core:
        """The moving parts, started at the first use. Raises `ConfigError` if the session cannot be used here."""
        if self._closed:
            raise ConfigError("the session is closed; make another")
        if self._core is not None and self._pid != os.getpid():
            raise ConfigError("the session was opened before this process forked; open one in each process")
        loop = _running_loop()
        if self._core is not None:
            if self._loop is not loop:
                raise ConfigError("the session belongs to another event loop; open one in each loop")
            return self._core
        from aiopplx._core.assembly import Core
        from aiopplx._core.store.opening import without_journal

        if self._opened is None:
            for name in ("journal", "shared"):
                if getattr(self._settings, name) is not None:
                    raise ConfigError(
                        f"a session with {name}= is opened as a block: async with Session({name}=...) as session"
                    )
            self._opened = without_journal(self._settings, self._emitter)
        self._loop, self._pid = loop, os.getpid()
        self._core = Core(self._settings, self._opened, self._emitter, self._running)
        return self._core

    @property
    def base_url(self) -> str:
        """The URL of the server, without a trailing slash."""
        return self._settings.base_url

    @property
    def proxy(self) -> str | None:
        """The proxy that requests go through, without its user and password; None: directly, or as `http=` does it.

        Raises:
            ConfigError: the session is not used yet, and the environment names a proxy that cannot be used.
        """
        settings = self._settings
        found = self._core.client.transport.proxy if self._core else proxy_for(settings.network, settings.base_url)
        return found.shown if found is not None else None

    @property
    def limits(self) -> Mapping[str, int]:
        """The latest rate limits of this key from the server (`x-ratelimit-*`): `limit`, `remaining`, `used`, `reset`.

        `reset` is in seconds since 1970. Empty until the server has sent them; the Agent API does with every answer.
        """
        return self._core.client.limits if self._core is not None else {}

    @property
    def clock_skew(self) -> float | None:
        """Seconds by which this machine's clock is ahead of the server's, by the `Date` of its latest answer.

        Right to a second and the time that the exchange took. None if no answer had a date.
        """
        dated = self._core.client.dated if self._core is not None else None
        date = date_in({"date": dated[1]}) if dated is not None else None
        if dated is None or date is None:
            return None
        clock = self._settings.clock
        return clock.wall() - (clock.now() - dated[0]) - date

    @unseen
    def eta(self, *, waiting: int = 0) -> Forecast:
        """When half, nine in ten and all of the jobs that run now will be done, by how long such jobs have taken.

        Jobs that run for longer than hardly any job does are counted as `stalled`.

        Args:
            waiting: how many jobs are still to be submitted. `Forecast.last` is when they will be done as well, by the
                places of `max_in_flight`, the limit of submissions if one is known, and how long such jobs have taken.
        """
        core = self._core
        return core.forecast(waiting=waiting) if core is not None else Forecast()

    @property
    def pending(self) -> builtins.list[Job]:
        """Jobs at the service that this session polls now, for whoever waits for them or follows them, as last known.

        When a program ends, these go on there, and are billed: `wait(job.id)` collects them, in any process.
        """
        if self._core is None:
            return []
        return [sub.as_job(JobStatus.IN_PROGRESS) for sub in self._core.life.live.by_id.values()]

    def log_pending(self) -> None:
        """Log the ids of `pending`, and without a journal of jobs that were only submitted, when a program is told to
        stop (WARNING, logger `aiopplx`).

        Each id is logged once: not again when this is called again, or when the session is closed.
        """
        if self._core is not None:
            self._core.life.announcer.left_jobs.program_stops(sub.job_id for sub in self._core.life.live.by_id.values())

    def stats(self) -> SessionStats:
        """What this session does at this moment, in numbers: for a health page. Nothing is asked of the server."""
        from aiopplx._core.stats import SessionStats, stats

        return stats(self._core) if self._core is not None else SessionStats()

    @unseen
    def events(self, *, limit: int = 1000) -> EventStream:
        """What happens from now on: `async for event in session.events(): ...`. Ends when the session is closed.

        Any number of streams may be read, beside `on_event`. A stream that is read too slowly loses its oldest events
        and counts them (`EventStream.missed`).

        Args:
            limit: the most events that are kept for the reader. Default 1000.
        """
        self._running()
        return self._emitter.stream(check_whole("limit", limit))

    # --- many jobs ---------------------------------------------------------------------------------------------------

    @overload
    def batch(
        self,
        source: Iterable[str] | AsyncIterable[str],
        *,
        ordered: bool = False,
        timeout: float | None = None,
        max_in_flight: int | None = None,
        cancel_on_exit: bool = False,
        lane: BatchLane = "bulk",
        prefer: Prefer = "submissions",
        run: str | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Batch[None]: ...
    @overload
    def batch(
        self,
        source: Iterable[Request[GivenT]] | AsyncIterable[Request[GivenT]],
        *,
        ordered: bool = False,
        timeout: float | None = None,
        max_in_flight: int | None = None,
        cancel_on_exit: bool = False,
        lane: BatchLane = "bulk",
        prefer: Prefer = "submissions",
        run: str | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Batch[GivenT]: ...
    @overload
    def batch(
        self,
        source: Items,
        *,
        ordered: bool = False,
        timeout: float | None = None,
        max_in_flight: int | None = None,
        cancel_on_exit: bool = False,
        lane: BatchLane = "bulk",
        prefer: Prefer = "submissions",
        run: str | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Batch: ...
    @unseen
    def batch(
        self,
        source: Items,
        *,
        ordered: bool = False,
        timeout: float | None = None,
        max_in_flight: int | None = None,
        cancel_on_exit: bool = False,
        lane: BatchLane = "bulk",
        prefer: Prefer = "submissions",
        run: str | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Batch:
        """Submit everything that `source` gives and hand out each job as it finishes.

        With a journal the same source, given again, is the same questions: nothing is paid for twice.

        Args:
            source: an iterable or async iterable of questions, mappings of request fields, or `ResearchRequest`s; read
                lazily, when there is room. A plain iterable is read on the loop, so its `next` should not block for
                long. A generator that is not read to its end is closed with the block. A DataFrame with a column
                `question` is looked at as a whole first, and its other columns come back as `job.meta`; anything else
                of tables is for `aiopplx.questions`.
            ordered: hand out jobs in the order of the source. A slow job then holds up later ones, which wait at the
                server.
            timeout: seconds for each job of this batch; default the session's.
            max_in_flight: the most items that are read and not yet handed out; default the session's. The session's own
                limit on running jobs applies to all batches together.
            cancel_on_exit: leaving the block asks the server to cancel what still runs, where the API can (the Agent
                API). Default False: these jobs continue, and can be collected later.
            lane: `"bulk"`, the default: `ask`, `submit` and `wait` go before this batch where requests have to wait for
                a rate limit. `"interactive"`: it goes with them.
            prefer: what goes first in such a case: `"submissions"`, the default, for all to be done soonest; or
                `"results"`, for the first results to come soonest (docs/polling.md).
            run: the name of the run; default the journal's (`JournalOptions(run=)`).
            reuse: as for `ask`, for each question.
            tenant: as for `ask`.

        Returns:
            A `Batch`, to be entered: `async with session.batch(questions) as jobs: async for job in jobs: ...`
        """
        from aiopplx._batch import Batch

        core = self._running()
        limit = self._settings.max_in_flight if max_in_flight is None else check_whole("max_in_flight", max_in_flight)
        return Batch(
            core,
            source,
            ordered=check_flag("ordered", ordered),
            timeout=check_positive("timeout", timeout) if timeout is not None else self._settings.timeout,
            limit=limit,
            cancel_on_exit=check_flag("cancel_on_exit", cancel_on_exit),
            is_bulk=check_one_of("lane", lane, get_args(BatchLane)) == "bulk",
            prefers_results=check_one_of("prefer", prefer, get_args(Prefer)) == "results",
            run=self._run(run),
            reuse=self._reuse(reuse),
            tenant=check_tenant(tenant) if tenant is not None else "",
        )

    @unseen_call
    async def estimate(self, source: Items, *, run: str | None = None) -> Estimate:
        """What a batch of this source would cost and how long it would take, before it is paid. Nothing is sent.

        With a journal, what it has finished, running or in doubt is not counted, and its costs of jobs of the same kind
        decide once there are five; until then the figures are those that are published. A kind of which nothing is
        published makes the cost unknown: then `low` and `high` are None, never 0.

        Args:
            source: as for `batch`; read to its end, so that an iterator is used up.
            run: as for `batch`.

        Returns:
            Ranges in US dollars and seconds; its `str` is a sentence such as "about $110 to $360, 10 min to 1 h 05 min
            (published figures; nothing of yours is known yet)".

        Raises:
            InvalidRequest, TableError: as `batch`, for the source as a whole; an item that breaks a rule costs nothing.
            JournalError: the journal cannot be read.
        """
        from aiopplx._core.batch.estimating import expected  # arithmetic that most programs have no use for

        core = self._running()
        journal = self._settings.journal
        retry_failed = isinstance(journal, JournalOptions) and journal.retry_failed
        replace = isinstance(journal, JournalOptions) and journal.replace
        read: Source[Item] = Source(source, lambda: None)
        limit = self._settings.max_in_flight
        return await expected(
            core, read, run=self._run(run), retry_failed=retry_failed, replace=replace, max_in_flight=limit
        )

    # --- one job -----------------------------------------------------------------------------------------------------

    @overload
    async def ask(
        self,
        question: str | Mapping[str, object],
        *,
        tag: GivenT,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job[GivenT]: ...
    @overload
    async def ask(
        self,
        question: Request,
        *,
        tag: GivenT,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Job[GivenT]: ...
    @overload
    async def ask(
        self,
        question: Request[GivenT],
        *,
        tag: None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Job[GivenT]: ...
    @overload
    async def ask(
        self,
        question: str,
        *,
        tag: None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job[None]: ...
    @overload
    async def ask(
        self,
        question: Mapping[str, object],
        *,
        tag: None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job: ...
    @unseen_call
    async def ask(
        self,
        question: Item,
        *,
        tag: Tag = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job:
        """Submit one question, wait, return its job.

        Args:
            question: the question, or a whole request.
            tag: comes back on the job. With a journal, a later call under the same tag gets the same job; without a
                tag each call is a new submission.
            idempotency_key: your own key; default: a new one. Where the API honours keys (Sonar), the same request
                under the same key is one job, whichever process sends it.
            timeout: seconds for all of it; default the session's.
            reuse: for how long an answer is as good as a new one, such as `"24h"` or seconds. An equal question (the
                same request to the same API) that the journal has an answer to, sent first less than this ago, is
                answered by it, and one that runs is joined. Default None: never. A tag that is known goes before.
            tenant: whose question it is, where a journal serves several customers: tags and reused answers of one
                tenant are never those of another. An id, of 900 characters at most (each outside ASCII counts as
                six). Default: nobody's in particular.
            fields: any further field of `ResearchRequest`, such as `reasoning_effort="high"`; they are listed in
                `ResearchFields`. A request has its own fields, and takes none beside it.

        Returns:
            The job, whatever became of it: look at `job.ok`, or call `job.result()` to have its error raised. To a type
            checker its `tag` has the type of the one that was given.

        Raises:
            InvalidRequest: the request breaks a rule; nothing was sent.
            AuthenticationError, OutOfCredit, EndpointRetired, TransportError: nothing can be submitted; nothing was
            billed.
        """
        core = self._running()
        request = _request(question, tag, idempotency_key, timeout, fields)
        return _raised_if_mine(
            await core.calls.ask(core.freeze(request, timeout=self._settings.timeout), self._names(reuse, tenant))
        )

    @overload
    async def submit(
        self,
        question: str | Mapping[str, object],
        *,
        tag: GivenT,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job[GivenT]: ...
    @overload
    async def submit(
        self,
        question: Request,
        *,
        tag: GivenT,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Job[GivenT]: ...
    @overload
    async def submit(
        self,
        question: Request[GivenT],
        *,
        tag: None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
    ) -> Job[GivenT]: ...
    @overload
    async def submit(
        self,
        question: str,
        *,
        tag: None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job[None]: ...
    @overload
    async def submit(
        self,
        question: Mapping[str, object],
        *,
        tag: None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job: ...
    @unseen_call
    async def submit(
        self,
        question: Item,
        *,
        tag: Tag = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        reuse: str | float | None = None,
        tenant: str | None = None,
        **fields: Unpack[ResearchFields],
    ) -> Job:
        """Submit one question and return its job as soon as the server has it; `wait(job)` or `wait(job.id)` later.

        Arguments as for `ask`; `timeout` is the longest that it tries to submit. A job that is only submitted does not
        count towards `max_in_flight`.

        Raises:
            InvalidRequest: the request breaks a rule; nothing was sent.
            InDoubt: a job may exist whose id is unknown.
            AiopplxError: the server refused it, or nothing could be sent; nothing was billed.
        """
        core = self._running()
        request = _request(question, tag, idempotency_key, timeout, fields)
        return _raised_without_id(
            await core.calls.submit(core.freeze(request, timeout=self._settings.timeout), self._names(reuse, tenant))
        )

    @unseen_call
    async def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:
        """Wait for a job that exists, of this session or of any other: polled with all the others.

        Any number of callers may wait for one job; it is polled once for all of them.

        Args:
            job: a `Job`, or the id or the token of one.
            timeout: seconds from now; default the session's.

        Returns:
            The job, whatever became of it (`TIMED_OUT` if it still runs then).

        Raises:
            InvalidRequest: this is not a job id.
        """
        core = self._running()
        wanted = _wanted(job, core.life.routing)
        seconds = self._seconds(timeout)
        return wanted if isinstance(wanted, Job) else await core.calls.wait(wanted, seconds=seconds)

    @unseen
    def follow(self, job: Job | str, *, after: str = "", timeout: float | None = None) -> Follow:
        """How a job stands now, then each change, to its end: `async for update in session.follow(job): ...`.

        For a progress page. Any number of callers may follow one job, of this session or of any other: it is polled
        once for all of them, no earlier than it would be otherwise. The first update comes at once; the last one has
        the job as `wait` would return it.

        Args:
            job: a `Job`, or the id or the token of one.
            after: the `id` of the last update that the reader had, such as a browser's `Last-Event-ID`: what is still
                so is not told again.
            timeout: seconds from now; default the session's. Then the last update is `TIMED_OUT`.

        Returns:
            An async iterator of `Update`. Reading it raises what `wait` raises.
        """
        from aiopplx._core.job.following import Follow

        core = self._running()
        wanted = _wanted(job, core.life.routing)
        return Follow(core.calls, wanted, seconds=self._seconds(timeout), after=after)

    def _run(self, given: str | None) -> str:
        return check_name("run", given) if given is not None else self._settings.run

    def _reuse(self, given: str | float | None) -> float | None:
        if given is None:
            return None
        if not self._running().life.store.remembers:
            raise ConfigError("needs a journal, which has the answers", argument="reuse")
        return check_span("reuse", given)

    def _names(self, reuse: str | float | None, tenant: str | None) -> Names | None:
        """How the submission of a call is named, if it is not by its tag or key alone."""
        if reuse is None and tenant is None:
            return None
        whose = check_tenant(tenant) if tenant is not None else ""
        return Names(tenant=whose, reuse=self._reuse(reuse), is_call=True)

    def _seconds(self, timeout: float | None) -> float:
        return check_positive("timeout", timeout) if timeout is not None else self._settings.timeout

    @unseen_call
    async def get(self, id: str) -> Job:
        """Poll a job once; a result that the journal has is not asked for again. An end that is found is written to it.

        Args:
            id: the server's id, or the token of a job or of an error.

        Raises:
            NotFound: the server knows no such job (it keeps results for 7 days).
            InvalidRequest: this is not a job id.
            AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
        """
        from aiopplx._core.job.single import get

        core = self._running()
        named = named_by(id)
        return await get(core.life, core.life.routing.api_of(named.job_id, named.api), named.job_id)

    @unseen
    def list(self, *, limit: int | None = None) -> JobList:
        """The account's jobs, as summaries without results: `async for job in session.list()`, or `await` it.

        Args:
            limit: the largest number of jobs; default all. Pages are followed as far as needed.

        Raises (when read):
            AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
        """
        from aiopplx._core.job.listing import JobList

        core = self._running()
        return JobList(core.life, check_whole("limit", limit) if limit is not None else None)

    @unseen_call
    async def cancel(self, job: Job | str) -> Job:
        """Cancel a running job at the server, where the API can (the Agent API), and wait until it has ended.

        Args:
            job: a `Job`, or the id of one. What it has searched for by then is billed.

        Returns:
            The job as it ended: `CANCELLED`, or `COMPLETED` if it was faster. A job that had ended before is returned
            as it is, after at most one poll.

        Raises:
            InvalidRequest: the API has no cancellation (Sonar has none: the job goes on and is billed).
            NotFound: the server knows no such job.
        """
        from aiopplx._core.job.single import cancel

        core = self._running()
        job_id, name = _named(job)
        api = core.life.routing.api_of(job_id, name)
        return await cancel(core.calls, api, job_id, seconds=self._settings.timeout)

    # --- files -------------------------------------------------------------------------------------------------------

    @unseen_call
    async def files(self, job: Job | str) -> builtins.list[JobFile]:
        """The files that a job wrote and shared, where the API has files (the Agent API, with the tool `sandbox`).

        Args:
            job: a `Job`, or the id of one. There are none before it has ended.

        Raises:
            InvalidRequest: the API has no files (Sonar has none), or this is not a job id.
            NotFound: the server knows no such job.
            AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
        """
        from aiopplx._core.job.files import files

        core = self._running()
        job_id, name = _named(job)
        return await files(core.life, core.life.routing.api_of(job_id, name), job_id)

    @unseen_call
    async def download(self, job: Job | str, file: JobFile | str, path: str | os.PathLike[str]) -> Path:
        """Write a file of a job to the disk, piece by piece, so that memory does not depend on its size.

        It is written beside its place and put there when it is whole and on the disk; a download that fails or is
        cancelled leaves nothing. `NetworkOptions` bounds its size and time.

        Args:
            job: a `Job`, or the id of one.
            file: one of `files(job)`, or the id of one. With the first, the size is checked against the list.
            path: where to put it. A file that is there is replaced. In a directory it gets the server's name for it,
                made safe (`JobFile.name`); its id, if only that was given.

        Returns:
            The path of the file.

        Raises:
            InvalidRequest: the API has no files, or one of the ids is none.
            NotFound: the server knows no such job or file.
            ResponseTooLarge: it is larger than `NetworkOptions.max_file_bytes`.
            ConfigError: `path` is no path.
            FileExistsError: `path` is a directory that has a file of that name.
            OSError: it could not be written.
            AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
        """
        from aiopplx._core.job.files import download

        core = self._running()
        job_id, name = _named(job)
        api = core.life.routing.api_of(job_id, name)
        given = cast("object", path)
        if not isinstance(given, str) and not hasattr(given, "__fspath__"):
            raise ConfigError(f"must be a path, not {type(given).__name__}", argument="path")
        return await download(core.life, api, job_id, file, Path(path))

    # --- what is in doubt --------------------------------------------------------------------------------------------

    async def in_doubt(self) -> builtins.list[Job]:
        """The journal's submissions whose outcome is unknown: each may be a job that is billed.

        Decide about each with `resubmit`, `adopt` or `drop`.
        """
        return await self._decisions().in_doubt()

    @unseen_call
    async def resubmit(self, job: Job, *, pay_again: bool) -> Job:
        """Submit a question of the journal again, under a new key, in place of a job that has no result.

        Args:
            job: a job that is in doubt, failed, expired or was refused.
            pay_again: must be True: a job in doubt may exist already, and this makes another.

        Raises:
            InvalidRequest: `pay_again` is not True, the journal does not know the job, or it has a result.
            AiopplxError: as `submit`.
        """
        if as_builtin(pay_again) is not True:
            raise InvalidRequest(
                "a job in doubt may exist already: resubmit(job, pay_again=True) makes and pays another"
            )
        core = self._running()
        sub = await self._decisions().resubmission(job, timeout=self._settings.timeout)
        return _raised_without_id(await core.calls.submit(sub))

    @unseen_call
    async def adopt(self, job_id: str, *, instead_of: Job | None = None, tag: str | int | None = None) -> Job:
        """Take a job that the server has into the journal.

        Args:
            job_id: the server's id, or a token, found by `list()` or elsewhere.
            instead_of: the job in doubt that turned out to be this one.
            tag: a tag for the job; a later submission under this tag finds it.

        Raises:
            InvalidRequest: that is not a job id, or the journal does not know `instead_of`.
        """
        named = named_by(job_id)
        api, job_id = self._running().life.routing.api_of(named.job_id, named.api), named.job_id
        return await self._decisions().adopt(job_id, api, instead_of=instead_of, tag=tag)

    @unseen_call
    async def drop(self, job: Job) -> Job:
        """Give up a job in doubt: later runs do not send it again by themselves. The server is not told."""
        return await self._decisions().drop(job)

    def _decisions(self) -> Decisions:
        core = self._running()
        if not core.life.store.remembers:
            raise ConfigError('only a journal knows what is in doubt: Session(journal="research.db")')
        from aiopplx._core.job.decisions import Decisions  # seldom asked for

        return Decisions(core.life)

    def resume(self) -> None:
        """Let submissions continue at once after a stop (bad key, no credit), once its cause is fixed.

        They also continue by themselves: half a minute after a stop, the next submission is sent as a test.
        """
        self._running().client.resume()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "a session is used inside an event loop: async def main(): ...; asyncio.run(main())"
        ) from None


def _wanted(job: Job | str, routing: Routing) -> Wanted | Job:
    """What is asked for; the job itself if nothing more can become of it."""
    from aiopplx._core.calls import Wanted

    if not isinstance(job, Job):
        named = named_by(job)
        return Wanted(routing.api_of(named.job_id, named.api), named.job_id, named.idempotency_key)
    if job.ok or not job.id or (job.error is not None and job.status in _ENDED_AT_SERVER):
        return job
    return Wanted(routing.api_of(job.id, job.api), job.id, job.idempotency_key, job.tag)


def _named(job: Job | str) -> tuple[str, str]:
    """The id of a job, and the name of its API if that is known."""
    return (job.id, job.api) if isinstance(job, Job) else named_by(job)[:2]


def _raised_if_mine(job: Job) -> Job:
    """Raise the errors that the caller must fix and those that stopped the session; return every other job as it is."""
    mine = job.status is JobStatus.STOPPED or isinstance(job.error, InvalidRequest)
    return job.result() if mine else job


def _raised_without_id(job: Job) -> Job:
    """Return a job that the server has; raise the error of one that it does not have."""
    return job if job.id else job.result()


def _request(
    question: Item,
    tag: str | int | None,
    idempotency_key: str | None,
    timeout: float | None,
    fields: Mapping[str, object],
) -> Request:
    """One request from a question and separate arguments; the separate arguments win."""
    beside = {
        name: value
        for name, value in (("tag", tag), ("idempotency_key", idempotency_key), ("timeout", timeout))
        if value is not None
    }
    if isinstance(question, Request):
        if fields:
            raise InvalidRequest(f"give fields in the {type(question).__name__}, not beside it")
        return msgspec.structs.replace(question, **beside) if beside else question
    more = {**fields, **beside}
    if isinstance(question, str) and more:
        return request_of({"question": question, **more})
    return request_of({**question, **more} if isinstance(question, Mapping) else question)
