"""Several sessions over one store: each may ask for, wait for and collect any job, which is made and polled once.

The store in memory plays the database. A session that has another server than its neighbour shows by that server's
requests what it asks for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest
from _postgres import Server
from _rows import claim_of
from _scripted import KEY, NEVER, Scripted, is_get, is_submit, turns

from aiopplx import ConfigError, Event, EventKind, JobStatus, JournalOptions, PollPolicy, RetryPolicy, Session
from aiopplx._core.live import Live
from aiopplx._core.shared.holding import GIVEN_UP, Collector
from aiopplx._submission import Phase
from aiopplx._wire.request import ResearchRequest
from aiopplx.agent import AGENT
from aiopplx.emulator import Emulator
from aiopplx.journal import JournalAway, JournalBroken, MemoryJournal, MemoryStore, State, open_reader
from aiopplx.journal import _steps as steps
from aiopplx.journal._names import sha_of
from aiopplx.sonar import SONAR
from aiopplx.testing import Clock

QUESTION = "Why did the Vasa sink?"
ANSWER = {
    "id": "r",
    "model": "m",
    "created": 1,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It sank."}}],
}
SOON = 20


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(now=time.time)


def opened(server: Scripted | str, journal: Any, told: list[Event] | None = None, **more: Any) -> Session:
    url = server if isinstance(server, str) else server.url
    options: dict[str, Any] = {"api": "sonar", "poll": PollPolicy.fixed(0.02), **more}
    return Session(KEY, base_url=url, journal=journal, on_event=told.append if told is not None else None, **options)


def of_kind(told: list[Event], *kinds: EventKind) -> list[EventKind]:
    return [event.kind for event in told if event.kind in kinds]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state inside the library, which tells nobody of it."""
    with anyio.fail_after(SOON):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)


def is_at_rest(session: Session) -> bool:
    """Nothing follows, sends or waits here any more."""
    core = session._core
    assert core is not None
    return not core.life.elsewhere._tasks and not core.calls._callers


# --- waiting for what another session holds ---------------------------------------------------------------------------


async def test_holder_polls_what_nobody_waits_for(store: MemoryStore) -> None:
    async with Scripted(polls=3) as server, opened(server, store.session(), max_in_flight=1) as session:
        job = await session.submit(QUESTION, tag="x")
        await server.until(lambda: server.told == 1)
        assert session.stats().in_flight == 0  # it takes no slot
        await until(lambda: store.rows[1].state is State.DONE)
        asked = server.requests["get"]
        assert (await session.wait(job)).ok
        assert server.requests["get"] == asked


@pytest.mark.parametrize("how", ["wait by id", "wait by token", "ask", "batch", "follow", "submit"])
async def test_job_of_another_session_costs_no_request(how: str, store: MemoryStore) -> None:
    told: list[Event] = []
    async with (
        Scripted(polls=NEVER) as server,
        Scripted() as none,
        opened(server, store.session()) as one,
        opened(none, store.session(), told) as two,
    ):
        job = await one.submit(QUESTION, tag="x")
        item = {"question": QUESTION, "tag": "x"}

        async def wait() -> Any:
            if how == "ask":
                return await two.ask(item)
            if how == "submit":
                found = await two.submit(item)
                assert (found.id, found.status) == (job.id, JobStatus.IN_PROGRESS)
                return await two.wait(found)
            if how == "batch":
                async with two.batch([item]) as jobs:
                    return await anext(jobs)
            if how == "follow":
                return [update async for update in two.follow(job.id)][-1].job
            return await two.wait(job.token if "token" in how else job.id)

        waiting = asyncio.create_task(wait())
        await until(lambda: bool(store._followers))
        await turns()
        server.polls = 1
        with anyio.fail_after(SOON):
            found = await waiting
        assert (found.ok, found.id, found.tag, found.text) == (True, job.id, "x", job.text or found.text)
        assert none.requests.total() == 0
        assert server.requests["submit"] == 1
        assert of_kind(told, EventKind.FINISHED, EventKind.SUBMITTED, EventKind.LEFT) == []
        assert is_at_rest(two)


async def test_tag_asked_in_four_sessions_is_one_job(store: MemoryStore) -> None:
    told: list[Event] = []
    async with Scripted(polls=2) as server:
        sessions = [opened(server, store.session(), told) for _ in range(4)]
        for session in sessions:
            await session.__aenter__()
        jobs = await asyncio.gather(*(session.ask(f"Question {n}?", tag=n) for session in sessions for n in range(10)))
        assert {job.status for job in jobs} == {JobStatus.COMPLETED}
        assert all(len({job.id for job in jobs if job.tag == n}) == 1 for n in range(10))
        assert (server.requests["submit"], server.requests["get"]) == (10, 20)
        assert len(of_kind(told, EventKind.FINISHED)) == 10
        assert all(is_at_rest(session) for session in sessions)
        for session in sessions:
            await session.aclose()


async def test_batches_in_two_sessions_both_get_every_answer(store: MemoryStore) -> None:
    items = [{"question": f"Question {n}?", "tag": n} for n in range(60)]
    async with Scripted(polls=2) as server:

        async def run(**more: Any) -> list[Any]:
            async with opened(server, store.session()) as session, session.batch(items, **more) as jobs:
                return [job async for job in jobs]

        with anyio.fail_after(SOON):
            one, two = await asyncio.gather(run(ordered=True), run())
    assert [job.tag for job in one if job.ok] == list(range(60))
    assert sorted(job.tag for job in two if job.ok) == list(range(60))
    assert (server.requests["submit"], server.requests["get"]) == (60, 120)


async def test_followed_jobs_keep_no_submitter_busy(store: MemoryStore) -> None:
    """A batch goes on with its own questions while another session has hundreds of the earlier ones in hand."""
    items = [{"question": f"Question {n}?", "tag": n} for n in range(100)]
    more = [*items, {"question": "Why?", "tag": "w"}]
    async with Scripted(polls=NEVER) as server, opened(server, store.session()) as one, one.batch(items) as theirs:
        await server.until(lambda: server.requests["submit"] == 100)
        async with (
            opened(server, store.session()) as two,
            two.batch(more) as mine,
        ):
            await server.until(lambda: server.requests["submit"] == 101)
            server.polls = 1
            assert len([job async for job in mine if job.ok]) == 101
        assert len([job async for job in theirs if job.ok]) == 100


async def test_wait_for_anothers_job_ends_at_its_limit(store: MemoryStore) -> None:
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, store.session()) as one,
        opened(server, store.session()) as two,
    ):
        job = await one.submit(QUESTION, tag="x")
        waited = await two.wait(job.id, timeout=0.05)
        asked = await two.ask(QUESTION, tag="x", timeout=0.05)
        async with two.batch([{"question": QUESTION, "tag": "x"}], timeout=0.05) as jobs:
            given = [found async for found in jobs]
        assert [(found.status, found.id) for found in (waited, asked, *given)] == [(JobStatus.TIMED_OUT, job.id)] * 3
        assert is_at_rest(two)


