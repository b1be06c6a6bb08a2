"""What a server can do wrong with a poll, and what the user sees of it (docs/reliability.md, "Polling").

A failed poll is never a failed job, never causes another submission, and never repeats for ever in silence.
"""

from __future__ import annotations

import pytest
from _faulty import (
    ENOUGH,
    KEY,
    OTHERS,
    VICTIM,
    Outcome,
    emulator,
    nothing_else_was_harmed,
    session_at,
    taken,
    under,
)

from aiopplx import (
    APIError,
    AuthenticationError,
    Event,
    EventKind,
    Job,
    JobExpired,
    JobFailed,
    JobStatus,
    JobTimeout,
    NotFound,
    OutOfCredit,
    PollPolicy,
    ProtocolError,
    RateLimited,
    ResponseTooLarge,
    ResultMissing,
    RetryPolicy,
    TransportError,
)
from aiopplx.emulator import AfterPolls, WireServer, faults, wire

NAMED = faults.NAMED


def submitted_once(outcome: Outcome) -> None:
    assert len(outcome.bodies) == 1
    assert outcome.created == 1
    assert outcome.victim.attempts == 1


# --- polls that fail --------------------------------------------------------------------------------------------------

LOST_POLLS = (
    "drop",
    "reset",
    "hang",
    "internal_error",
    "internal_error_html",
    "internal_error_empty",
    "bad_gateway_html",
    "unavailable",
    "unavailable_retry_after",
    "gateway_timeout_html",
    "unknown_error_html",
    "timeout_html",
    "rate_limited",
    "rate_limited_1",
    "rate_limited_html",
    "request_timeout",
    "bad_request",
    "conflict",
    "too_early",
    "gone",
    "not_found",
    "redirect",
    "html",
    "empty",
    "scalar",
    "null",
    "array",
    "truncated",
    "trailing",
    "deep",
    "undeclared_gzip",
    "id_number",
    "list",
    "other_job",
)


@pytest.mark.parametrize("name", LOST_POLLS)
async def test_failed_poll_is_not_a_failed_job(name: str) -> None:
    hangs = isinstance(NAMED[name], faults.Hang)
    outcome = await under(NAMED[name], "get", times=2, poll_seconds=ENOUGH if hangs else 60.0)

    assert outcome.victim.ok
    assert outcome.victim.polls >= 3
    submitted_once(outcome)
    failed = outcome.told(EventKind.POLL_FAILED)
    told = {event.job_id for event in failed}
    # Where polls have a short limit, a busy machine may have given up a good one.
    assert outcome.victim.id in told if hangs else told == {outcome.victim.id}
    assert all(event.fault for event in failed)
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("name", ["id_null", "id_missing"])
async def test_answer_whose_response_names_the_job_is_read(name: str) -> None:
    """A running job without an id is polled again; the response of a finished one has it too."""
    outcome = await under(NAMED[name], "get")
    assert outcome.victim.ok
    submitted_once(outcome)
    assert {event.job_id for event in outcome.told(EventKind.POLL_FAILED)} <= {outcome.victim.id}
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("name", ["drop", "bad_gateway_html", "unavailable", "rate_limited"])
async def test_polls_that_always_fail_end_at_the_deadline(name: str) -> None:
    outcome = await under(NAMED[name], "get", timeout=300.0, speed=300.0)
    error = outcome.victim.error

    assert outcome.victim.status is JobStatus.TIMED_OUT
    assert isinstance(error, JobTimeout)
    assert isinstance(error, TimeoutError)
    assert error.job_id == outcome.victim.id != ""
    assert error.idempotency_key == outcome.victim.idempotency_key
    assert "goes on, and is billed, at the service" in error.message
    assert "session.wait(job.id)" in error.remedy
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("name", ["html", "truncated", "list", "other_job", "id_number", "gone", "redirect"])
async def test_unreadable_job_is_not_polled_for_ever(name: str) -> None:
    outcome = await under(NAMED[name], "get", speed=300.0)
    error = outcome.victim.error

    assert outcome.victim.status is JobStatus.UNREADABLE
    assert isinstance(error, APIError if name == "gone" else ProtocolError)
    assert error.job_id == outcome.victim.id != ""
    assert error.idempotency_key == outcome.victim.idempotency_key
    assert outcome.victim.polls >= PollPolicy().unreadable_polls
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


