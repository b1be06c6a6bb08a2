"""One program runs at either API, moves to the successor when Sonar is retired, and pays for nothing twice.

Every test checks what the user gets and what the server saw (its ledger).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from _captured import Document
from _faulty import KEY, QUESTIONS, emulator, recorded, session_at, taken
from _scripted import Told
from jsonschema import Draft202012Validator

from aiopplx import (
    AgentRequest,
    EndpointRetired,
    Event,
    EventKind,
    InDoubt,
    InvalidRequest,
    Job,
    JobStatus,
    PollPolicy,
    RateLimited,
    ResearchRequest,
    RetryPolicy,
    Session,
    TransportError,
)
from aiopplx.emulator import AfterPolls, Emulator, WireServer, faults, wire
from aiopplx.journal._memory import MemoryJournal

MODES = ("sonar", "sonar-v1", "agent", "agent-v1", "auto")
ERROR_NAMES = ("chat_completions_not_available", "agent_api_migration_required")
PATHS = {
    "sonar": "POST /async/chat/completions",
    "sonar-v1": "POST /v1/async/sonar",
    "agent": "POST /v1/responses",
    "agent-v1": "POST /v1/agent",
    "auto": "POST /async/chat/completions",
}
DOCUMENT = Document("agent-background")
CREATE = Draft202012Validator(DOCUMENT.schemas["ResponsesRequest"])


async def program(session: Session, questions: tuple[str, ...] = QUESTIONS) -> list[Job]:
    """What a user of either API writes."""
    found: list[Job] = []
    async with session.batch([{"question": text, "tag": n} for n, text in enumerate(questions)]) as jobs:
        async for job in jobs:
            found.append(job)
    return sorted(found, key=lambda job: job.index or 0)


def question_of(body: bytes) -> str:
    """The question in the body of a submission to either API."""
    data = json.loads(body)
    said = data["input"] if "input" in data else data["request"]["messages"][-1]["content"]
    assert isinstance(said, str)
    return said


def made_once(server: Emulator, questions: tuple[str, ...] = QUESTIONS) -> None:
    """Each question has one job, whichever API made it."""
    assert sorted(question_of(job.body) for job in server.ledger.jobs) == sorted(questions)


def said_at_warning(events: list[Event], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told of a retirement; the same in the log as in the events."""
    told = [event.reason for event in events if event.kind is EventKind.WARNING and "retired" in event.reason]
    logged = [
        record for record in caplog.records if record.levelno >= logging.WARNING and "retired" in record.getMessage()
    ]
    assert [record.levelno for record in logged] == [logging.WARNING] * len(told)
    assert all(reason in record.getMessage() for reason, record in zip(told, logged, strict=True))
    return told


# --- the same program ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", MODES)
async def test_same_program_runs_at_either_api_by_any_name(api: str) -> None:
    async with emulator() as server, session_at(server.url, api=api) as session:
        found = await program(session)

        assert [job.ok for job in found] == [True] * len(QUESTIONS)
        assert [job.tag for job in found] == list(range(len(QUESTIONS)))
        assert server.ledger.requests[PATHS[api]] == len(QUESTIONS)
        made_once(server)
        for job in found:
            assert job.text
            assert job.sources
            assert job.citations == [source.url for source in job.sources]
            assert job.usage is not None
            assert job.api == ("agent" if api.startswith("agent") else "sonar")
        assert sum(job.cost or 0.0 for job in found) == pytest.approx(server.ledger.billed)


@pytest.mark.parametrize("api", MODES)
async def test_marks_in_the_text_lead_to_the_jobs_sources(api: str) -> None:
    async with emulator(answer_chars=4000) as server, session_at(server.url, api=api) as session:
        job = await session.ask(QUESTIONS[0])

        assert job.cited
        assert all(mark in job.text for mark in job.cited)
        assert all(source in job.sources for source in job.cited.values())


@pytest.mark.parametrize("api", MODES)
async def test_submitting_and_waiting_by_id_works_at_either_api(api: str) -> None:
    async with emulator() as server, session_at(server.url, api=api) as session:
        first = await session.submit(QUESTIONS[0], tag="mine")
        again = await session.wait(first.id)

        assert not first.done
        assert again.ok
        assert (again.tag, again.idempotency_key) == ("mine", first.idempotency_key)
        assert again.api == first.api


