"""No exception that leaves the library shows the API key, however much of its frames is printed.

Each public call is cancelled, or runs into a time limit of its caller, at each of its awaits; each argument of the
constructor is wrong once. Then every variable of every frame is searched, and what lies in these objects.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import pkgutil
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from _faulty import emulator, taken
from _frames import where_shown
from _postgres import Server

import aiopplx
from aiopplx import (
    Batch,
    ConfigError,
    Event,
    EventKind,
    Job,
    JournalOptions,
    NetworkOptions,
    PollPolicy,
    RetryPolicy,
    Session,
)
from aiopplx._http.proxy import Proxy
from aiopplx.emulator import AfterPolls, Emulator, WireServer, faults, wire
from aiopplx.journal import JournalAway, JournalError, PostgresJournal, open_reader
from aiopplx.journal._postgres.migrate import migrate
from aiopplx.testing import Clock

KEY = "canary-key-5d1f9c3e7b2a"
AWAITS = 400  # more than any of these calls has


def is_shown(problem: BaseException) -> list[str]:
    """Where the key can be read in what was raised."""
    return where_shown(KEY, problem, but=__file__)


# --- cancelled at every await ----------------------------------------------------------------------------------------

Use = Callable[[Session, Job], Awaitable[object]]


async def _batch(session: Session, job: Job) -> None:
    await taken(session.batch(["Why did the Vasa sink?", "Why is the sky dark?"]), [])


async def _listed(session: Session, job: Job) -> list[Job]:
    return [one async for one in session.list()]


async def _closed(session: Session, job: Job) -> None:
    await session.submit("Why did the Vasa sink?")
    await session.aclose()


async def _decided(session: Session, job: Job) -> None:
    await session.in_doubt()
    known = await session.adopt(job.id, tag="adopted")
    await session.wait(known)


USES: dict[str, Use] = {
    "ask": lambda session, job: session.ask("Why did the Vasa sink?"),
    "submit": lambda session, job: session.submit("Why did the Vasa sink?"),
    "wait": lambda session, job: session.wait(job.id),
    "get": lambda session, job: session.get(job.id),
    "cancel": lambda session, job: session.cancel(job.id),
    "list": _listed,
    "batch": _batch,
    "aclose": _closed,
    "journal": _decided,
}


def session_of(server: Emulator, path: Path, use: str, http: aiohttp.ClientSession | None) -> Session:
    return Session(
        KEY,
        base_url=server.url,
        api="agent" if use == "cancel" else "sonar",
        clock=Clock(200),
        poll=PollPolicy.fixed(1),
        http=http,
        journal=path / "run.db" if use == "journal" else None,
    )


async def stopped_after(turns: int, use: Use, session: Session, job: Job, *, by_limit: bool) -> BaseException | None:
    """What the call raises when its task is asked to end at this turn of the loop; None if it had ended by then."""
    limit = asyncio.timeout(None)

    async def call() -> None:
        async with limit:
            await use(session, job)

    task = asyncio.create_task(call())
    for _ in range(turns):
        await asyncio.sleep(0)
        if task.done():
            break
    if task.done():
        await task
        return None
    if by_limit and turns:
        limit.reschedule(asyncio.get_running_loop().time())
    else:
        task.cancel()
    try:
        await task
    except (asyncio.CancelledError, TimeoutError) as error:
        return error
    return None


@pytest.mark.parametrize("owner", ["ours", "theirs"])
@pytest.mark.parametrize("use", USES)
async def test_call_that_is_cancelled_anywhere_shows_no_key(use: str, owner: str, tmp_path: Path) -> None:
    shown: list[str] = []
    cut = 0
    async with emulator(duration=AfterPolls(1)) as server, aiohttp.ClientSession() as http:
        async with session_of(server, tmp_path, use, None) as session:
            job = await session.submit("Who first measured the speed of light?")
        turns = 0
        is_over = False
        while turns < AWAITS and not is_over:
            async with session_of(server, tmp_path, use, http if owner == "theirs" else None) as session:
                problem = await stopped_after(turns, USES[use], session, job, by_limit=bool(turns % 2))
            if problem is not None:
                cut += 1
                shown += [f"at turn {turns}: {where}" for where in is_shown(problem)]
            is_over = problem is None and turns > 8
            turns += 1 if turns < 40 else 5
    assert shown == []
    assert cut >= 8


async def test_limit_round_a_silent_server_shows_no_key() -> None:
    async with WireServer([wire.Silent()]) as server, Session(KEY, base_url=server.url) as session:
        for call in (session.get("00000000-0000-4000-8000-00000000dead"), session.list()):
            with pytest.raises(TimeoutError) as raised:
                async with asyncio.timeout(0.05):
                    await call
            assert is_shown(raised.value) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_program_that_ends_inside_an_exchange_shows_no_key(error: type[BaseException]) -> None:
    async def interrupt(*_: object) -> None:
        raise error

    async def program() -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(interrupt)
        async with (
            emulator() as server,
            aiohttp.ClientSession(trace_configs=[trace]) as http,
            Session(KEY, base_url=server.url, http=http) as session,
        ):
            await session.get("00000000-0000-4000-8000-00000000dead")

    with pytest.raises(error) as raised:
        asyncio.run(program())
    assert is_shown(raised.value) == []


@pytest.mark.parametrize("on", ["submit", "get", "list"])
async def test_error_of_any_fault_shows_no_key(on: str) -> None:
    shown: list[str] = []
    problems: list[BaseException] = []
    for name, fault in faults.NAMED.items():
        async with emulator(duration=AfterPolls(1)) as server:
            server.faults.add(on, fault)  # type: ignore[arg-type]  # one of its words
            async with Session(
                KEY,
                base_url=server.url,
                api="sonar",
                clock=Clock(600),
                poll=PollPolicy.fixed(1),
                retry=RetryPolicy(doubt_tries=2, call_tries=2, patience=1.0),
                network=NetworkOptions(submit_seconds=0.3, poll_seconds=0.3, max_response_bytes=300_000),
            ) as session:
                calls = [session.ask("Why?", timeout=30.0), session.get("00000000-0000-4000-8000-00000000dead")]
                for outcome in await asyncio.gather(*calls, session.list(), return_exceptions=True):
                    if isinstance(outcome, Job) and outcome.error is not None:
                        outcome = outcome.error
                    if isinstance(outcome, BaseException):
                        problems.append(outcome)
                        shown += [f"{name}: {where}" for where in is_shown(outcome)]
    assert shown == []
    assert len(problems) > 20


# --- the constructor -------------------------------------------------------------------------------------------------

MISTAKES: dict[str, dict[str, Any]] = {
    "rpm": {"rpm": 0},
    "max_in_flight": {"max_in_flight": 0.5},
    "timeout": {"timeout": "x"},
    "max_cost": {"max_cost": -1},
    "api": {"api": "gopher"},
    "base_url": {"base_url": "ftp://x"},
    "base_url of another type": {"base_url": 7},
    "journal": {"journal": 7},
    "poll": {"poll": 3},
    "retry": {"retry": 3},
    "on_event": {"on_event": 3},
    "http": {"http": 3},
    "clock": {"clock": 3},
    "network": {"network": 3},
    "unknown word": {"rmp": 3},
}
BAD_KEYS: dict[str, Any] = {
    "blank inside": f"{KEY} {KEY}",
    "not ASCII": f"{KEY}é",
    "half a surrogate pair": f"{KEY}\ud800",
    "control": f"{KEY}\n{KEY}",
    "bytes": KEY.encode(),
    "list": [KEY],
}


def refusal(*args: Any, **words: Any) -> BaseException:
    with pytest.raises((ConfigError, TypeError)) as raised:
        Session(*args, **words)
    return raised.value


@pytest.mark.parametrize("name", MISTAKES)
def test_constructor_that_refuses_an_argument_shows_no_key(name: str) -> None:
    assert is_shown(refusal(KEY, **MISTAKES[name])) == []
    assert is_shown(refusal(api_key=KEY, **MISTAKES[name])) == []


@pytest.mark.parametrize("name", BAD_KEYS)
def test_key_that_cannot_be_used_is_not_shown(name: str) -> None:
    problem = refusal(BAD_KEYS[name])
    assert isinstance(problem, ConfigError)
    assert is_shown(problem) == []


def test_two_keys_in_the_environment_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEY)
    monkeypatch.setenv("PPLX_API_KEY", KEY[::-1])
    assert is_shown(refusal()) == []
    monkeypatch.setenv("PPLX_API_KEY", f" {KEY}\n")
    assert isinstance(Session(), Session)
    assert is_shown(refusal(rpm=0)) == []


def test_session_outside_a_loop_shows_no_key() -> None:
    session = Session(KEY)
    with pytest.raises(ConfigError) as raised:
        session.batch(["Why?"])
    assert is_shown(raised.value) == []


# --- half-made objects -----------------------------------------------------------------------------------------------


def _classes() -> list[type]:
    names = [info.name for info in pkgutil.walk_packages(aiopplx.__path__, "aiopplx.") if "__main__" not in info.name]
    modules = [importlib.import_module(name) for name in names if not name.startswith("aiopplx.cli")]
    return [
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and "__repr__" in vars(cls) and "__init__" in vars(cls)
    ]


def test_half_made_object_can_be_shown() -> None:
    """As in a traceback with variables, where its constructor refused an argument."""
    bad: list[tuple[type, dict[str, Any]]] = [
        (Session, {"api_key": KEY, "rpm": 0}),
        (Clock, {"speed": 0}),
        (Clock, {"speed": "fast"}),
        (aiopplx.testing.JumpingClock, {"wall": "noon"}),
    ]
    assert {cls.__name__ for cls in _classes()} <= {"Session", "Batch", "Clock", "JumpingClock", "Proxy", "Secret"}
    for cls, words in bad:
        with pytest.raises((ConfigError, TypeError)) as raised:
            cls(**words)
        report = traceback.TracebackException.from_exception(raised.value, capture_locals=True).format()
        assert "repr() failed" not in "".join(report)
    assert "refused" in repr(object.__new__(Session))
    assert "being made" in repr(object.__new__(Batch))
    assert repr(object.__new__(Proxy)) == "Proxy('')"
    assert KEY not in repr(Proxy(f"ftp://user:{KEY}@nowhere")) + repr(Proxy(f"http://user:{KEY}@proxy:8080"))


# --- the password of a database --------------------------------------------------------------------------------------

PASSWORD = "canary-word-8c1d"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@db:port/x",
        f"postgresql://u:{PASSWORD}@db/x?sslmode=prefer",
        f"postgresql://u@db/x?password={PASSWORD}",
        f"postgresql://u:1/{PASSWORD}@db/x?schema=NO",
    ],
)
def test_refused_url_shows_no_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    for journal in (url, JournalOptions(url, wait=1.0)):
        with pytest.raises(ConfigError) as caught:
            Session("key", journal=journal)
        del journal
        assert where_shown(PASSWORD, caught.value, but=__file__) == []
    assert PASSWORD not in repr(JournalOptions(url))


@pytest.mark.parametrize("cancel_after", [None, 1, 2, 3, 5, 8, 13])
async def test_database_out_of_reach_shows_no_password(cancel_after: int | None, postgres: Server) -> None:
    good = postgres.url().replace("postgresql://", f"postgresql://u:{PASSWORD}@")
    session = Session("key", journal=good if cancel_after else good.replace(str(postgres.folder), "/nowhere"))
    assert PASSWORD not in repr(session._settings.journal)
    opening = asyncio.ensure_future(session.__aenter__())
    if cancel_after is not None:
        for _ in range(cancel_after):
            await asyncio.sleep(0)
        opening.cancel()
    with pytest.raises((JournalAway, asyncio.CancelledError)) as caught:
        await opening
    assert where_shown(PASSWORD, caught.value, but=__file__) == []


async def _read(url: str) -> None:
    open_reader(url).close()


async def _shared(url: str) -> None:
    async with Session("key", shared=url, rpm=60):
        pass


OPENINGS: dict[str, Callable[[str], Awaitable[object]]] = {
    "journal": PostgresJournal.open,
    "migrate": migrate,
    "reader": _read,
    "shared": _shared,
}


@pytest.mark.parametrize("use", OPENINGS)
@pytest.mark.parametrize("words", [{"host": "/nowhere"}, {"dbname": "none"}, {"user": "none"}], ids=str)
async def test_refused_opening_shows_no_password(use: str, words: dict[str, str], postgres: Server) -> None:
    url = postgres.url(**words).replace("postgresql://", f"postgresql://u:{PASSWORD}@")
    with pytest.raises(JournalError) as caught:
        await OPENINGS[use](url)
    assert where_shown(PASSWORD, caught.value, but=__file__) == []


async def test_database_that_goes_away_is_told_once_without_password(
    postgres: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[Event] = []
    paused = asyncio.Event()

    def told(event: Event) -> None:
        events.append(event)
        if event.kind is EventKind.PAUSED:
            paused.set()

    url = postgres.url().replace("postgresql://", f"postgresql://u:{PASSWORD}@")
    async with (
        Emulator(duration=AfterPolls(1), answer_chars=100) as server,
        Session(
            KEY,
            base_url=server.url,
            journal=url,
            rpm=6_000,
            clock=Clock(20),
            poll=PollPolicy.fixed(1),
            on_event=told,
        ) as session,
    ):
        assert (await session.ask("Why?", tag="before")).ok
        postgres.stop()
        try:
            asking = [asyncio.create_task(session.ask(f"Why {n}?", tag=n)) for n in range(3)]
            with pytest.raises(JournalAway) as caught:
                await migrate(url)
            await paused.wait()
        finally:
            postgres.start()
        assert [(await task).ok for task in asking] == [True] * 3
        shown = repr(session) + repr(session._settings)
    kinds = [event.kind for event in events if event.kind in (EventKind.PAUSED, EventKind.RESUMED, EventKind.STOPPED)]
    assert kinds == [EventKind.PAUSED, EventKind.RESUMED]
    assert where_shown(PASSWORD, caught.value, but=__file__) == []
    assert PASSWORD not in repr(events) + caplog.text + shown
