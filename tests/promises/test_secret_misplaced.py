"""A secret that was given in the wrong place is in no message, and in no variable of a frame of this library.

Each argument of each public callable that refuses what is wrong gets a key, an address with a password, and both within
other values. What it refuses is looked through as an error tracker would.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from _frames import where_shown

import aiopplx
from aiopplx import AiopplxError, JournalOptions, NetworkOptions, PollPolicy, RetryPolicy, Session
from aiopplx.emulator import Emulator
from aiopplx.journal import open_reader

SECRET = "canary-key-5d1f9c3e7b2a"
VALUES: dict[str, Any] = {
    "text": SECRET,
    "bytes": SECRET.encode(),
    "list": [SECRET],
    "value": {"api_key": SECRET},
    "name": {SECRET: 1},
    "address": f"https://user:{SECRET}@host/path?query",
    "database": f"postgresql://user:{SECRET}@host:1/db?nothing=1",
}
OPTIONS: dict[str, Any] = {
    "retry": RetryPolicy,
    "poll": PollPolicy,
    "network": NetworkOptions,
    "journal": JournalOptions,
}
HELD = frozenset({"question", "tag", "idempotency_key", "fields", "self", "after", "run", "tenant", "source"})
"""What may be any text, so that nothing refuses it."""


def arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def is_clean(problem: BaseException) -> None:
    assert SECRET not in f"{problem!s} {problem!r}"
    assert where_shown(SECRET, problem, but=__file__) == []


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a text may be the path of a journal


@pytest.mark.parametrize("argument", arguments(Session))
@pytest.mark.parametrize("form", VALUES)
def test_no_argument_of_a_session_shows_a_secret(argument: str, form: str) -> None:
    words: dict[str, Any] = {"api_key": "a-valid-key-0123456789", argument: VALUES[form]}
    try:
        session = Session(**words)
    except (AiopplxError, TypeError) as problem:
        is_clean(problem)
    else:
        assert SECRET not in repr(session)


@pytest.mark.parametrize("form", VALUES)
@pytest.mark.parametrize(
    ("owner", "field"), [(owner, field) for owner, kind in OPTIONS.items() for field in arguments(kind)]
)
def test_no_field_of_an_option_shows_a_secret(owner: str, field: str, form: str) -> None:
    words = {"path": "a.db"} if owner == "journal" else {}
    try:
        Session("a-valid-key-0123456789", **{owner: OPTIONS[owner](**{**words, field: VALUES[form]})})
    except (AiopplxError, TypeError) as problem:
        is_clean(problem)


@pytest.mark.parametrize("extra", [("a-valid-key-0123456789", SECRET), (SECRET, SECRET)])
def test_too_many_arguments_show_no_secret(extra: tuple[str, ...]) -> None:
    with pytest.raises(TypeError) as raised:
        Session(*extra)  # type: ignore[misc]  # as somebody may
    is_clean(raised.value)


CALLS: dict[str, dict[str, Any]] = {
    "ask": {"question": "Why?"},
    "submit": {"question": "Why?"},
    "batch": {"source": ["Why?"]},
    "estimate": {"source": ["Why?"]},
    "wait": {"job": "00000000-0000-4000-8000-00000000dead"},
    "follow": {"job": "00000000-0000-4000-8000-00000000dead"},
    "get": {"id": "00000000-0000-4000-8000-00000000dead"},
    "cancel": {"job": "resp_1"},
    "files": {"job": "resp_1"},
    "download": {"job": "resp_1", "file": "f", "path": "f"},
    "list": {},
    "events": {},
    "eta": {},
    "resubmit": {"job": "x", "pay_again": True},
    "adopt": {"job_id": "00000000-0000-4000-8000-00000000dead"},
    "drop": {"job": "x"},
}
"""The calls of a session with arguments that are right, or nearly."""


@pytest.mark.parametrize("form", [form for form in VALUES if form not in ("text", "address", "database")])
@pytest.mark.parametrize("call", CALLS)
async def test_no_call_of_a_session_shows_a_secret(call: str, form: str) -> None:
    refused = 0
    async with Emulator() as server, Session("a-valid-key-0123456789", base_url=server.url) as session:
        method = getattr(session, call)
        wrong = [name for name in arguments(method) if name not in HELD] + ["no_such_word"]
        for argument in wrong:
            try:
                made = method(**{**CALLS[call], argument: VALUES[form]})
                if inspect.isawaitable(made):
                    await made
            except (AiopplxError, TypeError) as problem:
                refused += 1
                is_clean(problem)
    assert refused > 0


@pytest.mark.parametrize("field", ["reasoning_effort", "max_tokens", "response_format", "timeout", "reuse"])
async def test_no_field_of_a_question_shows_a_secret(field: str) -> None:
    async with Emulator() as server, Session("a-valid-key-0123456789", base_url=server.url) as session:
        for value in VALUES.values():
            for call in (session.ask, session.submit):
                words: Any = {field: value}
                try:
                    await call("Why?", **words)
                except (AiopplxError, TypeError) as problem:
                    is_clean(problem)
                else:
                    pytest.fail("nothing refused it")


@pytest.mark.parametrize("form", [form for form in VALUES if form != "text"])  # which is the name of a file
def test_reader_of_a_journal_shows_no_secret(form: str) -> None:
    try:
        open_reader(VALUES[form])
    except (AiopplxError, TypeError) as problem:
        is_clean(problem)


def test_refusal_begins_where_the_caller_called() -> None:
    with pytest.raises(aiopplx.ConfigError) as raised:
        Session("a-valid-key-0123456789", rpm=0)
    assert [entry.name for entry in raised.traceback] == ["test_refusal_begins_where_the_caller_called", "checked"]