async def test_question_means_the_same_at_either_api() -> None:
    said = ResearchRequest(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTIONS[0]}],
        reasoning_effort="low",
        search_domain_filter=["vasamuseet.se"],
        max_tokens=900,
    )
    async with emulator() as server, session_at(server.url, api="agent") as session:
        assert (await session.ask(said)).ok

        body = json.loads(server.ledger.jobs[0].body)
        assert body["effort"] == "high"
        assert body["instructions"] == "Be brief."
        assert body["input"] == QUESTIONS[0]
        assert body["reasoning"] == {"effort": "low"}
        assert body["max_output_tokens"] == 900
        assert body["tools"][0]["filters"] == {"search_domain_filter": ["vasamuseet.se"]}


@pytest.mark.parametrize(
    "item",
    [
        "Why?",
        {"question": "Why?", "tag": "t", "idempotency_key": "k-1", "timeout": 3000.0, "reasoning_effort": "low"},
        ResearchRequest("Why?", search_recency_filter="week", language_preference="sv", temperature=0.5),
        AgentRequest("Why?", tag="t", idempotency_key="k-2", timeout=3000.0, metadata={"mine": "yes"}, max_steps=3),
        {"input": "Why?", "effort": "low", "tag": 7},
    ],
    ids=("text", "mapping", "research", "agent", "agent-mapping"),
)
async def test_create_holds_nothing_but_fields_of_the_document(item: Any) -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        assert [job.ok for job in await taken(session.batch([item]), [])] == [True]

        body = json.loads(server.ledger.jobs[0].body)
        CREATE.validate(body)
        assert set(body) <= set(DOCUMENT.schemas["ResponsesRequest"]["properties"])
        assert body["background"] is True
        assert not {"idempotency_key", "tag", "timeout", "question"} & set(body)