async def test_what_another_session_holds_is_followed(store: MemoryStore) -> None:
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, store.session()) as one,
        opened(server, store.session()) as two,
    ):
        job = await one.submit(QUESTION, tag="x")
        calls = [asyncio.create_task(call) for call in (two.ask(QUESTION, tag="x"), two.wait(job.id))]
        assert two._core is not None
        following = two._core.life.elsewhere._tasks
        await until(lambda: len(following) == 2)
        assert {sub.phase for sub in following} == {Phase.FOLLOWING}
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_leaving_what_another_session_holds_leaves_nothing(store: MemoryStore) -> None:
    told: list[Event] = []
    async with Scripted(polls=NEVER) as server, opened(server, store.session()) as one:
        async with opened(server, store.session(), told) as two:
            job = await one.submit(QUESTION, tag="x")
            calls = [asyncio.create_task(call) for call in (two.ask(QUESTION, tag="x"), two.wait(job.id))]
            await until(lambda: len(store._followers.get(1, ())) == 2)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert is_at_rest(two)
            async with two.batch([{"question": QUESTION, "tag": "x"}]):
                await until(lambda: bool(store._followers))
            assert is_at_rest(two)
            last = asyncio.create_task(two.wait(job.id))
            await until(lambda: bool(store._followers))
        await asyncio.wait([last])
    assert "was closed" in str(last.exception())
    assert of_kind(told, EventKind.LEFT) == []  # its holder goes on with it


async def test_cancel_of_anothers_job_ends_it_for_both(store: MemoryStore) -> None:
    async with Emulator(duration=3600.0) as server:
        more: dict[str, Any] = {"api": "agent", "clock": Clock(60)}
        async with (
            opened(server.url, store.session(), **more) as one,
            opened(server.url, store.session(), **more) as two,
        ):
            asking = asyncio.create_task(one.ask(QUESTION, tag="x"))
            await until(lambda: any(row.state is State.ACCEPTED for row in store.rows.values()))
            cancelled = await two.cancel(store.rows[1].job_id)
            assert (cancelled.status, (await asking).status) == (JobStatus.CANCELLED, JobStatus.CANCELLED)


async def test_failure_that_another_found_is_not_paid_again(store: MemoryStore) -> None:
    """`retry_failed` is about earlier runs, not about what another session has found out a moment ago."""
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, store.session()) as one,
        opened(server, store.session()) as two,
    ):
        assert two._core is not None
        two._core.life._retry_failed = True
        asking = [asyncio.create_task(session.ask(QUESTION, tag="x")) for session in (one, two)]
        await until(lambda: bool(store._followers))
        failed = {"model": "sonar-deep-research", "created_at": 1, "status": "FAILED", "error_message": "it broke"}
        server.script = lambda asked: (200, {"id": asked.name, **failed}) if is_get(asked) else None
        assert [(await task).status for task in asking] == [JobStatus.FAILED] * 2
        assert server.requests["submit"] == 1


# --- what is handed over, and collected -------------------------------------------------------------------------------


async def test_closed_session_hands_over_at_once(store: MemoryStore) -> None:
    told: list[Event] = []
    async with Scripted(polls=NEVER) as server, opened(server, store.session(), told) as two:
        async with opened(server, store.session(), told) as one:
            job = await one.submit(QUESTION, tag="x")
            waiting = asyncio.create_task(two.wait(job.id))
            await until(lambda: bool(store._followers))
        server.polls = 1
        with anyio.fail_after(SOON):
            assert (await waiting).ok
    assert server.requests["submit"] == 1
    assert len(of_kind(told, EventKind.FINISHED)) == 1


async def left_by_a_dead_session(
    store: MemoryStore, state: State, *, api: str = "sonar", tag: str = "x", job_id: str = "job-0"
) -> None:
    """A row in this state, whose session is dead."""
    dead = store.session()
    request = ResearchRequest(QUESTION)
    frozen, sha = {"sonar": SONAR, "agent": AGENT}[api].freeze(request, f"key-{tag}"), sha_of(request.canonical())
    record = await dead.find_or_queue(f'tag:"{tag}"', tag=tag, key=f"key-{tag}", body=frozen, sha=sha, api=api)
    if state is not State.QUEUED:
        await dead.apply(claim_of(record), steps.sending(key=record.key, attempt=1))
    if state is State.ACCEPTED:
        await dead.apply(claim_of(record), steps.accepted(key=record.key, job_id=job_id))
    store.lose(dead)


@pytest.mark.parametrize(
    ("state", "api", "ends", "submits"),
    [
        (State.ACCEPTED, "sonar", State.DONE, 0),
        (State.SENDING, "sonar", State.DONE, 1),
        (State.SENDING, "agent", State.IN_DOUBT, 0),
        (State.QUEUED, "sonar", State.QUEUED, 0),
    ],
)
async def test_jobs_of_a_dead_session_are_collected(
    state: State, api: str, ends: State, submits: int, store: MemoryStore
) -> None:
    told: list[Event] = []
    await left_by_a_dead_session(store, state, api=api)
    async with Scripted() as server:
        server._made({"idempotency_key": "key-x", "request": {"messages": [{"content": QUESTION}]}})
        async with opened(server, store.session(), told) as session:
            await until(lambda: store.rows[1].state is ends)
            await turns()
            assert session.stats().in_flight == 0
    assert (server.requests["submit"], len(server.rows)) == (submits, 1)
    assert len(of_kind(told, EventKind.FINISHED)) == (ends is not State.QUEUED)


async def test_session_that_collects_nothing_leaves_free_rows(postgres: Server) -> None:
    url = postgres.url()
    async with Scripted(polls=NEVER) as server:
        async with opened(server, url) as session:
            left = await session.submit(QUESTION, tag="x")
        server.polls = 1
        async with opened(server, JournalOptions(url, collect=False), clock=Clock(1000)) as session:
            for n in range(5):
                assert (await session.ask(QUESTION, tag=n)).ok
        with open_reader(url) as journal:
            assert [row.job_id for row in journal.rows([State.ACCEPTED])] == [left.id]
        async with opened(server, url):
            await until(lambda: states_of(url) == {State.DONE})


def states_of(url: str) -> set[State]:
    with open_reader(url) as journal:
        return {state for state, count in journal.counts().items() if count}


async def test_dead_sessions_job_is_collected_at_the_next_beat(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session(), clock=Clock(1000)):
        await turns()
        await left_by_a_dead_session(store, State.SENDING)
        await until(lambda: store.rows[1].state is State.DONE)


