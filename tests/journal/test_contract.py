"""What every journal promises, asked of each kind there is: the states, the steps between them, what is found again."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import InvalidRequest
from aiopplx.journal._memory import MemoryJournal
from aiopplx.journal._protocol import (
    Claim,
    Cost,
    DuplicateJob,
    ImpossibleStep,
    ItemConflict,
    Journal,
    JournalClosed,
    Ledger,
    Occurrences,
    Record,
    Results,
    State,
    fingerprint,
    item_name,
    sha_of,
)
from aiopplx.journal._sqlite.journal import SqliteJournal

Make = Callable[[Results], Awaitable[Journal]]


class Ticks:
    """A wall clock that moves on by one second each time it is asked."""

    def __init__(self) -> None:
        self._count = itertools.count(1_000)

    def __call__(self) -> float:
        return float(next(self._count))


@pytest.fixture(params=["memory", "sqlite"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Journal] = []

    async def new(results: Results = "keep") -> Journal:
        if request.param == "memory":
            journal: Journal = MemoryJournal(now=Ticks(), results=results)
        else:
            journal = await SqliteJournal.open(tmp_path / f"{len(made)}.db", now=Ticks(), results=results)
        made.append(journal)
        return journal

    yield new
    for journal in made:
        await journal.close()


@pytest.fixture
async def journal(make: Make) -> Journal:
    return await make("keep")


async def queued(journal: Journal, tag: str | int | None = "a", key: str = "", ask: bytes = b"why?") -> Record:
    sha = sha_of(ask)
    return await journal.find_or_queue(
        item_name(tag, sha), tag=tag, key=key or f"key-{tag}", body=b'{"q":1}', sha=sha, api="sonar"
    )


async def now(journal: Journal, record: Record) -> Record:
    found = await journal.get(pk=record.pk)
    assert found is not None
    return found


PATHS: dict[State, tuple[str, ...]] = {
    State.QUEUED: (),
    State.SENDING: ("sending",),
    State.ACCEPTED: ("sending", "accepted"),
    State.DONE: ("sending", "accepted", "DONE"),
    State.FAILED: ("sending", "accepted", "FAILED"),
    State.IN_DOUBT: ("sending", "doubtful"),
    State.EXPIRED: ("sending", "accepted", "EXPIRED"),
    State.REJECTED: ("sending", "REJECTED"),
}


async def step(journal: Journal, name: str, claim: Claim, *, job_id: str = "") -> None:
    """One step by its name; a state's name stands for `ended` with it."""
    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "sending": lambda: journal.sending(claim),
        "accepted": lambda: journal.accepted(claim, job_id or f"job-{claim.pk}"),
        "doubtful": lambda: journal.doubtful(claim, "no answer"),
        "back_to_queued": lambda: journal.back_to_queued(claim),
        "refreeze": lambda: journal.refreeze(claim, body=b"{}", api="agent"),
        "requeue": lambda: journal.requeue(claim, key=f"again-{claim.pk}", body=b"{2}", api="sonar"),
        "drop": lambda: journal.drop(claim),
    }
    if name in steps:
        await steps[name]()
    else:
        await journal.ended(claim, State[name], word=name, raw=b"body", error="why")


async def brought_to(journal: Journal, state: State, tag: str = "a") -> Record:
    record = await queued(journal, tag)
    for name in PATHS[state]:
        await step(journal, name, record.claim)
    found = await now(journal, record)
    assert found.state is state
    return found


# --- steps ------------------------------------------------------------------------------------------------------------