async def test_another_jobs_answer_is_never_used_for_this_one() -> None:
    outcome = await under(faults.Corrupt("other_job"), "get", times=3)

    assert outcome.victim.ok
    texts = {job.text for job in (outcome.victim, *outcome.others)}
    assert len(texts) == len({job.id for job in (outcome.victim, *outcome.others)}) == 4
    assert all(json_id(job) == job.id for job in (outcome.victim, *outcome.others))


def json_id(job: Job) -> str:
    """The id inside the completion itself, which the envelope's must equal."""
    assert job.response is not None
    return str(getattr(job.response, "id", ""))


# --- jobs that the server does not know -------------------------------------------------------------------------------


async def test_job_unknown_just_after_it_was_accepted_is_awaited() -> None:
    outcome = await under(NAMED["not_found"], "get", times=3)

    assert outcome.victim.ok
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


async def test_job_that_stays_unknown_expires_and_is_not_resubmitted() -> None:
    outcome = await under(NAMED["not_found"], "get", speed=300.0, missing_grace=PollPolicy().missing_grace)
    error = outcome.victim.error

    assert outcome.victim.status is JobStatus.EXPIRED
    assert isinstance(error, JobExpired)
    assert error.job_id == outcome.victim.id != ""
    assert error.status == 404
    assert "Nothing was submitted again" in error.message
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


async def test_unknown_id_is_asked_for_twice_and_believed() -> None:
    async with emulator() as server, session_at(server.url) as session:
        job = await session.wait("00000000-0000-4000-8000-00000000dead")

        assert job.status is JobStatus.EXPIRED
        assert server.ledger.requests.total() == 2
        with pytest.raises(NotFound):
            await session.get("00000000-0000-4000-8000-00000000dead")


async def test_job_older_than_the_service_keeps_it_expires() -> None:
    async with emulator() as server, session_at(server.url) as session:
        job = await session.submit(VICTIM)
        server.advance(8 * 86_400.0)
        found = await session.wait(job.id)

        assert found.status is JobStatus.EXPIRED
        assert found.idempotency_key == job.idempotency_key
        assert found.error is not None
        assert found.error.idempotency_key == job.idempotency_key
        assert server.ledger.created == 1


# --- what the server says of a job ------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["CANCELLED", "QUEUED", "PENDING_REVIEW", "in_progress", "42"])
async def test_unknown_status_means_poll_again(word: str) -> None:
    outcome = await under(faults.SayStatus(word), "get", times=1)

    assert outcome.victim.ok
    assert outcome.victim.polls == 2
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


async def test_unknown_status_is_warned_of_once_and_finally_reported() -> None:
    outcome = await under(
        faults.SayStatus("CANCELLED"), "get", timeout=60.0, duration=lambda question: 1e6 if question == VICTIM else 0
    )

    assert outcome.victim.status is JobStatus.TIMED_OUT
    assert outcome.victim.server_status == "CANCELLED"
    assert "CANCELLED" in str(outcome.victim.error)
    # The poll at the deadline puts it into the error; there is no other where the machine was busy until then.
    assert len(outcome.told(EventKind.WARNING)) == (outcome.victim.polls > 1)
    submitted_once(outcome)


