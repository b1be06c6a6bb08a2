"""What every store promises, checked for each kind of store.

A new kind of store is a class like `Memory` or `Sqlite` below, and its line in `STORES`.
"""

from __future__ import annotations

import abc
import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from _postgres import PATIENT, Server, remove
from _rows import ALLOWED, A, D, E, F, I, Q, R, S, brought_to, claim_of, named, queued
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import InvalidRequest
from aiopplx._wire.request import ResearchRequest
from aiopplx.agent import AGENT
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import ClaimLost, DuplicateJob, ImpossibleStep, ItemConflict, JournalClosed
from aiopplx.journal._memory import MemoryJournal, MemoryStore
from aiopplx.journal._names import Names, fingerprint, item_name, sha_of, short_name
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Claim, Cost, KindCosts, Ledger, Origin, Record, Results, State
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.sonar import SONAR

LOW, HIGH = (SONAR.freeze(ResearchRequest("Why?", reasoning_effort=effort), "k") for effort in ("low", "high"))
UNKNOWN_KIND = "sonar - -"

Make = Callable[[Results], Awaitable[Journal]]


class Ticks:
    """A wall clock that moves on by one second each time it is asked, and can be set."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        self.time += 1.0
        return self.time


class Kind(abc.ABC):
    """A kind of store: opens new ones, and says what they can.

    If several sessions may use a store at once, `shares` is True, and `session` and `lose` stand for them.
    """

    shares = False

    def __init__(self, directory: Path, clock: Ticks) -> None:
        self.directory = directory
        self.clock = clock
        self.opened: list[Journal] = []

    async def close(self) -> None:
        """Close what was opened and is still open."""
        for journal in self.opened:
            await journal.close()

    @abc.abstractmethod
    async def open(self, results: Results = "keep") -> Journal:
        """The journal of the first session of a new store."""

    async def session(self) -> Journal:
        """The journal of one more session of the store that was opened last."""
        pytest.fail("this store is for one session at a time")

    async def lose(self, journal: Journal) -> None:
        """The session of this journal loses all that it holds, as when its lease runs out."""
        pytest.fail("this store is for one session at a time")


class Memory(Kind):
    shares = True

    async def open(self, results: Results = "keep") -> Journal:
        self.store = MemoryStore(now=self.clock)
        return self.store.session(results=results)

    async def session(self) -> Journal:
        return self.store.session()

    async def lose(self, journal: Journal) -> None:
        assert isinstance(journal, MemoryJournal)
        self.store.lose(journal)


class Sqlite(Kind):
    async def open(self, results: Results = "keep") -> Journal:
        path = self.directory / f"{len(self.opened)}.db"
        self.opened.append(await SqliteJournal.open(path, now=self.clock, results=results))
        return self.opened[-1]


class Postgres(Kind):
    shares = True

    def __init__(self, directory: Path, clock: Ticks, server: Server) -> None:
        super().__init__(directory, clock)
        self.server = server

    async def open(self, results: Results = "keep") -> Journal:
        self.url = await self.server.empty()
        return await self._open(results)

    async def session(self) -> Journal:
        return await self._open("keep")

    async def _open(self, results: Results) -> Journal:
        self.opened.append(await PostgresJournal.open(self.url, now=self.clock, results=results, timing=PATIENT))
        return self.opened[-1]

    async def lose(self, journal: Journal) -> None:
        assert isinstance(journal, PostgresJournal)
        await remove(journal)


STORES: dict[str, type[Kind]] = {"memory": Memory, "sqlite": Sqlite, "postgres": Postgres}
SHARED = [name for name, kind in STORES.items() if kind.shares]


def kind_of(request: pytest.FixtureRequest, directory: Path, clock: Ticks) -> Kind:
    made = STORES[request.param]
    if made is Postgres:  # only its tests need a server
        return Postgres(directory, clock, request.getfixturevalue("postgres"))
    return made(directory, clock)


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


@pytest.fixture(params=STORES)
async def kind(request: pytest.FixtureRequest, tmp_path: Path, clock: Ticks) -> AsyncIterator[Kind]:
    kind = kind_of(request, tmp_path, clock)
    yield kind
    await kind.close()


@pytest.fixture
async def make(kind: Kind) -> AsyncIterator[Make]:
    made: list[Journal] = []

    async def new(results: Results = "keep") -> Journal:
        made.append(await kind.open(results))
        return made[-1]

    yield new
    for journal in made:
        await journal.close()


@pytest.fixture
async def journal(make: Make) -> Journal:
    return await make("keep")


def stored(record: Record) -> Record:
    """What the store has of it, without what is of the moment: how old it is, and who may write it."""
    return msgspec.structs.replace(record, age=None, claim=None, is_held=False)


async def now(journal: Journal, record: Record) -> Record:
    found = await journal.get(pk=record.pk)
    assert found is not None
    return stored(found)


async def claimed(journal: Journal, record: Record) -> Claim:
    return claim_of(await journal.claim(record.pk))


# --- steps ------------------------------------------------------------------------------------------------------------

INTENTS = {"sending", "refreeze", "requeue"}
DENIALS = {"back_to_queued", "doubtful", "REJECTED"}
FACTS = set(ALLOWED) - INTENTS - DENIALS


@pytest.mark.parametrize("name", ALLOWED)
async def test_step_is_allowed_only_from_its_own_states(journal: Journal, name: str) -> None:
    allowed, leads_to = ALLOWED[name]
    for state in State:
        before = await brought_to(journal, state, f"from {state.name}")
        step = named(name, before)
        if state in allowed:
            await journal.apply(claim_of(before), step)
            assert (await now(journal, before)).state is leads_to
        else:
            with pytest.raises(ImpossibleStep, match=state.name) as caught:
                await journal.apply(claim_of(before), step)
            assert (caught.value.state, caught.value.step) == (state.name, step.rule.name)
            assert await now(journal, before) == stored(before)
            assert await journal.result(before.pk) == (b"body" if before.has_result else None)


@pytest.mark.parametrize("tenant", ["", "acme", "\u0442" * 160])
def test_short_name_of_a_short_name_is_itself(tenant: str) -> None:
    short = short_name(item_name("x" * 1_500, b"", 1, tenant=tenant))
    assert short_name(short) == short
    assert short.count("long:") == 1


@pytest.mark.parametrize("name", ALLOWED)
async def test_repeated_step_finds_itself_done(journal: Journal, name: str) -> None:
    for state in sorted(ALLOWED[name][0]):
        record = await brought_to(journal, state, f"from {state.name}")
        step = named(name, record)
        await journal.apply(claim_of(record), step)
        after, result = await now(journal, record), await journal.result(record.pk)
        money = await journal.costs(), await journal.ledger()
        await journal.apply(claim_of(record), step)
        again = await now(journal, record)
        assert msgspec.structs.replace(again, updated=after.updated) == after
        assert await journal.result(record.pk) == result
        assert (await journal.costs(), await journal.ledger()) == money


@pytest.mark.parametrize("name", ALLOWED)
async def test_step_of_no_row_is_impossible(journal: Journal, name: str) -> None:
    record = await queued(journal)
    with pytest.raises(ImpossibleStep, match="row 7 does not exist"):
        await journal.apply(msgspec.structs.replace(claim_of(record), pk=7), named(name, record))


@pytest.mark.parametrize("name", ALLOWED)
async def test_step_under_a_former_key_is_impossible(journal: Journal, name: str) -> None:
    before = await brought_to(journal, min(ALLOWED[name][0]))
    step = named(name, msgspec.structs.replace(before, key="of another time"))
    with pytest.raises(ImpossibleStep, match="another key"):
        await journal.apply(claim_of(before), step)
    assert await now(journal, before) == stored(before)


@pytest.mark.parametrize("name", sorted(INTENTS | DENIALS))
async def test_intent_or_denial_under_an_earlier_claim_changes_nothing(journal: Journal, name: str) -> None:
    before = await brought_to(journal, min(ALLOWED[name][0]))
    earlier = msgspec.structs.replace(claim_of(before), fence=claim_of(before).fence - 1)
    with pytest.raises(ClaimLost) as caught:
        await journal.apply(earlier, named(name, before))
    assert caught.value.idempotency_key == before.key
    assert await now(journal, before) == stored(before)


@pytest.mark.parametrize("name", sorted(FACTS))
async def test_fact_under_an_earlier_claim_is_let_in(journal: Journal, name: str) -> None:
    before = await brought_to(journal, min(ALLOWED[name][0]))
    earlier = msgspec.structs.replace(claim_of(before), fence=claim_of(before).fence - 1)
    await journal.apply(earlier, named(name, before))
    assert (await now(journal, before)).state is ALLOWED[name][1]


@pytest.mark.parametrize("state", [Q, S, A, I])
async def test_ended_refuses_a_state_before_the_end(state: State) -> None:
    with pytest.raises(ValueError, match="does not end in"):
        steps.ended(state, key="k")


async def test_record_holds_every_fact_written(journal: Journal) -> None:
    first = await queued(journal, 7, key="k")
    claim = claim_of(first)
    await journal.apply(claim, steps.sending(key="k", attempt=1))
    await journal.apply(claim, steps.accepted(key="k", job_id="id-1"))
    await journal.apply(claim, steps.ended(D, key="k", word="COMPLETED", raw=b"{}", cost=0.41))
    assert await now(journal, first) == Record(
        pk=first.pk,
        item="tag:7",
        tag=7,
        key="k",
        body=b"body of why?",
        sha=sha_of(b"why?"),
        api="sonar",
        kind="sonar - -",
        state=D,
        attempts=1,
        first_sent=first.updated + 1,
        job_id="id-1",
        accepted_at=first.updated + 2,
        ended_at=first.updated + 3,
        word="COMPLETED",
        cost=0.41,
        has_result=True,
        updated=first.updated + 3,
    )


async def test_sending_again_counts_and_keeps_the_first_moment(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=2))
    second = await now(journal, record)
    assert (second.attempts, second.first_sent) == (2, record.first_sent)


async def test_mark_of_an_earlier_attempt_is_impossible(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=2))
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))


async def test_undone_mark_is_made_again_under_its_number(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.apply(claim_of(record), steps.back_to_queued(key=record.key))
    await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))
    again = await now(journal, record)
    assert (again.state, again.attempts) == (S, 1)


async def test_doubted_attempt_is_not_marked_again_under_its_number(journal: Journal) -> None:
    record = await brought_to(journal, I)
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))


async def test_back_to_queued_makes_the_key_young_again(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.apply(claim_of(record), steps.back_to_queued(key=record.key))
    back = await now(journal, record)
    assert (back.state, back.first_sent, back.attempts) == (Q, None, 1)


async def test_accepted_twice_with_one_id_is_one_step(journal: Journal) -> None:
    record = await brought_to(journal, A)
    await journal.apply(claim_of(record), steps.accepted(key=record.key, job_id=record.job_id))
    assert await now(journal, record) == stored(record)
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.accepted(key=record.key, job_id="another"))


async def test_ending_twice_is_one_step_for_one_job(journal: Journal) -> None:
    record = await brought_to(journal, D)
    for job_id in ("", record.job_id):
        await journal.apply(claim_of(record), steps.ended(D, key=record.key, job_id=job_id, raw=b"late", cost=9.0))
    assert await now(journal, record) == stored(record)
    assert await journal.result(record.pk) == b"body"
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.ended(D, key=record.key, job_id="another"))
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.ended(F, key=record.key))


async def test_requeue_under_another_key_is_a_new_step(journal: Journal) -> None:
    record = await brought_to(journal, I)
    await journal.apply(claim_of(record), steps.requeue(key=record.key, new_key="new", body=b"{}", api="sonar"))
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.requeue(key=record.key, new_key="newer", body=b"{}", api="sonar"))
    assert (await now(journal, record)).key == "new"


async def test_accepted_with_the_id_of_another_row_changes_neither(journal: Journal) -> None:
    first, second = await brought_to(journal, A, "a"), await brought_to(journal, S, "b")
    with pytest.raises(DuplicateJob, match="another submission") as caught:
        await journal.apply(claim_of(second), steps.accepted(key="key-b", job_id=first.job_id))
    assert (caught.value.job_id, caught.value.idempotency_key) == (first.job_id, "key-a")
    assert await now(journal, first) == stored(first)
    assert await now(journal, second) == stored(second)


async def test_ended_with_the_id_of_another_row_changes_neither(journal: Journal) -> None:
    first, second = await brought_to(journal, A, "a"), await brought_to(journal, S, "b")
    for raw in (b"paid by whom?", b""):
        with pytest.raises(DuplicateJob):
            await journal.apply(claim_of(second), steps.ended(D, key="key-b", job_id=first.job_id, raw=raw))
    assert await now(journal, second) == stored(second)
    assert await journal.result(second.pk) is None


async def test_ended_straight_after_sending_takes_the_id_along(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.apply(claim_of(record), steps.ended(D, key=record.key, job_id="id-9", raw=b"all at once"))
    found = await journal.get(job_id="id-9")
    assert found is not None
    assert (found.pk, found.state, found.accepted_at) == (record.pk, D, found.updated)


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0, None])
async def test_cost_that_is_not_a_number_is_unknown(journal: Journal, cost: float | None) -> None:
    record = await brought_to(journal, A)
    await journal.apply(claim_of(record), steps.ended(D, key=record.key, cost=cost))
    assert (await now(journal, record)).cost is None
    assert await journal.ledger() == Ledger(0.0, {UNKNOWN_KIND: KindCosts(0, 1)})


async def test_text_with_a_lone_surrogate_is_stored_anyway(journal: Journal) -> None:
    record = await brought_to(journal, A)
    await journal.apply(claim_of(record), steps.ended(F, key=record.key, word="FAILED", error="cut \ud83d here\0"))
    assert (await now(journal, record)).error.startswith("cut ")


# --- age --------------------------------------------------------------------------------------------------------------


async def test_age_is_read_from_the_clock_of_the_store(journal: Journal, clock: Ticks) -> None:
    record = await brought_to(journal, S)
    assert record.first_sent is not None
    clock.time = record.first_sent + 99.0
    found = await journal.get(pk=record.pk)
    assert found is not None
    assert found.age == 100.0


async def test_age_of_a_key_from_the_future_is_zero(journal: Journal, clock: Ticks) -> None:
    record = await brought_to(journal, S)
    clock.time = 1.0
    assert (await queued(journal)).age == 0.0
    assert [row.age for row in await journal.rows({S})] == [0.0]
    assert record.age is not None


async def test_age_of_an_unsent_row_is_unknown(journal: Journal) -> None:
    assert (await queued(journal)).age is None
    assert [row.age for row in await journal.rows({Q})] == [None]


# --- where a row comes from -------------------------------------------------------------------------------------------

META = {"company": "ACME, Inc.", "year": 2025, "note": None, "more": ["ü", 0.5]}
LONG = {"text": "a long cell, " * 200, "n": 1}


@pytest.mark.parametrize("meta", [META, LONG, {}], ids=["short", "long", "none"])
async def test_columns_come_back_with_the_row(journal: Journal, meta: dict[str, object]) -> None:
    made = await queued(journal, origin=Origin("run", 3, "why?", meta))
    await queued(journal, "other", origin=Origin("run", 4, "why?", {"company": "other"}))
    claimed_again = await journal.claim(made.pk)
    assert claimed_again is not None
    found = [made, claimed_again, await now(journal, made), (await journal.rows({Q}))[0]]
    assert [(row.meta, row.question) for row in found] == [(meta, "")] * 4


async def test_row_that_comes_again_has_its_new_columns(journal: Journal) -> None:
    record = await queued(journal, origin=Origin("run 1", 0, "why?", META))
    await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))
    for meta in (LONG, {}, META):
        again = await queued(journal, origin=Origin("run 2", 0, "why?", meta))
        assert (again.pk, again.meta) == (record.pk, meta)
        assert (await now(journal, record)).meta == meta
    called = await queued(journal)
    assert called.meta == META  # a call that has no columns says nothing of them


@pytest.mark.parametrize("meta", [META, {}], ids=["with columns", "without"])
async def test_adopted_job_has_the_question_that_asks_for_it(journal: Journal, meta: dict[str, object]) -> None:
    record = await journal.adopt("id", api="sonar", tag="a")
    found = await queued(journal, origin=Origin("run", 0, "why?", meta))
    assert (found.pk, found.question, found.meta) == (record.pk, "why?", meta)
    assert (await now(journal, record)).question == "why?"


@pytest.mark.parametrize("state", [D, F], ids=lambda state: state.name)
async def test_question_and_columns_go_with_the_result(make: Make, state: State) -> None:
    journal = await make("until_delivered")
    record = await brought_to(journal, state)
    await queued(journal, origin=Origin("run", 0, "why?", META))
    assert (await now(journal, record)).meta == META
    journal.delivered(claim_of(record), record.key, record.state)
    await queued(journal, "other")  # what it rides with
    found = await now(journal, record)
    assert (found.meta, found.question) == ({}, "")
    assert found.body == (b"" if state is D else record.body)  # what has no result may be submitted again


# --- what is found again ----------------------------------------------------------------------------------------------


async def test_submission_is_found_again_with_its_key_and_bytes(journal: Journal) -> None:
    first = await brought_to(journal, A)
    again = await journal.find_or_queue(
        "tag:" + '"a"', tag="a", key="another", body=b"other bytes", sha=first.sha, api="agent"
    )
    assert stored(again) == stored(first)
    assert await journal.get(key="another") is None


async def test_reading_gives_no_right_to_write(journal: Journal) -> None:
    record = await queued(journal)
    read = [await journal.get(pk=record.pk), await journal.get(key=record.key), *await journal.rows({Q})]
    assert [(one is not None, one and one.claim, one and one.is_held) for one in read] == [(True, None, False)] * 3
    assert claim_of(record).pk == record.pk


async def test_claim_is_the_right_to_write_a_row(journal: Journal) -> None:
    record = await queued(journal)
    again = await journal.claim(record.pk)
    assert again is not None
    await journal.apply(claim_of(again), steps.sending(key=again.key, attempt=1))
    assert stored(again) == stored(record)
    assert await journal.claim(99) is None


async def seen(found: Awaitable[Record | None]) -> Record | None:
    record = await found
    return stored(record) if record is not None else None


async def test_tag_of_another_request_conflicts_and_changes_nothing(journal: Journal) -> None:
    first = await queued(journal, "a", ask=b"why?")
    with pytest.raises(ItemConflict, match="'a' is in the journal for another request") as caught:
        await queued(journal, "a", key="k2", ask=b"how?")
    assert isinstance(caught.value, InvalidRequest)
    assert caught.value.tag == "a"
    assert await now(journal, first) == stored(first)
    assert (await journal.counts())[Q] == 1


async def test_key_of_another_submission_conflicts_and_changes_nothing(journal: Journal) -> None:
    await queued(journal, "a", key="mine")
    with pytest.raises(ItemConflict, match="idempotency_key") as caught:
        await queued(journal, "b", key="mine")
    assert caught.value.tag == "b"
    assert (await journal.counts())[Q] == 1


async def test_tags_that_look_alike_are_distinct(journal: Journal) -> None:
    number, text = await queued(journal, 1, key="k1"), await queued(journal, "1", key="k2", ask=b"another")
    assert number.pk != text.pk
    assert ((await now(journal, number)).tag, (await now(journal, text)).tag) == (1, "1")


@pytest.mark.parametrize("tag", ["", "ä\n\0", "\ud83d", "x" * 10_000, -1, 2**70])
async def test_tag_of_any_type_comes_back_as_it_was(journal: Journal, tag: str | int) -> None:
    record = await queued(journal, tag, key="k")
    assert (await now(journal, record)).tag == tag


async def test_many_at_once_are_each_queued_once(journal: Journal) -> None:
    twice = [f"{n}" for n in range(200)] * 2
    records = await asyncio.gather(*(queued(journal, tag) for tag in twice))
    assert len({record.pk for record in records}) == 200
    assert (await journal.counts())[Q] == 200


async def test_get_finds_by_row_name_id_and_key(journal: Journal) -> None:
    record = await brought_to(journal, A)
    assert await seen(journal.get(pk=record.pk)) == stored(record)
    assert await seen(journal.get(item=record.item)) == stored(record)
    assert await seen(journal.get(job_id=record.job_id)) == stored(record)
    assert await seen(journal.get(key=record.key)) == stored(record)
    assert [await journal.get(pk=9), await journal.get(item="?"), await journal.get(job_id="?")] == [None] * 3
    assert await journal.get() is None


async def test_rows_come_in_pages_in_the_order_queued(journal: Journal) -> None:
    for n in range(7):
        await brought_to(journal, A if n % 2 else Q, str(n))
    first = await journal.rows({A, Q}, limit=4)
    rest = await journal.rows({A, Q}, after=first[-1].pk, limit=4)
    assert [row.tag for row in (*first, *rest)] == [str(n) for n in range(7)]
    assert [row.tag for row in await journal.rows({A})] == ["1", "3", "5"]
    assert await journal.rows({D}) == []
    assert await journal.rows(set()) == []


async def test_counts_name_every_state(journal: Journal) -> None:
    assert await journal.counts() == dict.fromkeys(State, 0)
    for state in State:
        await brought_to(journal, state, state.name)
    assert await journal.counts() == dict.fromkeys(State, 1)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"\0\xff" * 9, b"prose " * 50_000, b"{"], ids=["binary", "long", "short"])
async def test_result_comes_back_as_the_bytes_that_came(journal: Journal, raw: bytes) -> None:
    record = await brought_to(journal, A)
    await journal.apply(claim_of(record), steps.ended(D, key=record.key, raw=raw))
    assert await journal.result(record.pk) == raw
    assert (await now(journal, record)).has_result


async def test_result_of_a_row_without_one_is_none(journal: Journal) -> None:
    record = await brought_to(journal, A)
    assert await journal.result(record.pk) is None
    assert await journal.result(99) is None


@pytest.mark.parametrize(("results", "before", "after"), [("keep", 1, 1), ("until_delivered", 1, 0), ("refetch", 0, 0)])
async def test_result_is_kept_as_long_as_asked(make: Make, results: Results, before: int, after: int) -> None:
    journal = await make(results)
    record = await brought_to(journal, D)
    assert journal.results == results
    assert (record.has_result, await journal.result(record.pk)) == (bool(before), b"body" if before else None)
    journal.delivered(claim_of(record), record.key, record.state)
    await queued(journal, "other")  # what it rides with
    found = await now(journal, record)
    assert (found.has_result, await journal.result(record.pk)) == (bool(after), b"body" if after else None)
    assert found.delivered


async def test_late_word_of_an_outcome_changes_no_later_one(make: Make) -> None:
    journal = await make("until_delivered")
    old = await brought_to(journal, F)
    await journal.apply(claim_of(old), named("requeue", old))
    new = await now(journal, old)
    assert new.key != old.key
    for step in (
        steps.sending(key=new.key, attempt=new.attempts + 1),
        steps.ended(D, key=new.key, job_id="id", raw=b"result"),
    ):
        await journal.apply(claim_of(old), step)
    for key, state, is_told in ((old.key, F, False), (new.key, D, True)):
        journal.delivered(claim_of(old), key, state)
        await queued(journal, "other")  # what it rides with
        assert (await now(journal, old)).delivered is is_told
        assert await journal.result(old.pk) == (None if is_told else b"result")


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
async def test_delivered_is_recorded_of_rows_with_an_outcome(journal: Journal, state: State) -> None:
    record = await brought_to(journal, state)
    journal.delivered(claim_of(record), record.key, record.state)
    await queued(journal, "other")
    assert (await now(journal, record)).delivered is state.is_final


async def test_late_word_of_expiry_is_not_of_the_answer(make: Make) -> None:
    """It was there after all. The answer is paid for, and would be removed with what was delivered."""
    journal = await make("until_delivered")
    record = await brought_to(journal, E)
    await journal.apply(claim_of(record), steps.accepted(key=record.key, job_id=record.job_id))
    await journal.apply(claim_of(record), steps.ended(D, key=record.key, raw=b"result"))
    for state, is_told in ((E, False), (D, True)):
        journal.delivered(claim_of(record), record.key, state)
        await queued(journal, "other")  # what it rides with
        assert (await now(journal, record)).delivered is is_told
        assert await journal.result(record.pk) == (None if is_told else b"result")


async def test_delivered_is_cleared_when_the_row_restarts(journal: Journal) -> None:
    record = await brought_to(journal, I)
    journal.delivered(claim_of(record), record.key, record.state)
    await journal.apply(claim_of(record), steps.accepted(key=record.key, job_id="found"))
    assert not (await now(journal, record)).delivered


# --- a new submission in an old one's place ---------------------------------------------------------------------------


async def test_requeue_begins_afresh_and_keeps_the_bill(journal: Journal) -> None:
    record = await queued(journal, "a", key="old")
    claim = claim_of(record)
    await journal.apply(claim, steps.sending(key="old", attempt=1))
    await journal.apply(
        claim, steps.ended(F, key="old", job_id="id-1", word="FAILED", error="no luck", cost=0.5, raw=b"x")
    )
    await journal.apply(claim, steps.requeue(key="old", new_key="new", body=b"new body", api="agent"))
    again = await now(journal, record)
    assert (again.state, again.key, again.body, again.api) == (Q, "new", b"new body", "agent")
    assert (again.job_id, again.first_sent, again.error, again.word, again.cost) == ("", None, "", "", None)
    assert not again.has_result
    assert await journal.get(job_id="id-1") is None
    assert await journal.get(key="old") is None
    assert await journal.ledger() == Ledger(0.5)
    assert await journal.costs() == [Cost("a", 2, 0.5, 0)]


@pytest.mark.parametrize("key", ["own", "others", "past"])
async def test_requeue_under_a_used_key_is_a_conflict(journal: Journal, key: str) -> None:
    await queued(journal, "b", key="others")
    record = await queued(journal, "a", key="past")
    claim = claim_of(record)
    await journal.apply(claim, steps.sending(key="past", attempt=1))
    await journal.apply(claim, steps.doubtful(key="past", error="?"))
    await journal.apply(claim, steps.requeue(key="past", new_key="own", body=b"{}", api="sonar"))
    await journal.apply(claim, steps.sending(key="own", attempt=2))
    await journal.apply(claim, steps.doubtful(key="own", error="?"))
    before = await now(journal, record)
    with pytest.raises(ItemConflict):
        await journal.apply(claim, steps.requeue(key="own", new_key=key, body=b"{}", api="sonar"))
    assert await now(journal, record) == before


async def test_former_key_is_not_used_for_another_submission(journal: Journal) -> None:
    record = await brought_to(journal, I)
    await journal.apply(claim_of(record), named("requeue", record))
    with pytest.raises(ItemConflict):
        await queued(journal, "b", key=record.key)


async def test_refreeze_changes_bytes_and_api_only(journal: Journal) -> None:
    record = await queued(journal)
    step = steps.refreeze(key=record.key, body=b"agent's", api="agent")
    await journal.apply(claim_of(record), step)
    assert await now(journal, record) == msgspec.structs.replace(
        stored(record), body=b"agent's", api="agent", kind="agent - -", updated=record.updated + 1
    )


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
async def test_row_has_a_moment_of_its_end_once_ended(journal: Journal, state: State) -> None:
    record = await brought_to(journal, state)
    has_ended = state in (D, F, E, R)
    assert record.ended_at == (record.updated if has_ended else None)
    journal.delivered(claim_of(record), record.key, record.state)
    assert (await now(journal, record)).ended_at == record.ended_at
    for name in ("accepted",) if state is E else ("requeue",) if state in (F, R) else ():
        await journal.apply(claim_of(record), named(name, record))
        assert (await now(journal, record)).ended_at is None


async def test_learnt_is_recalled_as_last_remembered(journal: Journal) -> None:
    assert await journal.recall("pace") is None
    await journal.remember("pace", b"\x00\xff 1")
    await journal.remember("durations", b"")
    await journal.remember("pace", b"2")
    assert (await journal.recall("pace"), await journal.recall("durations")) == (b"2", b"")
    assert await journal.counts() == dict.fromkeys(State, 0)


async def test_drop_ends_a_doubt_without_a_new_submission(journal: Journal) -> None:
    record = await brought_to(journal, I)
    await journal.apply(claim_of(record), steps.dropped(key=record.key))
    found = await queued(journal)
    assert (found.state, found.word, found.key) == (F, "DROPPED", record.key)
    assert (await journal.ledger()).unknown == 1


@pytest.mark.parametrize("word", ["", "FAILED"])
async def test_end_after_a_drop_is_not_taken_as_done(journal: Journal, word: str) -> None:
    record = await brought_to(journal, I)
    await journal.apply(claim_of(record), steps.dropped(key=record.key))
    with pytest.raises(ImpossibleStep):
        await journal.apply(claim_of(record), steps.ended(F, key=record.key, word=word, raw=b"late", cost=0.25))
    await journal.apply(claim_of(record), steps.dropped(key=record.key))  # a second drop finds itself done


# --- jobs from elsewhere ----------------------------------------------------------------------------------------------


async def test_adopted_job_is_accepted_once(journal: Journal) -> None:
    record = await journal.adopt("id-7", api="sonar")
    assert (record.state, record.job_id, record.key, record.body, record.tag) == (A, "id-7", "", b"", None)
    assert await seen(journal.adopt("id-7", api="sonar")) == stored(record)
    assert await now(journal, record) == stored(record)
    await journal.apply(claim_of(record), steps.ended(D, key="", raw=b"its result"))
    assert await journal.result(record.pk) == b"its result"


async def test_adopted_jobs_share_no_key(journal: Journal) -> None:
    await journal.adopt("id-1", api="sonar")
    await journal.adopt("id-2", api="sonar")
    assert (await journal.counts())[A] == 2


async def test_adopted_job_with_a_tag_is_found_by_it(journal: Journal) -> None:
    record = await journal.adopt("id-7", api="sonar", tag="a")
    assert await seen(queued(journal, "a", ask=b"anything")) == stored(record)


async def test_adoption_under_another_submissions_tag_is_a_conflict(journal: Journal) -> None:
    await queued(journal, "a")
    with pytest.raises(ItemConflict):
        await journal.adopt("id-7", api="sonar", tag="a")
    assert await journal.get(job_id="id-7") is None


# --- money ------------------------------------------------------------------------------------------------------------


async def test_costs_are_summed_by_group_dearest_first(journal: Journal) -> None:
    for tag, cost in (("a", 0.25), ("b", 1.0), ("c", None)):
        record = await brought_to(journal, A, tag)
        await journal.apply(claim_of(record), steps.ended(D if cost else F, key=record.key, cost=cost))
    await brought_to(journal, I, "d")
    await brought_to(journal, R, "e")
    assert await journal.costs("tag") == [
        Cost("b", 1, 1.0, 0),
        Cost("a", 1, 0.25, 0),
        Cost("c", 1, 0.0, 1),
        Cost("d", 1, 0.0, 1),
        Cost("e", 1, 0.0, 0),
    ]
    assert await journal.costs("api") == [Cost("sonar", 5, 1.25, 2)]
    assert await journal.costs("state") == [
        Cost("DONE", 2, 1.25, 0),
        Cost("FAILED", 1, 0.0, 1),
        Cost("IN_DOUBT", 1, 0.0, 1),
        Cost("REJECTED", 1, 0.0, 0),
    ]
    assert await journal.ledger(samples=1) == Ledger(1.25, {UNKNOWN_KIND: KindCosts(0, 2, (1.0,))})


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
async def test_ledger_says_what_may_still_be_billed_by_kind(journal: Journal, state: State) -> None:
    await brought_to(journal, state, "a", body=LOW)
    kinds = (await journal.ledger()).kinds
    running, unknown = state in (S, A), state in (D, F, I, E)
    assert kinds == ({"sonar sonar-deep-research low": KindCosts(running, unknown)} if running or unknown else {})


async def test_latest_costs_of_each_kind_come_newest_first(journal: Journal) -> None:
    for n, body in enumerate([LOW, HIGH, LOW, HIGH, LOW, b"nothing known"]):
        record = await brought_to(journal, A, str(n), body=body)
        await journal.apply(claim_of(record), steps.ended(D, key=record.key, cost=float(n)))
    ledger = await journal.ledger(samples=2)
    assert ledger.spent == 15.0
    assert {kind: costs.samples for kind, costs in ledger.kinds.items()} == {
        "sonar sonar-deep-research low": (4.0, 2.0),
        "sonar sonar-deep-research high": (3.0, 1.0),
        UNKNOWN_KIND: (5.0,),
    }


async def test_kind_is_that_of_the_bytes_which_were_sent(journal: Journal) -> None:
    """A question that went over to another API before it was sent is a job of that one."""
    record = await brought_to(journal, Q, "a", body=LOW)
    body = AGENT.freeze(ResearchRequest("Why?"), record.key)
    await journal.apply(claim_of(record), steps.refreeze(key=record.key, body=body, api="agent"))
    await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))
    assert (await journal.ledger()).kinds == {"agent high -": KindCosts(running=1)}


async def test_costs_of_submissions_without_a_tag_are_one_line(journal: Journal) -> None:
    for n in range(3):
        record = await queued(journal, None, key=f"k{n}", ask=b"%d" % n)
        await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))
        await journal.apply(claim_of(record), steps.ended(D, key=record.key, job_id=f"id{n}", cost=0.5))
    assert await journal.costs() == [Cost(None, 3, 1.5, 0)]


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closed_journal_says_so_and_closes_twice(journal: Journal) -> None:
    record = await queued(journal)
    await journal.close()
    await journal.close()
    with pytest.raises(JournalClosed):
        await journal.apply(claim_of(record), named("sending", record))
    with pytest.raises(JournalClosed):
        await journal.counts()
    journal.delivered(claim_of(record), record.key, record.state)


async def test_step_goes_on_though_its_caller_is_cancelled(journal: Journal) -> None:
    record = await queued(journal)
    task = asyncio.ensure_future(journal.apply(claim_of(record), named("sending", record)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await now(journal, record)).state is S


async def test_what_may_be_reused_is_found_in_one_look(journal: Journal) -> None:
    async def alike(
        asked: bytes = b"why?", api: str = "sonar", name: str = "none", beginning: str = "none"
    ) -> list[str | int | None]:
        rows = await journal.alike(sha_of(asked), api=api, item=name, beginning=beginning)
        assert [row.pk for row in rows] == sorted({row.pk for row in rows})
        assert all(row.claim is None for row in rows)
        return [row.tag for row in rows]

    assert await alike() == []
    for place, state in enumerate(State):
        await brought_to(journal, state, f"at {place}")
        newest = f"at {place}" if state in (Q, S, A, D) else f"at {D.value}"
        assert await alike() == [newest]
        assert await alike(beginning='tag:"at') == list(dict.fromkeys([newest, f"at {place}"]))
        assert await alike(name='tag:"at 0"') == list(dict.fromkeys(["at 0", newest]))
    assert await alike(api="agent", beginning="tag") == await alike(b"another", beginning="tag") == []
    assert await alike(b"another", name='tag:"at 1"') == ["at 1"]


# --- two sessions on one store ----------------------------------------------------------------------------------------


@pytest.fixture(params=SHARED)
async def shared(request: pytest.FixtureRequest, tmp_path: Path, clock: Ticks) -> AsyncIterator[Kind]:
    kind = kind_of(request, tmp_path, clock)
    yield kind
    await kind.close()


@pytest.fixture
async def one(shared: Kind) -> AsyncIterator[Journal]:
    journal = await shared.open()
    yield journal
    await journal.close()


@pytest.fixture
async def two(shared: Kind, one: Journal) -> AsyncIterator[Journal]:
    journal = await shared.session()
    yield journal
    await journal.close()


ON_ITS_WAY = [Q, S, A]
OVER = [D, F, I, E, R]


@pytest.mark.parametrize("state", ON_ITS_WAY, ids=lambda state: state.name)
async def test_row_that_another_holds_is_returned_not_raised(one: Journal, two: Journal, state: State) -> None:
    record = await brought_to(one, state)
    found = [await queued(two), await two.claim(record.pk), await two.get(pk=record.pk), *await two.rows({state})]
    if state is A:
        found.append(await two.adopt(record.job_id, api="sonar"))
    assert [(row is not None, row and row.is_held, row and row.claim) for row in found] == [(True, True, None)] * len(
        found
    )
    assert {stored(row).pk for row in found if row is not None} == {record.pk}
    mine = await one.get(pk=record.pk)
    assert mine is not None
    assert not mine.is_held


@pytest.mark.parametrize("state", OVER, ids=lambda state: state.name)
async def test_ended_row_is_held_by_nobody(one: Journal, two: Journal, state: State) -> None:
    record = await brought_to(one, state)
    found = await queued(two)
    assert (found.pk, found.is_held) == (record.pk, False)
    assert claim_of(found)
    one.delivered(claim_of(record), record.key, record.state)
    two.delivered(claim_of(found), found.key, found.state)
    assert (await now(two, record)).delivered


@pytest.mark.parametrize("state", [Q, S, A], ids=lambda state: state.name)
async def test_released_row_can_be_claimed_by_another(one: Journal, two: Journal, state: State) -> None:
    record = await brought_to(one, state)
    assert (await queued(two)).is_held
    following = asyncio.ensure_future(two.follow((record.pk,), timeout=60.0))
    await asyncio.sleep(0)
    await one.release(claim_of(record))
    await following
    theirs = await two.claim(record.pk)
    assert claim_of(theirs) != record.claim
    await one.release(claim_of(record))  # no longer its to release
    mine = await one.claim(record.pk)
    assert mine is not None
    assert mine.is_held


async def test_learnt_is_shared_by_the_sessions_of_a_store(one: Journal, two: Journal) -> None:
    await one.remember("pace", b"1")
    assert await two.recall("pace") == b"1"


async def test_two_asking_for_one_tag_have_one_holder(one: Journal, two: Journal) -> None:
    found = await asyncio.gather(queued(one), queued(two))
    assert sorted(record.is_held for record in found) == [False, True]
    assert len({record.pk for record in found}) == 1


async def test_counts_are_those_of_all_sessions(one: Journal, two: Journal) -> None:
    await brought_to(one, A, "a")
    await brought_to(two, A, "b")
    assert (await one.counts())[A] == (await two.counts())[A] == 2


async def test_restarted_row_has_one_holder(one: Journal, two: Journal) -> None:
    await brought_to(one, F)
    mine, theirs = await queued(one), await queued(two)
    await one.apply(claim_of(mine), steps.requeue(key=mine.key, new_key="k1", body=b"{}", api="sonar"))
    with pytest.raises(ClaimLost):
        await two.apply(claim_of(theirs), steps.requeue(key=mine.key, new_key="k2", body=b"{}", api="sonar"))
    assert (await queued(two)).is_held
    await one.apply(claim_of(mine), steps.sending(key="k1", attempt=2))
    assert (await now(one, mine)).key == "k1"


async def test_claim_freed_by_closing_can_be_acquired(one: Journal, two: Journal) -> None:
    record = await brought_to(one, A)
    await one.close()
    taken = await two.claim(record.pk)
    assert taken is not None
    assert not taken.is_held
    await two.apply(claim_of(taken), steps.ended(D, key=taken.key, raw=b"body"))
    assert (await now(two, record)).state is D


@pytest.mark.parametrize("name", sorted(INTENTS | DENIALS))
@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken by another"])
async def test_lost_claim_does_not_let_an_intent_in(
    shared: Kind, one: Journal, two: Journal, name: str, taken: bool
) -> None:
    state = min(ALLOWED[name][0] & set(ON_ITS_WAY), default=I)
    record = await brought_to(one, state)
    if state in OVER:  # a new holder begins it anew
        theirs = await two.claim(record.pk)
        await two.apply(claim_of(theirs), steps.sending(key=record.key, attempt=record.attempts + 1))
    else:
        await shared.lose(one)
        theirs = await two.claim(record.pk) if taken else None
    before = await now(two, record)
    if name in DENIALS and theirs is None:  # it can say nothing wrong of a row that nobody has taken up
        await one.apply(claim_of(record), named(name, record))
        assert (await now(two, record)).state is ALLOWED[name][1]
        return
    with pytest.raises(ClaimLost):
        await one.apply(claim_of(record), named(name, record))
    assert await now(two, record) == before


@pytest.mark.parametrize("name", sorted(DENIALS))
async def test_late_denial_leaves_what_a_dead_holder_sent(
    shared: Kind, one: Journal, two: Journal, clock: Ticks, name: str
) -> None:
    record = await brought_to(one, S)
    await shared.lose(one)
    theirs = await two.claim(record.pk)
    await two.apply(claim_of(theirs), steps.sending(key=record.key, attempt=record.attempts + 1))
    await shared.lose(two)
    clock.time += 100.0
    before = await now(one, record)
    with pytest.raises(ClaimLost):
        await one.apply(claim_of(record), named(name, record))
    after = await now(one, record)
    assert after == before
    assert (after.state, after.first_sent, after.attempts) == (S, record.first_sent, record.attempts + 1)


@pytest.mark.parametrize("name", sorted(FACTS))
@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken by another"])
async def test_lost_claim_lets_a_fact_in(shared: Kind, one: Journal, two: Journal, name: str, taken: bool) -> None:
    record = await brought_to(one, min(ALLOWED[name][0]))
    await shared.lose(one)
    if taken:
        await two.claim(record.pk)
    await one.apply(claim_of(record), named(name, record))
    assert (await now(two, record)).state is ALLOWED[name][1]


@pytest.mark.parametrize("is_late", [True, False], ids=["earlier holder first", "holder first"])
async def test_step_that_another_session_took_says_so(shared: Kind, one: Journal, two: Journal, is_late: bool) -> None:
    record = await brought_to(one, A)
    await shared.lose(one)
    taken = claim_of(await two.claim(record.pk))
    ended = steps.ended(D, key=record.key, job_id=record.job_id, raw=b"result")
    calls = [(one, claim_of(record)), (two, taken)] if is_late else [(two, taken), (one, claim_of(record))]
    # The second call of the first is as after an answer that was lost.
    said = [await journal.apply(claim, ended) for journal, claim in (calls[0], calls[0], calls[1], calls[0])]
    assert [bool(is_anothers) for is_anothers in said] == [False, False, True, False]


async def test_late_fact_of_an_earlier_key_is_refused(shared: Kind, one: Journal, two: Journal) -> None:
    record = await brought_to(one, S)
    await shared.lose(one)
    taken = claim_of(await two.claim(record.pk))
    await two.apply(taken, steps.doubtful(key=record.key, error="?"))
    await two.apply(taken, steps.requeue(key=record.key, new_key="new", body=b"{}", api="sonar"))
    await two.apply(taken, steps.sending(key="new", attempt=2))
    with pytest.raises(ImpossibleStep, match="another key"):
        await one.apply(claim_of(record), steps.accepted(key=record.key, job_id="late"))
    assert (await now(two, record)).job_id == ""


async def test_late_id_resolves_the_doubt_that_its_session_left(shared: Kind, one: Journal, two: Journal) -> None:
    record = await brought_to(one, S)
    await shared.lose(one)
    await two.apply(claim_of(await two.claim(record.pk)), steps.doubtful(key=record.key, error="lost"))
    await one.apply(claim_of(record), steps.accepted(key=record.key, job_id="late"))
    found = await two.claim(record.pk)
    assert found is not None
    assert (found.state, found.job_id, found.is_held) == (A, "late", False)


async def test_session_that_lost_its_claims_may_claim_again(shared: Kind, one: Journal, two: Journal) -> None:
    record = await queued(one)
    await shared.lose(one)
    again = await queued(one)
    assert claim_of(again) != claim_of(record)
    with pytest.raises(ClaimLost):
        await one.apply(claim_of(record), named("sending", record))
    await one.apply(claim_of(again), named("sending", again))
    assert (await queued(two)).is_held


@pytest.mark.parametrize("change", ["sending", "DONE", "close", "lose"])
async def test_follow_wakes_when_the_row_changes_or_is_freed(
    shared: Kind, one: Journal, two: Journal, change: str
) -> None:
    record = await brought_to(one, S if change == "DONE" else Q)
    other = await queued(one, "another")
    following = asyncio.ensure_future(two.follow([other.pk, record.pk], timeout=3600))
    await asyncio.sleep(0)
    assert not following.done()
    if change == "close":
        await one.close()
    elif change == "lose":
        await shared.lose(one)
    else:
        await one.apply(claim_of(record), named(change, record))
    async with asyncio.timeout(20):
        await following


@pytest.mark.parametrize("state", OVER, ids=lambda state: state.name)
async def test_follow_of_an_unheld_row_returns_at_once(one: Journal, two: Journal, state: State) -> None:
    record = await brought_to(one, state)
    async with asyncio.timeout(20):
        await two.follow([record.pk], timeout=3600)
        await two.follow([99], timeout=3600)


async def test_follow_returns_at_its_time_limit(one: Journal, two: Journal) -> None:
    record = await queued(one)
    await two.follow([record.pk], timeout=0.001)
    assert (await queued(two)).is_held


# --- names ------------------------------------------------------------------------------------------------------------


async def test_record_says_whose_submission_it_is(journal: Journal) -> None:
    tenants = ["", "acme", 'a"/b', "a\0b", "\ud800"]
    cases = [(tenant, tag, is_call) for tenant in tenants for tag, is_call in ((7, False), (None, False), (None, True))]
    for n, (tenant, tag, is_call) in enumerate(cases):
        names, key = Names(tenant=tenant, is_call=is_call), f"k{n}"
        sha = names.sha(b"why?")
        record = await journal.find_or_queue(
            names.name(tag, sha, key), tag=tag, key=key, body=b"", sha=sha, api="sonar"
        )
        found = await journal.get(key=key)
        assert found is not None
        assert (record.tenant, found.tenant) == (tenant, tenant)


def test_occurrences_count_equal_requests_from_one() -> None:
    seen = Names()
    assert [seen.count(sha_of(ask)) for ask in (b"a", b"b", b"a", b"a", b"b")] == [1, 1, 2, 3, 2]


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=20), st.randoms(use_true_random=False))
def test_names_do_not_depend_on_the_questions_order(asked: list[bytes], random: object) -> None:
    def names(order: list[bytes]) -> list[str]:
        seen = Names()
        return sorted(item_name(None, sha_of(ask), seen.count(sha_of(ask))) for ask in order)

    assert names(asked) == names(sorted(asked))
    assert len(set(names(asked))) == len(asked)


@given(st.one_of(st.text(), st.integers()), st.one_of(st.text(), st.integers()))
def test_two_tags_have_two_names(one: str | int, other: str | int) -> None:
    same = type(one) is type(other) and one == other
    assert (item_name(one, b"") == item_name(other, b"")) is same
    assert item_name(one, b"").isascii()


def test_fingerprint_differs_by_key_and_by_salt() -> None:
    prints = {fingerprint("one", b"s"), fingerprint("two", b"s"), fingerprint("one", b"t")}
    assert len(prints) == 3
    assert all(len(text) == 8 for text in prints)


# --- what nobody holds ------------------------------------------------------------------------------------------------


async def test_rows_of_a_dead_session_are_taken_once(shared: Kind, one: Journal, two: Journal) -> None:
    assert one.shares
    states = {(await brought_to(one, state, f"at {state.name}")).pk: state for state in State}
    third = await shared.session()
    assert await two.free(100) == []
    await shared.lose(one)
    first, others = await two.free(1), await third.free(100)
    taken = [*first, *others]
    assert [states[record.pk] for record in taken] == [S, A]
    assert all(record.claim is not None and not record.is_held and record.age is not None for record in first)
    assert [record.pk for record in others if record.claim is None] == []
    assert await two.free(100) == []
    held = await one.claim(first[0].pk)
    assert held is not None
    assert held.is_held
    await third.close()


@pytest.mark.parametrize("limit", [0, -1])
async def test_no_more_rows_are_taken_than_asked_for(shared: Kind, one: Journal, two: Journal, limit: int) -> None:
    await brought_to(one, A)
    await shared.lose(one)
    assert await two.free(limit) == []


@pytest.mark.parametrize("tenant", ["", "acme"])
async def test_long_names_are_found_as_short_ones_are(one: Journal, two: Journal, tenant: str) -> None:
    # No compression makes these short.
    tags = ["".join(chr(0x4E00 + number * 7919 % 20000) for number in range(3000)) + end for end in "ab"]
    rows: list[Record] = []
    for tag in tags:
        item, key, sha = item_name(tag, b"", tenant=tenant), f"key-{tag[-1]}", sha_of(b"why?")
        for journal in (one, two):
            rows.append(await journal.find_or_queue(item, tag=tag, key=key, body=b"{}", sha=sha, api="sonar"))
    assert [row.pk for row in rows] == [rows[0].pk, rows[0].pk, rows[2].pk, rows[2].pk]
    assert rows[0].pk != rows[2].pk
    assert {(row.tag, row.tenant) for row in rows} == {(tag, tenant) for tag in tags}
    found = await two.get(item=item_name(tags[0], b"", tenant=tenant))
    assert found is not None
    assert found.pk == rows[0].pk
    adopted = await one.adopt("job-1", api="sonar", tag=tags[0] + "c")
    assert (await two.adopt("job-1", api="sonar")).pk == adopted.pk


async def test_free_rows_that_are_not_wanted_stay_free(shared: Kind, one: Journal, two: Journal) -> None:
    records = [await brought_to(one, A, f"{n}") for n in range(3)]
    await shared.lose(one)
    assert [row.pk for row in await two.free(1, but=[records[0].pk, 99])] == [records[1].pk]
    assert [row.pk for row in await two.free(10)] == [records[0].pk, records[2].pk]


async def test_released_row_is_free_for_all(one: Journal, two: Journal) -> None:
    record = await brought_to(one, A)
    await one.release(claim_of(record))
    assert [row.pk for row in await two.free(10)] == [record.pk]


async def test_bills_of_what_was_removed_are_kept(shared: Kind, one: Journal, clock: Ticks) -> None:
    adopted, asked = await one.adopt("id", api="sonar"), await brought_to(one, A)
    for record in (adopted, asked):
        await one.apply(claim_of(record), steps.ended(D, key=record.key, cost=0.5))
    money = (await one.ledger()).spent, await one.costs()
    clock.time += 3 * 3600.0
    assert await one.forget(3600.0) == 2
    assert ((await one.ledger()).spent, await one.costs()) == money


async def test_what_nobody_has_had_is_kept_twice_as_long(shared: Kind, one: Journal, clock: Ticks) -> None:
    records = [await brought_to(one, D, tag) for tag in ("handed out", "not yet")]
    one.delivered(claim_of(records[0]), records[0].key, D)
    await one.counts()
    removed: list[int] = []
    for _ in range(3):
        clock.time += 0.7 * 3600.0
        removed.append(await one.forget(3600.0))
    assert removed == [0, 1, 1]
    assert sum((await one.counts()).values()) == 0


async def test_what_is_over_is_removed_after_its_time(shared: Kind, one: Journal, two: Journal, clock: Ticks) -> None:
    pks: dict[State, int] = {}
    for state in State:
        record = await brought_to(one, state, f"at {state.name}")
        pks[state] = record.pk
        one.delivered(claim_of(record), record.key, record.state)
    dollars = sum(cost.dollars for cost in await one.costs())
    assert await two.forget(3600.0) == 0
    clock.time += 7200.0
    await brought_to(one, D, "young")
    assert [await two.forget(3600.0, limit=3), await two.forget(3600.0), await two.forget(3600.0)] == [3, 1, 0]
    kept = {state for state, pk in pks.items() if await one.get(pk=pk) is not None}
    assert kept == {Q, S, A, I}
    assert await one.result(pks[D]) is None
    assert sum(cost.dollars for cost in await one.costs()) >= dollars
    with pytest.raises(ItemConflict):  # a key stays used
        await one.find_or_queue("new", tag="new", key="key-at DONE", body=b"", sha=sha_of(b"new"), api="sonar")
    again = await queued(two, "at DONE", key="another")
    assert (again.state, again.pk in pks.values()) == (Q, False)
