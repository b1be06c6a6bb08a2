"""A session at limits that nobody told it: how long it takes, what is refused, who goes first. In virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from aiopplx import ConfigError, Event, EventKind, JobStatus, PollPolicy, Session
from aiopplx._http.line import SUBMITS_AT_ONCE
from aiopplx.emulator import Emulator, limits
from aiopplx.testing import JumpingClock

GATEWAY = limits.Leaky(5, burst=2)


class Played:
    """One batch at an emulator with limits."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []
        self.statuses: Counter[JobStatus] = Counter()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.is_shared = False

    def seconds(self, kind: EventKind) -> list[float]:
        return [at for at, event in self.events if event.kind is kind]

    @property
    def last_submission(self) -> float:
        return self.seconds(EventKind.SUBMITTED)[-1]

    def refused(self, on: str) -> int:
        return self.answers[on, 429]


async def play(
    jobs: int,
    limit: limits.Limit | Mapping[str, limits.Limit],
    *,
    hints: Any = "never",
    duration: float | None = None,
    prefer: Any = "submissions",
    seed: int = 1,
    **options: Any,
) -> Played:
    clock, played = JumpingClock(), Played()
    began = clock.now()

    def told(event: Event) -> None:
        played.events.append((clock.now() - began, event))

    async with (
        Emulator(
            limits=limit, limit_hints=hints, duration=duration, clock=clock, seed=seed, answer_chars=200
        ) as server,
        Session("any-key", base_url=server.url, api="agent", clock=clock, on_event=told, **options) as session,
    ):
        async with session.batch([f"Question {number}" for number in range(jobs)], prefer=prefer) as batch:
            async for job in batch:
                played.statuses[job.status] += 1
        played.answers = Counter((line.on, line.status) for line in server.ledger.log)
        core = session._core
        assert core is not None
        played.is_shared = core.client.gate.limits.is_shared
    return played


# --- how long it takes, and what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(("jobs", "ideal", "ratio"), [(15, 2.4, 1.5), (60, 11.4, 1.25)])
async def test_small_gateway_is_used_in_full(jobs: int, ideal: float, ratio: float) -> None:
    played = await play(jobs, GATEWAY, duration=60)
    assert played.last_submission <= ratio * ideal
    assert played.statuses == {JobStatus.COMPLETED: jobs}


async def test_refusals_that_come_together_reject_no_job() -> None:
    played = await play(60, GATEWAY, duration=20, timeout=60)
    assert played.statuses == {JobStatus.COMPLETED: 60}


@pytest.mark.parametrize("hints", ["never", "x-ratelimit"])
async def test_polls_take_their_share_of_one_limit(hints: str) -> None:
    played = await play(100, limits.Bucket(50), hints=hints)
    assert played.statuses == {JobStatus.COMPLETED: 100}
    assert played.is_shared
    assert played.last_submission <= 1.10 * 60.0
    if hints == "x-ratelimit":  # one in a hundred; how many exactly depends on how fast the machine is
        assert played.refused("get") + played.refused("submit") <= 0.01 * sum(played.answers.values())
    else:
        assert played.refused("get") <= 10
        assert played.refused("submit") <= 32


async def test_limit_of_submissions_delays_no_poll() -> None:
    every = PollPolicy.fixed(10)
    alone = await play(50, {"submit": limits.Bucket(1e6)}, duration=95, poll=every)
    played = await play(50, {"submit": limits.Bucket(50, burst=20)}, duration=95, poll=every)
    assert not played.is_shared
    assert played.refused("get") == 0
    assert played.answers["get", 200] == pytest.approx(alone.answers["get", 200], rel=0.05)
    assert played.last_submission <= 1.10 * 36.0


async def test_limits_of_their_own_are_not_taken_for_one() -> None:
    apart: dict[str, limits.Limit] = {"submit": limits.Bucket(50), "get": limits.Bucket(6000)}
    for hints in ("never", "x-ratelimit"):
        assert not (await play(80, apart, hints=hints, duration=60)).is_shared


async def test_tier_is_used_without_a_refusal() -> None:
    played = await play(100, limits.Bucket(50), tier=0)
    assert played.last_submission <= 1.05 * 60.0
    assert played.refused("submit") + played.refused("get") == 0


async def test_slow_answers_keep_no_submission_of_a_batch_back() -> None:
    clock = JumpingClock()
    slow = {"submit": limits.InFlight(1_000, 2.0)}
    async with (
        Emulator(limits=slow, duration=60, clock=clock, answer_chars=200) as server,
        Session("any-key", base_url=server.url, api="agent", clock=clock, tier=5) as session,
        session.batch([f"Question {number}" for number in range(SUBMITS_AT_ONCE + 10)]) as batch,
    ):
        assert all([job.ok async for job in batch])
        assert server.ledger.peak == SUBMITS_AT_ONCE


async def test_batch_held_by_its_limit_has_few_in_line() -> None:
    clock = JumpingClock()
    read = 0

    def questions() -> Iterator[str]:
        nonlocal read
        for number in range(200):
            read += 1
            yield f"Question {number}"

    async with (
        Emulator(duration=3_600, clock=clock) as server,
        Session("any-key", base_url=server.url, api="agent", clock=clock, rpm=6) as session,
        session.batch(questions()),
    ):
        await clock.sleep(65.0)
        assert read <= 7 + 20


# --- who goes first ---------------------------------------------------------------------------------------------------


