"""A batch reads its source lazily, keeps both orders, and survives bad items and slow consumers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import aiohttp
import anyio
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from _faulty import emulator, session_at, taken
from _scripted import Asked, Boom, Scripted, is_submit, opened, turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aiopplx
from aiopplx import (
    ConfigError,
    Event,
    EventKind,
    InvalidRequest,
    Job,
    JobStatus,
    PollPolicy,
    ResearchRequest,
    Session,
    TableError,
)
from aiopplx._core.batch.results import READY
from aiopplx.journal import MemoryJournal, State
from aiopplx.testing import Clock


def endless(read: list[int]) -> Iterator[str]:
    for n in itertools.count():
        read.append(n)
        yield f"question {n}"


async def endless_awaiting(read: list[int]) -> AsyncIterator[str]:
    for n in itertools.count():
        read.append(n)
        await asyncio.sleep(0)
        yield f"question {n}"


# --- reading the source ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [endless, endless_awaiting])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 40])
async def test_source_is_read_at_most_max_in_flight_ahead(source: Any, ordered: bool, limit: int, server: Scripted):
    read: list[int] = []
    async with opened(server) as session:
        async with session.batch(source(read), ordered=ordered, max_in_flight=limit) as jobs:
            await server.until(lambda: server.requests["submit"] == limit)
            await turns()
            assert len(read) == limit
            for taken in range(1, 12):
                assert (await anext(jobs)).ok
                await turns()
                assert len(read) <= limit + taken
        assert len(read) <= limit + taken


async def test_source_is_untouched_until_the_block_is_entered(server: Scripted):
    read: list[int] = []
    async with opened(server) as session:
        batch = session.batch(endless(read))
        await turns()
        assert read == []
        with pytest.raises(ConfigError, match="inside its block"):
            await anext(batch)
        assert server.requests["submit"] == 0


async def test_empty_source_ends_at_once(server: Scripted):
    async with opened(server) as session, session.batch([]) as jobs:
        assert [job async for job in jobs] == []


class Listening(MemoryJournal):
    """A store that notes what it is told of the source's end."""

    def __init__(self) -> None:
        super().__init__(now=time.time)
        self.told: list[bool] = []

    def exhausted(self, is_exhausted: bool) -> None:
        self.told.append(is_exhausted)
        super().exhausted(is_exhausted)


@pytest.mark.parametrize("is_async", [False, True], ids=("list", "async"))
async def test_store_hears_once_that_the_source_ended(server: Scripted, is_async: bool) -> None:
    async def three() -> AsyncIterator[str]:
        for n in range(3):
            yield f"question {n}"

    store = Listening()
    source = three() if is_async else [f"question {n}" for n in range(3)]
    async with opened(server, journal=store) as session, session.batch(source) as jobs:
        assert len([job async for job in jobs]) == 3
    assert store.told == [False, True]


@pytest.mark.parametrize("ordered", [False, True])
async def test_source_error_comes_out_bare_after_the_paid_jobs(ordered: bool, server: Scripted):
    boom = Boom("the source's own")

    def source() -> Iterator[str]:
        yield from ("one", "two", "three")
        raise boom

    got: list[Job] = []
    async with opened(server) as session:
        with pytest.raises(Boom) as caught:
            await taken(session.batch(source(), ordered=ordered), got)
    assert caught.value is boom
    assert sorted(job.text for job in got) == ["answer to one", "answer to three", "answer to two"]
    assert boom.__context__ is None


async def test_async_source_error_comes_out_bare_and_once(server: Scripted):
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "one"
        raise boom

    async with opened(server) as session, session.batch(source()) as jobs:
        assert (await anext(jobs)).text == "answer to one"
        with pytest.raises(Boom) as caught:
            await anext(jobs)
        assert caught.value is boom
        # Told once; after it there is nothing more.
        assert [job async for job in jobs] == []


