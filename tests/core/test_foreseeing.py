"""A batch whose jobs would outlive their limits says so before its first submission, and no other batch does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

from aiopplx import Event, EventKind, Session
from aiopplx.emulator import Emulator
from aiopplx.testing import JumpingClock

QUESTIONS = [f"Question {n}?" for n in range(1_000)]


async def told(source: Iterable[str], *, journal: str | None = None, **how: Any) -> list[Event]:
    """The events of a batch that is left at its first submission: the first one is what matters."""
    clock = JumpingClock()
    events: list[Event] = []
    options: dict[str, Any] = {"tier": 0, "timeout": 600.0} | how
    lane: dict[str, Any] = {"prefer": options.pop("prefer")} if "prefer" in options else {}
    async with Emulator(duration=100.0, answer_chars=200, clock=clock) as server:
        session = Session(
            "k" * 20, base_url=server.url, api="agent", clock=clock, on_event=events.append, journal=journal, **options
        )
        async with session, session.batch(source, **lane):
            await server.until(lambda ledger: ledger.created > 0)
    return events


async def test_run_that_outlives_its_time_limits_says_so_first():
    first = (await told(QUESTIONS))[0]
    assert first.kind is EventKind.WARNING
    assert re.fullmatch(
        r"the time limit of a job is 10 min, and at 50 requests a minute for submissions and polls together, a result"
        r" waits up to 20 min for its turn: about 9\d% of 1,000 jobs are expected to be paid for and not to be handed"
        r" out in time\. Raise timeout, lower max_in_flight, or use batch\(prefer=\"results\"\)",
        first.reason,
    )


@pytest.mark.parametrize(
    ("source", "how"),
    [
        (QUESTIONS[:100], {}),
        ((question for question in QUESTIONS), {}),
        (QUESTIONS, {"timeout": 3_600.0}),
        (QUESTIONS, {"max_in_flight": 100}),
        (QUESTIONS, {"prefer": "results"}),
        (QUESTIONS, {"tier": 5}),
        (QUESTIONS, {"tier": None}),
    ],
    ids=["few", "no length", "long limit", "few at once", "results first", "fast", "limit unknown"],
)
async def test_other_runs_are_not_warned_of(source: Iterable[str], how: dict[str, Any]):
    assert not [event for event in await told(source, **how) if event.kind is EventKind.WARNING]


async def test_source_whose_length_fails_is_read_all_the_same():
    class Odd(list[str]):
        def __len__(self) -> int:
            raise ZeroDivisionError

    assert [event for event in await told(Odd(QUESTIONS)) if event.kind is EventKind.SUBMITTED]
