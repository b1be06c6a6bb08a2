"""What a server can do wrong with a submission, and what the user sees of it (docs/reliability.md, "Submitting").

Every test checks what the user gets, what the server saw, and that nothing else was harmed.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from _faulty import (
    ENOUGH,
    KEY,
    OTHERS,
    SPEED,
    VICTIM,
    Outcome,
    emulator,
    nothing_else_was_harmed,
    recorded,
    session_at,
    taken,
    under,
)

from aiopplx import (
    AiopplxError,
    APIError,
    AuthenticationError,
    EndpointRetired,
    Event,
    EventKind,
    InDoubt,
    Job,
    JobStatus,
    NotFound,
    OutOfCredit,
    ProtocolError,
    RateLimited,
    RetryPolicy,
)
from aiopplx.emulator import AfterPolls, Emulator, WireServer, faults, wire

NAMED = faults.NAMED


def sent_the_same_bytes_under_one_key(outcome: Outcome) -> None:
    assert len(set(outcome.bodies)) == 1
    assert json.loads(outcome.bodies[0])["idempotency_key"] == outcome.victim.idempotency_key
    assert len(outcome.bodies) == outcome.victim.attempts


# --- in doubt ---------------------------------------------------------------------------------------------------------

LOST_ANSWERS: dict[str, faults.Fault] = {
    **{
        name: NAMED[name]
        for name in (
            "accept_then_drop",
            "accept_then_reset",
            "accept_then_500",
            "accept_then_502_html",
            "accept_then_504_html",
            "accept_then_524_html",
            "drop",
            "reset",
            "internal_error",
            "internal_error_html",
            "internal_error_empty",
            "bad_gateway_html",
            "unavailable",
            "unknown_error_html",
            "error_text",
            "error_bare",
            "request_timeout",
            "conflict",
            "huge",
            "bomb",
            "endless",
            "html",
            "empty",
            "scalar",
            "null",
            "array",
            "truncated",
            "trailing",
            "deep",
            "undeclared_gzip",
            "id_null",
            "id_missing",
            "id_number",
            "list",
        )
    },
    "accept_then_503": faults.Status(503, after_accept=True),
    "accept_then_408": faults.Status(408, after_accept=True),
    "accept_then_204": faults.Status(204, body="", after_accept=True),
}


@pytest.mark.parametrize("name", LOST_ANSWERS)
async def test_submission_with_a_lost_answer_is_paid_once(name: str) -> None:
    outcome = await under(LOST_ANSWERS[name], times=2)

    assert outcome.victim.ok
    assert outcome.victim.attempts == 3
    assert outcome.created == 1
    assert outcome.faults == {"D"}
    sent_the_same_bytes_under_one_key(outcome)
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("name", ["accept_then_hang", "hang"])
async def test_unanswered_submission_is_resent_and_paid_once(name: str) -> None:
    outcome = await under(NAMED[name], times=2, submit_seconds=ENOUGH)

    # Three attempts, and one more wherever a busy machine gave up a good one, sent (D) or not yet (N).
    assert outcome.victim.ok
    assert outcome.victim.attempts >= len(outcome.bodies) >= 3
    assert outcome.created == 1
    assert {"D"} <= outcome.faults <= {"D", "N"}
    assert len(set(outcome.bodies)) == 1
    assert json.loads(outcome.bodies[0])["idempotency_key"] == outcome.victim.idempotency_key
    nothing_else_was_harmed(outcome, in_one_attempt=False)


FOR_EVER = (
    "accept_then_drop",
    "accept_then_500",
    "accept_then_504_html",
    "html",
    "truncated",
    "id_missing",
    "id_null",
    "list",
    "conflict",
    "huge",
)


@pytest.mark.parametrize("name", FOR_EVER)
async def test_answers_that_stay_lost_end_in_doubt(name: str) -> None:
    outcome = await under(NAMED[name])
    job, error = outcome.victim, outcome.victim.error

    assert job.status is JobStatus.IN_DOUBT
    assert isinstance(error, InDoubt)
    assert error.is_in_doubt
    assert job.id == error.job_id == ""
    assert error.idempotency_key == job.idempotency_key
    assert error.idempotency_key in str(error)
    assert "may exist and be billed" in error.message
    assert "session.list()" in error.remedy
    assert job.attempts == error.attempts == RetryPolicy().doubt_tries
    assert outcome.created <= 1
    sent_the_same_bytes_under_one_key(outcome)
    nothing_else_was_harmed(outcome)


async def test_unusable_answer_is_kept_for_inspection() -> None:
    outcome = await under(NAMED["id_missing"])

    assert outcome.victim.error is not None
    assert '"status":"CREATED"' in outcome.victim.error.body
    assert len(outcome.victim.error.body) <= 4096


async def test_doubt_is_bounded_in_time_too() -> None:
    outcome = await under(NAMED["accept_then_500"], retry=RetryPolicy(doubt_tries=1000, doubt_seconds=60.0))

    assert outcome.victim.status is JobStatus.IN_DOUBT
    assert 1 < outcome.victim.attempts < 40
    assert outcome.created == 1
    nothing_else_was_harmed(outcome)


async def test_one_doubt_try_never_pays_twice_without_keys() -> None:
    outcome = await under(NAMED["accept_then_drop"], retry=RetryPolicy(doubt_tries=1), idempotency="ignore")

    assert outcome.victim.status is JobStatus.IN_DOUBT
    assert outcome.created == 1
    assert len(outcome.bodies) == 1
    nothing_else_was_harmed(outcome)


async def test_server_that_rejects_a_repeated_key_leaves_doubt() -> None:
    outcome = await under(NAMED["accept_then_drop"], times=1, idempotency="reject")

    assert outcome.victim.status is JobStatus.IN_DOUBT
    assert outcome.created == 1
    assert outcome.victim.error is not None
    assert outcome.victim.error.status == 409
    nothing_else_was_harmed(outcome)


async def test_deadline_ends_a_doubtful_submission_in_doubt() -> None:
    outcome = await under(NAMED["accept_then_drop"], retry=RetryPolicy(doubt_tries=10_000), timeout=20.0)

    assert outcome.victim.status is JobStatus.IN_DOUBT
    assert outcome.created == 1
    sent_the_same_bytes_under_one_key(outcome)


async def test_refusal_after_a_lost_answer_is_still_doubt() -> None:
    def then_refuse(server: Emulator) -> None:
        server.faults.add("submit", faults.Status(410), match=VICTIM)

    outcome = await under(NAMED["accept_then_drop"], times=1, setup=then_refuse)

    assert outcome.victim.status is JobStatus.IN_DOUBT
    assert outcome.victim.attempts == 2
    assert outcome.created == 1
    nothing_else_was_harmed(outcome)


async def test_stop_after_a_lost_answer_is_still_doubt() -> None:
    async with emulator() as server:
        server.faults.add("submit", NAMED["accept_then_drop"], times=1)
        server.faults.add("submit", NAMED["invalid_key"])
        async with session_at(server.url) as session:
            job = await session.ask(VICTIM)

            assert job.status is JobStatus.IN_DOUBT
            assert server.ledger.created_by_key[job.idempotency_key] == 1


async def test_second_key_with_the_same_id_is_in_doubt() -> None:
    async with emulator() as server, session_at(server.url) as session:
        first = await session.submit(OTHERS[0])
        server.faults.add("submit", faults.Corrupt("duplicate_id"))
        second = await session.ask(VICTIM)

        assert second.status is JobStatus.IN_DOUBT
        assert second.error is not None
        assert first.idempotency_key in second.error.message
        assert second.idempotency_key == second.error.idempotency_key != first.idempotency_key
        found = await session.wait(first.id)
        assert found.ok
        assert found.idempotency_key == first.idempotency_key


async def test_job_unknown_after_acceptance_expires_and_is_not_resubmitted() -> None:
    outcome = await under(NAMED["other_job"], retry=RetryPolicy())

    assert outcome.victim.status is JobStatus.EXPIRED
    assert len(outcome.bodies) == 1
    assert outcome.created == 1
    nothing_else_was_harmed(outcome)


# --- harmless oddities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "bom",
        "invalid_utf8",
        "not_a_number",
        "wrong_content_type",
        "unknown_fields",
        "queued",
        "cancelled",
        "lower_case",
    ],
)
async def test_odd_but_readable_answer_is_read_at_once(name: str) -> None:
    outcome = await under(NAMED[name])

    assert outcome.victim.ok
    assert outcome.victim.attempts == 1
    nothing_else_was_harmed(outcome)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 405, 406, 407, 410, 411, 413, 415, 418, 422, 426, 431, 451])
async def test_refusal_rejects_one_job_at_once_and_no_other(status: int) -> None:
    outcome = await under(faults.Status(status))
    error = outcome.victim.error

    assert outcome.victim.status is JobStatus.REJECTED
    assert isinstance(error, NotFound if status == 404 else APIError)
    assert error.status == status
    assert not error.is_in_doubt
    assert error.idempotency_key == outcome.victim.idempotency_key
    assert error.request_id
    assert len(outcome.bodies) == 1
    assert outcome.created == 0
    nothing_else_was_harmed(outcome)


async def test_refusal_quotes_the_server_in_terminal_safe_words() -> None:
    outcome = await under(faults.Status(400, type="invalid_model", message="No \x1b[31mmodel\x07\u202e. " + "x" * 4000))
    error = outcome.victim.error

    assert error is not None
    assert error.type == "invalid_model"
    assert error.message.startswith("No [31mmodel")
    assert error.message.isprintable()
    assert len(error.message) <= 500


async def test_validation_error_names_the_field_and_not_the_question() -> None:
    row = {"loc": ["body", "request", "model"], "msg": "Field required", "type": "missing", "input": VICTIM}
    outcome = await under(faults.Status(422, body=json.dumps({"detail": [row]})))

    assert outcome.victim.status is JobStatus.REJECTED
    assert "body.request.model: Field required" in str(outcome.victim.error)
    assert VICTIM not in repr(vars(outcome.victim.error))


async def test_key_used_by_another_request_is_rejected_at_once() -> None:
    async with emulator() as server, session_at(server.url) as session:
        first = await session.ask(OTHERS[0], idempotency_key="my-own-key-1")
        second = await session.ask(VICTIM, idempotency_key="my-own-key-1")

        assert first.ok
        assert second.status is JobStatus.REJECTED
        assert second.error is not None
        assert second.error.status == 409
        assert second.attempts == 1
        assert server.ledger.created == 1


async def test_redirect_is_not_followed_and_its_host_is_named() -> None:
    async with WireServer([wire.Say()]) as elsewhere:
        outcome = await under(faults.Redirect(f"{elsewhere.url}/elsewhere"))
        error = outcome.victim.error

        assert outcome.victim.status is JobStatus.REJECTED
        assert isinstance(error, ProtocolError)
        assert f"127.0.0.1:{elsewhere.port}" in error.message
        assert error.remedy == "Check base_url"
        assert elsewhere.requests == []
        assert outcome.created == 0
        assert outcome.victim.attempts == RetryPolicy().call_tries
        nothing_else_was_harmed(outcome)


async def test_passing_redirect_costs_nothing() -> None:
    outcome = await under(NAMED["redirect"], times=2)

    assert outcome.victim.ok
    assert outcome.created == 1
    nothing_else_was_harmed(outcome)


# --- throttled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rate_limited", "rate_limited_html", "too_early", "unavailable_retry_after"])
async def test_throttled_submission_waits_and_is_accepted_in_the_end(name: str) -> None:
    outcome = await under(NAMED[name], times=2, speed=600.0)

    assert outcome.victim.ok
    assert outcome.faults == {"T"}
    assert outcome.created == 1
    sent_the_same_bytes_under_one_key(outcome)
    nothing_else_was_harmed(outcome)


async def silence_after(answer: faults.Fault, *, speed: float, advance: float = 0.0) -> tuple[float, float]:
    """(seconds from a throttling answer to the first of many requests after it, seconds that the client announced)."""
    events: list[Event] = []
    async with (
        emulator(duration=AfterPolls(1)) as server,
        session_at(server.url, events=events, speed=speed) as session,
    ):
        server.advance(advance)
        await session.ask(OTHERS[0])
        server.faults.add("submit", answer, times=1)
        async with session.batch([VICTIM, *OTHERS], max_in_flight=1) as jobs:
            found = [job async for job in jobs]
        assert [job.ok for job in found] == [True] * 4
        throttled = next(i for i, request in enumerate(server.ledger.log) if request.status in (429, 503))
        log = list(server.ledger.log)
        paused = [event.delay for event in events if event.kind is EventKind.PAUSED]
        return (log[throttled + 1].at - log[throttled].at) * speed, sum(paused)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (faults.RateLimited(retry_after="30"), 30.0),
        (faults.RateLimited(retry_after="120"), 120.0),
        (faults.RateLimited(retry_after="7.5"), 7.5),
        (faults.RateLimited(retry_after="30", status=503), 30.0),
        (faults.RateLimited(retry_at=45.0), 44.0),
        (faults.RateLimited(limit=50, reset_in=20.0), 19.0),
    ],
    ids=("seconds", "many-seconds", "fraction", "503", "date", "reset"),
)
async def test_no_request_leaves_inside_a_window_of_silence(answer: faults.Fault, seconds: float) -> None:
    waited, announced = await silence_after(answer, speed=600.0)

    assert waited >= seconds
    assert announced >= seconds


async def test_retry_after_date_is_read_by_the_servers_clock() -> None:
    waited, _ = await silence_after(faults.RateLimited(retry_at=45.0), speed=SPEED, advance=86_400.0)

    assert 44.0 <= waited < 3600.0


@pytest.mark.parametrize(
    "form",
    [form for form in faults.RETRY_AFTER_FORMS if not form.replace(".", "").isdecimal() and "9999" not in form]
    + ["Fri, 31 Dec 99999 23:59:59 GMT"],
)
async def test_absurd_retry_after_counts_as_none(form: str) -> None:
    outcome = await under(faults.RateLimited(retry_after=form), times=1, speed=600.0)

    assert outcome.victim.ok
    assert outcome.created == 1
    nothing_else_was_harmed(outcome)


async def test_silence_holds_for_every_kind_of_request() -> None:
    events: list[Event] = []
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url, events=events) as session:
        running = await session.submit(OTHERS[0])
        server.faults.add("submit", faults.RateLimited(retry_after="60"), times=1)
        throttled = await session.ask(VICTIM)
        log = list(server.ledger.log)
        at = next(request.at for request in log if request.status == 429)
        others = [await session.wait(running.id), *await session.list()]

        assert throttled.ok
        assert others
        assert min(request.at for request in server.ledger.log if request.at > at) - at >= 60.0 / SPEED


async def test_call_does_not_wait_beyond_its_patience() -> None:
    async with emulator() as server, session_at(server.url) as session:
        server.faults.add("submit", faults.RateLimited(retry_after="3000"), times=1)
        job = await session.ask(VICTIM)

        assert job.status is JobStatus.REJECTED
        assert isinstance(job.error, RateLimited)
        assert job.error.retry_after == 3000.0
        assert job.attempts == 1
        assert server.ledger.created == 0


async def test_call_during_a_long_silence_fails_at_once() -> None:
    async with emulator() as server, session_at(server.url) as session:
        server.faults.add("submit", faults.RateLimited(retry_after="3000"), times=1)
        await session.ask(VICTIM)
        job = await session.ask(OTHERS[0])

        assert job.status is JobStatus.REJECTED
        assert isinstance(job.error, RateLimited)
        assert job.error.retry_after is not None
        assert job.error.retry_after > 1000.0
        assert job.attempts == 0
        assert server.ledger.requests.total() == 1


async def test_call_behind_a_slow_batch_keeps_its_own_limit() -> None:
    submitted = asyncio.Event()
    async with (
        emulator() as server,
        session_at(server.url, rpm=0.02, on_event=lambda _: submitted.set()) as session,
        session.batch([VICTIM, *OTHERS]),
    ):
        await submitted.wait()
        job = await session.ask("Who may not wait?", timeout=10.0)

        assert job.status is JobStatus.REJECTED
        assert isinstance(job.error, RateLimited)
        assert job.attempts == 0
        assert server.ledger.created == 1


@pytest.mark.parametrize("form", ["90000", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_batch_does_not_wait_for_silences_beyond_its_jobs(form: str) -> None:
    async with emulator(log_size=100) as server, session_at(server.url, timeout=3600.0) as session:
        server.faults.add("submit", faults.RateLimited(retry_after=form), times=1)
        async with session.batch([VICTIM, *OTHERS], max_in_flight=1) as jobs:
            found = [job async for job in jobs]

        assert {job.status for job in found} == {JobStatus.REJECTED}
        assert all(isinstance(job.error, RateLimited) for job in found)
        assert server.ledger.requests.total() == 1
        assert server.ledger.created == 0


async def test_first_in_line_does_not_outwait_its_limit() -> None:
    async with emulator() as server, session_at(server.url, rpm=1.0, timeout=600.0, speed=1200.0) as session:
        server.faults.add("get", faults.RateLimited(retry_after="90000"))
        found = await taken(session.batch([VICTIM, *OTHERS], max_in_flight=2), [])

    # Two where the machine was so busy that another minute had passed before the silence began.
    assert server.ledger.created in (1, 2)
    assert [job.status for job in found].count(JobStatus.REJECTED) == 4 - server.ledger.created
    assert all(isinstance(job.error, RateLimited) for job in found if not job.id)


async def test_batch_waits_through_a_silence_that_its_jobs_outlast() -> None:
    async with emulator() as server, session_at(server.url, speed=1200.0) as session:
        server.faults.add("submit", faults.RateLimited(retry_after="1000"), times=1)
        async with session.batch([VICTIM, *OTHERS]) as jobs:
            found = [job async for job in jobs]

        assert [job.ok for job in found] == [True] * 4
        assert server.ledger.created == 4


# --- what no submission survives --------------------------------------------------------------------------------------

STOPS: dict[str, tuple[faults.Fault, type[AiopplxError], str]] = {
    "invalid_key": (NAMED["invalid_key"], AuthenticationError, "PERPLEXITY_API_KEY"),
    "invalid_key_html": (NAMED["invalid_key_html"], AuthenticationError, "PERPLEXITY_API_KEY"),
    "forbidden": (NAMED["forbidden"], AuthenticationError, "PERPLEXITY_API_KEY"),
    "out_of_credit": (NAMED["out_of_credit"], OutOfCredit, "add credit"),
    "payment_required": (NAMED["payment_required"], OutOfCredit, "add credit"),
    "retired": (NAMED["retired"], EndpointRetired, "Agent API"),
    "migration_required": (NAMED["migration_required"], EndpointRetired, "Agent API"),
}


@pytest.mark.parametrize("name", STOPS)
async def test_stop_ends_submissions_and_delivers_accepted_jobs(name: str) -> None:
    fault, kind, advice = STOPS[name]
    events: list[Event] = []
    found: list[Job] = []
    async with emulator() as server:
        server.faults.add("submit", fault, after=50)
        async with session_at(server.url, events=events) as session:
            with pytest.raises(kind, match=advice) as raised:
                await taken(session.batch(f"Question {n}?" for n in range(1000)), found)

        submissions = [request for request in server.ledger.log if request.on == "submit"]
        assert len(submissions) <= 50 + 16
        assert sum(job.ok for job in found) == server.ledger.created == 50
        assert {job.status for job in found if not job.ok} <= {JobStatus.STOPPED}
        assert len({job.index for job in found}) == len(found)
        assert raised.value.status in (401, 402, 403)
        stops = [event for event in events if event.kind is EventKind.STOPPED]
        assert len(stops) == 1
        assert advice in stops[0].reason


@pytest.mark.parametrize("name", STOPS)
async def test_stop_reaches_single_calls_as_their_own_exception(name: str) -> None:
    fault, kind, advice = STOPS[name]
    # So slow that the half minute in which nothing is tried outlasts a busy machine.
    async with emulator() as server, session_at(server.url, speed=5.0) as session:
        server.faults.add("submit", fault)
        with pytest.raises(kind, match=advice) as first:
            await session.ask(VICTIM)
        with pytest.raises(kind) as second:
            await session.submit(OTHERS[0])

        assert first.value is not second.value
        assert first.value.idempotency_key != second.value.idempotency_key
        assert server.ledger.requests.total() == 1
        assert server.ledger.created == 0


async def test_submissions_continue_after_a_top_up_and_pay_once() -> None:
    async with emulator() as server, session_at(server.url) as session:
        server.credits = 0.0
        with pytest.raises(OutOfCredit):
            await session.ask(VICTIM, idempotency_key="one-key")
        server.credits = None
        session.resume()
        job = await session.ask(VICTIM, idempotency_key="one-key")

        assert job.ok
        assert server.ledger.created_by_key == {"one-key": 1}


async def test_submissions_resume_by_themselves_after_half_a_minute() -> None:
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url, speed=120.0) as session:
        bodies = recorded(server, "submit")
        running = await session.submit(OTHERS[0])
        server.faults.add("submit", NAMED["out_of_credit"], times=1)
        server.faults.add("get", faults.Delay(45.0 / 120.0), times=1)
        with pytest.raises(OutOfCredit):
            await session.ask(VICTIM)
        assert (await session.wait(running.id)).ok
        job = await session.ask(VICTIM)

        assert job.ok
        assert len(bodies) == 2


async def test_running_jobs_are_collected_when_credit_ends() -> None:
    found: list[Job] = []
    async with emulator(credits=1.0) as server, session_at(server.url) as session:
        with pytest.raises(OutOfCredit):
            await taken(session.batch(f"Question {n}?" for n in range(100)), found)

        assert server.ledger.created > 0
        assert sum(job.ok for job in found) == server.ledger.created


async def test_key_is_sent_as_it_was_given() -> None:
    async with emulator(keys={KEY}) as server, session_at(server.url, api_key=f" {KEY}\n") as session:
        assert (await session.ask(VICTIM)).ok
