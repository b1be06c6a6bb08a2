"""What the outcome of a poll means: the rule of `Polls` as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import (
    AiopplxError,
    APIError,
    AuthenticationError,
    JobExpired,
    NotFound,
    ProtocolError,
    RateLimited,
    ResponseTooLarge,
    ResultMissing,
    TransportError,
)
from aiopplx._job import JobStatus, Snapshot
from aiopplx._policy.polling import SHORT_RECHECK, Ended, PollPolicy, Polls, is_decisive, is_hopeless
from aiopplx._policy.retry import Again, Fault, RetryPolicy

POLICY, RETRY = PollPolicy(), RetryPolicy()
GONE = NotFound("no such job", status=404)
UNREADABLE = ProtocolError("the server answered with a page of HTML")
RUNNING = Snapshot(id="a", status=JobStatus.IN_PROGRESS, server_status="IN_PROGRESS", model="m")
EMPTY = Snapshot(id="a", status=JobStatus.COMPLETED, server_status="COMPLETED", is_empty=True)


def fresh(since: float = 0.0) -> Polls:
    """Of a job that this session submitted."""
    return Polls(since, is_fresh=True)


def failed(
    polls: Polls,
    error: AiopplxError,
    now: float,
    fault: Fault = Fault.POLL,
    *,
    is_last: bool = False,
    is_survived: bool = False,
    random: float = 0.5,
) -> Again | Ended:
    return polls.failed(POLICY, RETRY, fault, error, now, random, is_last=is_last, is_survived=is_survived)


# --- a poll that could be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", JobStatus)
def test_only_a_final_status_ends_a_job(status: JobStatus):
    snapshot = Snapshot(id="a", status=status, server_status=status.value)
    verdict = fresh().answered(POLICY, snapshot, is_last=False)
    assert isinstance(verdict, Ended) is status.is_final
    assert verdict is None or isinstance(verdict, Again) or verdict.status is status


def test_poll_rule_is_asked_with_the_last_readable_poll():
    polls = fresh(since=100.0)
    assert polls.answered(POLICY, RUNNING, is_last=False) is None
    asked = polls.running(160.0)
    assert (asked.age, asked.polls, asked.status, asked.model) == (60.0, 1, "IN_PROGRESS", "m")


def test_completed_without_an_answer_is_polled_thrice_more():
    polls = fresh()
    verdicts = [polls.answered(POLICY, EMPTY, is_last=False) for _ in range(4)]
    assert verdicts[:3] == [Again(10.0)] * 3
    assert isinstance(verdicts[3], Ended)
    assert isinstance(verdicts[3].error, ResultMissing)


def test_completed_without_an_answer_ends_at_the_last_poll():
    verdict = fresh().answered(POLICY, EMPTY, is_last=True)
    assert isinstance(verdict, Ended)
    assert verdict.status is JobStatus.COMPLETED


# --- a 404 ------------------------------------------------------------------------------------------------------------


def test_missing_job_is_believed_the_second_time():
    polls = fresh()
    assert failed(polls, GONE, 100.0) == Again(POLICY.missing_recheck)
    verdict = failed(polls, GONE, 130.0)
    assert isinstance(verdict, Ended)
    assert verdict.status is JobStatus.EXPIRED
    assert isinstance(verdict.error, JobExpired)


def test_missing_job_is_not_counted_in_its_grace():
    polls = fresh()
    assert all(isinstance(failed(polls, GONE, now), Again) for now in (1.0, 20.0, 59.0))
    assert failed(polls, GONE, 60.0) == Again(POLICY.missing_recheck), "the first that counts"


def test_missing_job_from_elsewhere_has_no_grace():
    polls = Polls(0.0)
    assert failed(polls, GONE, 0.0) == Again(SHORT_RECHECK)
    assert isinstance(failed(polls, GONE, SHORT_RECHECK), Ended)


def test_missing_job_that_is_seen_between_is_asked_anew():
    polls = fresh()
    failed(polls, GONE, 100.0)
    polls.answered(POLICY, RUNNING, is_last=False)
    assert failed(polls, GONE, 140.0) == Again(POLICY.missing_recheck)


def test_missing_job_is_believed_at_the_last_poll():
    assert isinstance(failed(fresh(), GONE, 100.0, is_last=True), Ended)


# --- a refused id -----------------------------------------------------------------------------------------------------

NO_ID = APIError("invalid response id", status=400, type="invalid_request")


@pytest.mark.parametrize("status", [400, 422])
def test_refused_id_of_which_nothing_is_known_is_believed(status: int):
    error = APIError("invalid response id", status=status, type="invalid_request")
    polls = Polls.resumed(0.0, 0.0)
    assert failed(polls, error, 0.0, Fault.REFUSED) == Again(SHORT_RECHECK)
    assert failed(polls, error, SHORT_RECHECK, Fault.REFUSED) == Ended(JobStatus.UNREADABLE, error)


def test_refused_id_is_believed_at_the_last_poll():
    verdict = failed(Polls.resumed(0.0, 0.0), NO_ID, 0.0, Fault.REFUSED, is_last=True)
    assert verdict == Ended(JobStatus.UNREADABLE, NO_ID)


def seen_running() -> Polls:
    polls = Polls.resumed(0.0, 0.0)
    polls.answered(POLICY, RUNNING, is_last=False)
    return polls


KNOWN = {
    "submitted here": lambda: Polls.begun(0.0, 0.0),
    "in the journal": lambda: Polls.resumed(0.0, 0.0, 60.0),
    "seen running": seen_running,
}


@pytest.mark.parametrize("known", KNOWN)
def test_refused_id_of_a_known_job_is_polled_on(known: str):
    polls = KNOWN[known]()
    assert all(isinstance(failed(polls, NO_ID, now, Fault.REFUSED), Again) for now in range(0, 120, 10))


@pytest.mark.parametrize(
    "error",
    [
        APIError("Bad Request", status=400),  # a gateway's page has no type
        APIError("too large", status=413, type="too_large"),
        APIError("not now", status=409, type="conflict"),
    ],
    ids=lambda error: str(error.status),
)
def test_refusal_that_is_not_the_ids_ends_nothing_soon(error: APIError):
    polls = Polls.resumed(0.0, 0.0)
    assert all(isinstance(failed(polls, error, now, Fault.REFUSED), Again) for now in range(0, 120, 10))


# --- an answer that cannot be read ------------------------------------------------------------------------------------

READS = [
    (UNREADABLE, Fault.POLL, True),
    (APIError("no", status=400), Fault.REFUSED, True),
    (APIError("no", status=500), Fault.POLL, False),
    (RateLimited("slow", status=429), Fault.THROTTLED, False),
    (TransportError("reset"), Fault.POLL, False),
]


@pytest.mark.parametrize(("error", "fault", "counts"), READS, ids=lambda value: type(value).__name__)
def test_failed_poll_ends_only_an_unreadable_job(error: AiopplxError, fault: Fault, counts: bool):
    polls = fresh()
    verdicts = [failed(polls, error, now, fault) for now in range(0, 400, 20)]
    ends = [place for place, verdict in enumerate(verdicts) if isinstance(verdict, Ended)]
    assert ends[:1] == ([7] if counts else []), "8 polls over 120 s at least"


def test_unreadable_polls_must_also_last_two_minutes():
    polls = fresh()
    verdicts = [failed(polls, UNREADABLE, now) for now in range(0, 121, 10)]
    assert [isinstance(verdict, Ended) for verdict in verdicts] == [False] * 12 + [True]


@pytest.mark.parametrize("between", ["readable", "without an answer"])
def test_unreadable_polls_are_counted_in_a_row(between: str):
    polls = fresh()
    for now in range(0, 140, 20):
        failed(polls, UNREADABLE, now)
    if between == "readable":
        polls.answered(POLICY, RUNNING, is_last=False)
    else:
        failed(polls, TransportError("reset"), 145.0)
    assert isinstance(failed(polls, UNREADABLE, 150.0), Again)


def test_answer_too_large_is_final_at_once():
    verdict = failed(fresh(), ResponseTooLarge("too large"), 1.0)
    assert isinstance(verdict, Ended)
    assert verdict.status is JobStatus.UNREADABLE


@pytest.mark.parametrize("is_survived", [False, True])
def test_refused_poll_pauses_and_ends_only_what_others_survive(is_survived: bool):
    polls = fresh()
    error = AuthenticationError("no", status=401)
    verdicts = [failed(polls, error, now, Fault.STOP, is_survived=is_survived) for now in range(0, 400, 30)]
    assert verdicts[0] == Again(POLICY.refused_pause)
    assert any(isinstance(verdict, Ended) for verdict in verdicts) is is_survived


# --- at a time limit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deadline", "grace_until", "expected"),
    [(100.0, 0.0, True), (99.0, 0.0, True), (101.0, 0.0, False), (99.0, 100.0, True), (99.0, 101.0, False)],
)
def test_last_poll_is_the_first_after_deadline_and_grace(deadline: float, grace_until: float, expected: bool):
    assert is_decisive(deadline, 100.0, grace_until=grace_until) is expected


@pytest.mark.parametrize(
    ("wait", "grace_until", "expected"), [(0.0, 0.0, False), (0.1, 0.0, True), (0.1, 100.0, True), (0.1, 101.0, False)]
)
def test_wait_omits_its_last_poll_at_a_closed_gate(wait: float, grace_until: float, expected: bool):
    assert is_hopeless(wait, 100.0, grace_until=grace_until) is expected


def test_job_seen_running_has_no_grace_left():
    polls = Polls(0.0, grace_until=500.0)
    failed(polls, TransportError("reset"), 100.0)
    assert polls.grace_until == 500.0
    polls.answered(POLICY, RUNNING, is_last=False)
    assert polls.grace_until == 0.0


# --- how long until the next ------------------------------------------------------------------------------------------


def test_delay_after_failures_grows_and_starts_anew():
    polls, error = fresh(), APIError("no", status=500)
    delays = [failed(polls, error, now, random=1.0) for now in range(3)]
    assert delays == [Again(0.5), Again(1.0), Again(2.0)]
    polls.answered(POLICY, RUNNING, is_last=False)
    assert failed(polls, error, 9.0, random=1.0) == Again(0.5)


@given(st.lists(st.sampled_from([GONE, UNREADABLE, TransportError("reset"), None]), max_size=40), st.floats(0, 60))
def test_transport_failure_alone_never_ends_a_job(outcomes: list[AiopplxError | None], gap: float):
    polls, now = fresh(), 0.0
    for outcome in outcomes:
        now += gap
        verdict = polls.answered(POLICY, RUNNING, is_last=False) if outcome is None else failed(polls, outcome, now)
        if isinstance(verdict, Ended):
            assert not isinstance(outcome, TransportError)
            return
    assert polls.count == len(outcomes)