# Written out, and not read from the package: where each step leads from where, and from where it leads nowhere.
Q, S, A, D, F, I, E, R = State  # noqa: E741 - one letter each: the table is to be read
ALLOWED: dict[str, tuple[set[State], State]] = {
    "sending": ({Q, S, I}, S),
    "accepted": ({S, A, I, E}, A),
    "doubtful": ({S, I}, I),
    "back_to_queued": ({S}, Q),
    "refreeze": ({Q}, Q),
    "requeue": ({I, F, E, R}, Q),
    "drop": ({I}, F),
    "DONE": ({S, A}, D),
    "FAILED": ({S, A}, F),
    "EXPIRED": ({A}, E),
    "REJECTED": ({Q, S}, R),
}


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
async def test_step_is_taken_from_the_states_that_allow_it_and_no_other(
    journal: Journal, state: State, name: str
) -> None:
    before = await brought_to(journal, state)
    allowed, leads_to = ALLOWED[name]
    if state in allowed:
        await step(journal, name, before.claim)
        assert (await now(journal, before)).state is leads_to
    else:
        with pytest.raises(ImpossibleStep, match=state.name) as caught:
            await step(journal, name, before.claim)
        assert caught.value.state == state.name
        assert await now(journal, before) == before
        assert await journal.result(before.pk) == (b"body" if before.has_result else None)


@pytest.mark.parametrize("name", ALLOWED)
async def test_step_of_no_row_is_impossible(journal: Journal, name: str) -> None:
    record = await queued(journal)
    with pytest.raises(ImpossibleStep, match="no row 7"):
        await step(journal, name, record.claim._replace(pk=7))


@pytest.mark.parametrize("name", ALLOWED)
async def test_step_under_the_claim_of_another_holder_is_impossible(journal: Journal, name: str) -> None:
    before = await brought_to(journal, min(ALLOWED[name][0]))
    with pytest.raises(ImpossibleStep):
        await step(journal, name, before.claim._replace(fence=before.fence - 1), job_id="other")
    assert await now(journal, before) == before


@pytest.mark.parametrize("state", [Q, S, A, I])
async def test_ended_refuses_a_state_that_is_no_end(journal: Journal, state: State) -> None:
    record = await brought_to(journal, S)
    with pytest.raises(ValueError, match="not how a submission ends"):
        await journal.ended(record.claim, state)


async def test_record_is_all_that_was_said(journal: Journal) -> None:
    first = await queued(journal, 7, key="k")
    await journal.sending(first.claim)
    await journal.accepted(first.claim, "id-1")
    await journal.ended(first.claim, D, word="COMPLETED", raw=b"{}", cost=0.41)
    assert await now(journal, first) == Record(
        pk=first.pk,
        fence=first.fence,
        item="tag:7",
        tag=7,
        key="k",
        body=b'{"q":1}',
        sha=sha_of(b"why?"),
        api="sonar",
        state=D,
        attempts=1,
        first_sent=first.updated + 1,
        job_id="id-1",
        accepted_at=first.updated + 2,
        word="COMPLETED",
        cost=0.41,
        has_result=True,
        updated=first.updated + 3,
    )


async def test_sending_again_counts_and_keeps_the_first_moment(journal: Journal) -> None:
    record = await queued(journal)
    await journal.sending(record.claim)
    first = await now(journal, record)
    await journal.sending(record.claim)
    second = await now(journal, record)
    assert (second.attempts, second.first_sent) == (2, first.first_sent)


async def test_back_to_queued_makes_the_key_young_again(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.back_to_queued(record.claim)
    back = await now(journal, record)
    assert (back.state, back.first_sent, back.attempts) == (Q, None, 1)


async def test_accepted_twice_with_one_id_is_one_step(journal: Journal) -> None:
    record = await brought_to(journal, A)
    await journal.accepted(record.claim, record.job_id)
    assert await now(journal, record) == record
    with pytest.raises(ImpossibleStep):
        await journal.accepted(record.claim, "another")


async def test_accepted_with_the_id_of_another_row_changes_neither(journal: Journal) -> None:
    first, second = await brought_to(journal, A, "a"), await brought_to(journal, S, "b")
    with pytest.raises(DuplicateJob, match="another submission") as caught:
        await journal.accepted(second.claim, first.job_id)
    assert (caught.value.job_id, caught.value.idempotency_key) == (first.job_id, "key-a")
    assert await now(journal, first) == first
    assert await now(journal, second) == second


async def test_ended_with_the_id_of_another_row_changes_neither(journal: Journal) -> None:
    first, second = await brought_to(journal, A, "a"), await brought_to(journal, S, "b")
    with pytest.raises(DuplicateJob):
        await journal.ended(second.claim, D, job_id=first.job_id, raw=b"paid by whom?")
    assert await now(journal, second) == second
    assert await journal.result(second.pk) is None


async def test_ended_straight_after_sending_takes_the_id_along(journal: Journal) -> None:
    record = await brought_to(journal, S)
    await journal.ended(record.claim, D, job_id="id-9", raw=b"all at once")
    found = await journal.get(job_id="id-9")
    assert found is not None
    assert (found.pk, found.state, found.accepted_at) == (record.pk, D, found.updated)


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0, None])
async def test_cost_that_cannot_be_added_up_is_unknown(journal: Journal, cost: float | None) -> None:
    record = await brought_to(journal, A)
    await journal.ended(record.claim, D, cost=cost)
    assert (await now(journal, record)).cost is None
    assert await journal.ledger() == Ledger(0.0, 1, ())