# --- auto ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ERROR_NAMES)
async def test_auto_at_a_retired_sonar_uses_the_agent_api(name: str, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    async with emulator(retired=name) as server, session_at(server.url, api="auto", events=events) as session:
        found = await program(session)
        later = await session.ask("And the one after?")

        assert [job.ok for job in [*found, later]] == [True] * (len(QUESTIONS) + 1)
        assert {job.api for job in found} == {"agent"}
        made_once(server, (*QUESTIONS, "And the one after?"))
        told = said_at_warning(events, caplog)
        assert len(told) == 1
        assert name in told[0]
        assert not [event for event in events if event.kind is EventKind.STOPPED]


async def test_auto_stops_asking_the_retired_api_once_it_knows() -> None:
    async with emulator(retired=ERROR_NAMES[0]) as server, session_at(server.url, api="auto") as session:
        await session.ask(QUESTIONS[0])
        await program(session, QUESTIONS[1:])

        assert server.ledger.requests[PATHS["sonar"]] == 1
        assert server.ledger.requests[PATHS["agent"]] == len(QUESTIONS)


@pytest.mark.parametrize("name", ERROR_NAMES)
async def test_auto_moves_mid_run_and_collects_the_older_jobs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    async with emulator() as server, session_at(server.url, api="auto", events=events) as session:
        source = retiring_source(server, after=5, name=name, readable=True)
        found = await taken(session.batch(source, max_in_flight=100), [])

        assert [job.ok for job in found] == [True] * len(QUESTIONS)
        assert {job.api for job in found} == {"sonar", "agent"}
        assert server.ledger.created_by_api["sonar"] >= 5
        made_once(server)
        assert len(said_at_warning(events, caplog)) == 1
        assert not [event for event in events if event.kind is EventKind.STOPPED]


async def retiring_source(server: Emulator, *, after: int, name: str, readable: bool) -> AsyncIterator[str]:
    """The questions; the server retires sonar once it has made `after` of them."""
    for n, text in enumerate(QUESTIONS):
        if n == after:
            await server.until(lambda ledger: ledger.created >= after)
            server.retire(name, readable=readable)
        yield text


@pytest.mark.parametrize("name", ERROR_NAMES)
async def test_unreadable_jobs_of_a_retired_api_stop_nothing(name: str) -> None:
    events: list[Event] = []
    async with emulator() as server, session_at(server.url, api="auto", events=events, speed=600.0) as session:
        source = retiring_source(server, after=5, name=name, readable=False)
        found = await taken(session.batch(source, max_in_flight=100), [])
        later = await session.ask("And the one after?")

        lost = [job for job in found if not job.ok]
        assert len(found) == len(QUESTIONS)
        assert later.ok
        assert {job.api for job in lost} == {"sonar"}
        assert {job.status for job in lost} == {JobStatus.UNREADABLE}
        assert all(job.id and isinstance(job.error, EndpointRetired) and job.error.type == name for job in lost)
        assert all(job.ok for job in found if job.api == "agent")
        assert len([job for job in found if job.api == "agent"]) == len(QUESTIONS) - 5
        made_once(server, (*QUESTIONS, "And the one after?"))
        assert not [event for event in events if event.kind is EventKind.STOPPED]


@pytest.mark.parametrize("name", ERROR_NAMES)
async def test_concurrent_callers_all_move_with_one_event(name: str, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    async with emulator(retired=name) as server, session_at(server.url, api="auto", events=events) as session:
        asked = [session.ask(text) for text in QUESTIONS]
        others = [program(session, (f"{half}-{text}", f"{half}+{text}")) for half in "ab" for text in QUESTIONS[:3]]
        jobs = await asyncio.gather(*asked)
        batches = await asyncio.gather(*others)

        assert all(job.ok for job in jobs)
        assert all(job.ok for batch in batches for job in batch)
        assert server.ledger.created == len(QUESTIONS) + 12
        assert len({question_of(job.body) for job in server.ledger.jobs}) == server.ledger.created
        assert len(said_at_warning(events, caplog)) == 1


async def test_pinned_retired_api_stops_the_session_without_another() -> None:
    events: list[Event] = []
    async with emulator(retired=ERROR_NAMES[0]) as server, session_at(server.url, events=events) as session:
        with pytest.raises(EndpointRetired, match="Agent API"):
            await program(session)

        assert server.ledger.created == 0
        assert server.ledger.requests[PATHS["agent"]] == 0
        assert [event.kind for event in events].count(EventKind.STOPPED) == 1


@pytest.mark.parametrize("api", ["auto", "agent"])
async def test_successor_that_is_retired_too_stops_the_session(api: str) -> None:
    events: list[Event] = []
    refusal = faults.Status(403, type=ERROR_NAMES[1], message="Gone too.")
    async with emulator(retired=ERROR_NAMES[0]) as server, session_at(server.url, api=api, events=events) as session:
        server.faults.add("submit", refusal, match="/v1/responses")
        found: list[Job] = []
        with pytest.raises(EndpointRetired, match="Gone too"):
            await taken(session.batch(QUESTIONS), found)
        with pytest.raises(EndpointRetired):
            await session.ask(QUESTIONS[0])

        assert {job.status for job in found} <= {JobStatus.STOPPED}
        assert [event.kind for event in events].count(EventKind.STOPPED) == 1
        assert server.ledger.created == 0


async def test_submission_whose_answer_was_lost_does_not_move() -> None:
    async with emulator() as server, session_at(server.url, api="auto") as session:
        server.faults.add("submit", faults.Drop(after_accept=True), times=1)
        server.faults.add("submit", faults.NAMED["retired"], match="/async/")
        job = await session.ask(QUESTIONS[0])
        after = await session.ask(QUESTIONS[1])

        assert job.status is JobStatus.IN_DOUBT
        assert isinstance(job.error, InDoubt)
        assert job.attempts == 2
        assert after.ok
        assert after.api == "agent"
        made_once(server, QUESTIONS[:2])


@pytest.mark.parametrize("name", ERROR_NAMES)
async def test_list_after_retirement_says_that_there_is_none(name: str) -> None:
    async with emulator(retired=name) as server, session_at(server.url, api="auto") as session:
        with pytest.raises(EndpointRetired):
            await session.list()
        assert (await session.ask(QUESTIONS[0])).ok
        with pytest.raises(InvalidRequest, match="cannot list jobs"):
            await session.list()


async def test_job_of_each_api_is_polled_where_it_is() -> None:
    async with emulator(duration=AfterPolls(3)) as server, session_at(server.url, api="auto") as session:
        old = await session.submit(QUESTIONS[0])
        server.retire(readable=True)
        new = await session.submit(QUESTIONS[1])
        assert (old.api, new.api) == ("sonar", "agent")

        found = await asyncio.gather(session.wait(old.id), session.wait(new.id), session.wait(old), session.get(new.id))
        assert [job.id for job in found] == [old.id, new.id, old.id, new.id]
        assert [job.api for job in found] == ["sonar", "agent", "sonar", "agent"]
        assert all(job.ok for job in found[:3])


@pytest.mark.parametrize("api", ["agent", "agent-v1"])
async def test_session_pinned_to_agent_collects_a_sonar_job(api: str) -> None:
    async with emulator() as server:
        async with session_at(server.url, api="sonar-v1") as before:
            old = await before.submit(QUESTIONS[0])
        async with session_at(server.url, api=api) as session:
            assert (await session.wait(old)).ok


async def test_retirement_seen_by_polls_stops_no_pinned_session() -> None:
    events: list[Event] = []
    async with emulator() as server:
        async with session_at(server.url, api="sonar") as before:
            old = await before.submit(QUESTIONS[0])
        server.retire()
        async with session_at(server.url, api="agent", events=events, speed=600.0) as session:
            waiting = asyncio.create_task(session.wait(old))
            found = await program(session)
            lost = await waiting

        assert all(job.ok for job in found)
        assert lost.status is JobStatus.UNREADABLE
        assert isinstance(lost.error, EndpointRetired)
        assert not [event for event in events if event.kind is EventKind.STOPPED]


# --- what has no counterpart ------------------------------------------------------------------------------------------

UNTRANSLATABLE: Mapping[str, object] = {
    "question": "What has no counterpart?",
    "tag": "odd",
    "search_mode": "academic",
    "stop": ["END"],
    "return_images": True,
}


def names_all_three(error: BaseException | None) -> None:
    assert isinstance(error, InvalidRequest)
    assert set(error.field.split(", ")) == {"search_mode", "stop", "return_images"}
    assert all(name in error.message for name in ("search_mode", "stop", "return_images"))
    assert error.tag == "odd"


async def test_untranslatable_question_is_accepted_while_sonar_is_there() -> None:
    async with emulator() as server, session_at(server.url, api="auto") as session:
        assert (await session.ask(UNTRANSLATABLE)).ok
        assert server.ledger.created_by_api == {"sonar": 1}


async def test_untranslatable_question_is_refused_naming_all_its_fields() -> None:
    async with emulator(retired=ERROR_NAMES[0]) as server, session_at(server.url, api="auto") as session:
        found = await taken(session.batch([UNTRANSLATABLE, *QUESTIONS, UNTRANSLATABLE], ordered=True), [])
        refused = [job for job in found if job.tag == "odd"]

        assert [job.status for job in refused] == [JobStatus.REJECTED] * 2
        for job in refused:
            names_all_three(job.error)
        assert [job.ok for job in found[1:-1]] == [True] * len(QUESTIONS)
        made_once(server)


@pytest.mark.parametrize("known", [False, True], ids=("finding-out", "knowing"))
async def test_single_call_raises_for_an_untranslatable_question(known: bool) -> None:
    async with emulator(retired=ERROR_NAMES[0]) as server, session_at(server.url, api="auto") as session:
        if known:
            await session.ask(QUESTIONS[0])
        for call in (session.ask, session.submit):
            with pytest.raises(InvalidRequest) as raised:
                await call(UNTRANSLATABLE)
            names_all_three(raised.value)

        assert server.ledger.requests[PATHS["agent"]] == known
        assert server.ledger.created == known


# --- requests in the successor's own words ----------------------------------------------------------------------------

NATIVE = AgentRequest("Why?", effort="low", metadata={"mine": "yes"}, tag="native", idempotency_key="my-own")


@pytest.mark.parametrize("api", ["agent", "agent-v1", "auto"])
@pytest.mark.parametrize(
    "form", [NATIVE, {"input": "Why?", "effort": "low", "tag": "native"}], ids=("value", "mapping")
)
async def test_agent_request_goes_to_the_agent_api(api: str, form: Any) -> None:
    async with emulator() as server, session_at(server.url, api=api) as session:
        jobs = [
            await session.ask(form),
            await session.wait(await session.submit(form, tag="other")),
            *await taken(session.batch([form, QUESTIONS[0]], ordered=True), []),
        ]

        assert all(job.ok for job in jobs)
        assert [job.tag for job in jobs] == ["native", "other", "native", None]
        assert [job.api for job in jobs[:3]] == ["agent"] * 3
        assert jobs[3].api == ("sonar" if api == "auto" else "agent")
        natives = [json.loads(job.body) for job in server.ledger.jobs if b'"Why?"' in job.body]
        assert [body["effort"] for body in natives] == ["low"] * 3


@pytest.mark.parametrize("api", ["sonar", "sonar-v1"])
@pytest.mark.parametrize("form", [NATIVE, {"input": "Why?", "tag": "native"}], ids=("value", "mapping"))
async def test_agent_request_is_refused_where_only_sonar_is_spoken(api: str, form: Any) -> None:
    async with emulator() as server, session_at(server.url, api=api) as session:
        with pytest.raises(InvalidRequest, match="Agent API"):
            await session.ask(form)
        found = await taken(session.batch([form, QUESTIONS[0]], ordered=True), [])

        assert [job.status for job in found] == [JobStatus.REJECTED, JobStatus.COMPLETED]
        assert found[0].tag == "native"
        assert isinstance(found[0].error, InvalidRequest)
        assert server.ledger.created == 1


async def test_keywords_beside_an_agent_request_apply_or_are_refused() -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        with pytest.raises(InvalidRequest, match="in the AgentRequest"):
            await session.ask(NATIVE, max_steps=3)
        job = await session.ask(NATIVE, tag=5, idempotency_key="beside")

        assert (job.tag, job.idempotency_key) == (5, "beside")
        assert server.ledger.created == 1


# --- no key there, so other promises ----------------------------------------------------------------------------------


async def test_no_question_is_created_twice_despite_lost_answers() -> None:
    questions = tuple(f"Question number {n}?" for n in range(60))
    async with emulator(seed=11) as server, session_at(server.url, api="agent") as session:
        lost = server.faults.add("submit", faults.Drop(after_accept=True), rate=0.3)
        found = await program(session, questions)

        doubtful = [job for job in found if not job.ok]
        assert 5 < lost.hits == len(doubtful)
        assert {job.status for job in doubtful} == {JobStatus.IN_DOUBT}
        for job in doubtful:
            assert isinstance(job.error, InDoubt)
            assert job.error.is_in_doubt
            assert job.idempotency_key == job.error.idempotency_key != ""
            assert job.tag is not None
            assert job.attempts == 1
            assert job.error.remedy == job.error.look_in == ""
        assert len({job.idempotency_key for job in found}) == len(questions)
        made_once(server, questions)


LOST: dict[str, faults.Fault] = {
    name: faults.NAMED[name]
    for name in (
        "accept_then_500",
        "accept_then_502_html",
        "accept_then_504_html",
        "accept_then_524_html",
        "accept_then_drop",
        "accept_then_reset",
        "truncated",
        "html",
        "empty",
        "id_missing",
        "list",
    )
}


@pytest.mark.parametrize("name", LOST)
async def test_create_without_a_usable_answer_is_sent_once(name: str) -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        server.faults.add("submit", LOST[name], match="unlucky")
        found = await taken(session.batch(["The unlucky one?", *QUESTIONS], ordered=True), [])

        assert found[0].status is JobStatus.IN_DOUBT
        assert found[0].attempts == 1
        assert found[0].idempotency_key
        assert [job.ok for job in found[1:]] == [True] * len(QUESTIONS)
        made_once(server, ("The unlucky one?", *QUESTIONS))


async def test_resent_create_is_bounded_and_each_attempt_reported() -> None:
    events: list[Event] = []
    retry = RetryPolicy(doubt_tries=4)
    async with (
        emulator() as server,
        session_at(server.url, api="agent", on_doubt="resend", retry=retry, events=events) as session,
    ):
        bodies = recorded(server, "submit", "sink")
        server.faults.add("submit", faults.Drop(after_accept=True))
        job = await session.ask(QUESTIONS[0])

        assert job.status is JobStatus.IN_DOUBT
        assert job.attempts == 4 == len(bodies)
        assert len(set(bodies)) == 1
        said = [event for event in events if event.kind is EventKind.WARNING and "two bills" in event.reason]
        assert len(said) == 3
        assert {event.idempotency_key for event in said} == {job.idempotency_key}


async def test_create_resent_by_the_users_choice_finishes() -> None:
    async with emulator() as server, session_at(server.url, api="agent", on_doubt="resend") as session:
        server.faults.add("submit", faults.Drop(after_accept=True), times=2)
        job = await session.ask(QUESTIONS[0])

        assert job.ok
        assert job.attempts == 3 == server.ledger.created


async def test_hold_is_for_an_api_with_keys_too() -> None:
    async with emulator() as server, session_at(server.url, api="sonar", on_doubt="hold") as session:
        server.faults.add("submit", faults.Drop(after_accept=True), times=1)
        job = await session.ask(QUESTIONS[0])

        assert job.status is JobStatus.IN_DOUBT
        assert job.attempts == 1


REFUSALS: dict[str, faults.Fault] = {
    name: faults.NAMED[name] for name in ("rate_limited", "rate_limited_1", "rate_limited_headers", "too_early")
} | {"unavailable_retry_after": faults.NAMED["unavailable_retry_after"]}


@pytest.mark.parametrize("name", REFUSALS)
async def test_plainly_throttled_create_is_sent_again(name: str) -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        server.faults.add("submit", REFUSALS[name], times=2)
        job = await session.ask(QUESTIONS[0])

        assert job.ok
        assert job.attempts == 3
        assert server.ledger.created == 1


async def test_unsent_create_is_sent_when_the_server_is_back() -> None:
    told = Told()
    server = emulator()
    async with session_at("http://127.0.0.1:1", api="agent", retry=RetryPolicy(first_contact_tries=2)) as nowhere:
        with pytest.raises(TransportError, match="nothing was sent"):
            await nowhere.ask(QUESTIONS[0])

    await server.start()
    async with session_at(server.url, api="agent", on_event=told) as session:
        assert (await session.ask(QUESTIONS[0])).ok
        await server.close()
        asking = asyncio.create_task(session.ask(QUESTIONS[1]))
        await told.first(EventKind.RETRYING)
        await server.start()
        job = await asking
    await server.close()

    assert job.ok
    assert job.attempts > 1
    assert {event.fault for event in told.of(EventKind.RETRYING)} == {"N"}
    made_once(server, QUESTIONS[:2])


async def test_finally_refused_create_is_rejected_in_the_servers_words() -> None:
    refusal = faults.Status(400, type="invalid_request", message="`models` takes at most 5")
    async with emulator() as server, session_at(server.url, api="agent") as session:
        server.faults.add("submit", refusal)
        job = await session.ask(QUESTIONS[0])

        assert job.status is JobStatus.REJECTED
        assert job.attempts == 1
        assert "at most 5" in str(job.error)


# --- the server's own count -------------------------------------------------------------------------------------------


async def test_no_request_leaves_while_a_429_says_none_remain() -> None:
    speed = 300.0
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url, api="agent", speed=speed) as session:
        server.faults.add("submit", faults.RateLimited(limit=50, reset_in=20.0), times=1, after=3)
        # One at a time: nothing is on its way when the refusal comes.
        found = await taken(session.batch(QUESTIONS, max_in_flight=1), [])
        log = list(server.ledger.log)
        throttled = next(i for i, request in enumerate(log) if request.status == 429)

        assert [job.ok for job in found] == [True] * len(QUESTIONS)
        assert (log[throttled + 1].at - log[throttled].at) * speed >= 19.0


async def test_no_request_leaves_after_an_answer_says_none_remain() -> None:
    speed = 100.0
    when = 1_800_000_000
    spent = (
        ("Date", "Fri, 15 Jan 2027 08:00:00 GMT"),
        ("x-ratelimit-limit", "1"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", str(when + 50)),
    )
    run = b'{"id":"resp_d60f3e03-57e0-4048-994f-69b29a6d2ce%d","object":"response","status":"queued","output":[]}'
    asked: list[float] = []

    def answer(_: wire.WireRequest) -> wire.Behaviour:
        asked.append(asyncio.get_running_loop().time())
        return wire.Say(body=run % len(asked), headers=spent if len(asked) == 1 else ())

    async with WireServer(answer) as server, session_at(server.url, api="agent", speed=speed) as session:
        await session.submit(QUESTIONS[0])
        await session.submit(QUESTIONS[1])

    assert len(asked) == 2
    assert (asked[1] - asked[0]) * speed >= 49.0


@pytest.mark.parametrize("tier", [0, 1])
async def test_run_within_its_tiers_rate_is_rarely_refused(tier: int) -> None:
    speed = 120.0
    async with (
        emulator(tier=tier, time_scale=speed, duration=20.0) as server,
        session_at(server.url, api="agent", speed=speed, poll=PollPolicy.fixed(30)) as session,
    ):
        found = await program(session)

        assert all(job.ok for job in found)
        made_once(server)


async def test_single_create_hears_of_a_silence_beyond_its_patience() -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        server.faults.add("submit", faults.RateLimited(retry_after="3000"), times=1)
        job = await session.ask(QUESTIONS[0])

        assert job.status is JobStatus.REJECTED
        assert isinstance(job.error, RateLimited)
        assert server.ledger.created == 0


# --- with a journal ---------------------------------------------------------------------------------------------------


async def test_later_run_collects_jobs_of_both_apis() -> None:
    journal = MemoryJournal(now=time.time)
    async with emulator(duration=AfterPolls(3)) as server:
        async with session_at(server.url, api="auto", journal=journal) as session:
            old = await session.submit(QUESTIONS[0], tag="old")
            server.retire(readable=True)
            new = await session.submit(QUESTIONS[1], tag="new")
        async with session_at(server.url, api="auto", journal=journal) as session:
            items = [{"question": QUESTIONS[0], "tag": "old"}, {"question": QUESTIONS[1], "tag": "new"}]
            found = await taken(session.batch(items, ordered=True), [])

        assert [job.id for job in found] == [old.id, new.id]
        assert [job.api for job in found] == ["sonar", "agent"]
        assert [job.ok for job in found] == [True, True]
        made_once(server, QUESTIONS[:2])


async def test_submission_in_doubt_from_an_earlier_run_stays() -> None:
    journal = MemoryJournal(now=time.time)
    quick = RetryPolicy(doubt_tries=1)
    async with emulator() as server:
        server.faults.add("submit", faults.Drop(after_accept=True), times=1)
        async with session_at(server.url, api="auto", journal=journal, retry=quick) as session:
            first = await session.ask(QUESTIONS[0], tag="mine")
        server.retire()
        async with session_at(server.url, api="auto", journal=journal) as session:
            finding_out = await session.ask(QUESTIONS[0], tag="mine")
            other = await session.ask(QUESTIONS[1])
            knowing = await session.ask(QUESTIONS[0], tag="mine")
            listed = await session.in_doubt()

        assert {job.status for job in (first, finding_out, knowing)} == {JobStatus.IN_DOUBT}
        assert [job.idempotency_key for job in listed] == [first.idempotency_key]
        assert other.ok
        made_once(server, QUESTIONS[:2])


async def test_resubmitting_to_a_retired_api_is_refused_and_harmless() -> None:
    journal = MemoryJournal(now=time.time)
    async with emulator() as server:
        server.faults.add("submit", faults.Drop(after_accept=True), times=1)
        async with session_at(server.url, api="auto", journal=journal, on_doubt="hold") as session:
            doubtful = await session.ask(QUESTIONS[0])
            server.retire()
            with pytest.raises(EndpointRetired):
                await session.resubmit(doubtful, pay_again=True)
            other = await session.ask(QUESTIONS[1])
            again = await session.ask(QUESTIONS[0])

        assert doubtful.status is JobStatus.IN_DOUBT
        assert other.ok
        assert again.ok
        assert again.api == "agent"
        assert server.ledger.created_by_api == {"sonar": 1, "agent": 2}


async def test_journaled_answer_is_found_though_its_api_is_retired() -> None:
    journal = MemoryJournal(now=time.time)
    async with emulator() as server:
        async with session_at(server.url, api="auto", journal=journal) as session:
            assert (await session.ask(UNTRANSLATABLE)).ok
        server.retire()
        async with session_at(server.url, api="auto", journal=journal) as session:
            await session.ask(QUESTIONS[0])
            again = await session.ask(UNTRANSLATABLE)

        assert again.ok
        assert again.api == "sonar"
        assert server.ledger.created == 2


async def test_users_own_key_moves_with_its_question() -> None:
    async with emulator(retired=ERROR_NAMES[0]) as server, session_at(server.url, api="auto") as session:
        job = await session.ask(QUESTIONS[0], idempotency_key="my-own-key")

        assert job.idempotency_key == "my-own-key"
        assert job.ok
        assert server.ledger.created == 1


async def test_environment_pins_an_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOPPLX_API", "agent-v1")
    async with emulator() as server:
        async with Session(KEY, base_url=server.url, poll=PollPolicy.fixed(0.01)) as session:
            assert (await session.ask(QUESTIONS[0])).ok
        assert server.ledger.requests[PATHS["agent-v1"]] == 1
