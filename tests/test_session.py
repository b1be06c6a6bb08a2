"""A session opens and closes, runs single jobs, and waits for them."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from _faulty import emulator, session_at
from _scripted import KEY, NEVER, Asked, Scripted, opened

import aiopplx
from aiopplx import (
    AgentRequest,
    AiopplxError,
    ConfigError,
    Estimate,
    Event,
    InvalidRequest,
    JobError,
    JobExpired,
    JobStatus,
    JobTimeout,
    JournalOptions,
    NotFound,
    PollPolicy,
    ResearchRequest,
    RetryPolicy,
    Session,
)
from aiopplx.emulator import Emulator, faults
from aiopplx.journal import open_reader
from aiopplx.testing import Clock

# --- opening and closing ---------------------------------------------------------------------------------------------


async def test_closed_session_refuses_every_use(server: Scripted):
    async with opened(server) as session:
        job = await session.submit("one")
    uses: list[Callable[[], Any]] = [
        lambda: session.ask("one"),
        lambda: session.submit("one"),
        lambda: session.wait("job-0"),
        lambda: session.wait(job),
        lambda: session.get("job-0"),
        lambda: session.cancel("job-0"),
        lambda: session.__aenter__(),
    ]
    for use in uses:
        with pytest.raises(ConfigError, match="closed"):
            await use()
    for use in (session.list, session.resume, lambda: session.batch(["one"])):
        with pytest.raises(ConfigError, match="closed"):
            use()
    assert repr(session).endswith("closed>")
    await session.aclose()


async def test_batch_of_a_closed_session_cannot_be_entered(server: Scripted):
    async with opened(server) as session:
        batch = session.batch(["one"])
    with pytest.raises(ConfigError, match="closed"):
        await batch.__aenter__()
    await batch.aclose()


async def test_session_opens_at_its_first_use_and_closes_once(server: Scripted):
    session = opened(server)
    assert repr(session).endswith("new>")
    assert (await session.ask("one")).ok
    assert repr(session).endswith("open>")
    await session.aclose()
    await session.aclose()


def test_session_refuses_another_event_loop():
    async def first() -> tuple[Session, Scripted]:
        async with Scripted() as server:
            session = opened(server)
            await session.submit("one")
            await asyncio.sleep(0)
            return session, server

    async def second(session: Session) -> None:
        with pytest.raises(ConfigError, match="another event loop"):
            await session.ask("one")
        with pytest.raises(ConfigError, match="another event loop"):
            session.batch(["one"])

    session, _ = asyncio.run(first())
    asyncio.run(second(session))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it can no longer be closed
        del session
        gc.collect()


def test_session_outside_an_event_loop_says_so():
    session = Session(KEY, base_url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="inside an event loop"):
        session.batch(["one"])


async def test_session_refuses_a_forked_process(server: Scripted):
    async with opened(server) as session:
        await session.submit("one")
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            # From 3.12 on a fork beside threads warns, and the test runner may have some.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            said = b"nothing"
            try:
                session.list()
            except ConfigError as error:
                said = str(error).encode()
            finally:
                os.write(writing, said)
                os._exit(0)
        os.close(writing)
        assert b"forked" in os.read(reading, 1000)
        os.close(reading)
        await asyncio.to_thread(os.waitpid, pid, 0)
        # And the parent's goes on.
        assert (await session.ask("two")).ok


def test_session_that_was_never_closed_warns():
    async def main() -> None:
        async with Scripted() as server:
            session = opened(server)
            await session.submit("one")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    ours = [str(warning.message) for warning in caught if "Session sonar" in str(warning.message)]
    assert len(ours) == 1
    assert ours[0].endswith("was never closed: use 'async with' or 'await session.aclose()'")


def test_session_that_was_never_used_needs_no_closing():
    Session(KEY, base_url="http://127.0.0.1:9")
    gc.collect()


async def test_failing_listener_harms_nothing(server: Scripted):
    def listener(event: Event) -> None:
        raise RuntimeError("mine")

    async with opened(server, on_event=listener) as session:
        assert (await session.ask("one")).ok
        async with session.batch(["two"]) as jobs:
            assert [job.text async for job in jobs] == ["answer to two"]


# --- one job ---------------------------------------------------------------------------------------------------------


async def test_hundreds_of_concurrent_asks_each_get_their_answer(server: Scripted):
    async with opened(server) as session:
        jobs = await asyncio.gather(*(session.ask(f"question {n}", tag=n) for n in range(300)))
    assert [(job.tag, job.text) for job in jobs] == [(n, f"answer to question {n}") for n in range(300)]
    assert len({job.id for job in jobs}) == len({job.idempotency_key for job in jobs}) == 300
    assert server.requests["submit"] == 300


async def test_asks_beyond_max_in_flight_wait_for_a_slot(server: Scripted):
    server.polls = lambda row: 3
    peak = 0

    def script(asked: Asked) -> None:
        nonlocal peak
        peak = max(peak, sum(row.told == 0 for row in server.rows.values()))

    server.script = script
    async with opened(server, max_in_flight=5) as session:
        jobs = await asyncio.gather(*(session.ask(f"question {n}") for n in range(40)))
    assert all(job.ok for job in jobs)
    assert peak == 5


async def test_ask_without_a_slot_in_time_was_not_sent(server: Scripted):
    server.polls = lambda row: NEVER
    async with opened(server, max_in_flight=1, clock=Clock(1000), poll=PollPolicy.fixed(60)) as session:
        running = asyncio.create_task(session.ask("one"))
        await server.until(lambda: server.requests["submit"] == 1)
        job = await session.ask("two", timeout=30.0, tag="mine")
        assert (job.status, job.tag) == (JobStatus.REJECTED, "mine")
        assert isinstance(job.error, JobError)
        assert "nothing was billed" in str(job.error)
        assert server.requests["submit"] == 1
        running.cancel()
        await asyncio.wait([running])


async def test_ask_times_out_after_a_last_poll(server: Scripted):
    """The policy would poll again only long after the limit; the limit itself brings the poll that decides."""
    server.polls = lambda row: 1 if row.question == "finished by then" else NEVER
    policy = PollPolicy(quiet=50_000.0, gap=50_000.0)
    async with opened(server, clock=Clock(1000), poll=policy) as session:
        late, done = await asyncio.gather(
            session.ask("stuck", timeout=100.0), session.ask("finished by then", timeout=100.0)
        )
    assert (late.status, done.status) == (JobStatus.TIMED_OUT, JobStatus.COMPLETED)
    assert isinstance(late.error, JobTimeout)
    assert isinstance(late.error, TimeoutError)
    assert "session.wait" in str(late.error)
    assert late.id in str(late.error)
    assert [row.polls for row in server.rows.values()] == [1, 1]


# --- submit now, wait later ------------------------------------------------------------------------------------------


async def test_key_and_tag_last_from_submit_to_wait(server: Scripted):
    async with opened(server) as session:
        job = await session.submit("one", tag="mine", idempotency_key="my-own-key")
        assert (job.status, job.tag, job.idempotency_key) == (JobStatus.CREATED, "mine", "my-own-key")
        for given in (job, job.id):
            done = await session.wait(given)
            assert (done.text, done.tag, done.idempotency_key) == ("answer to one", "mine", "my-own-key")
        polled = await session.get(job.id)
        assert (polled.text, polled.tag, polled.idempotency_key) == ("answer to one", "mine", "my-own-key")
        (row,) = await session.list()
        assert (row.tag, row.idempotency_key) == ("mine", "my-own-key")
    assert set(server.by_key) == {"my-own-key"}


async def test_submitted_jobs_do_not_count_towards_max_in_flight(server: Scripted):
    async with opened(server, max_in_flight=1) as session:
        jobs = [await session.submit(f"question {n}") for n in range(3)]
        assert [(await session.wait(job)).text for job in jobs] == [f"answer to question {n}" for n in range(3)]


async def test_wait_polls_a_job_of_another_session(server: Scripted):
    async with opened(server) as session:
        job = await session.submit("one", tag="mine")
    async with opened(server) as session:
        assert (await session.wait(job.id)).tag is None
        again = await session.wait(job)
    assert (again.text, again.tag, again.idempotency_key) == ("answer to one", "mine", job.idempotency_key)


async def test_wait_for_an_ended_job_sends_no_request(server: Scripted):
    async with opened(server) as session:
        done = await session.ask("one")
        seen = server.requests.copy()
        assert await session.wait(done) is done
        assert server.requests == seen


async def test_wait_for_an_unknown_id_says_so(server: Scripted):
    async with opened(server, clock=Clock(1000)) as session:
        job = await session.wait("no-such-job")
    assert job.status is JobStatus.EXPIRED
    assert isinstance(job.error, JobExpired)
    assert job.id == "no-such-job"
    # Once more before it is believed.
    assert server.requests["get"] == 2


@pytest.mark.parametrize("bad", ["", ".", "..", "x" * 2_049, "\ud800"], ids=lambda bad: ascii(bad[:8]))
async def test_invalid_id_is_refused_before_anything_is_sent(bad: str, server: Scripted):
    async with opened(server) as session:
        for call in (session.wait, session.get):
            with pytest.raises(InvalidRequest):
                await call(bad)
    assert server.requests["get"] == 0


async def test_wait_times_out_after_a_last_poll(server: Scripted):
    server.polls = NEVER
    async with opened(server, clock=Clock(1000), poll=PollPolicy.fixed(50_000)) as session:
        job = await session.submit("one", tag="mine")
        late = await session.wait(job.id, timeout=60.0)
        assert (late.status, late.tag, late.server_status) == (JobStatus.TIMED_OUT, "mine", "IN_PROGRESS")
        assert server.requests["get"] == 1, "none as the waiting began: the schedule is the job's"
        server.polls = 1
        assert (await session.wait(job.id, timeout=60.0)).ok


async def test_job_finished_at_the_last_poll_is_in_time(server: Scripted):
    clock = Clock(1000)
    async with opened(server, clock=clock, poll=PollPolicy.fixed(50_000)) as session:
        job = await session.submit("one")
        over = clock.now() + 60.0
        server.polls = lambda row: 1 if clock.now() >= over else NEVER
        assert (await session.wait(job, timeout=60.0)).ok


async def test_many_waiters_on_one_job_share_its_polls(server: Scripted):
    server.polls = 4
    async with opened(server) as session:
        job = await session.submit("one")
        done = await asyncio.gather(*(session.wait(job.id) for _ in range(200)))
    assert {one.text for one in done} == {"answer to one"}
    assert server.requests["get"] == 4


async def test_waiter_whose_time_is_up_ends_no_other(server: Scripted):
    server.polls = NEVER
    async with opened(server, clock=Clock(100), poll=PollPolicy.fixed(1)) as session:
        job = await session.submit("one")
        patient = asyncio.create_task(session.wait(job.id, timeout=100_000.0))
        impatient = await asyncio.gather(*(session.wait(job.id, timeout=5.0) for _ in range(50)))
        assert {one.status for one in impatient} == {JobStatus.TIMED_OUT}
        assert not patient.done()
        server.polls = 1
        assert (await patient).ok


async def test_crowd_of_timed_out_waiters_shares_the_last_poll(server: Scripted):
    server.polls = NEVER
    async with opened(server, clock=Clock(100), poll=PollPolicy.fixed(50_000)) as session:
        job = await session.submit("one")
        late = await asyncio.gather(*(session.wait(job.id, timeout=10.0) for _ in range(200)))
    assert {one.status for one in late} == {JobStatus.TIMED_OUT}
    # Not one each: timers that end in one turn of the loop join one poll; a few turns are allowed for.
    assert server.requests["get"] <= 20


async def test_job_is_not_polled_after_its_last_waiter_leaves(server: Scripted):
    server.polls = lambda row: NEVER if row.question == "left" else 5
    async with opened(server) as session:
        job = await session.submit("left")
        waiting = [asyncio.create_task(session.wait(job.id)) for _ in range(3)]
        await server.until(lambda: server.requests["get"] > 2)
        for task in waiting[:2]:
            task.cancel()
        await asyncio.wait(waiting[:2])
        seen = server.rows[job.id].polls
        await server.until(lambda: server.rows[job.id].polls > seen + 2)
        waiting[2].cancel()
        await asyncio.wait(waiting)
        seen = server.rows[job.id].polls
        assert (await session.ask("polled five times")).ok
        assert server.rows[job.id].polls <= seen + 1


async def test_get_of_an_unknown_job_raises_not_found(server: Scripted):
    async with opened(server) as session:
        with pytest.raises(NotFound) as caught:
            await session.get("no-such-job")
    assert caught.value.status == 404


async def test_get_polls_once(server: Scripted):
    server.polls = 2
    async with opened(server) as session:
        job = await session.submit("one")
        running = await session.get(job.id)
        assert (running.status, running.done, running.error) == (JobStatus.IN_PROGRESS, False, None)
        assert (await session.get(job.id)).text == "answer to one"
    assert server.requests["get"] == 2


async def test_cancel_says_that_this_api_has_none(server: Scripted):
    async with opened(server) as session:
        with pytest.raises(InvalidRequest, match="cancel"):
            await session.cancel("job-0")


# --- estimates --------------------------------------------------------------------------------------------------------


def requests_of(server: Emulator) -> int:
    return server.ledger.requests.total()


async def test_estimate_counts_by_published_figures_and_sends_nothing() -> None:
    async with emulator() as server, session_at(server.url) as session:
        found = await session.estimate(f"{n}?" for n in range(300))
        assert (found.count, found.low, found.high, found.middle, found.known) == (300, 110.0, 360.0, None, 0)
        assert found.seconds_low < found.seconds_high
        assert requests_of(server) == 0
        assert await session.estimate([]) == Estimate.of([])
        assert str(await session.estimate([])) == "nothing to pay for"


ROWS = {"question": ["Why?", "How?", None], "id": [1, 2, 3]}
SOURCES: dict[str, Callable[[], Any]] = {
    "texts": lambda: ["Why?", "How?"],
    "mappings": lambda: [{"question": "Why?"}, {"question": "How?", "tag": 1}],
    "requests": lambda: [ResearchRequest("Why?"), AgentRequest("How?")],
    "one that breaks a rule": lambda: ["Why?", {"question": 7}, {"quetsion": "?"}, 7, {"question": "How?"}],
    "generator": lambda: (question for question in ("Why?", "How?")),
    "set": lambda: {"Why?", "How?"},
    "series": lambda: pd.Series(["Why?", "How?"]),
    "pandas": lambda: pd.DataFrame(ROWS).head(2),
    "polars": lambda: pl.DataFrame(ROWS).head(2),
    "pyarrow": lambda: pa.table(ROWS).slice(0, 2),
    "array": lambda: np.array(["Why?", "How?"]),
    "questions": lambda: aiopplx.questions(["Why?", "How?"]),
}
NO_SOURCES: dict[str, Callable[[], Any]] = {
    "a row without a question": lambda: pd.DataFrame(ROWS),
    "another column": lambda: pl.DataFrame({"asks": ["Why?"]}),
    "no rows": lambda: pd.DataFrame({"question": []}),
    "lazy": lambda: pl.DataFrame(ROWS).lazy(),
    "two dimensions": lambda: np.array([["Why?", "How?"]]),
    "path": lambda: Path("questions.csv"),
    "file": lambda: io.StringIO("Why?"),
    "text": lambda: "Why?",
    "bytes": lambda: b"Why?",
    "mapping": lambda: {"question": "Why?"},
    "number": lambda: 7,
    "nothing": lambda: None,
    "request": lambda: ResearchRequest("Why?"),
    "function": lambda: lambda: ["Why?"],
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
async def test_estimate_counts_what_a_batch_would_ask(source: Callable[[], Any]) -> None:
    async with Session(KEY, base_url="http://localhost:9", api="auto") as session:
        assert (await session.estimate(source())).count == 2
    assert Estimate.of(source()).count == 2


@pytest.mark.parametrize("source", NO_SOURCES.values(), ids=NO_SOURCES.keys())
async def test_what_is_no_source_is_refused_with_the_call(source: Callable[[], Any]) -> None:
    said: list[str] = []
    async with Session(KEY, base_url="http://localhost:9", api="sonar") as session:
        with pytest.raises(AiopplxError) as refused:
            await session.estimate(source())
        said.append(str(refused.value))
    with pytest.raises(AiopplxError) as refused:
        Estimate.of(source())
    said.append(str(refused.value))
    with_own_call = said[0].replace("a batch", "Estimate.of").replace("batch(", "Estimate.of(")
    for other in ("session.ask(question) or ", "session.ask(mapping) or "):
        with_own_call = with_own_call.replace(other, "")
    assert said[1] == with_own_call


def test_estimate_without_a_session_reads_no_async_source() -> None:
    async def given() -> AsyncIterator[str]:
        yield "Why?"

    with pytest.raises(InvalidRequest, match=re.escape("session.estimate(source)")):
        Estimate.of(cast("Any", given()))


async def test_estimate_is_of_the_api_that_is_asked() -> None:
    async with emulator() as server:
        found: dict[str, Estimate] = {}
        for api in ("sonar", "agent"):
            async with session_at(server.url, api=api) as session:
                found[api] = await session.estimate(["Why?"] * 10)
                assert found[api] == Estimate.of([ResearchRequest("Why?")] * 10, api=api)
    assert found["sonar"].low == 3.8
    assert found["agent"].low != found["sonar"].low


async def test_estimate_says_what_it_does_not_know() -> None:
    async with emulator() as server, session_at(server.url, api="auto") as session:
        found = await session.estimate(["Why?", AgentRequest("Why?", model="somebody/model")])
        assert (found.count, found.low, found.high, found.unknown) == (2, None, None, 1)
        refused: list[Any] = [{"no": "question"}, "Why?", 7]
        found = await session.estimate(refused)
        assert (found.count, found.unknown) == (1, 0)  # what is refused costs nothing
        assert requests_of(server) == 0


async def test_estimate_takes_any_source_of_a_batch() -> None:
    async def later() -> AsyncIterator[str]:
        yield "Why?"

    async with emulator() as server, session_at(server.url) as session:
        for source in (later(), iter(["Why?"]), pd.DataFrame({"question": ["Why?"]}), {"Why?"}):
            assert (await session.estimate(source)).count == 1
        with pytest.raises(InvalidRequest, match="batch"):
            await session.estimate("Why?")

        def failing() -> Iterator[str]:
            yield "Why?"
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            await session.estimate(failing())


@pytest.mark.parametrize("retry_failed", [False, True])
async def test_estimate_leaves_out_what_the_journal_has(tmp_path: Path, retry_failed: bool) -> None:
    path = tmp_path / "run.db"
    asked: list[Any] = [f"{n}?" for n in range(8)]
    tagged: list[Any] = [{"question": "t?", "tag": "t"}, {"question": "again", "tag": "t"}]
    async with emulator() as server:
        async with session_at(server.url, journal=path, retry=RetryPolicy(doubt_tries=1)) as session:
            assert (await session.estimate([*asked, *tagged])).count == 9  # two questions under one tag are one job
            async with session.batch(asked) as jobs:
                done = [job async for job in jobs]
            server.faults.add("submit", faults.Drop(after_accept=True), times=1)
            assert (await session.ask("in doubt", tag="doubt")).status is JobStatus.IN_DOUBT
            server.faults.add("submit", faults.Status(422), times=1)
            await session.ask("refused", tag="refused")
        before = requests_of(server)
        more: list[Any] = [{"question": "in doubt", "tag": "doubt"}, {"question": "refused", "tag": "refused"}]
        journal = JournalOptions(path, retry_failed=retry_failed)
        async with session_at(server.url, journal=journal) as session:
            found = await session.estimate([*asked, *asked[:2], *tagged[:1], *more])
        assert requests_of(server) == before
        assert found.count == 3 + retry_failed  # the repeats are submissions of their own
        costs = [job.cost for job in done if job.cost is not None]
        assert found.known == len(costs) == 8
        assert found.middle == pytest.approx(found.count * sum(costs) / 8, rel=0.1)
        with open_reader(path) as reader:
            rows = [{"question": row, "tag": None} if isinstance(row, str) else row for row in [*asked, *asked[:2]]]
            requests = [ResearchRequest.of(row) for row in [*rows, *tagged[:1], *more]]
            assert Estimate.of(requests, journal=reader, retry_failed=retry_failed) == found


async def test_named_run_finds_its_own_questions_alone(tmp_path: Path) -> None:
    """In a file too: the journal's options name the run, and a batch or an estimate may name another."""
    path, asked = tmp_path / "run.db", ["Why?", "How?"]
    async with emulator() as server:
        for _ in range(2):
            session = session_at(server.url, journal=JournalOptions(path, run="2026-11"))
            async with session, session.batch(asked) as jobs:
                assert [job.ok async for job in jobs] == [True, True]
        assert server.ledger.created == 2
        async with session_at(server.url, journal=JournalOptions(path, run="2026-11")) as session:
            assert ((await session.estimate(asked)).count, (await session.estimate(asked, run="x")).count) == (0, 2)
            async with session.batch(asked, run="x") as jobs:
                assert [job.ok async for job in jobs] == [True, True]
            assert (await session.estimate(asked, run="x")).count == 0
        assert server.ledger.created == 4


async def test_corrected_question_is_in_the_estimate(tmp_path: Path) -> None:
    async with emulator() as server:
        server.faults.add("submit", faults.Status(422), times=1)
        async with session_at(server.url, journal=tmp_path / "run.db") as session:
            await session.ask("wyh?", tag="a")
            await session.ask("done", tag="b")
        async with session_at(server.url, journal=tmp_path / "run.db") as session:
            corrected = {"question": "why?", "tag": "a"}
            assert (await session.estimate([corrected, {"question": "other", "tag": "b"}])).count == 1