@pytest.mark.parametrize("name", ["null_response", "no_response", "empty_choices", "null_content"])
async def test_completed_without_an_answer_is_polled_again(name: str) -> None:
    outcome = await under(NAMED[name], "get", times=2)

    assert outcome.victim.ok
    assert outcome.victim.text
    assert outcome.victim.polls == 4
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("name", ["null_response", "no_response", "empty_choices", "null_content"])
async def test_completed_without_an_answer_ends_as_result_missing(name: str) -> None:
    outcome = await under(NAMED[name], "get")
    job, error = outcome.victim, outcome.victim.error

    assert isinstance(error, ResultMissing)
    assert not job.ok
    assert "charged" in error.message
    assert error.job_id == job.id != ""
    assert job.polls == 2 + PollPolicy().empty_polls
    with pytest.raises(ResultMissing):
        job.result()
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("name", ["empty_choices", "null_content"])
async def test_completed_without_an_answer_says_what_was_billed(name: str) -> None:
    outcome = await under(NAMED[name], "get")
    job = outcome.victim
    (record,) = [record for record in outcome.server.ledger.jobs if record.id == job.id]

    assert (job.ok, job.text) == (False, "")
    assert job.usage is not None
    assert job.usage.cost == job.cost == pytest.approx(record.cost)
    assert job.usage.search_queries
    assert job.to_dict()["cost"] == job.cost
    (finished,) = [event for event in outcome.told(EventKind.FINISHED) if event.job_id == job.id]
    assert finished.cost == job.cost


@pytest.mark.parametrize("name", ["null_response", "empty_choices", "null_content"])
async def test_single_poll_at_an_empty_answer_names_its_bill(name: str) -> None:
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url, api="agent") as session:
        server.faults.add("get", NAMED[name])
        job = await session.get((await session.submit(VICTIM)).id)

        assert isinstance(job.error, ResultMissing)
        assert (job.ok, job.text, job.cost) == (False, "", pytest.approx(server.ledger.jobs[0].cost))


async def test_empty_completed_answer_to_a_submission_is_polled_again() -> None:
    empty = CREATED.replace(b"CREATED", b"COMPLETED").replace(
        b'"response":null', b'"response":{"choices":[],"usage":{"cost":{"total_cost":0.25}}}'
    )
    done = empty.replace(b'"choices":[]', b'"choices":[{"message":{"content":"So it is."}}]')
    async with (
        WireServer([wire.Say(body=empty), wire.Say(body=empty), wire.Say(body=done)]) as server,
        session_at(server.url) as session,
    ):
        submitted = await session.submit(VICTIM)
        job = await session.wait(submitted)

        assert (submitted.ok, submitted.error, submitted.status) == (False, None, JobStatus.COMPLETED)
        assert (job.ok, job.text, job.cost, job.polls) == (True, "So it is.", 0.25, 2)
        assert [request.method for request in server.requests] == ["POST", "GET", "GET"]


async def test_failed_job_has_its_reason_and_stops_no_other() -> None:
    outcome = await under(faults.Delay(0.0), failing=lambda question: question == VICTIM)

    assert outcome.victim.status is JobStatus.FAILED
    assert isinstance(outcome.victim.error, JobFailed)
    assert outcome.victim.error.job_id == outcome.victim.id
    assert outcome.victim.error.message
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


@pytest.mark.parametrize("reason", [b"null", b'""', b'"it broke"', b'{"why": ["x"]}', b"7"])
async def test_failed_job_has_a_reason_in_any_form(reason: bytes) -> None:
    failed = CREATED.replace(b'"error_message":null', b'"error_message":' + reason).replace(b"CREATED", b"FAILED")
    async with WireServer([wire.Say(body=CREATED), wire.Say(body=failed)]) as server, session_at(server.url) as session:
        job = await session.ask(VICTIM)

        assert job.status is JobStatus.FAILED
        assert isinstance(job.error, JobFailed)
        assert job.error.message
        assert len(server.requests) == 2


CREATED = (
    b'{"id":"2c387cce-a2a3-4fd6-8757-b77602e7e87c","model":"sonar-deep-research","created_at":1785329708,'
    b'"started_at":null,"completed_at":null,"response":null,"failed_at":null,"error_message":null,"status":"CREATED"}'
)