async def test_unexpected_failure_does_not_end_the_collecting(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryJournal):
        fails = 2

        async def free(self, limit: int, **more: Any) -> Any:
            self.fails -= 1
            return await super().free(limit, **more) if self.fails < 0 else [None]

    async with Scripted() as server, opened(server, Failing(store=store), clock=Clock(1000)):
        await left_by_a_dead_session(store, State.SENDING)
        await until(lambda: store.rows[1].state is State.DONE)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "collecting free rows failed unexpectedly"
    ] * 2


async def test_unexpected_failure_ends_the_following_of_a_row(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryJournal):
        claims = 0

        async def claim(self, pk: int) -> Any:
            self.claims += 1
            return await super().claim(pk) if self.claims == 1 else object()

    async with (
        Scripted(polls=NEVER) as server,
        opened(server, store.session()) as one,
        opened(server, Failing(store=store)) as two,
    ):
        job = await one.submit(QUESTION, tag="x")
        waiting = asyncio.create_task(two.wait(job.id))
        await until(lambda: bool(store._followers))
        store._wake(1)
        with anyio.fail_after(SOON):
            found = await waiting
    assert (found.id, found.ok, type(found.error)) == (job.id, False, JournalBroken)
    assert "AttributeError" in str(found.error)
    assert "following a submission of another session failed unexpectedly" in caplog.text


async def test_row_that_is_held_unknowingly_is_freed_and_collected(store: MemoryStore) -> None:
    """As when the answer of the store that gave it was lost, or whoever asked for it was cancelled."""
    journal = store.session()
    async with Scripted() as server, opened(server, journal, clock=Clock(1000)):
        await turns()
        server._made({"idempotency_key": "key-x", "request": {"messages": [{"content": QUESTION}]}})
        await left_by_a_dead_session(store, State.ACCEPTED, job_id=next(iter(server.rows)))
        assert len(await journal.free(10)) == 1
        await until(lambda: store.rows[1].state is State.DONE)


async def test_job_that_was_adopted_is_polled_for_others(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session()) as one:
        server._made({"idempotency_key": "k", "request": {"messages": [{"content": QUESTION}]}})
        (job_id,) = server.rows
        await one.adopt(job_id, tag="x")
        async with opened(server, store.session()) as other:
            with anyio.fail_after(SOON):
                assert (await other.wait(job_id)).ok


@pytest.mark.parametrize("ordered", [True, False])
async def test_removed_row_costs_a_batch_one_answer(store: MemoryStore, ordered: bool) -> None:
    """The row was handed out elsewhere, and removed after its time, before its turn came here."""
    items = [{"question": f"Question {n}?", "tag": n} for n in range(3)]
    async with Scripted() as server, opened(server, store.session()) as session:
        for item in items:
            assert (await session.ask(item)).ok
        async with session.batch(items, ordered=ordered) as batch:
            await until(lambda: batch._results.placed == 3 and not batch._in_hand)
            gone = store.rows[2]
            store.remove(gone)
            jobs = {job.tag: job async for job in batch}
        assert server.requests["submit"] == 3
    assert {tag: job.status for tag, job in jobs.items()} == {
        0: JobStatus.COMPLETED,
        1: JobStatus.UNREADABLE,
        2: JobStatus.COMPLETED,
    }
    lost = jobs[1]
    assert (lost.id, lost.idempotency_key, lost.index, lost.question) == (gone.job_id, gone.key, 1, "Question 1?")
    assert isinstance(lost.error, JournalBroken)
    assert "keep_for" in str(lost.error)
    assert (lost.error.job_id, lost.error.tag) == (gone.job_id, 1)


async def test_wait_for_an_id_ends_with_its_row(store: MemoryStore) -> None:
    holder = store.session()
    record = await holder.find_or_queue('tag:"x"', tag="x", key="k", body=b"", sha=b"", api="sonar")
    async with Scripted() as server, opened(server, store.session()) as session:
        submitting = asyncio.create_task(session.submit(QUESTION, tag="x"))
        await until(lambda: bool(store._followers))
        store.remove(store.rows[record.pk])
        store._wake(record.pk)
        with anyio.fail_after(SOON), pytest.raises(JournalBroken, match="keep_for"):
            await submitting
        assert server.requests["submit"] == 0


async def test_failure_is_no_answer_that_is_used_again(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session()) as session:
        server.script = lambda asked: (200, {"id": asked.name, "status": "FAILED"}) if is_get(asked) else None
        assert not (await session.ask(QUESTION, reuse="24h")).ok
        server.script = lambda asked: None
        again = await session.ask(QUESTION, reuse="24h")
        assert again.ok
        assert (await session.ask(QUESTION, reuse="24h")).id == again.id
        assert server.requests["submit"] == 2


async def test_no_more_is_collected_than_may_be_in_flight(store: MemoryStore) -> None:
    async with Scripted(polls=NEVER) as server:
        for n in range(5):
            await left_by_a_dead_session(store, State.ACCEPTED, tag=str(n), job_id=f"job-{n}")
            server._made({"idempotency_key": f"key-{n}", "request": {"messages": [{"content": QUESTION}]}})
        async with opened(server, store.session(), max_in_flight=2, clock=Clock(500)) as session:
            await server.until(lambda: server.requests["get"] >= 20)
            assert session.stats().running == 2
            server.polls = 1
            await until(lambda: all(row.state is State.DONE for row in store.rows.values()))


async def test_unreadable_job_is_not_collected_again_and_again(store: MemoryStore) -> None:
    told: list[Event] = []
    async with Scripted() as server, opened(server, store.session(), told, clock=Clock(1000)) as session:
        server.script = lambda asked: (200, b"[]") if is_get(asked) else None
        job = await session.ask(QUESTION, tag="x")
        assert job.status is JobStatus.UNREADABLE
        asked = server.requests["get"]
        await asyncio.sleep(0.1)  # a dozen beats
        assert server.requests["get"] == asked
        assert store.rows[1].state is State.ACCEPTED


async def test_unreadable_job_stays_free_for_other_sessions(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session(), clock=Clock(1000)) as session:
        server.script = lambda asked: (200, b"[]") if is_get(asked) else None
        assert (await session.ask(QUESTION, tag="x")).status is JobStatus.UNREADABLE
        server.script = lambda asked: None
        async with opened(server, store.session()):  # of a version that can read it
            await until(lambda: store.rows[1].state is State.DONE)


async def test_unreadable_job_is_collected_again_after_hours(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session(), clock=Clock(1000)) as session:
        server.script = lambda asked: (200, b"[]") if is_get(asked) else None
        assert (await session.ask(QUESTION, tag="x")).status is JobStatus.UNREADABLE
        core = session._core
        assert core is not None
        collector = core.life.collector
        assert collector is not None
        assert list(collector._given_up) == [1]
        server.script = lambda asked: None
        collector._given_up[1] -= GIVEN_UP
        await until(lambda: store.rows[1].state is State.DONE)
        assert not collector._given_up