async def test_cancelled_error_inside_a_source_is_raised(server: Scripted):
    """Something that the source waits for was cancelled, not the batch: the rest of the source must not just vanish."""

    async def source() -> AsyncIterator[str]:
        yield "one"
        await gone
        yield "two"

    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone.cancel()
    got: list[Job] = []

    async with opened(server) as session:
        task = asyncio.create_task(taken(session.batch(source()), got))
        await asyncio.wait([task])
    assert task.cancelled()
    assert [job.text for job in got] == ["answer to one"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a question", "session.ask"),
        (b"a question", "splitlines"),
        ({"question": "one"}, "session.ask"),
        (ResearchRequest.of("one"), "session.ask"),
        (7, "not int"),
        (None, "not NoneType"),
    ],
)
async def test_invalid_source_is_refused_with_the_reason(source: Any, words: str, server: Scripted):
    async with opened(server) as session:
        with pytest.raises(InvalidRequest, match=words):
            async with session.batch(source):
                pass
    assert server.requests["submit"] == 0


async def test_batch_is_entered_once(server: Scripted):
    async with opened(server) as session:
        batch = session.batch(["one"])
        async with batch as jobs:
            assert [job.text async for job in jobs] == ["answer to one"]
        with pytest.raises(ConfigError, match="once"):
            await batch.__aenter__()
        with pytest.raises(ConfigError, match="closed"):
            await anext(batch)


@pytest.mark.parametrize("options", [{"max_in_flight": 0}, {"max_in_flight": True}, {"timeout": 0}, {"timeout": "9"}])
async def test_nonsensical_options_are_refused(options: dict[str, Any], server: Scripted):
    async with opened(server) as session:
        with pytest.raises(ConfigError, match=next(iter(options))):
            session.batch(["one"], **options)


# --- what comes out --------------------------------------------------------------------------------------------------


async def test_jobs_carry_tag_index_key_and_their_own_answer(server: Scripted):
    source = [
        {"question": "one", "tag": "first"},
        ResearchRequest.of({"question": "two", "tag": 2, "idempotency_key": "my-own-key"}),
        "three",
    ]
    async with opened(server) as session, session.batch(source) as jobs:
        got = {job.index: job for job in [job async for job in jobs]}
    assert {index: (job.tag, job.text) for index, job in got.items()} == {
        0: ("first", "answer to one"),
        1: (2, "answer to two"),
        2: (None, "answer to three"),
    }
    assert got[1].idempotency_key == "my-own-key"
    assert {job.idempotency_key for job in got.values()} == set(server.by_key)
    assert {job.id for job in got.values()} == set(server.rows)


async def test_jobs_come_out_as_they_finish(server: Scripted):
    wanted = ["question 3", "question 0", "question 2", "question 1"]
    finished: list[str] = []
    server.polls = lambda row: 1 if row.question in finished else float("inf")
    async with opened(server) as session, session.batch([f"question {n}" for n in range(4)]) as jobs:
        for question in wanted:
            finished.append(question)
            assert (await anext(jobs)).text == f"answer to {question}"


async def test_ordered_jobs_come_out_in_source_order(server: Scripted):
    server.polls = lambda row: 1 + (7 * int(row.question)) % 5
    async with opened(server) as session, session.batch(map(str, range(60)), ordered=True) as jobs:
        assert [job.index async for job in jobs] == list(range(60))


@pytest.mark.parametrize("ordered", [False, True])
async def test_bad_items_come_out_rejected_among_the_good(ordered: bool, server: Scripted):
    source: list[Any] = ["one", {"question": "", "tag": "empty"}, 5, None, {"qestion": "x"}, object(), [], "two"]
    told: list[Event] = []
    async with opened(server, told) as session, session.batch(source, ordered=ordered) as jobs:
        got = [job async for job in jobs]
    if ordered:
        assert [job.index for job in got] == list(range(8))
    by_index = {job.index: job for job in got}
    assert sorted(by_index) == list(range(8))
    assert [by_index[n].status for n in range(8)] == ["COMPLETED", *["REJECTED"] * 6, "COMPLETED"]
    assert all(isinstance(by_index[n].error, InvalidRequest) for n in range(1, 7))
    assert by_index[1].tag == "empty"
    assert server.requests["submit"] == 2
    assert sorted(e.index for e in told if e.kind is EventKind.FINISHED and e.index is not None) == list(range(8))


