"""The public `Emulator`: its settings, its server on a loopback socket, and the path of each request through it.

That path is: route, fault script, key, retirement, rate limit, the API's own answer. Each of these has its own file.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Literal, Self, TypeAlias

from aiohttp import web

from aiopplx.emulator._agent import Agent
from aiopplx.emulator._agent_bodies import Runs
from aiopplx.emulator._agent_files import USUAL, Files
from aiopplx.emulator._apply_fault import EmulatedAPI, Truth, apply_fault, limit_headers
from aiopplx.emulator._auth import Keys
from aiopplx.emulator._clock import Clock, Time
from aiopplx.emulator._control import PREFIX, control
from aiopplx.emulator._exchange import Asked, Reply, as_json, error, page, record, unreadable, usual
from aiopplx.emulator._jobs import Duration, Jobs
from aiopplx.emulator._ledger import Ledger
from aiopplx.emulator._limits import Limits, chosen
from aiopplx.emulator._script import Script
from aiopplx.emulator._send import QUIET, Sender, accept_no_more, end, made_request
from aiopplx.emulator._settings import number, word
from aiopplx.emulator._sonar import Idempotency, Paging, Settings, Sonar
from aiopplx.emulator._sonar_bodies import Answers
from aiopplx.emulator._watching import Watchers
from aiopplx.emulator.faults import name_of
from aiopplx.emulator.limits import Limit, Room

HOST = "127.0.0.1"
_METHODS = ("GET", "HEAD", "POST")
WEEK = 7 * 86400.0
# Emulated seconds in a real one: ten days.
FASTEST = 1e6
LimitHints: TypeAlias = Literal["none", "retry-after", "x-ratelimit", "never"]
AuthErrors: TypeAlias = Literal["json", "html"]
# Real seconds that open requests get when the server ends. Our own waits end at once, so this covers pending writes.
SHUTDOWN = 1.0
_TEMPLATE = {
    "get": "/{id}",
    "cancel": "/{id}/cancel",
    "files": "/{id}/files",
    "content": "/{id}/files/{file_id}/content",
}


class Emulator:
    """A server on 127.0.0.1 that emulates Perplexity's job APIs: no key, no cost, nothing leaves the machine.

    Use it as an async context manager; `url` is the base URL. Entered again, it uses the same port and keeps its jobs.

        async with Emulator(time_scale=60) as server:
            client = AsyncPerplexity(api_key="any", base_url=server.url)

    Args:
        port: 0, the default, picks a free one.
        keys: None accepts any Bearer word as one account, except words that begin with `pplx-`: real keys do not belong
            here. A collection makes each key an account of its own; a mapping gives the account of each key.
        seed: seeds durations, failures, answers and faults. The same seed and the same questions make the same run.
        time_scale: emulated seconds per real second: 60.0 makes a four-minute job take four seconds.
        clock: the clock that the client uses, in place of `time_scale`: jobs, rates and delays then run on it.
            `aiopplx.testing` has two, one of which passes half an hour in no time.
        duration: how long a job takes. None is log-normal with a median of 240 s; a number is emulated seconds;
            `AfterPolls(n)` finishes at the n-th GET; a function gets the question and returns seconds.
        failure_rate: the share of jobs that end FAILED, from 0 to 1. A failed job is not billed.
        failing: a function that gets the question and decides whether its job ends FAILED, instead of `failure_rate`.
        tier: usage tier 0 to 5, whose rate limits are enforced: for sonar 5 to 100 submissions a minute, GET 6000, list
            3000; for the Agent API 50 to 2000 requests of any kind. None, the default, has no limits.
        rpm: submissions a minute (for the Agent API: requests), in place of the tier's. Rates run on emulated time.
        limits: other limits than a tier's, from `aiopplx.emulator.limits`: one that all requests share, or a mapping
            from kinds of requests to limits. In place of `tier` and `rpm`.
        limit_hints: headers on answers to rate-limited requests: `none`, as the service does for sonar; `retry-after`
            on a 429 (client seconds, rounded up); `x-ratelimit` on all answers, as the Agent API always does; `never`,
            not on the Agent API either.
        idempotency: what a repeated idempotency key gets: `replay`, the first answer again (409 for another request);
            `ignore`, another job; `reject`, a 409.
        key_ttl: emulated seconds for which an idempotency key is remembered; None is for ever.
        ttl: emulated seconds after which a job is forgotten.
        cancel_delay: emulated seconds from an accepted cancel to the status `cancelled`, on the Agent API; with
            `AfterPolls` it takes two GETs instead. A run that would end earlier by itself does.
        page_size: rows of a list page without `limit`.
        paging: `follow` obeys `limit` and `next_token`; `ignore` always gives the first page; `repeat` gives the same
            token again and again, without end.
        answer_chars: length of an answer, approximately. None is realistic: 63,000 to 90,000 characters for sonar, and
            what suits the preset for the Agent API.
        think: answers open with a `<think>` part.
        credits: US dollars; once they are used up, a submission gets a 401 `insufficient_quota`. None is unlimited.
            `server.credits` can be set later.
        auth_errors: answers to a refused key: `json`, or `html` for the HTML page of 2025.
        retired: refuse the sonar family with this error type from the start, see `retire()`.
        compress: answers are compressed by gzip where the client accepts it.
        log_size: how many requests `ledger.log` keeps.
        files: the files, content by name, that a run of the Agent API with the tool `sandbox` shares; None is a small
            table.
        unknown_fields: fields of an Agent API request that this server does not know, so that it refuses them as an
            earlier release would: `{"effort"}` plays the service before it had that word.

    Attributes:
        faults: what is to go wrong: `server.faults.add(...)`.
        ledger: what was made, billed and requested.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        keys: Collection[str] | Mapping[str, str] | None = None,
        seed: int = 0,
        time_scale: float = 1.0,
        clock: Time | None = None,
        duration: Duration = None,
        failure_rate: float = 0.0,
        failing: Callable[[str], bool] | None = None,
        tier: int | None = None,
        rpm: float | None = None,
        limits: Limit | Mapping[str, Limit] | None = None,
        limit_hints: LimitHints = "none",
        idempotency: Idempotency = "replay",
        key_ttl: float | None = None,
        ttl: float = WEEK,
        cancel_delay: float = 2.0,
        page_size: int = 20,
        paging: Paging = "follow",
        answer_chars: int | None = None,
        think: bool = False,
        credits: float | None = None,
        auth_errors: AuthErrors = "json",
        retired: str = "",
        compress: bool = False,
        log_size: int = 10_000,
        files: Mapping[str, bytes] | None = None,
        unknown_fields: Collection[str] = (),
    ) -> None:
        number("failure_rate", failure_rate, 0, high=1, unit="a share")
        number("page_size", page_size, 1, unit="rows")
        number("log_size", log_size, 0, unit="requests")
        number("answer_chars", answer_chars, 0, unit="characters")
        number("credits", credits, 0, unit="US dollars")
        for name, seconds in (("cancel_delay", cancel_delay), ("ttl", ttl), ("key_ttl", key_ttl)):
            number(name, seconds, 0, unit="emulated seconds")
        number("time_scale", time_scale, 0, high=FASTEST, unit="emulated seconds per real second", above=True)
        if isinstance(duration, int | float):
            number("duration", duration, 0, unit="emulated seconds")
        word("idempotency", idempotency, Idempotency)
        word("paging", paging, Paging)
        word("limit_hints", limit_hints, LimitHints)
        word("auth_errors", auth_errors, AuthErrors)
        if clock is not None and time_scale != 1.0:
            raise ValueError("give time_scale or a clock, not both: a clock has its own speed")
        self.port: int = port
        self.faults: Script = Script(seed)
        self._seed = seed
        self._time_scale = time_scale
        self._time = clock
        self._duration: Duration = duration
        self._failing = failing if failing is not None else failure_rate
        self._of_kind = chosen(tier, rpm, limits)
        self._limit_hints = limit_hints
        self._settings = Settings(idempotency, key_ttl, page_size, paging)
        self._ttl = ttl
        self._cancel_delay = cancel_delay
        self._answers = Answers(seed=seed, chars=answer_chars, think=think)
        self._files = Files(USUAL if files is None else files)
        self._runs = Runs(seed=seed, chars=answer_chars, think=think, files=self._files)
        self._unknown_fields = frozenset(unknown_fields)
        self._first_credits = credits
        self._first_retired = retired
        self._auth_errors = auth_errors
        self._compress = compress
        self._log_size = log_size
        self._keys = Keys(keys)
        self._runner: web.ServerRunner | None = None
        self._listening: socket.socket | None = None
        self._rays = 0
        self._watchers = Watchers()
        self._begin()

    def _begin(self) -> None:
        self.ledger: Ledger = Ledger(self._log_size)
        self._clock = Clock(self._time_scale, self._time)
        self._limits = Limits(self._of_kind)
        self._keys.restore()
        self._jobs = Jobs(
            clock=self._clock,
            ledger=self.ledger,
            seed=self._seed,
            duration=self._duration,
            failing=self._failing,
            ttl=self._ttl,
            credits=self._first_credits,
            cancel_delay=self._cancel_delay,
        )
        self._sonar = Sonar(self._settings, jobs=self._jobs, answers=self._answers)
        self._sonar.retired = self._first_retired
        agent = Agent(
            jobs=self._jobs, clock=self._clock, runs=self._runs, files=self._files, unknown=self._unknown_fields
        )
        self._apis: dict[str, EmulatedAPI] = {api.name: api for api in (self._sonar, agent)}

    # --- for users

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    @property
    def credits(self) -> float | None:
        """US dollars that may be billed in total; None is unlimited. Set it higher to top up."""
        return self._jobs.credits

    @credits.setter
    def credits(self, dollars: float | None) -> None:
        self._jobs.credits = dollars

    def now(self) -> float:
        """Emulated seconds since 1970, the clock of `created_at`."""
        return self._clock.now()

    def advance(self, seconds: float) -> None:
        """Moves the emulated time forward: jobs finish, rates refill and results expire without waiting."""
        self._clock.advance(seconds)

    def revoke(self, key: str) -> None:
        """From now on answers requests with this key with a 401."""
        self._keys.revoke(key)

    def retire(self, error_type: str = "chat_completions_not_available", *, readable: bool = False) -> None:
        """From now on answers the whole sonar family with a 403 of this `error_type`. "" ends the retirement.

        With `readable` old jobs can still be read one by one; what the service will do is not known.
        """
        self._sonar.retired, self._sonar.readable = error_type, readable

    def reset(self) -> None:
        """Forgets jobs, ledger, faults, revocations and emulated time; `ledger` is a new object. Connections stay."""
        self.faults.clear()
        self._begin()

    async def until(self, true: Callable[[Ledger], bool]) -> None:
        """Waits until the condition holds: `await server.until(lambda ledger: ledger.created == 10)`.

        It is checked at once and then whenever a request arrives or is answered, so that a test needs no sleep. There
        is no time limit but the caller's own.
        """
        await self._watchers.until(lambda: true(self.ledger))

    # --- the server

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Starts listening. Raises `OSError` if the port is in use."""
        if self._runner is not None:
            raise RuntimeError("this emulator is already running")
        self._closing = asyncio.Event()
        self._sender = Sender(self._closing, self._clock.time, compress=self._compress)
        # Without the router of web.Application, which would double the cost of a poll. A handler is cancelled when its
        # client disconnects, so no hanging answer outlives its client.
        server = web.Server(
            self._handle, request_factory=made_request, handler_cancellation=True, access_log=None, logger=QUIET
        )
        runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN)
        await runner.setup()
        listening: socket.socket | None = None
        try:
            listening = socket.create_server((HOST, self.port))
            await web.SockSite(runner, listening, backlog=4096).start()
        except BaseException:
            await runner.cleanup()
            if listening is not None:
                listening.close()
            raise
        self._runner, self._listening = runner, listening
        self.port = runner.addresses[0][1]

    async def close(self) -> None:
        """Ends every connection and stops listening. The jobs stay."""
        runner, self._runner = self._runner, None
        if runner is not None and self._listening is not None:
            self._closing.set()
            try:
                await accept_no_more(self._listening.fileno())
            finally:
                await runner.cleanup()  # even if this is cancelled: its first step closes the socket

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._rays += 1
        ray = self._rays
        ledger = self.ledger
        ledger.in_flight += 1
        ledger.peak = max(ledger.peak, ledger.in_flight)
        self._watchers.notify()
        try:
            body: bytes | None = None
            with contextlib.suppress(web.RequestPayloadError):  # it is not what its Content-Encoding says
                body = await request.read()
            asked = self._asked(request, body or b"")
            reply, fault = self._decide(asked) if body is not None else (unreadable(), "")
            if asked.on != "control":
                ledger.saw(record(self._clock.elapsed(), asked, reply, fault))
            return await self._sender.send(request, reply, self._clock.now(), ray)
        except ConnectionError:
            # The client disconnected in the middle of its request, which was never complete.
            end(request.transport, reset=False)
            return web.Response()
        finally:
            ledger.in_flight -= 1
            self._watchers.notify()

    def _asked(self, request: web.BaseRequest, body: bytes) -> Asked:
        path = request.path
        on, base, id, api = self._routed(request.method, path)
        return Asked(
            method=request.method,
            path=path,
            query=dict(request.query) if request.query_string else {},
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            on=on,
            route=f"{request.method} {base}{_TEMPLATE.get(on, '')}",
            family=base,
            job_id=id,
            api=api,
        )

    def _allowed(self, path: str) -> str:
        """The methods of a path, for `Allow`."""
        return ", ".join(method for method in _METHODS if self._routed(method, path)[0] != "wrong method")

    def _routed(self, method: str, path: str) -> tuple[str, str, str, str]:
        method = "GET" if method == "HEAD" else method  # the same answer without its content (RFC 9110, 9.3.2)
        for name, api in self._apis.items():
            found = api.route(method, path)
            if found is not None:
                on, base, id = found
                return on or "wrong method", base, id, name
        if path.startswith(PREFIX):
            return "control", path, "", ""
        return "unknown", "(unknown)", "", ""

    # --- the path of one request

    def _decide(self, asked: Asked) -> tuple[Reply, str]:
        """(answer, name of the fault that was applied)."""
        if asked.on == "control":
            return control(self, asked), ""
        if asked.on == "unknown":
            return as_json(404, {"detail": "Not Found"}), ""
        if asked.on == "wrong method":
            return as_json(405, {"detail": "Method Not Allowed"}, {"Allow": self._allowed(asked.path)}), ""
        api = self._apis[asked.api]
        account, why_not = self._keys.account(asked.headers.get("authorization", ""))
        truth = Truth(lambda: self._execute(asked, api, account, why_not))
        for rule in self.faults.selecting(asked):
            reply = apply_fault(rule.fault, asked, truth, api, account, self._clock.now())
            if reply is not None:
                rule.hits += 1
                return reply, name_of(rule.fault)
        return truth.reply(), ""

    def _execute(self, asked: Asked, api: EmulatedAPI, account: str, why_not: str) -> Reply:
        """The answer when no fault is active."""
        if not account:
            return page(401) if self._auth_errors == "html" else error(401, "invalid_api_key", why_not)
        refusal = api.refusal(asked)
        if refusal is not None:
            return refusal
        room = self._limits.take(account, (api.bucket(asked.on), asked.on), self._clock.now())
        if room is None:
            return api.with_headers(api.answer(asked, account))
        reply = api.with_headers(usual(429) if room.wait else api.answer(asked, account))
        reply.headers = {**reply.headers, **self._hints(room, always=api.always_sends_limits)}
        reply.delay += self._clock.real(room.work)
        return reply

    def _hints(self, room: Room, *, always: bool) -> dict[str, str]:
        """Rate-limit headers: durations in client seconds, points in time relative to the answer's `Date`."""
        wait = math.ceil(self._clock.real(room.wait))
        hints: dict[str, str] = {}
        if (always and self._limit_hints != "never") or self._limit_hints == "x-ratelimit":
            hints = limit_headers(room.limit, room.remaining, self._clock.now() + max(1, wait))
        if self._limit_hints == "retry-after" and room.wait:
            hints["Retry-After"] = str(wait)
        return hints