async def test_removals_let_what_is_free_be_collected_in_between(store: MemoryStore) -> None:
    class Noting(MemoryJournal):
        calls: list[str] = []

        async def forget(self, seconds: float, *, limit: int = 500) -> int:
            self.calls.append("forget")
            return limit if self.calls.count("forget") < 4 else 0

        async def free(self, limit: int, **more: Any) -> Any:
            self.calls.append("free")
            return await super().free(limit, **more)

    journal = Noting(store=store)
    life: Any = SimpleNamespace(store=journal, live=Live())
    collector = Collector(life, Clock(1000), at_once=5, collects=True, timeout=1.0, keep_for=1.0)
    await until(lambda: journal.calls.count("forget") == 4)
    await collector.aclose()
    assert journal.calls[:8] == ["free", "forget"] * 4


async def test_row_left_unsent_can_be_asked_for_elsewhere(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session()) as one, opened(server, store.session()) as two:
        server.hold = is_submit
        leaving = asyncio.create_task(one.ask(QUESTION, tag="x", idempotency_key="k"))
        await server.until(lambda: bool(server.held))
        leaving.cancel()
        server.hold = lambda asked: False
        server.reset()
        await asyncio.wait([leaving])
        with anyio.fail_after(SOON):
            assert (await two.ask(QUESTION, tag="x")).ok
        assert len(server.rows) == 1


@pytest.mark.parametrize("named", [True, False])
async def test_doubt_is_told_as_its_row_tells_it(named: bool, store: MemoryStore) -> None:
    said = "the server gave the id of another submission (key other) to this one" if named else ""
    policy = RetryPolicy(on_doubt="hold")
    async with Scripted() as server, opened(server, store.session(), retry=policy) as session:
        server.script = lambda asked: (500, {}) if is_submit(asked) else None
        assert (await session.ask(QUESTION, tag="x")).status is JobStatus.IN_DOUBT
        store.rows[1] = msgspec.structs.replace(store.rows[1], error=said)
        job = await session.ask(QUESTION, tag="x")
        assert server.requests["submit"] == 1
    assert job.status is JobStatus.IN_DOUBT
    assert job.error is not None
    assert (said or "no usable answer came") in job.error.message
    assert store.rows[1].error == said


# --- a claim that is lost ---------------------------------------------------------------------------------------------


class Taken(MemoryJournal):
    """The session that has this journal loses what it holds to another one before its step of this name."""

    step = ""
    other: MemoryJournal
    was_taken = False

    async def apply(self, claim: Any, step: Any) -> None:
        if step.rule.name == self.step and not self.was_taken:
            self.was_taken = True
            self.store.lose(self)
            await self.other.free(10)
            await self.other.claim(claim.pk)
        await super().apply(claim, step)


@pytest.mark.parametrize("name", ["sending", "doubtful", "ended", "back_to_queued"])
async def test_lost_claim_makes_a_follower_of_the_caller(name: str, store: MemoryStore) -> None:
    mine = Taken(store=store)
    mine.step, mine.other = name, store.session()
    refusal: dict[str, Any] = {
        "ended": (422, {"error": {"message": "no", "type": "invalid_request", "code": 422}}),
        "back_to_queued": (429, {"error": {"message": "later", "type": "rate_limit", "code": 429}}),
        "doubtful": (500, {"error": {"message": "broken", "type": "internal", "code": 500}}),
    }
    async with Scripted() as server:
        server.script = lambda asked: refusal.get(name) if is_submit(asked) else None
        retry = RetryPolicy(on_doubt="hold") if name == "doubtful" else None
        async with opened(server, mine, retry=retry) as session:
            asking = asyncio.create_task(session.ask(QUESTION, tag="x", timeout=20))
            await until(lambda: mine.was_taken and bool(store._followers))
            assert not asking.done()
            server.script = lambda asked: None
            record = await mine.other.claim(1)
            if store.rows[1].state is State.QUEUED:
                await mine.other.apply(claim_of(record), steps.sending(key=store.rows[1].key, attempt=9))
            ended = steps.ended(State.FAILED, key=store.rows[1].key, job_id="job-9", word="FAILED", error="as it came")
            await mine.other.apply(claim_of(record), ended)
            with anyio.fail_after(SOON):
                job = await asking
            assert (job.status, "as it came" in str(job.error)) == (JobStatus.FAILED, True)


@pytest.mark.parametrize("how", ["ask", "batch", "wait", "follow"])
async def test_lost_job_is_polled_by_its_new_holder_alone(how: str, store: MemoryStore) -> None:
    journal, other, told, clock = store.session(), store.session(), list[Event](), Clock(1000)
    poll = PollPolicy.fixed(1.0)
    item = {"question": QUESTION, "tag": "x"}
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, journal, told, clock=clock, poll=poll, max_in_flight=1) as one,
    ):

        async def wait() -> Any:
            if how == "batch":
                async with one.batch([item]) as jobs:
                    return await anext(jobs)
            if how == "ask":
                return await one.ask(item)
            job = await one.submit(item)
            if how == "follow":
                return [update async for update in one.follow(job.id)][-1].job
            return await one.wait(job.id)

        waiting = asyncio.create_task(wait())
        unwanted = await one.submit("Which ship was next?", tag="nobody waits")
        await until(lambda: [row.state for row in store.rows.values()] == [State.ACCEPTED] * 2)
        await server.until(lambda: server.requests["get"] > 4)
        store.lose(journal)
        records = {record.tag: record for record in await other.free(10)}
        await until(lambda: bool(store._followers))
        await clock.sleep(8.0)
        asked = server.requests["get"]
        await clock.sleep(60.0)
        assert (server.requests["get"], one.stats().in_flight) == (asked, 0)
        mine = records["x"]
        done = {"id": mine.job_id, "model": "m", "created_at": 1, "status": "COMPLETED", "response": ANSWER}
        raw = msgspec.json.encode(done)
        ended = steps.ended(State.DONE, key=mine.key, job_id=mine.job_id, word="COMPLETED", raw=raw)
        assert not await other.apply(claim_of(mine), ended)
        with anyio.fail_after(SOON):
            job = await waiting
        assert (job.ok, job.id, job.text, server.requests["submit"]) == (True, mine.job_id, "It sank.", 2)
        assert of_kind(told, EventKind.FINISHED, EventKind.LEFT, EventKind.TIMED_OUT) == []
        # The other one dies: this session may have it again.
        server.polls = 1
        store.lose(other)
        with anyio.fail_after(SOON):
            assert (await one.wait(unwanted.id)).ok
        assert is_at_rest(one)


async def test_lost_job_that_nobody_took_goes_on(store: MemoryStore) -> None:
    journal, told = store.session(), list[Event]()
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, journal, told, clock=Clock(1000), poll=PollPolicy.fixed(1.0)) as session,
    ):
        asking = asyncio.create_task(session.ask(QUESTION, tag="x"))
        await server.until(lambda: server.requests["get"] > 2)
        store.lose(journal)
        await until(lambda: len(store.held(journal, ())) == 1)
        server.polls = 1
        assert (await asking).ok
        assert len(of_kind(told, EventKind.FINISHED)) == 1
    assert not store._followers