@pytest.mark.parametrize("moment", [b"-1", b"0", b"null", b"99999999999999", b'"yesterday"', b"1e400", b"NaN"])
async def test_servers_clock_is_shown_and_decides_nothing(moment: bytes) -> None:
    created = CREATED.replace(b"1785329708", moment)
    done = created.replace(b"CREATED", b"COMPLETED").replace(
        b'"response":null',
        b'"response":{"id":"x","choices":[{"message":{"role":"assistant","content":"So it is."}}]}',
    )
    async with (
        WireServer([wire.Say(body=created), wire.Say(body=created), wire.Say(body=done)]) as server,
        session_at(server.url) as session,
    ):
        job = await session.ask(VICTIM)

        assert job.ok
        assert job.text == "So it is."
        assert job.polls == 2
        assert len(server.requests) == 3


async def test_terminal_state_is_final_whatever_comes_later() -> None:
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url) as session:
        job = await session.ask(VICTIM)
        server.faults.add("get", faults.Corrupt("flip"))
        again = await session.wait(job)

        assert job.ok
        assert again is job


async def test_job_that_seems_to_go_back_is_polled_on() -> None:
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url) as session:
        job = await session.submit(VICTIM)
        assert (await session.get(job.id)).ok
        server.faults.add("get", faults.Corrupt("flip"), times=2)
        found = await session.wait(job.id)

        assert found.ok
        assert found.polls == 3
        assert server.ledger.created == 1


# --- large answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "gzip", "endless"])
async def test_oversized_answer_is_dropped_until_the_limit_is_raised(how: str) -> None:
    flood = faults.Flood(how, size=3_000_000)  # type: ignore[arg-type]  # one of its words
    outcome = await under(flood, "get", max_response_bytes=200_000)
    error = outcome.victim.error

    assert outcome.victim.status is JobStatus.UNREADABLE
    assert isinstance(error, ResponseTooLarge)
    assert "200,000 bytes" in error.message
    assert "max_response_bytes" in error.remedy
    assert error.job_id == outcome.victim.id != ""
    assert outcome.victim.polls == 1
    submitted_once(outcome)
    nothing_else_was_harmed(outcome)


async def test_large_answer_below_the_limit_is_read() -> None:
    outcome = await under(faults.Flood("gzip", size=3_000_000), "get", max_response_bytes=4_000_000)

    assert outcome.victim.ok
    nothing_else_was_harmed(outcome)


async def test_bomb_takes_no_memory() -> None:
    before = _resident()
    outcome = await under(faults.Flood("gzip", size=300_000_000), "get", max_response_bytes=1_000_000)

    assert isinstance(outcome.victim.error, ResponseTooLarge)
    assert _resident() - before < 100_000_000