async def test_question_beside_a_batch_is_sent_at_once() -> None:
    clock = JumpingClock()
    sent: dict[object, float] = {}

    def told(event: Event) -> None:
        if event.kind is EventKind.SUBMITTED:
            sent[event.tag] = clock.now()

    async with (
        Emulator(limits=limits.Bucket(50), duration=120, clock=clock, answer_chars=200) as server,
        Session("any-key", base_url=server.url, api="agent", clock=clock, on_event=told) as session,
        session.batch([f"Question {number}" for number in range(300)]) as batch,
    ):
        await anext(batch)
        for number in range(5):
            began = clock.now()
            job = await session.ask("Why did the Vasa sink?", tag=f"ask {number}")
            assert job.ok
            assert sent[f"ask {number}"] - began <= 3.0
            assert clock.now() - began <= 120 + 3.0 + 15.0


async def test_preferred_results_come_before_the_last_submission() -> None:
    first = {}
    for prefer in ("submissions", "results"):
        played = await play(400, limits.Bucket(50), duration=180, prefer=prefer, poll=PollPolicy.fixed(10))
        finished = played.seconds(EventKind.FINISHED)
        first[prefer] = sum(at <= played.last_submission for at in finished), sum(finished) / len(finished)
    assert first["results"][0] > 2 * first["submissions"][0]
    assert first["results"][1] < first["submissions"][1]


def at_work(seconds: float) -> Mapping[str, limits.Limit]:
    """No limit that is ever met, and submissions that take so long: a batch's wait for each other's answers."""
    return {"submit": limits.InFlight(1_000, seconds)}


async def test_polls_give_way_while_no_limit_is_known() -> None:
    every = PollPolicy.fixed(5)
    played = await play(100, at_work(2.0), duration=40, poll=every)
    assert played.last_submission > 15.0
    assert played.seconds(EventKind.POLLED)[0] >= played.last_submission - 2.0
    preferred = await play(100, at_work(2.0), duration=40, poll=every, prefer="results")
    assert preferred.seconds(EventKind.POLLED)[0] <= 8.0


async def test_polls_that_free_places_do_not_give_way() -> None:
    """All submissions have their answers, and the next ones need places that only polls can free."""
    played = await play(400, at_work(0.02), duration=0.2, poll=PollPolicy.fixed(0.2), max_in_flight=50)
    assert played.seconds(EventKind.FINISHED)[-1] <= 3 * (400 / 50 * 0.22)


async def test_polls_give_way_for_a_minute_at_most() -> None:
    played = await play(80, at_work(20.0), duration=130, poll=PollPolicy.fixed(30))
    first = played.seconds(EventKind.POLLED)[0]
    due, asked_again = 30.0 * 1.1, 1.0  # with its jitter; how often it is asked whether it may leave
    assert 20.0 + 30.0 + 60.0 <= first <= 20.0 + due + 60.0 + 2 * asked_again < played.last_submission


async def test_poll_of_a_waiting_call_gives_no_way() -> None:
    clock, accepted = JumpingClock(), asyncio.Event()
    ids: list[str] = []

    def told(event: Event) -> None:
        if event.kind is EventKind.SUBMITTED:
            ids.append(event.job_id)
            accepted.set()

    poll = PollPolicy.fixed(5)
    async with (
        Emulator(limits=at_work(20.0), duration=4, clock=clock, answer_chars=200) as server,
        Session("any-key", base_url=server.url, api="agent", clock=clock, on_event=told, poll=poll) as session,
        session.batch([f"Question {number}" for number in range(80)]),
    ):
        await accepted.wait()
        began = clock.now()
        assert (await session.wait(ids[0])).ok
        assert clock.now() - began <= 5.0 * 1.1 + 2.0


async def test_poll_at_a_time_limit_gives_way_to_nothing() -> None:
    played = await play(60, at_work(10.0), duration=1, poll=PollPolicy.fixed(5), timeout=20)
    assert played.seconds(EventKind.FINISHED)[0] <= 10.0 + 20.0 + 1.0 < played.last_submission
    assert played.statuses == {JobStatus.COMPLETED: 60}


async def test_words_of_a_batch_are_checked() -> None:
    async with Session("any-key", base_url="http://127.0.0.1:9") as session:
        with pytest.raises(ConfigError, match="lane must be one of 'bulk', 'interactive', not 'fast'"):
            session.batch(["Why?"], lane="fast")  # type: ignore[arg-type] - that is refused
        with pytest.raises(ConfigError, match="prefer must be one of"):
            session.batch(["Why?"], prefer="polls")  # type: ignore[arg-type] - that is refused


# --- what the user says -----------------------------------------------------------------------------------------------


async def test_refusal_of_a_given_rate_is_told_and_obeyed() -> None:
    played = await play(40, {"submit": limits.Bucket(30, burst=5)}, duration=60, rpm=120)
    told = [event.reason for _, event in played.events if event.kind is EventKind.WARNING]
    assert len([reason for reason in told if "another process may be using this key" in reason]) == 1
    assert played.statuses == {JobStatus.COMPLETED: 40}


@pytest.mark.parametrize(
    ("words", "said"), [({"rpm": 5, "tier": 0}, "rpm or tier"), ({"tier": 6}, "tier must be one of")]
)
def test_rate_and_tier_are_not_both_given(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Session("any-key", **words)


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_next_run_on_a_journal_knows_the_limit(tmp_path: Path) -> None:
    clock = JumpingClock()
    async with Emulator(limits=limits.Bucket(50), limit_hints="never", duration=60, clock=clock) as server:
        refused: list[int] = []
        for run in range(2):
            before = server.ledger.requests.total()
            async with Session(
                "any-key", base_url=server.url, api="agent", clock=clock, journal=tmp_path / "run.db"
            ) as session:
                questions = [f"Question {run} {number}" for number in range(80)]
                async with session.batch(questions) as batch:
                    assert all([job.ok async for job in batch])
            lines = list(server.ledger.log)[before:]
            refused.append(sum(line.status == 429 for line in lines))
    assert refused[0] >= 10
    assert refused[1] <= refused[0] / 2