async def test_lost_job_of_a_replaced_row_is_polled_on(store: MemoryStore) -> None:
    """Its row stands for another job by now, so nobody else would tell those who wait for this one."""
    journal, other, clock = store.session(), store.session(), Clock(1000)
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, journal, clock=clock, poll=PollPolicy.fixed(1.0)) as session,
    ):
        asking = asyncio.create_task(session.ask(QUESTION, tag="x"))
        await server.until(lambda: server.requests["get"] > 2)
        store.lose(journal)
        record = await other.claim(1)
        assert record is not None
        key = record.key
        await other.apply(claim_of(record), steps.ended(State.FAILED, key=key, word="FAILED", error="it broke"))
        again = await other.claim(1)
        await other.apply(claim_of(again), steps.requeue(key=key, new_key="k2", body=record.body, api="sonar"))
        await clock.sleep(30.0)
        server.polls = 1
        with anyio.fail_after(SOON):
            job = await asking
        assert (job.ok, job.id, job.idempotency_key) == (True, record.job_id, key)
        assert (store.rows[1].state, server.requests["submit"]) == (State.QUEUED, 1)


@pytest.mark.parametrize("is_late", [True, False], ids=["as an earlier holder", "as the holder"])
async def test_end_that_two_sessions_find_is_told_once(is_late: bool, store: MemoryStore) -> None:
    """Both polled the job at that moment. Who had it written first tells it."""

    class Slower(MemoryJournal):
        other = store.session()

        async def apply(self, claim: Any, step: Any) -> Any:
            if step.rule.name == "ended":
                if is_late:
                    store.lose(self)
                    await self.other.claim(claim.pk)
                assert not await self.other.apply(claim, step)
            return await super().apply(claim, step)

    told: list[Event] = []
    async with Scripted() as server, opened(server, Slower(store=store), told) as session:
        assert (await session.ask(QUESTION, tag="x")).ok
        assert session.stats().ended == {JobStatus.COMPLETED: 1}
    assert of_kind(told, EventKind.FINISHED) == []


@pytest.mark.parametrize(
    ("theirs", "ours", "outcome", "row", "told"),
    [
        (State.DONE, "FAILED", JobStatus.COMPLETED, State.DONE, []),
        (State.DONE, "", JobStatus.COMPLETED, State.DONE, []),
        (State.EXPIRED, "COMPLETED", JobStatus.COMPLETED, State.DONE, [JobStatus.COMPLETED]),
        (State.EXPIRED, "FAILED", JobStatus.FAILED, State.FAILED, [JobStatus.FAILED]),
        (State.FAILED, "COMPLETED", JobStatus.COMPLETED, State.FAILED, [JobStatus.COMPLETED]),
    ],
)
@pytest.mark.parametrize("how", ["ask", "batch", "nobody"])
async def test_one_of_two_ends_that_differ_counts(
    how: str, theirs: State, ours: str, outcome: JobStatus, row: State, told: list[JobStatus], store: MemoryStore
) -> None:
    """What the server says of a job replaces that it was not found; else the first written end is everybody's."""

    class Slower(MemoryJournal):
        is_first = True

        async def apply(self, claim: Any, step: Any) -> Any:
            if step.rule.name == "ended" and self.is_first:
                self.is_first = False
                done = {"id": step.job_id, "model": "m", "created_at": 1, "status": "COMPLETED", "response": ANSWER}
                raw, word = (msgspec.json.encode(done), "COMPLETED") if theirs is State.DONE else (b"", theirs.name)
                await store.session().apply(claim, steps.ended(theirs, key=step.key, word=word, raw=raw, error="why"))
            return await super().apply(claim, step)

    events: list[Event] = []
    async with Scripted() as server, opened(server, Slower(store=store), events, clock=Clock(1000)) as session:
        if ours != "COMPLETED":
            gone = {"error": {"message": "no such job", "type": "not_found", "code": 404}}
            server.script = lambda asked: (
                ((200, server.summary(asked.row, ours)) if ours else (404, gone))
                if asked.kind == "get" and asked.row
                else None
            )
        if how == "ask":
            job = await session.ask(QUESTION, tag="x")
        elif how == "batch":
            async with session.batch([{"question": QUESTION, "tag": "x"}]) as jobs:
                job = await anext(jobs)
        else:
            await session.submit(QUESTION, tag="x")
            await until(lambda: 1 in store.rows and store.rows[1].state is not State.ACCEPTED)
            await until(lambda: session._core is not None and not session._core.life.live.by_row)
            job = await session.ask(QUESTION, tag="x") if row is not State.FAILED else None
        if job is not None:
            assert (job.status, job.ok) == (outcome, outcome is JobStatus.COMPLETED)
        assert (store.rows[1].state, server.requests["submit"]) == (row, 1)
        assert is_at_rest(session)
    finished = [event for event in events if event.kind is EventKind.FINISHED]
    assert [event.status for event in finished] == told


class Unsure(MemoryJournal):
    """A session that was paused after a step, and is not sure whether it is still the holder."""

    unsure = 0

    def may_intend(self) -> bool:
        self.unsure -= 1
        return self.unsure < 0


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "free"])
async def test_session_closed_at_any_turn_holds_no_row(is_known: bool) -> None:
    """The store is the caller's, and stays open: nobody else could take what was being found at that turn."""
    async with Scripted(polls=NEVER) as server:
        for turn in range(12):
            store = MemoryStore(now=time.time)
            questions = [{"question": QUESTION, "tag": f"{turn} {n}"} for n in range(5)]
            if is_known:
                async with opened(server, store.session()) as session:
                    for question in questions:
                        await session.submit(question)
            journal = store.session()
            async with opened(server, journal) as session:
                asking = [] if is_known else [asyncio.create_task(session.ask(question)) for question in questions]
                await turns(turn)
                await session.aclose()
                await asyncio.gather(*asking, return_exceptions=True)
            assert await journal.held(()) == [], turn


async def test_session_that_is_unsure_of_its_rows_sends_nothing(store: MemoryStore) -> None:
    journal = Unsure(store=store)
    journal.unsure = 3
    seen: list[int] = []
    async with Scripted() as server, opened(server, journal, clock=Clock(100)) as session:
        server.hold = lambda asked: bool(seen.append(journal.unsure)) if is_submit(asked) else False
        assert (await session.ask(QUESTION, tag="x")).ok
    assert seen == [-1]
    assert store.rows[1].attempts == 1


