"""The store of a session without a journal accepts everything and remembers only ids."""

from __future__ import annotations

import pytest

from aiopplx.journal import _forgetful as module
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import DuplicateJob
from aiopplx.journal._forgetful import ForgetfulJournal
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Claim, Ledger, Record, State


async def queued(journal: Journal, key: str = "k", tag: str | int | None = None) -> tuple[Record, Claim]:
    record = await journal.find_or_queue("", tag=tag, key=key, body=b"{}", sha=b"", api="sonar")
    assert record.claim is not None
    return record, record.claim


async def test_every_submission_is_new_whatever_its_name() -> None:
    journal: Journal = ForgetfulJournal()
    (one, claim), (two, other) = await queued(journal), await queued(journal)
    assert (one.state, one.key, one.body, one.is_held) == (State.QUEUED, "k", b"{}", False)
    assert one.pk != two.pk
    assert claim != other
    assert (journal.remembers, journal.results) == (False, "refetch")


async def test_job_is_remembered_by_its_id() -> None:
    journal = ForgetfulJournal()
    record, claim = await queued(journal, "k", tag=7)
    await journal.apply(claim, steps.sending(key="k", attempt=1))
    assert await journal.get(job_id="id") is None
    await journal.apply(claim, steps.accepted(key="k", job_id="id"))
    found = await journal.get(job_id="id")
    assert found is not None
    assert (found.key, found.tag, found.api, found.state, found.pk) == ("k", 7, "sonar", State.ACCEPTED, record.pk)
    assert found.claim is None
    assert await journal.get(pk=record.pk) is None
    assert await journal.get(key="k") is None


async def test_job_that_ended_in_its_first_answer_is_remembered() -> None:
    journal = ForgetfulJournal()
    _, claim = await queued(journal)
    await journal.apply(claim, steps.ended(State.DONE, key="k", job_id="id", raw=b"all at once"))
    assert await journal.get(job_id="id") is not None
    assert await journal.result(claim.pk) is None


async def test_moved_submission_is_remembered_under_its_new_api() -> None:
    journal = ForgetfulJournal()
    _, claim = await queued(journal)
    await journal.apply(claim, steps.refreeze(key="k", body=b"", api="agent"))
    await journal.apply(claim, steps.accepted(key="k", job_id="id"))
    found = await journal.get(job_id="id")
    assert found is not None
    assert found.api == "agent"


async def test_id_of_another_submission_is_a_harmless_duplicate() -> None:
    journal = ForgetfulJournal()
    (_, one), (_, two) = await queued(journal, "k1", tag=1), await queued(journal, "k2", tag=2)
    for _ in range(2):  # the same submission again is none
        await journal.apply(one, steps.accepted(key="k1", job_id="id"))
    with pytest.raises(DuplicateJob) as caught:
        await journal.apply(two, steps.accepted(key="k2", job_id="id"))
    assert (caught.value.job_id, caught.value.idempotency_key) == ("id", "k1")
    found = await journal.get(job_id="id")
    assert found is not None
    assert found.tag == 1


async def test_oldest_ids_are_forgotten() -> None:
    journal = ForgetfulJournal()
    for n in range(module.REMEMBERED + 1):
        _, claim = await queued(journal, f"k{n}")
        await journal.apply(claim, steps.accepted(key=f"k{n}", job_id=f"id{n}"))
    assert await journal.get(job_id="id0") is None
    assert await journal.get(job_id="id1") is not None
    assert len(journal._known) == module.REMEMBERED


async def test_adopted_job_is_the_known_one_or_new() -> None:
    journal = ForgetfulJournal()
    _, claim = await queued(journal, "k", tag=1)
    await journal.apply(claim, steps.accepted(key="k", job_id="id"))
    assert (await journal.adopt("id", api="agent", tag=2)).key == "k"
    other = await journal.adopt("elsewhere", api="agent", tag=2)
    assert (other.key, other.tag, other.api, other.state) == ("", 2, "agent", State.ACCEPTED)


async def test_nothing_is_stored_counted_or_spent() -> None:
    journal = ForgetfulJournal()
    _, claim = await queued(journal)
    journal.exhausted(False)
    journal.delivered(claim, "k", State.DONE)
    await journal.follow([claim.pk], timeout=60)
    await journal.release(claim)
    await journal.remember("pace", b"1")
    assert await journal.recall("pace") is None
    assert await journal.claim(claim.pk) is None
    assert await journal.rows(set(State)) == []
    assert await journal.counts() == dict.fromkeys(State, 0)
    assert await journal.costs() == []
    assert await journal.ledger() == Ledger()
    await journal.close()
    await journal.close()