async def test_only_bad_items_end_the_batch_too(server: Scripted):
    async with opened(server) as session, session.batch([""] * 200, max_in_flight=2) as jobs:
        assert [job.status async for job in jobs] == [JobStatus.REJECTED] * 200


async def test_unreadable_item_is_rejected_and_ends_nothing(server: Scripted):
    class Broken(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            raise Boom

        def __iter__(self) -> Iterator[str]:
            raise Boom

        def __len__(self) -> int:
            raise Boom

    async with opened(server) as session, session.batch([Broken(), "one"], ordered=True) as jobs:
        with anyio.fail_after(10):
            broken, good = [job async for job in jobs]
    assert (broken.status, good.status) == (JobStatus.REJECTED, JobStatus.COMPLETED)


async def test_failing_hook_of_the_user_is_a_lost_answer(server: Scripted):
    async def middleware(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await handler(request)
        if request.method == "POST" and server.requests["submit"] == 1:
            response.close()
            raise Boom
        return response

    async with (
        aiohttp.ClientSession(middlewares=[middleware]) as http,
        opened(server, http=http) as session,
        session.batch(["one", "two"], max_in_flight=1) as jobs,
    ):
        with anyio.fail_after(10):
            lost, good = [job async for job in jobs]
    # It was sent, so a job may exist: the same bytes under the same key find it.
    assert (lost.ok, lost.attempts, good.ok) == (True, 2, True)
    assert len(server.rows) == 2


async def test_users_key_twice_in_a_batch_gives_one_job(server: Scripted):
    source = [{"question": "one", "idempotency_key": "mine", "tag": tag} for tag in ("a", "b")]
    async with opened(server) as session, session.batch(source) as jobs:
        first, second = [job async for job in jobs]
    assert first.ok
    assert second.ok
    assert first.id == second.id == "job-0"
    assert {first.tag, second.tag} == {"a", "b"}
    assert len(server.rows) == 1


async def test_second_key_with_the_same_id_is_in_doubt(server: Scripted):
    def same_id(asked: Asked) -> tuple[int, Any] | None:
        return (200, Scripted.summary(server.rows["job-0"])) if asked.kind == "submit" else None

    server.script = same_id
    async with opened(server) as session, session.batch(["one", "two"], max_in_flight=1) as jobs:
        first, second = [job async for job in jobs]
    assert first.ok
    assert second.status is JobStatus.IN_DOUBT


async def test_items_time_limit_overrides_the_batchs(server: Scripted):
    server.polls = float("inf")
    source = [{"question": "short", "timeout": 60.0}, "long"]
    async with opened(server, clock=Clock(3000)) as session, session.batch(source, timeout=86_400.0) as jobs:
        job = await anext(jobs)
        assert (job.index, job.status) == (0, JobStatus.TIMED_OUT)
        assert [job.index for job in jobs.pending] == [1]


# --- slots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_asks_inside_the_loop_of_a_batch_never_deadlock(limit: int, server: Scripted):
    async with opened(server, max_in_flight=limit) as session, session.batch(map(str, range(8))) as jobs:
        with anyio.fail_after(20):
            async for job in jobs:
                assert (await session.ask(f"and {job.index}?")).ok
    assert len(server.rows) == 16


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_batch_inside_the_loop_of_a_batch_never_deadlocks(limit: int, server: Scripted):
    async with opened(server, max_in_flight=limit) as session, session.batch(map(str, range(4))) as outer:
        with anyio.fail_after(20):
            async for job in outer:
                async with session.batch([f"{job.index} a", f"{job.index} b"]) as inner:
                    assert len([one async for one in inner]) == 2
    assert len(server.rows) == 12


@pytest.mark.parametrize("limit", [1, 5])
async def test_asks_inside_the_loop_never_deadlock_on_finished_results(limit: int, server: Scripted):
    async with (
        opened(server, max_in_flight=limit) as session,
        session.batch(map(str, range(READY + 30)), max_in_flight=READY + 30) as jobs,
    ):
        with anyio.fail_after(20):
            assert (await anext(jobs)).ok
            await server.until(lambda: server.told >= READY)
            assert (await session.ask("in between")).ok
            assert len([job async for job in jobs]) == READY + 29


async def test_jobs_in_flight_are_bounded_over_all_batches(server: Scripted):
    server.polls = float("inf")
    async with (
        opened(server, max_in_flight=4) as session,
        session.batch(map(str, range(9))) as first,
        session.batch(map(str, range(9))) as second,
    ):
        await server.until(lambda: server.requests["get"] > 8)
        assert len(server.rows) == 4
        server.polls = 1
        assert len([job async for job in first]) == 9
        assert len([job async for job in second]) == 9


async def test_two_batches_side_by_side_get_their_own_jobs(server: Scripted):
    async def texts(name: str) -> list[str]:
        async with session.batch([f"{name} {n}" for n in range(30)], max_in_flight=7) as jobs:
            return [job.text async for job in jobs]

    async with opened(server, max_in_flight=10) as session:
        a, b = await asyncio.gather(texts("a"), texts("b"))
    assert sorted(a) == sorted(f"answer to a {n}" for n in range(30))
    assert sorted(b) == sorted(f"answer to b {n}" for n in range(30))


async def test_two_consumers_share_a_batch(server: Scripted):
    async def consume() -> list[int | None]:
        return [job.index async for job in jobs]

    async with opened(server) as session, session.batch(map(str, range(40))) as jobs:
        with anyio.fail_after(10):
            a, b = await asyncio.gather(consume(), consume())
    assert sorted([*a, *b]) == list(range(40))


async def test_calls_in_tasks_of_their_own_leave_nothing(server: Scripted) -> None:
    """A job is delivered when the next call comes, whoever makes it, and no call is remembered after it has ended."""

    async def take() -> Job:
        return await anext(jobs)

    journal = MemoryJournal(now=time.time)
    async with opened(server, journal=journal) as session, session.batch(map(str, range(5))) as jobs:
        for _ in range(5):
            assert (await asyncio.create_task(take())).ok
            assert len(jobs._last) == 1
    assert [record.delivered for record in await journal.rows(set(State))].count(True) >= 4


# --- a slow consumer -------------------------------------------------------------------------------------------------


ROUNDS = "rounds of polling"


def gets(server: Scripted) -> int:
    return sum(row.polls for row in server.rows.values() if row.question != ROUNDS)


def told(server: Scripted) -> int:
    return sum(row.told > 0 for row in server.rows.values() if row.question != ROUNDS)


async def some_rounds(server: Scripted, session: Session) -> None:
    """Another job is polled five times: whatever else was due has been polled before."""
    server.polls = lambda row: 5 if row.question == ROUNDS else 1
    assert (await session.ask(ROUNDS)).ok


@pytest.mark.parametrize("ordered", [False, True])
async def test_results_of_a_slow_consumer_wait_at_the_server(ordered: bool, server: Scripted):
    async with opened(server) as session, session.batch(map(str, range(150)), ordered=ordered) as jobs:
        await server.until(lambda: server.requests["submit"] == 150 and server.told >= READY)
        await some_rounds(server, session)
        # All have finished at the server, and no further one was fetched, nor even polled.
        assert (told(server), gets(server)) == (READY, READY)
        for taken in range(1, 6):
            assert (await anext(jobs)).ok
            await some_rounds(server, session)
            assert (told(server), gets(server)) == (READY + taken, READY + taken)
        assert len([job async for job in jobs]) == 145
    assert gets(server) == 150


async def test_slow_first_job_neither_stalls_nor_grows_ordered_batches(server: Scripted):
    """What finishes behind it is fetched up to the bound, then waits at the server; the source is read no further."""
    server.polls = lambda row: float("inf") if row.question == "0" else 1
    read: list[int] = []

    def source() -> Iterator[str]:
        for n in range(200):
            read.append(n)
            yield str(n)

    async with opened(server) as session, session.batch(source(), ordered=True, max_in_flight=100) as jobs:
        head = asyncio.create_task(anext(jobs))
        await server.until(lambda: server.told >= READY)
        polled = server.rows["job-0"].polls
        await server.until(lambda: server.rows["job-0"].polls > polled + 3)
        assert not head.done()
        assert server.told == READY
        assert len(read) == 100
        server.polls = 1
        with anyio.fail_after(20):
            assert (await head).index == 0
            assert [job.index async for job in jobs] == list(range(1, 200))


async def test_jobs_of_a_slow_consumer_do_not_time_out(server: Scripted):
    """They finished in time; that their results were not fetched in time is nobody's failure but the consumer's."""
    server.polls = lambda row: float("inf") if row.question.startswith("polled") else 1
    clock = Clock(2000)
    poll = PollPolicy(quiet=10.0, gap=60.0, growth=1.0)
    async with (
        opened(server, poll=poll, clock=clock) as session,
        session.batch(map(str, range(80)), timeout=1000.0) as jobs,
    ):
        await server.until(lambda: server.told >= READY and server.requests["submit"] == 80)
        over = clock.now() + 1500.0
        other = await session.ask("polled until then", timeout=1500.0)
        assert (other.status, clock.now() > over) == (JobStatus.TIMED_OUT, True)
        assert server.told == READY
        statuses = [job.status async for job in jobs]
    assert statuses == [JobStatus.COMPLETED] * 80


async def test_failed_poll_after_a_long_park_keeps_the_result(server: Scripted):
    """The time limit passed while the job waited for its consumer: one dropped connection must not end it then."""
    clock = Clock(20)  # so that the grace after a park is seconds of a busy machine too
    late: list[bool] = []
    failed: set[str] = set()

    def flaky(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind == "get" and late and asked.question not in failed:
            failed.add(asked.question)
            return 502, b"<html><title>Bad gateway</title></html>"
        return None

    server.script = flaky
    server.polls = lambda row: float("inf") if row.question.startswith("polled") else 1
    poll = PollPolicy.fixed(1.0)
    async with (
        opened(server, poll=poll, clock=clock) as session,
        session.batch(map(str, range(60)), timeout=10.0) as jobs,
    ):
        await server.until(lambda: server.told >= READY and server.requests["submit"] == 60)
        assert (await session.ask("polled until then", timeout=15.0)).status is JobStatus.TIMED_OUT
        late.append(True)
        statuses = [job.status async for job in jobs]
    assert failed
    assert statuses == [JobStatus.COMPLETED] * 60


# --- any mixture -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(["good", "slow", "bad", "failed", "refused"]), max_size=60),
    limit=st.integers(1, 70),
    slots=st.integers(1, 70),
    ordered=st.booleans(),
)
def test_every_item_of_any_mixture_comes_out_once(kinds: list[str], limit: int, slots: int, ordered: bool):
    """Not an async test: hypothesis calls it many times over, each on a loop of its own."""
    want = {
        "good": JobStatus.COMPLETED,
        "slow": JobStatus.COMPLETED,
        "bad": JobStatus.REJECTED,
        "failed": JobStatus.FAILED,
        "refused": JobStatus.REJECTED,
    }

    def script(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind == "submit" and "refused" in asked.question:
            return 400, {"error": {"message": "no", "type": "invalid_request", "code": 400}}
        if asked.kind == "get" and "failed" in asked.question and asked.row:
            return 200, Scripted.summary(asked.row, "FAILED") | {"error_message": "no"}
        return None

    async def main() -> None:
        async with Scripted(polls=lambda row: 3 if "slow" in row.question else 1) as server:
            server.script = script
            source = ["" if kind == "bad" else f"{kind} {n}" for n, kind in enumerate(kinds)]
            async with (
                opened(server, max_in_flight=slots) as session,
                session.batch(source, ordered=ordered, max_in_flight=limit) as jobs,
            ):
                with anyio.fail_after(20):
                    got = [job async for job in jobs]
            if ordered:
                assert [job.index for job in got] == list(range(len(kinds)))
            got.sort(key=lambda job: job.index or 0)
            assert [job.index for job in got] == list(range(len(kinds)))
            assert [job.status for job in got] == [want[kind] for kind in kinds]

    asyncio.run(main())


# --- tables -----------------------------------------------------------------------------------------------------------

TABLE = {"question": ["Why?", "How?"], "company": ["ACME, Inc.", None], "n": [1, 2], "model": ["T", "A"]}


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
async def test_rows_of_a_frame_come_back_with_their_columns(frame: Callable[[Any], Any]) -> None:
    async with emulator() as server, session_at(server.url) as session:
        async with session.batch(frame(TABLE), ordered=True) as jobs:
            found = [job async for job in jobs]
        assert [job.question for job in found] == TABLE["question"]
        assert [job.meta for job in found] == [
            {"company": "ACME, Inc.", "n": 1, "model": "T"},
            {"company": None, "n": 2, "model": "A"},
        ]
        # A column of cars is no wish: the model is not sent.
        assert all(b'"sonar-deep-research"' in made.body for made in server.ledger.jobs)


async def test_frame_with_an_unaskable_row_sends_nothing() -> None:
    frame = pd.DataFrame({"question": ["Why?", "", "How?"], "n": [1, 2, 3]})
    async with emulator() as server, session_at(server.url) as session:
        with pytest.raises(TableError, match=r"item 2.*skip_bad=True.*batch\(aiopplx.questions\(table, ...\)\)"):
            await session.batch(frame).__aenter__()
        assert server.ledger.requests.total() == 0
        async with session.batch(aiopplx.questions(frame, skip_bad=True), ordered=True) as jobs:
            assert [job.meta["n"] async for job in jobs] == [1, 3]


# --- a source that is cancelled where it is entered -------------------------------------------------------------------


async def bounded(limits: list[asyncio.Timeout]) -> AsyncIterator[str]:
    async with asyncio.timeout(None) as limit:
        limits.append(limit)
        for question in ("one", "two"):
            yield question  # noqa: ASYNC119 - a source may do so
        await asyncio.Event().wait()


async def test_time_limit_of_a_source_ends_no_submission(server: Scripted):
    server.hold = is_submit
    limits: list[asyncio.Timeout] = []
    got: list[Job] = []
    async with opened(server) as session:
        task = asyncio.create_task(taken(session.batch(bounded(limits)), got))
        await server.until(lambda: len(server.held) == 2)
        limits[0].reschedule(asyncio.get_running_loop().time())
        await turns()
        server.hold = lambda asked: False
        server.release()
        with pytest.raises(TimeoutError):
            await task
    assert sorted(job.text for job in got) == ["answer to one", "answer to two"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_source_that_cancels_its_own_task_hangs_nothing(is_async: bool, server: Scripted):
    def plain() -> Iterator[str]:
        yield "one"
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        yield "two"
        yield "three"

    async def awaiting() -> AsyncIterator[str]:
        for question in plain():
            yield question

    got: list[Job] = []
    async with opened(server) as session:
        task = asyncio.create_task(taken(session.batch(awaiting() if is_async else plain()), got))
        await asyncio.wait([task])
    assert task.cancelled()
    paid = {job.id for job in got if job.id}
    assert set(server.rows) == paid


@pytest.mark.parametrize(
    ("item", "question", "meta"),
    [
        ({"question": "Why?", "reasoning_efort": "high"}, "Why?", {}),
        ({"question": "Why?", "temperature": 9, "meta": {"id": 1}}, "Why?", {"id": 1}),
        ({"input": "Why?", "tool": 1}, "Why?", {}),
        ({"messages": [{"role": "user", "content": "Why?"}], "temperature": 9}, "Why?", {}),
        ({"question": "Why?", "meta": {1: 2}}, "Why?", {}),
        ({"question": 7}, "", {}),
        ({"quetsion": "Why?"}, "", {}),
        (7, "", {}),
    ],
)
async def test_rejected_item_shows_its_question(item: Any, question: str, meta: dict[str, object]) -> None:
    async with (
        Session("a-test-key", base_url="http://localhost:9", api="sonar") as session,
        session.batch([item]) as jobs,
    ):
        (job,) = [job async for job in jobs]
    assert (job.status, job.question, job.meta) == (JobStatus.REJECTED, question, meta)
    assert job.to_row()["question"] == question