@pytest.mark.parametrize("way", ["ask", "batch"])
async def test_session_that_stays_unsure_ends_in_time(way: str, store: MemoryStore) -> None:
    journal = Unsure(store=store)
    journal.unsure = 1_000_000
    async with Scripted() as server, opened(server, journal, clock=Clock(100), timeout=20) as session:
        with anyio.fail_after(SOON):
            if way == "ask":
                with pytest.raises(JournalAway, match=r"not sent: .*another session may have.*; nothing was billed"):
                    await session.ask(QUESTION, tag="x")
            else:
                async with session.batch([{"question": QUESTION, "tag": "x"}]) as jobs:
                    assert [type(job.error) async for job in jobs] == [JournalAway]
        assert server.requests.total() == 0
        # It is no intent of anybody's, so the row may still be sent.
        journal.unsure = 0
        assert (await session.ask(QUESTION, tag="x")).ok
    assert server.requests["submit"] == 1


async def test_claim_lost_before_a_resend_is_followed(store: MemoryStore) -> None:
    mine = Taken(store=store)
    mine.other = store.session()
    async with Scripted() as server:
        server.script = lambda asked: (500, {"error": {"message": "broken", "type": "internal", "code": 500}})
        async with opened(server, mine, retry=RetryPolicy(base=0.01)) as session:
            asking = asyncio.create_task(session.ask(QUESTION, tag="x", timeout=20))
            await server.until(lambda: server.requests["submit"] > 0)
            mine.step = "sending"
            await until(lambda: mine.was_taken and bool(store._followers))
            sent = server.requests["submit"]
            record = await mine.other.claim(1)
            ended = steps.ended(State.FAILED, key=store.rows[1].key, job_id="job-9", word="FAILED", error="as it came")
            await mine.other.apply(claim_of(record), ended)
            with anyio.fail_after(SOON):
                job = await asking
            assert (job.status, job.id, server.requests["submit"]) == (JobStatus.FAILED, "job-9", sent)


class Overtaken(MemoryJournal):
    """An earlier holder of the row hears what became of its attempt just before this session takes a step of a name."""

    step = ""
    ends: State | None = None
    heard = False

    async def apply(self, claim: Any, step: Any) -> Any:
        if step.rule.name == self.step and not self.heard:
            self.heard = True
            earlier = self.store.session()
            await earlier.apply(claim, steps.accepted(key=step.key, job_id="job-0"))
            if self.ends is not None:
                done = {"id": "job-0", "model": "m", "created_at": 1, "status": "COMPLETED", "response": ANSWER}
                raw, word = (msgspec.json.encode(done), "COMPLETED") if self.ends is State.DONE else (b"", "FAILED")
                await earlier.apply(claim, steps.ended(self.ends, key=step.key, word=word, raw=raw, error="why"))
        return await super().apply(claim, step)


@pytest.mark.parametrize("ends", [None, State.DONE, State.FAILED], ids=["it runs", "it is done", "it failed"])
@pytest.mark.parametrize(
    ("name", "refusal", "on_doubt"),
    [
        ("sending", None, "resend"),
        ("doubtful", None, "hold"),
        ("doubtful", (401, "authentication"), "resend"),
        ("ended", (422, "invalid_request"), "resend"),
    ],
    ids=["sent again", "held as found", "in doubt for good", "refused"],
)
async def test_fact_of_an_earlier_holder_is_the_outcome(
    name: str, refusal: tuple[int, str] | None, on_doubt: Any, ends: State | None, store: MemoryStore
) -> None:
    """It comes between this session's look at the row and its step, which is impossible by then."""
    told: list[Event] = []
    mine = Overtaken(store=store)
    mine.step, mine.ends = name, ends
    retry = RetryPolicy(base=0.01, on_doubt=on_doubt)
    async with Scripted() as server, opened(server, mine, told, retry=retry) as session:
        assert session._core is not None
        session._core.life._retry_failed = True  # what failed in earlier runs, and not what has just been heard
        await turns()  # what is free by now was looked for
        await left_by_a_dead_session(store, State.SENDING)
        server._made({"idempotency_key": "key-x", "request": {"messages": [{"content": QUESTION}]}})
        if refusal is not None:
            said = refusal[0], {"error": {"message": "no", "type": refusal[1], "code": refusal[0]}}
            server.script = lambda asked: said if is_submit(asked) else None
        async with session.batch([{"question": QUESTION, "tag": "x"}]) as jobs:
            with anyio.fail_after(SOON):
                (job,) = [job async for job in jobs]
        assert mine.heard
        assert (job.id, job.status) == ("job-0", JobStatus.FAILED if ends is State.FAILED else JobStatus.COMPLETED)
        assert store.rows[1].state is (ends or State.DONE)
        assert is_at_rest(session)
    stopped = [event.reason for event in told if event.kind is EventKind.STOPPED]
    assert len(stopped) == (refusal is not None and refusal[0] == 401)
    assert len(of_kind(told, EventKind.FINISHED)) == (ends is None)


# --- a replica in the place of a store, that does not have its latest steps -------------------------------------------


def lose_row(store: MemoryStore, pk: int) -> None:
    """The store has never heard of this row."""
    row = store.rows[pk]
    store.remove(row)
    store.past.pop()
    del store.by_key[row.key]
    store._wake(pk)


def taken_back(store: MemoryStore, how: str) -> None:
    """The store knows nothing of what was sent under its rows, or has no rows at all."""
    for pk, row in [*store.rows.items()]:
        if how == "as never sent":
            nothing: dict[str, Any] = {"job_id": "", "attempts": 0, "first_sent": None, "accepted_at": None}
            store.rows[pk] = msgspec.structs.replace(row, state=State.QUEUED, **nothing)
            store.by_job.pop(row.job_id, None)
        else:
            lose_row(store, row.pk)


@pytest.mark.parametrize("how", ["as never sent", "gone"])
@pytest.mark.parametrize("when", ["is sent", "runs", "runs, and its lease is lost"])
async def test_job_known_to_a_session_outlives_a_lagging_replica(when: str, how: str, store: MemoryStore) -> None:
    told: list[Event] = []
    clock, mine = Clock(1000), store.session()
    item = {"question": QUESTION, "tag": "x"}
    async with (
        Scripted(polls=NEVER) as server,
        opened(server, mine, told, clock=clock, poll=PollPolicy.fixed(5.0)) as session,
        opened(server, store.session(), clock=clock) as other,
    ):
        server.hold = lambda asked: when == "is sent" and is_submit(asked)
        asking = asyncio.create_task(session.ask(item))
        await server.until(lambda: server.requests["submit" if when == "is sent" else "get"] > 0)
        taken_back(store, how)
        if when == "is sent":
            server.release()
        elif "lease" in when:
            store.lose(mine)
            await until(lambda: {row.state for row in store.rows.values()} == {State.ACCEPTED})
        server.polls = 1
        with anyio.fail_after(SOON):
            job = await asking
            again = await other.ask(item)
        assert (job.ok, again.id, server.requests["submit"]) == (True, job.id, 1)
        assert [row.state for row in store.rows.values()] == [State.DONE]
        assert (await other.in_doubt(), len(of_kind(told, EventKind.FINISHED))) == ([], 1)
    assert EventKind.STOPPED not in of_kind(told, *EventKind)