def _resident() -> int:
    """The most memory that this process ever held, in bytes."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- silence ----------------------------------------------------------------------------------------------------------


async def test_throttled_poll_with_a_hint_silences_all_requests() -> None:
    async with emulator(duration=AfterPolls(3)) as server, session_at(server.url, speed=300.0) as session:
        server.faults.add("get", faults.RateLimited(retry_after="90"), times=1)
        async with session.batch([VICTIM]) as first:
            jobs = [job async for job in first]
        at = next(request.at for request in server.ledger.log if request.status == 429)

        assert [job.ok for job in jobs] == [True]
        assert min(request.at for request in server.ledger.log if request.at > at) - at >= 90.0 / 300.0
        assert server.ledger.created == 1


async def test_throttled_poll_without_a_hint_slows_that_job_only() -> None:
    outcome = await under(NAMED["rate_limited"], "get", times=5)

    assert outcome.victim.ok
    assert all(job.polls == 2 for job in outcome.others)
    nothing_else_was_harmed(outcome)


async def test_deadline_inside_a_silence_holds_and_nothing_leaves() -> None:
    async with emulator() as server, session_at(server.url) as session:
        server.faults.add("get", faults.RateLimited(retry_after="6000"))
        job = await session.ask(VICTIM, timeout=30.0)

        assert job.status is JobStatus.TIMED_OUT
        assert "goes on, and is billed" in str(job.error)
        assert server.ledger.requests["GET /async/chat/completions/{id}"] == 1


# --- refused polls ----------------------------------------------------------------------------------------------------


async def test_key_revoked_midway_loses_no_paid_id() -> None:
    found: list[Job] = []
    async with emulator(keys={KEY}, duration=1e6) as server, session_at(server.url) as session:
        batch = session.batch([VICTIM, *OTHERS])
        server.faults.add("get", faults.Delay(0.0), match=lambda _: server.revoke(KEY) is not None)
        with pytest.raises(AuthenticationError, match="pending") as raised:
            await taken(batch, found)

        assert raised.value.status == 401
        left = {job.id for job in batch.pending} | {job.id for job in found if job.id}
        assert left == {record.id for record in server.ledger.jobs}


async def test_refused_poll_ends_the_wait_with_the_jobs_id() -> None:
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url) as session:
        job = await session.submit(VICTIM)
        server.faults.add("get", NAMED["invalid_key"])
        with pytest.raises(AuthenticationError) as raised:
            (await session.wait(job.id)).result()

        assert raised.value.job_id == job.id
        assert raised.value.idempotency_key == job.idempotency_key
        assert server.ledger.requests["GET /async/chat/completions/{id}"] == 1


@pytest.mark.parametrize("name", ["out_of_credit", "invalid_key"])
async def test_no_submission_is_made_while_polls_are_refused(name: str) -> None:
    # So slow that the half minute in which nothing is tried outlasts a busy machine.
    async with emulator() as server, session_at(server.url, speed=5.0) as session:
        running = await session.submit(OTHERS[0])
        server.faults.add("get", NAMED[name])
        with pytest.raises((AuthenticationError, OutOfCredit)):
            await session.get(running.id)
        with pytest.raises((AuthenticationError, OutOfCredit)):
            await session.ask(VICTIM)

        assert server.ledger.created == 1


# --- single polls and lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["drop", "bad_gateway_html", "truncated", "list", "rate_limited", "other_job"])
async def test_single_poll_is_tried_again_within_bounds(name: str) -> None:
    async with emulator(duration=AfterPolls(1)) as server, session_at(server.url) as session:
        job = await session.submit(VICTIM)
        await session.submit(OTHERS[0])
        server.faults.add("get", NAMED[name], times=2)
        assert (await session.get(job.id)).ok

        server.faults.add("get", NAMED[name])
        with pytest.raises((TransportError, ProtocolError, APIError)) as raised:
            await session.get(job.id)
        assert raised.value.attempts == RetryPolicy().call_tries
        assert server.ledger.created == 2


async def test_single_poll_does_not_wait_through_a_long_silence() -> None:
    async with emulator() as server, session_at(server.url) as session:
        job = await session.submit(VICTIM)
        server.faults.add("get", faults.RateLimited(retry_after="3000"), times=1)
        with pytest.raises(RateLimited) as raised:
            await session.get(job.id)
        with pytest.raises(RateLimited):
            await session.list()

        assert raised.value.retry_after == 3000.0
        assert server.ledger.requests.total() == 2


@pytest.mark.parametrize("name", ["drop", "html", "truncated", "bad_gateway_html", "rate_limited_1", "scalar"])
async def test_page_of_the_list_is_asked_for_again(name: str) -> None:
    async with emulator(page_size=2) as server, session_at(server.url) as session:
        for question in (VICTIM, *OTHERS):
            await session.submit(question)
        server.faults.add("list", NAMED[name], times=1, after=1)
        rows = await session.list()

        assert len(rows) == len({row.id for row in rows}) == 4


async def test_one_bad_row_of_the_list_loses_only_itself() -> None:
    events: list[Event] = []
    async with emulator() as server, session_at(server.url, events=events) as session:
        for question in (VICTIM, *OTHERS):
            await session.submit(question)
        server.faults.add("list", NAMED["bad_row"])
        rows = await session.list()

        assert len(rows) == 3
        assert [event.reason for event in events if event.kind is EventKind.WARNING] == [
            "1 rows of the list could not be read"
        ]
