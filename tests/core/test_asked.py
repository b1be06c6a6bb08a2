"""What a session without a journal notices when a batch asks what an earlier one has asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiopplx import Event, EventKind, PollPolicy, Session
from aiopplx._core.batch.asked import Asked
from aiopplx._core.freezing import freeze
from aiopplx._submission import Submission
from aiopplx.apis._registry import APIS, Routing
from aiopplx.emulator import Emulator
from aiopplx.testing import JumpingClock

ROUTING = Routing(*APIS["sonar"])
AGAIN = "questions of this batch were asked in this session before."


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    async with Emulator(clock=JumpingClock(), duration=0.0, answer_chars=300) as server:
        yield server


def submission(question: str = "Why?", key: str = "a" * 32, **fields: Any) -> Submission:
    return freeze({"question": question, **fields}, routing=ROUTING, new_key=lambda: key, timeout=60.0)


def test_a_question_is_the_same_whatever_its_key() -> None:
    asked = Asked()
    assert asked.by(1, submission(key="a" * 32)) == 1
    assert asked.by(2, submission(key="b" * 32)) == 1


@pytest.mark.parametrize(
    "other",
    [
        submission("Why not?"),
        submission(tag="r1"),
        submission(reasoning_effort="high"),
        submission(idempotency_key="mine"),
    ],
    ids=["words", "tag", "field", "the caller's own key"],
)
def test_another_question_is_not_the_same(other: Submission) -> None:
    asked = Asked()
    assert asked.by(1, submission()) == 1
    assert asked.by(1, submission(idempotency_key="mine")) == 1
    assert asked.by(2, other) == 2


def test_under_one_tag_the_same_question_is_the_same() -> None:
    asked = Asked()
    assert [asked.by(batch, submission(tag="r1", key=str(batch) * 32)) for batch in (1, 2)] == [1, 1]


def test_what_is_remembered_does_not_grow() -> None:
    asked = Asked(most=10)
    for n in range(100):
        asked.by(n, submission(f"Why {n}?"))
        asked.cost(n, 1.0)
    assert len(asked._by) == len(asked._costs) == 10
    assert [asked.by(200, submission(f"Why {n}?")) for n in (99, 5)] == [99, 200]


def test_dollars_are_said_only_where_all_are_known() -> None:
    asked = Asked()
    asked.cost(1, 0.5)
    asked.cost(1, 1.5)
    assert asked.sentence([1, 1], 3).startswith("2 of 3 questions were asked in this session before ($2.00). They are")
    assert asked.sentence([1, 2], 3).startswith("2 of 3 questions were asked in this session before. They are")
    assert asked.sentence([1], 0).startswith(AGAIN)


def warnings(told: list[Event]) -> list[str]:
    return [event.reason for event in told if event.kind is EventKind.WARNING]


async def taken(session: Session, source: Any) -> None:
    async with session.batch(source) as jobs:
        assert [job.ok async for job in jobs]


@pytest.mark.parametrize("remembers", [True, False], ids=["journal", "no journal"])
async def test_with_a_journal_there_is_nothing_to_say(server: Emulator, remembers: bool, tmp_path: Path) -> None:
    told: list[Event] = []
    journal = tmp_path / "run.db" if remembers else None
    more: dict[str, Any] = {"poll": PollPolicy.fixed(1.0), "journal": journal, "on_event": told.append}
    async with Session("key", base_url=server.url, api="sonar", clock=JumpingClock(), **more) as session:
        for _ in range(2):
            await taken(session, ["Why?", "Why?", "How?"])
    assert len(warnings(told)) == (0 if remembers else 1)
    assert server.ledger.created == (3 if remembers else 6)


async def test_uncounted_source_is_told_of_without_numbers(server: Emulator) -> None:
    told: list[Event] = []
    more: dict[str, Any] = {"poll": PollPolicy.fixed(1.0), "on_event": told.append}
    async with Session("key", base_url=server.url, api="sonar", clock=JumpingClock(), **more) as session:
        await taken(session, ["Why?", "How?"])
        await session.ask("Why?")
        await taken(session, (question for question in ("What?", "Why?", "How?")))
    (reason,) = warnings(told)
    assert reason.startswith(AGAIN)