async def test_text_of_half_a_character_is_stored_all_the_same(journal: Journal) -> None:
    record = await brought_to(journal, A)
    await journal.ended(record.claim, F, word="FAILED", error="cut \ud83d here\0")
    assert (await now(journal, record)).error.startswith("cut ")


# --- what is found again ----------------------------------------------------------------------------------------------


async def test_submission_is_found_again_with_its_own_key_and_bytes(journal: Journal) -> None:
    first = await brought_to(journal, A)
    again = await journal.find_or_queue(
        "tag:" + '"a"', tag="a", key="another", body=b"other bytes", sha=first.sha, api="agent"
    )
    assert again == first
    assert await journal.get(key="another") is None


async def test_tag_of_another_request_is_a_conflict_that_changes_nothing(journal: Journal) -> None:
    first = await queued(journal, "a", ask=b"why?")
    with pytest.raises(ItemConflict, match="'a' is in the journal for another request") as caught:
        await queued(journal, "a", key="k2", ask=b"how?")
    assert isinstance(caught.value, InvalidRequest)
    assert caught.value.tag == "a"
    assert await now(journal, first) == first
    assert (await journal.counts())[Q] == 1


async def test_key_of_another_submission_is_a_conflict_that_changes_nothing(journal: Journal) -> None:
    await queued(journal, "a", key="mine")
    with pytest.raises(ItemConflict, match="idempotency_key") as caught:
        await queued(journal, "b", key="mine")
    assert caught.value.tag == "b"
    assert (await journal.counts())[Q] == 1


async def test_tags_that_look_alike_are_two(journal: Journal) -> None:
    number, text = await queued(journal, 1, key="k1"), await queued(journal, "1", key="k2", ask=b"another")
    assert number.pk != text.pk
    assert ((await now(journal, number)).tag, (await now(journal, text)).tag) == (1, "1")


@pytest.mark.parametrize("tag", ["", "ä\n\0", "\ud83d", "x" * 10_000, -1, 2**70])
async def test_tag_of_any_kind_comes_back_as_it_was(journal: Journal, tag: str | int) -> None:
    record = await queued(journal, tag, key="k")
    assert (await now(journal, record)).tag == tag


async def test_many_at_once_are_each_queued_once(journal: Journal) -> None:
    twice = [f"{n}" for n in range(200)] * 2
    records = await asyncio.gather(*(queued(journal, tag) for tag in twice))
    assert len({record.pk for record in records}) == 200
    assert (await journal.counts())[Q] == 200


async def test_get_finds_by_row_name_id_and_key(journal: Journal) -> None:
    record = await brought_to(journal, A)
    assert await journal.get(pk=record.pk) == record
    assert await journal.get(item=record.item) == record
    assert await journal.get(job_id=record.job_id) == record
    assert await journal.get(key=record.key) == record
    assert [await journal.get(pk=9), await journal.get(item="?"), await journal.get(job_id="?")] == [None] * 3
    assert await journal.get() is None


async def test_rows_come_in_pages_in_the_order_of_queueing(journal: Journal) -> None:
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
    await journal.ended(record.claim, D, raw=raw)
    assert await journal.result(record.pk) == raw
    assert (await now(journal, record)).has_result