@pytest.mark.parametrize("who", ["its holder", "who follows it"])
async def test_question_whose_row_a_replica_lacks_is_queued_anew(who: str, store: MemoryStore) -> None:
    told: list[Event] = []
    items = [{"question": f"Question {n}?", "tag": n} for n in range(2)]
    async with (
        Scripted() as server,
        opened(server, store.session(), told) as session,
        opened(server, store.session(), told) as other,
    ):
        server.script = lambda asked: (429, {"error": {"message": "later", "type": "rate_limit", "code": 429}})
        server.headers = {"Retry-After": "1"}
        async with session.batch(items) as jobs:
            reading = asyncio.create_task(anext(jobs))
            await server.until(lambda: server.requests["submit"] > 0)
            await until(lambda: [row.state for row in store.rows.values()] == [State.QUEUED] * 2)
            asking = [asyncio.create_task(other.ask(item)) for item in items if who != "its holder"]
            await until(lambda: len(store._followers) == len(asking))
            keys = {row.tag: row.key for row in store.rows.values()}
            server.script, refused = lambda asked: None, server.requests["submit"]
            for pk in [*store.rows]:
                lose_row(store, pk)
            with anyio.fail_after(SOON):
                found = [await reading, *[job async for job in jobs], *await asyncio.gather(*asking)]
        assert all(job.ok for job in found)
        assert {job.tag: job.idempotency_key for job in found} == keys
        assert server.requests["submit"] == refused + 2
    assert EventKind.STOPPED not in of_kind(told, *EventKind)


async def test_end_that_a_replica_lacks_is_waited_for(store: MemoryStore) -> None:
    """A batch had heard of it, and reads it when its turn comes."""
    clock = Clock(1000)
    items = [{"question": f"Question {n}?", "tag": n} for n in range(2)]
    async with Scripted() as server, opened(server, store.session(), clock=clock) as session:
        for item in items:
            assert (await session.ask(item)).ok
        async with session.batch(items) as batch:
            await until(lambda: batch._results.placed == 2 and not batch._in_hand)
            store.rows[2] = msgspec.structs.replace(store.rows[2], state=State.ACCEPTED, has_result=False)
            del store.bodies[2]
            server.hold = is_get
            found = [await anext(batch)]
            reading = asyncio.create_task(anext(batch))
            await server.until(lambda: bool(server.held))  # it was collected
            await turns()
            server.hold = lambda asked: False
            server.release()
            with anyio.fail_after(SOON):
                found.append(await reading)
        assert [job.status for job in found] == [JobStatus.COMPLETED] * 2
        assert server.requests["submit"] == 2


# --- a store that is away ---------------------------------------------------------------------------------------------


class Away(MemoryJournal):
    """A store that cannot be reached while `is_away`; with `does`, what is asked of it is done and not answered."""

    is_away = False
    does = False
    calls = 0

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in {
            "find_or_queue",
            "claim",
            "apply",
            "get",
            "result",
            "free",
            "held",
            "newest",
            "follow",
            "release",
        }:
            return value

        async def call(*args: Any, **words: Any) -> Any:
            if not self.is_away:
                return await value(*args, **words)
            self.calls += 1
            if self.does:
                await value(*args, **words)
            raise JournalAway("the server closed the connection")

        return call


@pytest.mark.parametrize("does", [False, True], ids=["not done", "done unanswered"])
async def test_store_that_is_away_pauses_and_ends_nothing(does: bool, store: MemoryStore) -> None:
    journal, told = Away(store=store), list[Event]()
    items = [{"question": f"Question {n}?", "tag": n} for n in range(40)]
    async with Scripted() as server, opened(server, journal, told, max_in_flight=8, clock=Clock(50)) as session:
        async with session.batch(items) as jobs:
            found = []
            async for job in jobs:
                found.append(job)
                if len(found) in (5, 20):
                    journal.is_away, journal.does = True, does
                    seen = journal.calls
                    asyncio.get_running_loop().call_later(0.3, setattr, journal, "is_away", False)
                    await until(lambda: journal.calls > seen)  # noqa: B023 - it is awaited here
        assert sorted(job.tag for job in found if job.ok) == list(range(40))
    assert server.requests["submit"] == len(server.rows) == 40
    assert (
        of_kind(told, EventKind.PAUSED, EventKind.RESUMED, EventKind.STOPPED)
        == [
            EventKind.PAUSED,
            EventKind.RESUMED,
        ]
        * 2
    )


async def test_row_that_changes_too_fast_is_no_outage(store: MemoryStore) -> None:
    class Busy(MemoryJournal):
        tries = 0

        async def find_or_queue(self, *args: Any, **words: Any) -> Any:
            self.tries += 1
            if self.tries < 4:
                raise JournalAway("the rows change faster than it can look at them", is_there=True)
            return await super().find_or_queue(*args, **words)

    told: list[Event] = []
    async with Scripted() as server, opened(server, Busy(store=store), told, clock=Clock(50)) as session:
        assert (await session.ask(QUESTION, tag="x")).ok
    assert of_kind(told, EventKind.PAUSED, EventKind.RESUMED) == []


async def test_nothing_is_sent_while_the_store_is_away(store: MemoryStore) -> None:
    journal = Away(store=store)
    async with Scripted() as server, opened(server, journal, clock=Clock(50)) as session:
        journal.is_away = True
        asking = asyncio.create_task(session.ask(QUESTION, tag="x"))
        await until(lambda: journal.calls > 5)
        assert server.requests.total() == 0
        journal.is_away = False
        with anyio.fail_after(SOON):
            assert (await asking).ok


async def test_store_that_stays_away_ends_no_batch(store: MemoryStore) -> None:
    journal = Away(store=store)
    async with Scripted() as server, opened(server, journal, clock=Clock(50), timeout=20) as session:
        journal.is_away = True
        async with session.batch([{"question": f"Question {n}?", "tag": n} for n in range(3)]) as jobs:
            found = [await anext(jobs) for _ in range(2)]
            journal.is_away = False
            found += [job async for job in jobs]
        assert len(found) == 3
        assert {type(job.error) for job in found if not job.ok} == {JournalAway}
    assert len(server.rows) == sum(job.ok for job in found)


# --- the name of a run, and what may be reused ------------------------------------------------------------------------


async def test_untagged_questions_of_a_batch_need_a_named_run(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session()) as session:
        with pytest.raises(ConfigError, match="run is missing") as caught:
            async with session.batch([QUESTION]) as jobs:
                assert [job.status async for job in jobs] == [JobStatus.REJECTED]
        assert caught.value.argument == "run"
        async with session.batch([{"question": QUESTION, "tag": 1}]) as jobs:
            assert [job.ok async for job in jobs] == [True]
        assert (await session.ask(QUESTION)).ok
        assert server.requests["submit"] == 2


