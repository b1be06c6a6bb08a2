"""No failure reveals the API key or the question.

Both are known words here, searched for in each error's text, fields, pickle, chain and traceback with locals, in log
lines at DEBUG, and in events.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Literal

import aiohttp
import msgspec
import pytest
from _faulty import ENOUGH, emulator, session_at, taken

from aiopplx import AiopplxError, Event, InvalidRequest, Job, RetryPolicy, Session
from aiopplx._http.secret import Secret, check_key
from aiopplx.emulator import AfterPolls, WireServer, faults, wire

KEY = "canary-key-5d1f9c3e7b2a"
QUESTION = "Is the canary in this question still singing?"
QUICK = RetryPolicy(
    doubt_tries=2,
    call_tries=2,
    patience=1.0,
)
QUICK_POLLS = {
    "unreadable_polls": 2,
    "unreadable_seconds": 1.0,
    "missing_grace": 1.0,
    "missing_recheck": 1.0,
    "empty_polls": 1,
    "empty_seconds": 1.0,
}
BOUNDS = {"retry": QUICK, **QUICK_POLLS, "submit_seconds": ENOUGH, "poll_seconds": ENOUGH}
# Where no exchange is meant to succeed, none needs time to.
IN_VAIN = {"retry": QUICK, **QUICK_POLLS, "submit_seconds": 0.2, "poll_seconds": 0.2}


class Said:
    """All that was said while something failed."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.events: list[Event] = []
        self.problems: list[BaseException] = []
        self.jobs: list[Job] = []
        self._caplog = caplog

    def texts(self) -> Iterator[tuple[str, str]]:
        """(where, text) of everything in which neither the key nor the question may stand."""
        for event in self.events:
            yield f"event {event.kind}", repr(event) + msgspec.json.encode(event).decode()
        for record in self._caplog.records:
            yield f"log of {record.name}", record.getMessage() + repr(record.args) + (record.exc_text or "")
            yield "fields of a log record", repr(vars(record))
        for problem in self.problems:
            for one in chain(problem):
                yield f"text of {type(one).__name__}", str(one) + repr(one) + repr(one.args)
                yield f"fields of {type(one).__name__}", repr(vars(one))
                yield f"pickle of {type(one).__name__}", pickle.dumps(one).decode("latin-1")
        for job in self.jobs:
            # A row of answers has its question, which is what a person looks for in it. The rest of it has not.
            yield "a job", repr(job) + repr({**job.to_dict(), "question": ""})

    def texts_with_locals(self) -> Iterator[tuple[str, str]]:
        """Tracebacks with the variables of every frame: the question is rightly among them, the key never."""
        for problem in self.problems:
            report = traceback.TracebackException.from_exception(problem, capture_locals=True)
            yield f"traceback of {type(problem).__name__}", "".join(report.format())
            for one in chain(problem):
                yield f"frames of {type(one).__name__}", "".join(frames(one.__traceback__))


def chain(problem: BaseException | None) -> Iterator[BaseException]:
    """An exception, its causes and its contexts."""
    seen: set[int] = set()
    left = [problem]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]


def frames(tb: TracebackType | None) -> Iterator[str]:
    """The variables of the library's own frames, and of the objects in them one level down."""
    while tb is not None:
        if "aiopplx" in tb.tb_frame.f_globals.get("__name__", ""):
            for name, value in tb.tb_frame.f_locals.items():
                yield f"{name}={value!r} {vars(value)!r}" if hasattr(value, "__dict__") else f"{name}={value!r}"
        tb = tb.tb_next


def nothing_was_given_away(said: Said) -> None:
    assert said.problems or said.jobs
    assert [where for where, text in said.texts() if KEY in text] == []
    assert [where for where, text in said.texts() if QUESTION in text] == []
    assert [where for where, text in said.texts_with_locals() if KEY in text] == []
    for problem in said.problems:
        assert [one for one in chain(problem) if isinstance(one, aiohttp.ClientError)] == []


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.DEBUG)
    return Said(caplog)


async def tried(session: Session, said: Said, *, timeout: float = 60.0) -> None:
    """Everything that a user may do, with whatever comes of it noted."""
    said.jobs += await _noted(said, session.ask(QUESTION, timeout=timeout))
    said.jobs += await _noted(said, session.submit(QUESTION))
    said.jobs += await _noted(said, session.wait("00000000-0000-4000-8000-00000000dead", timeout=timeout))
    await _noted(said, session.get("00000000-0000-4000-8000-00000000dead"))
    await _noted(said, session.list())
    found: list[Job] = []
    await _noted(said, taken(session.batch([QUESTION, QUESTION], timeout=timeout), found))
    said.jobs += found
    said.problems += [job.error for job in said.jobs if job.error is not None]
    for job in said.jobs:
        await _noted(said, _result(job))


async def _result(job: Job) -> Job:
    return job.result()


async def _noted(said: Said, call: object) -> list[Job]:
    try:
        outcome = await call  # type: ignore[misc]  # any awaitable
    except AiopplxError as error:
        said.problems.append(error)
        return []
    return [outcome] if isinstance(outcome, Job) else []