async def test_result_is_none_where_there_is_none(journal: Journal) -> None:
    record = await brought_to(journal, A)
    assert await journal.result(record.pk) is None
    assert await journal.result(99) is None


@pytest.mark.parametrize(("results", "before", "after"), [("keep", 1, 1), ("until_taken", 1, 0), ("refetch", 0, 0)])
async def test_result_is_there_as_long_as_was_asked(make: Make, results: Results, before: int, after: int) -> None:
    journal = await make(results)
    record = await brought_to(journal, D)
    assert journal.results == results
    assert (record.has_result, await journal.result(record.pk)) == (bool(before), b"body" if before else None)
    journal.taken(record.claim)
    await queued(journal, "other")  # what it rides with
    found = await now(journal, record)
    assert (found.has_result, await journal.result(record.pk)) == (bool(after), b"body" if after else None)
    assert found.taken


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
async def test_taken_is_noted_of_rows_that_have_an_outcome(journal: Journal, state: State) -> None:
    record = await brought_to(journal, state)
    journal.taken(record.claim)
    await queued(journal, "other")
    assert (await now(journal, record)).taken is state.is_final


async def test_taken_is_forgotten_when_the_row_begins_again(journal: Journal) -> None:
    record = await brought_to(journal, I)
    journal.taken(record.claim)
    await journal.accepted(record.claim, "found")
    assert not (await now(journal, record)).taken


# --- a new submission in an old one's place ---------------------------------------------------------------------------


async def test_requeue_begins_afresh_under_a_new_key_and_forgets_no_bill(journal: Journal) -> None:
    record = await queued(journal, "a", key="old")
    await journal.sending(record.claim)
    await journal.ended(record.claim, F, job_id="id-1", word="FAILED", error="no luck", cost=0.5, raw=b"x")
    await journal.requeue(record.claim, key="new", body=b"new body", api="agent")
    again = await now(journal, record)
    assert (again.state, again.key, again.body, again.api) == (Q, "new", b"new body", "agent")
    assert (again.job_id, again.first_sent, again.error, again.word, again.cost) == ("", None, "", "", None)
    assert not again.has_result
    assert await journal.get(job_id="id-1") is None
    assert await journal.get(key="old") is None
    assert await journal.ledger() == Ledger(0.5, 0, ())
    assert await journal.costs() == [Cost("a", 2, 0.5, 0)]


@pytest.mark.parametrize("key", ["own", "others", "past"])
async def test_requeue_under_a_key_that_was_used_is_a_conflict(journal: Journal, key: str) -> None:
    await queued(journal, "b", key="others")
    record = await queued(journal, "a", key="past")
    await journal.sending(record.claim)
    await journal.doubtful(record.claim, "?")
    await journal.requeue(record.claim, key="own", body=b"{}", api="sonar")
    await journal.sending(record.claim)
    await journal.doubtful(record.claim, "?")
    before = await now(journal, record)
    with pytest.raises(ItemConflict):
        await journal.requeue(record.claim, key=key, body=b"{}", api="sonar")
    assert await now(journal, record) == before


async def test_key_of_the_past_is_not_used_for_another_submission(journal: Journal) -> None:
    record = await brought_to(journal, I)
    await step(journal, "requeue", record.claim)
    with pytest.raises(ItemConflict):
        await queued(journal, "b", key=record.key)


async def test_refreeze_changes_bytes_and_api_only(journal: Journal) -> None:
    record = await queued(journal)
    await journal.refreeze(record.claim, body=b"agent's", api="agent")
    found = await now(journal, record)
    assert (found.body, found.api, found.key, found.state) == (b"agent's", "agent", record.key, Q)


async def test_drop_ends_a_doubt_without_a_new_submission(journal: Journal) -> None:
    record = await brought_to(journal, I)
    await journal.drop(record.claim)
    found = await queued(journal)
    assert (found.state, found.word, found.key) == (F, "DROPPED", record.key)
    assert (await journal.ledger()).unknown == 1


