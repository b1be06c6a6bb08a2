"""A server that does not know `effort` yet gets `preset`: nothing is paid twice, and the journal has what was sent."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from _faulty import QUESTION, QUESTIONS, emulator, recorded, session_at

from aiopplx import AgentRequest, APIError, Event, EventKind, InDoubt, Job, Session
from aiopplx.emulator import Asked, faults

BEHIND = {"effort"}


def words(bodies: list[bytes]) -> list[str]:
    """Which of the two words each body has."""
    return [next(word for word in ("effort", "preset") if word in json.loads(body)) for body in bodies]


async def all_of(session: Session, questions: Any) -> list[Job]:
    async with session.batch(questions) as jobs:
        return [job async for job in jobs]


@pytest.fixture(params=["with a journal", "without"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "run.db" if request.param == "with a journal" else None


async def test_question_is_sent_again_in_the_known_word(journal: Path | None) -> None:
    events: list[Event] = []
    async with emulator(unknown_fields=BEHIND) as server:
        bodies = recorded(server, "submit", QUESTION)
        async with session_at(server.url, api="agent", journal=journal, events=events) as session:
            first = await session.ask(QUESTION, tag="mine")
            again = await session.ask(QUESTION, tag="other")
        assert first.ok
        assert again.ok
        assert (first.attempts, again.attempts) == (2, 1)
        assert words(bodies) == ["effort", "preset", "preset"], "remembered for the session"
        sent = [json.loads(body) for body in bodies]
        assert {**sent[0], "effort": None, "preset": "high"} == {**sent[1], "effort": None}
        assert server.ledger.created == 2
        assert [event.reason for event in events if event.kind is EventKind.RETRYING] == [
            'invalid request body: json: unknown field "effort"'
        ]


async def test_what_leaves_is_what_stands_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    seen: list[bool] = []

    def look(asked: Asked) -> bool:
        with closing(sqlite3.connect(path)) as db:
            stored = db.execute("SELECT body, state FROM request JOIN job USING (pk)").fetchall()
        seen.append((asked.body, 1) in stored)
        return False

    async with emulator(unknown_fields=BEHIND) as server:
        server.faults.add("submit", faults.Delay(0.0), match=look)
        async with session_at(server.url, api="agent", journal=path) as session:
            found = await all_of(session, QUESTIONS)
        assert all(job.ok for job in found)
        assert len(seen) > len(QUESTIONS)
        assert all(seen), "each attempt was on disk, marked as being sent, before it left"
        assert server.ledger.created == len(QUESTIONS)


async def test_many_at_once_are_each_paid_once(journal: Path | None) -> None:
    async with (
        emulator(unknown_fields=BEHIND) as server,
        session_at(server.url, api="agent", journal=journal) as session,
    ):
        found = await all_of(session, QUESTIONS)
        assert all(job.ok for job in found)
        assert sorted(json.loads(job.body)["input"] for job in server.ledger.jobs) == sorted(QUESTIONS)


async def test_later_run_of_the_journal_finds_its_jobs(tmp_path: Path) -> None:
    async with emulator(unknown_fields=BEHIND) as server:
        for _ in range(2):
            async with session_at(server.url, api="agent", journal=tmp_path / "run.db") as session:
                assert all(job.ok for job in await all_of(session, QUESTIONS))
        assert server.ledger.created == len(QUESTIONS)


@pytest.mark.parametrize("field", ["effort", "preset"])
async def test_server_that_knows_both_words_gets_the_new_one(field: str, journal: Path | None) -> None:
    async with emulator() as server:
        bodies = recorded(server, "submit", QUESTION)
        async with session_at(server.url, api="agent", journal=journal) as session:
            job = await session.ask(AgentRequest(QUESTION, **{field: "low@2026-10-16.0"}))
        assert job.ok
        assert job.response.effort == job.response.preset == "low@2026-10-16.0"
        assert words(bodies) == ["effort"]


def refused_for_its_value(asked: Asked) -> bool:
    return b'"bogus"' in asked.body


async def test_refused_value_is_no_sign_of_an_earlier_release(journal: Path | None) -> None:
    said = json.dumps({
        "error": {"message": "no such effort", "type": "invalid_parameter", "code": 400, "param": "effort"}
    })
    async with emulator() as server:
        bodies = recorded(server, "submit", QUESTION)
        server.faults.add("submit", faults.Status(400, body=said), match=refused_for_its_value)
        async with session_at(server.url, api="agent", journal=journal) as session:
            job = await session.ask(AgentRequest(QUESTION, effort="bogus"))
            assert isinstance(job.error, APIError)
            assert "no such effort" in str(job.error)
            assert job.error.param == "effort"
            assert (await session.ask(QUESTION)).ok
        assert words(bodies) == ["effort", "preset", "effort"]
        assert server.ledger.created == 1


async def test_question_in_doubt_is_not_put_in_other_words(journal: Path | None) -> None:
    """A mixed fleet: one server takes the word and its answer is lost, the next does not know it."""
    said = json.dumps({"error": {"message": "unknown", "type": "invalid_request", "code": 400, "param": "effort"}})
    async with emulator() as server:
        bodies = recorded(server, "submit", QUESTION)
        server.faults.add("submit", faults.Drop(after_accept=True), times=1)
        server.faults.add("submit", faults.Status(400, body=said))
        async with session_at(server.url, api="agent", journal=journal, on_doubt="resend") as session:
            job = await session.ask(QUESTION)
        assert not job.ok
        assert words(bodies) == ["effort", "effort"]
        assert server.ledger.created == 1


async def test_lost_answer_in_the_older_word_is_in_doubt(journal: Path | None) -> None:
    def is_older(asked: Asked) -> bool:
        return b'"preset"' in asked.body

    async with emulator(unknown_fields=BEHIND) as server:
        server.faults.add("submit", faults.Drop(after_accept=True), match=is_older)
        async with session_at(server.url, api="agent", journal=journal) as session:
            job = await session.ask(QUESTION)
        assert isinstance(job.error, InDoubt)
        assert server.ledger.created == 1


async def test_retired_sonar_goes_over_to_an_earlier_release(journal: Path | None) -> None:
    async with emulator(unknown_fields=BEHIND, retired="chat_completions_not_available") as server:
        async with session_at(server.url, api="auto", journal=journal) as session:
            found = await all_of(session, QUESTIONS)
        assert all(job.ok for job in found)
        assert server.ledger.created_by_api == {"agent": len(QUESTIONS)}