async def _under_every_fault(said: Said, on: Literal["submit", "get"]) -> None:
    for fault in faults.NAMED.values():
        async with emulator(duration=AfterPolls(1)) as server:
            server.faults.add(on, fault)
            async with session_at(
                server.url,
                api_key=KEY,
                events=said.events,
                speed=600.0,
                max_response_bytes=300_000,
                **BOUNDS,
            ) as session:
                said.jobs += await _noted(said, session.ask(QUESTION, timeout=30.0))
    said.problems += [job.error for job in said.jobs if job.error is not None]

    assert len({type(problem) for problem in said.problems}) >= 6
    nothing_was_given_away(said)


async def test_no_submission_fault_reveals_the_key_or_question(said: Said) -> None:
    await _under_every_fault(said, "submit")


async def test_no_poll_fault_reveals_the_key_or_question(said: Said) -> None:
    await _under_every_fault(said, "get")


ECHOES: dict[str, faults.Status] = {
    "message": faults.Status(400, message=f"The key {KEY} is odd."),
    "type": faults.Status(400, type=KEY),
    "request id": faults.Status(400, headers={"x-request-id": KEY}),
    "key in a 401": faults.Status(401, message=f"Bad key {KEY}."),
    "title": faults.Status(500, body=f"<html><title>{KEY}</title></html>"),
    "page": faults.Status(200, body=f"<html><body>Authorization: Bearer {KEY}</body></html>"),
    "JSON that is no job": faults.Status(200, body=f'{{"authorization": "Bearer {KEY}"}}'),
    "location": faults.Status(307, headers={"Location": f"https://{KEY}.example/?key={KEY}"}),
    "status word": faults.Status(200, body=f'{{"id": "00000000-0000-4000-8000-00000000dead", "status": "{KEY}"}}'),
    "reason": faults.Status(
        200, body=f'{{"id": "00000000-0000-4000-8000-00000000dead", "status": "FAILED", "error_message": "{KEY}"}}'
    ),
    "question in a validation error": faults.Status(
        422, body=f'{{"detail": [{{"loc": ["body"], "msg": "bad", "input": "{QUESTION}"}}]}}'
    ),
}


@pytest.mark.parametrize("name", ECHOES)
async def test_server_that_echoes_the_key_gives_nothing_away(name: str, said: Said) -> None:
    async with emulator() as server:
        server.faults.add("*", ECHOES[name])
        async with session_at(server.url, api_key=KEY, events=said.events, speed=600.0, **BOUNDS) as session:
            await tried(session, said, timeout=20.0)

    nothing_was_given_away(said)


WIRE: dict[str, wire.Behaviour] = {
    "garbage": wire.GARBAGE,
    "huge header": wire.HUGE_HEADER,
    "cut": wire.Cut(b'{"id": "1"}'),
    "silent": wire.Silent(),
    "reset": wire.Reset(),
    "reset at once": wire.Reset("connect"),
}


@pytest.mark.parametrize("name", WIRE)
async def test_broken_wire_gives_nothing_away(name: str, said: Said) -> None:
    async with (
        WireServer([WIRE[name]]) as server,
        session_at(server.url, api_key=KEY, events=said.events, speed=600.0, **IN_VAIN) as session,
    ):
        await tried(session, said, timeout=10.0)

    nothing_was_given_away(said)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
async def test_server_that_is_not_there_gives_nothing_away(url: str, said: Said) -> None:
    async with session_at(url, api_key=KEY, events=said.events, speed=600.0, **BOUNDS) as session:
        await tried(session, said, timeout=10.0)

    nothing_was_given_away(said)


async def test_invalid_request_is_named_without_being_repeated(said: Said) -> None:
    bad: list[dict[str, object]] = [
        {"question": QUESTION, "reasoning_effort": "enormous"},
        {"question": QUESTION, "no_such_field": 1},
        {"question": QUESTION, "messages": [{"role": "user", "content": QUESTION}]},
        {"messages": [{"role": "assistant", "content": QUESTION}]},
        {"messages": [{"role": "poet", "content": QUESTION}]},
        {"question": [QUESTION]},
        {"messages": QUESTION},
        {"question": QUESTION, "temperature": 99},
        {"question": QUESTION, "response_format": 3},
    ]
    async with session_at("http://127.0.0.1:9", api_key=KEY, events=said.events) as session:
        for request in bad:
            with pytest.raises(InvalidRequest) as raised:
                await session.ask(request)
            said.problems.append(raised.value)
        said.jobs += await taken(session.batch(bad), [])
    said.problems += [job.error for job in said.jobs if job.error is not None]

    assert len(said.problems) == 2 * len(bad)
    nothing_was_given_away(said)


async def test_session_shows_its_key_in_no_form() -> None:
    async with emulator() as server, session_at(server.url, api_key=KEY) as session:
        await session.ask(QUESTION)

        assert KEY not in repr(session) + str(session) + repr(vars(session))
    kept = check_key(Secret(KEY))
    assert KEY not in repr(kept) + str(kept) + repr([kept])
    assert not hasattr(kept, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(kept)


async def test_short_placeholder_key_does_not_garble_messages() -> None:
    async with emulator() as server, session_at(server.url, api_key="e") as session:
        server.faults.add("submit", faults.Status(400, message="The request is odd."))
        job = await session.ask(QUESTION)

        assert job.error is not None
        assert job.error.message == "The request is odd."