# --- jobs from elsewhere ----------------------------------------------------------------------------------------------


async def test_adopted_job_is_accepted_once(journal: Journal) -> None:
    record = await journal.adopt("id-7", api="sonar")
    assert (record.state, record.job_id, record.key, record.body, record.tag) == (A, "id-7", "", b"", None)
    assert await journal.adopt("id-7", api="sonar") == record
    assert await now(journal, record) == record
    await journal.ended(record.claim, D, raw=b"its result")
    assert await journal.result(record.pk) == b"its result"


async def test_many_adopted_jobs_have_no_key_in_common(journal: Journal) -> None:
    await journal.adopt("id-1", api="sonar")
    await journal.adopt("id-2", api="sonar")
    assert (await journal.counts())[A] == 2


async def test_adopted_job_with_a_tag_is_found_by_whatever_is_asked_under_it(journal: Journal) -> None:
    record = await journal.adopt("id-7", api="sonar", tag="a")
    assert await queued(journal, "a", ask=b"anything") == record


async def test_adoption_under_the_tag_of_another_submission_is_a_conflict(journal: Journal) -> None:
    await queued(journal, "a")
    with pytest.raises(ItemConflict):
        await journal.adopt("id-7", api="sonar", tag="a")
    assert await journal.get(job_id="id-7") is None


# --- money ------------------------------------------------------------------------------------------------------------


async def test_costs_are_added_up_by_tag_api_and_state_dearest_first(journal: Journal) -> None:
    for tag, cost in (("a", 0.25), ("b", 1.0), ("c", None)):
        record = await brought_to(journal, A, tag)
        await journal.ended(record.claim, D if cost else F, cost=cost)
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
    assert await journal.ledger(samples=1) == Ledger(1.25, 2, (1.0,))


async def test_costs_of_submissions_without_a_tag_are_one_line(journal: Journal) -> None:
    for n in range(3):
        record = await queued(journal, None, key=f"k{n}", ask=b"%d" % n)
        await journal.sending(record.claim)
        await journal.ended(record.claim, D, job_id=f"id{n}", cost=0.5)
    assert await journal.costs() == [Cost(None, 3, 1.5, 0)]


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closed_journal_says_so_and_closes_twice(journal: Journal) -> None:
    record = await queued(journal)
    await journal.close()
    await journal.close()
    with pytest.raises(JournalClosed):
        await journal.sending(record.claim)
    with pytest.raises(JournalClosed):
        await journal.counts()
    journal.taken(record.claim)


async def test_step_goes_on_though_its_caller_is_cancelled(journal: Journal) -> None:
    record = await queued(journal)
    task = asyncio.ensure_future(journal.sending(record.claim))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await now(journal, record)).state is S


# --- names ------------------------------------------------------------------------------------------------------------


def test_occurrences_count_equal_requests_from_one() -> None:
    seen = Occurrences()
    assert [seen.count(sha_of(ask)) for ask in (b"a", b"b", b"a", b"a", b"b")] == [1, 1, 2, 3, 2]


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=20), st.randoms(use_true_random=False))
def test_names_do_not_depend_on_the_order_of_the_questions(asked: list[bytes], random: object) -> None:
    def names(order: list[bytes]) -> list[str]:
        seen = Occurrences()
        return sorted(item_name(None, sha_of(ask), seen.count(sha_of(ask))) for ask in order)

    assert names(asked) == names(sorted(asked))
    assert len(set(names(asked))) == len(asked)


@given(st.one_of(st.text(), st.integers()), st.one_of(st.text(), st.integers()))
def test_names_of_two_tags_are_two(one: str | int, other: str | int) -> None:
    same = type(one) is type(other) and one == other
    assert (item_name(one, b"") == item_name(other, b"")) is same
    assert item_name(one, b"").isascii()


def test_fingerprint_tells_keys_apart_and_is_another_with_another_salt() -> None:
    prints = {fingerprint("one", b"s"), fingerprint("two", b"s"), fingerprint("one", b"t")}
    assert len(prints) == 3
    assert all(len(text) == 8 for text in prints)