async def test_source_is_read_once_no_batch_reads_one(store: MemoryStore) -> None:
    more = asyncio.Event()

    async def slow() -> Any:
        yield {"question": QUESTION, "tag": "slow"}
        await more.wait()

    async with Scripted() as server, opened(server, store.session()) as session:
        async with session.batch(slow()) as long:
            assert (await anext(long)).ok
            async with session.batch([{"question": QUESTION, "tag": "short"}]) as jobs:
                assert [job.ok async for job in jobs] == [True]
            assert not store.is_exhausted
            more.set()
            assert [job async for job in long] == []
            assert store.is_exhausted
        async with session.batch(slow()) as left:
            assert (await anext(left)).ok
            more.clear()
        async with session.batch([{"question": QUESTION, "tag": "short"}]) as jobs:
            assert [job.ok async for job in jobs] == [True]
        assert store.is_exhausted


async def test_two_sessions_work_at_one_run(store: MemoryStore) -> None:
    questions = [*(f"Question {n}?" for n in range(20)), "Question 1?"]
    async with Scripted() as server:

        async def run(name: str) -> int:
            async with opened(server, store.session()) as session, session.batch(questions, run=name) as jobs:
                return len([job async for job in jobs if job.ok])

        with anyio.fail_after(SOON):
            assert await asyncio.gather(run("2026-11"), run("2026-11")) == [21, 21]
            assert server.requests["submit"] == 21
            assert await run("2026-12") == 21
        assert server.requests["submit"] == 42


@pytest.mark.parametrize("is_file", [False, True], ids=["memory", "file"])
async def test_equal_question_is_reused_while_it_is_young(is_file: bool, store: MemoryStore, tmp_path: Path) -> None:
    clock = Clock(1000)
    journal: Any = tmp_path / "run.db" if is_file else MemoryStore(now=clock.wall).session()
    async with Scripted() as server, opened(server, journal, clock=clock) as session:
        first = await session.ask(QUESTION)
        again = [
            await session.ask(QUESTION, reuse="24h"),
            await session.submit(QUESTION, reuse=86_400),
            await session.ask(QUESTION, reuse="1d", tag="x"),
        ]
        assert [(job.id, job.tag) for job in again] == [(first.id, None), (first.id, None), (first.id, "x")]
        async with session.batch([QUESTION] * 3, reuse="1d", run="r") as jobs:
            assert {job.id async for job in jobs} == {first.id}
        assert server.requests["submit"] == 1
        assert (await session.ask(QUESTION)).id != first.id  # only if it is asked for
        assert (await session.ask(QUESTION, reuse="1d", tenant="acme")).id not in {first.id, "job-1"}
        assert (await session.ask(QUESTION, reuse="1d", reasoning_effort="low")).id == "job-3"
        await clock.sleep(60)
        old = await session.ask(QUESTION, reuse="10s")
        assert (old.id, server.requests["submit"]) == ("job-4", 5)


async def test_failure_is_not_reused_and_found_in_one_look() -> None:
    class Counting(MemoryJournal):
        looks = 0

        async def alike(self, *args: Any, **words: Any) -> Any:
            self.looks += 1
            return await super().alike(*args, **words)

        async def get(self, **words: Any) -> Any:
            assert "item" not in words
            return await super().get(**words)

    moment = 1e9
    journal = Counting(store=MemoryStore(now=lambda: moment))
    async with Scripted() as server, opened(server, journal) as session:
        old = await session.ask(QUESTION)
        moment += 3600.0
        server.script = lambda asked: (
            (200, server.summary(asked.row, "FAILED")) if is_get(asked) and asked.row else None
        )
        failed = [
            await session.ask(QUESTION, reuse=1800.0, tenant=tenant) for tenant in (None, "acme") for _ in range(4)
        ]
        assert {job.status for job in failed} == {JobStatus.FAILED}
        assert len({job.id for job in failed} | {old.id}) == server.requests["submit"] == 9
        server.script = lambda asked: None
        mended = [await session.ask(QUESTION, reuse=1800.0) for _ in range(3)]
        assert {(job.ok, job.id) for job in mended} == {(True, "job-9")}
        assert journal.looks == 11


async def test_equal_questions_at_once_are_one_job(store: MemoryStore) -> None:
    async with Scripted(polls=3) as server:
        sessions = [opened(server, store.session()) for _ in range(3)]
        for session in sessions:
            await session.__aenter__()
        with anyio.fail_after(SOON):
            jobs = await asyncio.gather(*(session.ask(QUESTION, reuse="1h") for session in sessions for _ in range(4)))
        assert ({job.ok for job in jobs}, server.requests["submit"]) == ({True}, 1)
        for session in sessions:
            await session.aclose()


async def test_tag_of_one_tenant_is_not_anothers(store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session()) as session:
        ids = [(await session.ask(QUESTION, tag="1", tenant=tenant)).id for tenant in (None, "a", "b", "a", "b")]
        assert ids == ["job-0", "job-1", "job-2", "job-1", "job-2"]


@pytest.mark.parametrize(("tenant", "is_long"), [("a" * 900, False), ("a" * 901, True), ("\u0442" * 151, True)])
async def test_tenant_that_no_index_takes_is_refused(tenant: str, is_long: bool, postgres: Server) -> None:
    async def asked(session: Session, tag: str) -> str:
        try:
            return (await session.ask(QUESTION, tag=tag, tenant=tenant)).id
        except ConfigError as error:
            return str(error)

    async with Scripted() as server, opened(server, await postgres.empty()) as session:
        said = [await asked(session, tag) for tag in ("1", "x" * 2_000, "1")]
        if not is_long:
            assert said == ["job-0", "job-1", "job-0"]
            return
        assert ["900 characters at most" in each for each in said] == [True] * 3
        with pytest.raises(ConfigError, match="900 characters at most"):
            session.batch([QUESTION], tenant=tenant, run="r")
        assert server.requests["submit"] == 0


async def test_reuse_without_a_journal_is_refused() -> None:
    async with Scripted() as server, opened(server, None) as session:
        with pytest.raises(ConfigError, match="reuse needs a journal"):
            await session.ask(QUESTION, reuse="1h")
        assert server.requests.total() == 0


@pytest.mark.parametrize("given", ["", "24", "h", "-1h", 0, -1, True, float("nan"), "1y"])
async def test_span_that_is_none_is_refused(given: Any, store: MemoryStore) -> None:
    async with Scripted() as server, opened(server, store.session()) as session:
        with pytest.raises(ConfigError, match="reuse must be seconds above 0"):
            await session.ask(QUESTION, reuse=given)
