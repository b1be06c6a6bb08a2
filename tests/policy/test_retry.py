"""What each failed attempt means and what follows from it, as tables and over any sequence of failures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import APIError, ConfigError, ProtocolError, ResponseTooLarge, TransportError
from aiopplx._policy.retry import (
    Again,
    Bounds,
    CallTries,
    Fault,
    GiveUp,
    Known,
    OnDoubt,
    RetryPolicy,
    SubmitTries,
    classify,
    ends_doubt,
    error_of_no_reply,
    is_final_refusal,
)
from aiopplx._submission import Phase
from aiopplx._wire.call import Broken, Lane, NoReply, Reply, error_of
from aiopplx._wire.headers import exhausted_until, hint

N, R, T, D, P, S, O = (  # noqa: E741 - the letters of the table are the classes' own values
    Fault.NOT_SENT,
    Fault.REFUSED,
    Fault.THROTTLED,
    Fault.DOUBT,
    Fault.POLL,
    Fault.STOP,
    Fault.ODD,
)
POLLS = (Lane.POLL, Lane.LIST, Lane.CANCEL)

# statuses, a submission, a poll. A success whose body cannot be used stands in the first row with the 1xx.
WRITTEN: list[tuple[Iterable[int], Fault, Fault]] = [
    (range(100, 300), D, P),
    (range(300, 400), O, P),
    ([400], R, R),
    (range(401, 404), S, S),
    (range(404, 408), R, R),
    ([408], D, P),
    ([409], D, R),
    (range(410, 425), R, R),
    ([425], T, T),
    (range(426, 429), R, R),
    ([429], T, T),
    (range(430, 500), R, R),
    (range(500, 600), D, P),
]
BODIES = [
    b"",
    b"<html><head><title>502 Bad Gateway</title></head></html>",
    b'{"error":{"message":"no","type":"internal_error","code":500}}',
    b'{"error":"no"}',
    b'{"detail":[{"loc":["body"],"msg":"no","type":"missing"}]}',
    b"[1]",
    b"\xff\x00\xfe",
]


def class_of(lane: Lane, status: int, body: bytes = b"", **headers: str) -> Fault:
    reply = Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    return classify(lane, reply, error_of(reply))


def test_table_of_statuses_has_each_status_once():
    assert sorted(status for row in WRITTEN for status in row[0]) == list(range(100, 600))


@pytest.mark.parametrize(("statuses", "submitted", "polled"), WRITTEN)
def test_status_has_its_written_class_on_every_lane(statuses: Iterable[int], submitted: Fault, polled: Fault):
    for status, body in product(statuses, BODIES):
        assert class_of(Lane.SUBMIT, status, body) is submitted, status
        assert {class_of(lane, status, body) for lane in POLLS} == {polled}, status


@pytest.mark.parametrize(
    ("after", "submitted", "polled"), [("1", T, T), ("0", T, T), ("soon", D, P), ("-1", D, P), ("", D, P)]
)
def test_503_throttles_only_with_a_readable_retry_after(after: str, submitted: Fault, polled: Fault):
    assert class_of(Lane.SUBMIT, 503, retry_after=after) is submitted
    assert class_of(Lane.POLL, 503, retry_after=after) is polled


@pytest.mark.parametrize("status", [500, 502, 504, 520, 524])
def test_retry_after_makes_no_other_server_error_a_throttle(status: int):
    # Only 503 says by itself that nothing was done.
    assert class_of(Lane.SUBMIT, status, retry_after="1") is D


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
@pytest.mark.parametrize(
    "name", ["chat_completions_not_available", "agent_api_migration_required", "insufficient_quota"]
)
def test_fatal_error_names_stop_submissions_at_any_status(status: int, name: str):
    body = b'{"error":{"message":"m","type":"%s","code":%d}}' % (name.encode(), status)
    assert {class_of(lane, status, body) for lane in Lane} == {S}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("idempotency key was reused with a different request", R),
        ("This Idempotency-Key belongs to another request", R),
        ("different body for the same idempotency_key", R),
        ("a request with this idempotency key is still in progress", D),
        ("conflict", D),
        ("", D),
    ],
)
def test_409_is_doubt_unless_the_key_is_another_requests(said: str, fault: Fault):
    assert class_of(Lane.SUBMIT, 409, b'{"error":{"message":"%s","type":"conflict"}}' % said.encode()) is fault


def test_409_is_read_by_its_error_name_too():
    body = b'{"error":{"message":"no","type":"idempotency_key_reused"}}'
    assert class_of(Lane.SUBMIT, 409, body) is R


@pytest.mark.parametrize(
    ("sent", "permanent", "submitted", "polled"),
    [
        (False, False, N, P),
        (False, True, S, S),
        (True, False, D, P),
        # What may have been sent stays in doubt, however hopeless another try would be.
        (True, True, D, S),
    ],
)
@pytest.mark.parametrize("broken", list(Broken))
def test_exchange_without_an_answer_is_classed_by_what_left(
    broken: Broken, sent: bool, permanent: bool, submitted: Fault, polled: Fault
):
    no = NoReply(broken, "detail", sent=sent, permanent=permanent)
    for lane in Lane:
        error = error_of_no_reply(no, lane=lane, limit=1)
        assert classify(lane, no, error) is (submitted if lane is Lane.SUBMIT else polled)


@pytest.mark.parametrize("known", [Known.REACHED, Known.ACCEPTED])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("broken", [Broken.DNS, Broken.TLS, Broken.PROXY])
def test_server_that_was_reached_before_is_away_whatever_fails(broken: Broken, sent: bool, known: Known):
    no = NoReply(broken, "detail", sent=sent, permanent=True)
    for lane in Lane:
        error = error_of_no_reply(no, lane=lane, limit=1)
        away = (D if sent else N) if lane is Lane.SUBMIT else P
        assert classify(lane, no, error, known) is away


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize(
    ("body", "known", "fault"),
    [
        (b"<html>", Known.ACCEPTED, Fault.ODD),
        (b'{"detail":"Not Found"}', Known.ACCEPTED, Fault.ODD),
        (b'{"error":{"type":"model_not_found","message":"m"}}', Known.ACCEPTED, R),
        (b"<html>", Known.REACHED, R),
        (b"<html>", Known.NOTHING, R),
    ],
)
def test_path_that_took_submissions_and_is_gone_is_odd(status: int, body: bytes, known: Known, fault: Fault):
    reply = Reply(status, {}, body)
    assert classify(Lane.SUBMIT, reply, error_of(reply), known) is fault
    assert classify(Lane.POLL, reply, error_of(reply), known) is classify(Lane.POLL, reply, error_of(reply))


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("broken", [b for b in Broken if b not in (Broken.TOO_LARGE, Broken.MALFORMED, Broken.CLOSED)])
def test_error_of_a_lost_submission_says_whether_it_left(broken: Broken, sent: bool):
    error = error_of_no_reply(NoReply(broken, "detail", sent=sent), lane=Lane.SUBMIT, limit=1)
    assert isinstance(error, TransportError)
    assert error.sent is sent
    assert broken.value in error.message
    assert ("nothing was billed" in error.message) is not sent
    assert ("after the request was sent" in error.message) is sent


@pytest.mark.parametrize("known", [Known.NOTHING, Known.REACHED, Known.ACCEPTED])
@pytest.mark.parametrize("broken", [Broken.DISK, Broken.TOO_LARGE])
def test_answers_too_large_are_not_asked_for_again(broken: Broken, known: Known):
    no = NoReply(broken, "detail", sent=True, permanent=True)
    for lane in (Lane.POLL, Lane.FILE):
        assert classify(lane, no, error_of_no_reply(no, lane=lane, limit=1), known) is Fault.STOP


def test_closed_client_of_the_caller_stops_everything():
    no = NoReply(Broken.CLOSED, "", sent=False, permanent=True)
    for lane in Lane:
        error = error_of_no_reply(no, lane=lane, limit=1)
        assert isinstance(error, ConfigError)
        assert ("nothing was billed" in error.message) is (lane is Lane.SUBMIT)
        assert classify(lane, no, error) is Fault.STOP


def test_error_of_a_lost_poll_says_nothing_of_billing():
    error = error_of_no_reply(NoReply(Broken.RESET, "detail", sent=True), lane=Lane.POLL, limit=1)
    assert isinstance(error, TransportError)
    assert error.message == "the connection broke: detail"


def test_answer_too_large_names_the_limit_and_the_remedy():
    error = error_of_no_reply(NoReply(Broken.TOO_LARGE, "", sent=True), lane=Lane.POLL, limit=65_536)
    assert isinstance(error, ResponseTooLarge)
    assert "65,536 bytes" in error.message
    assert "max_response_bytes" in error.remedy


def test_answer_that_is_not_http_is_not_the_servers():
    error = error_of_no_reply(NoReply(Broken.MALFORMED, "a bad head", sent=True), lane=Lane.SUBMIT, limit=1)
    assert isinstance(error, ProtocolError)
    assert not isinstance(error, APIError)
    assert error.status is None


# --- Retry-After and the server's own count ---------------------------------------------------------------------------

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
MOMENT = datetime(2026, 11, 22, 10, tzinfo=UTC)
ABSURD = [
    "", " ", "-1", "+1", "nan", "inf", "-inf", "1e400", "1e3", "1_0", "٣", "\uff13", "5,10", "1;2", "0x10", "1.", ".5",
    "12345678", "1.1234567890", "1.2.3", "soon", "1 s", "Fri, 31 Dec 99999 23:59:59 GMT",
    "Sun, 32 Nov 2026 10:00:00 GMT", "Sun, 22 Nov 2026 25:00:00 GMT", "Sun, 22 Nov 2026 10:00:60 GMT",
    "Sunday, 22-Nov-26 10:00:00 GMT", "Sun Nov 22 10:00:00 2026", "2026-11-22T10:00:00Z",
    "Sun, 22 Nov 2026 10:00:00 +0100", "Sun, 22 Nov 2026 10:00:00", "Sun, ٢٢ Nov 2026 10:00:00 GMT", "0" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("1", 1.0), ("120", 120.0), ("0.5", 0.5), ("9999999", 9_999_999.0), (" 7 ", 7.0), ("007", 7.0)],
)
def test_retry_after_takes_plain_seconds(value: str, seconds: float):
    assert hint({"retry-after": value}) == seconds


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: ascii(value[:40]))
def test_absurd_retry_after_is_ignored(value: str):
    assert hint({"retry-after": value, "date": DATE}) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 10:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 09:59:59 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 9_999_999.0),
    ],
)
def test_retry_after_date_is_read_against_its_answers_date(value: str, seconds: float):
    assert hint({"retry-after": value, "date": DATE}) == seconds


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 32 Nov 2026 10:00:00 GMT", "1780000000"])
def test_retry_after_date_without_a_server_date_is_ignored(date: str):
    assert hint({"retry-after": DATE, "date": date}) is None
    assert hint({"retry-after": DATE}) is None


def test_absent_retry_after_is_ignored():
    assert hint({}) is None


@given(skew=st.integers(-400_000, 400_000), ahead=st.integers(0, 100_000))
def test_retry_after_date_does_not_depend_on_server_time(skew: int, ahead: int):
    now = MOMENT + timedelta(hours=skew)
    then = now + timedelta(seconds=ahead)
    dates = {"retry-after": format_datetime(then, usegmt=True), "date": format_datetime(now, usegmt=True)}
    assert hint(dates) == ahead


FIELD = st.one_of(
    st.text(max_size=40),
    st.sampled_from([*ABSURD, DATE, "5", "0"]),
    st.text(alphabet="0123456789.-+eE_, ٣", max_size=20),
    st.from_regex(r"(Mon|Sun), [0-9]{2} (Jan|Nov) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", fullmatch=True),
)


@given(after=FIELD, date=FIELD)
def test_retry_after_of_any_form_is_none_or_finite(after: str, date: str):
    seconds = hint({"retry-after": after, "date": date})
    assert seconds is None or 0.0 <= seconds <= 9_999_999.0


EPOCH = int(MOMENT.timestamp())


@pytest.mark.parametrize(
    ("remaining", "reset", "seconds"),
    [
        ("0", str(EPOCH + 1), 1.0),
        ("0", str(EPOCH), 0.0),
        ("0", str(EPOCH - 100), 0.0),
        ("0", str(EPOCH + 5_000), 60.0),
        ("0", "12", 12.0),
        ("0", "600", 60.0),
        ("0", "-1", None),
        ("0", "", None),
        ("0", "٣", None),
        ("0", "nan", None),
        ("1", "12", None),
        ("00", "12", None),
        ("", "12", None),
    ],
)
def test_exhausted_count_waits_a_minute_at_most_for_reset(remaining: str, reset: str, seconds: float | None):
    headers = {"x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset, "date": DATE}
    assert exhausted_until(headers) == seconds


def test_exhausted_count_with_epoch_and_no_date_is_ignored():
    assert exhausted_until({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(EPOCH + 1)}) is None


@given(remaining=st.sampled_from(["0", " 0 ", "1", ""]), reset=FIELD | st.integers().map(str), date=FIELD)
def test_count_of_any_form_waits_a_minute_at_most(remaining: str, reset: str, date: str):
    headers = {"x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset, "date": date}
    seconds = exhausted_until(headers)
    assert seconds is None or 0.0 <= seconds <= 60.0


# --- delays -----------------------------------------------------------------------------------------------------------

POLICY = RetryPolicy()


@pytest.mark.parametrize(
    ("fault", "bounds"),
    [(fault, [0.5, 1, 2, 4, 8, 16, 30, 30]) for fault in (N, D, P, O)] + [(T, [1, 2, 4, 8, 16, 30, 30])],
)
def test_delay_bound_doubles_to_half_a_minute(fault: Fault, bounds: list[float]):
    for attempt, bound in enumerate(bounds, 1):
        assert POLICY.delay(fault, attempt, 0.0) == 0.0
        assert POLICY.delay(fault, attempt, 0.5) == bound / 2
        assert POLICY.delay(fault, attempt, 1.0) == bound


@given(fault=st.sampled_from(Fault), attempt=st.integers(1, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_delay_of_any_try_is_within_bounds(fault: Fault, attempt: int, chance: float):
    assert 0.0 <= POLICY.delay(fault, attempt, chance) < POLICY.max_delay


@pytest.mark.parametrize("attempt", [1, 4, 9])
def test_delays_are_spread_evenly_from_nothing_to_the_bound(attempt: int):
    draw = random.Random(attempt)
    bound = POLICY.delay(D, attempt, 1.0)
    tenths = [0] * 10
    for _ in range(10_000):
        tenths[int(POLICY.delay(D, attempt, draw.random()) / bound * 10)] += 1
    assert all(800 <= count <= 1_200 for count in tenths), tenths


# --- the attempts of one submission -----------------------------------------------------------------------------------


class Submitting:
    """A submission in virtual time: each failure is decided on at once, each delay is slept."""

    def __init__(
        self, *, deadline: float = 3_600.0, policy: RetryPolicy = POLICY, chance: float = 0.5, in_doubt: bool = False
    ) -> None:
        self.now = 0.0
        self.tries = SubmitTries(policy)
        self.failures = 0
        self.bounds = Bounds(until=deadline)
        self.chance = chance
        self.doubt = in_doubt

    def fail(
        self, fault: Fault, status: int | None = None, *, repeatable: bool = True, silence: float = 0.0
    ) -> Again | GiveUp:
        # As the client does: doubt is the phase, and lasts.
        self.doubt = self.doubt or fault is D
        self.failures += 1
        verdict = self.tries.failed(
            fault,
            self.now,
            self.chance,
            doubt=self.doubt,
            repeatable=repeatable,
            bounds=self.bounds,
            status=status,
            silence=silence,
        )
        if isinstance(verdict, Again):
            self.now += verdict.delay
        return verdict

    def fail_until_given_up(self, fault: Fault, status: int | None = None, *, repeatable: bool = True) -> GiveUp:
        while True:
            verdict = self.fail(fault, status, repeatable=repeatable)
            if isinstance(verdict, GiveUp):
                return verdict


@pytest.mark.parametrize(("fault", "status"), [(N, None), (T, 429), (T, 503)])
def test_submission_without_a_job_is_retried_until_its_deadline(fault: Fault, status: int | None):
    sub = Submitting(deadline=3_600.0)
    assert sub.fail_until_given_up(fault, status) == GiveUp(doubt=False)
    assert 3_600.0 - POLICY.max_delay <= sub.now < 3_600.0
    assert sub.failures > POLICY.doubt_tries


def test_submission_in_doubt_is_sent_eight_times_in_all():
    sub = Submitting()
    assert [isinstance(sub.fail(D, 502), Again) for _ in range(7)] == [True] * 7
    assert sub.fail(D, 502) == GiveUp(doubt=True)
    assert sub.failures == 8


def test_submission_in_doubt_is_abandoned_after_fifteen_minutes():
    sub = Submitting(policy=RetryPolicy(doubt_tries=10_000))
    assert sub.fail_until_given_up(D, 502) == GiveUp(doubt=True)
    assert 900.0 <= sub.now <= 900.0 + POLICY.max_delay


def test_time_in_doubt_is_counted_from_the_first_doubt():
    sub = Submitting(policy=RetryPolicy(doubt_tries=10_000), deadline=10_000.0)
    while sub.now < 2_000.0:
        assert isinstance(sub.fail(N), Again)
    began = sub.now
    assert sub.fail_until_given_up(D) == GiveUp(doubt=True)
    assert 900.0 <= sub.now - began <= 900.0 + POLICY.max_delay


def test_failures_before_a_doubt_use_up_no_doubt_tries():
    sub = Submitting()
    for _ in range(20):
        assert isinstance(sub.fail(N), Again)
    assert [isinstance(sub.fail(D), Again) for _ in range(8)] == [True] * 7 + [False]


@pytest.mark.parametrize(("fault", "status"), [(N, None), (T, 429)])
def test_doubt_lasts_through_later_failures_without_a_job(fault: Fault, status: int | None):
    sub = Submitting(deadline=10_000.0)
    assert isinstance(sub.fail(D), Again)
    assert sub.fail_until_given_up(fault, status) == GiveUp(doubt=True)
    assert 900.0 <= sub.now <= 900.0 + POLICY.max_delay


def test_deadline_in_the_time_of_doubt_ends_in_doubt():
    sub = Submitting(deadline=3.0)
    assert sub.fail_until_given_up(D) == GiveUp(doubt=True)
    assert sub.now < 3.0


@pytest.mark.parametrize("status", [400, 402, 404, 409, 413, 422, None])
@pytest.mark.parametrize("fault", [R, S])
def test_refusal_ends_at_once_and_without_doubt(fault: Fault, status: int | None):
    assert Submitting().fail(fault, status) == GiveUp(doubt=False)


@pytest.mark.parametrize(
    ("fault", "status", "doubt"),
    [(R, 400, False), (R, 413, False), (R, 422, False)]
    + [(R, status, True) for status in (404, 405, 409, 410, 451)]
    + [(S, status, True) for status in (401, 402, 403, None)],
)
def test_refusal_ends_a_doubt_only_for_malformed_bytes(fault: Fault, status: int | None, doubt: bool):
    sub = Submitting()
    assert isinstance(sub.fail(D, 504), Again)
    assert sub.fail(fault, status) == GiveUp(doubt=doubt)


@pytest.mark.parametrize(
    ("status", "settles", "is_final"),
    [
        (None, False, False),
        (200, False, False),
        (400, True, True),
        (401, False, False),
        (402, False, False),
        (403, False, False),
        (404, False, True),
        (405, False, True),
        (409, False, False),
        (410, False, True),
        (413, True, True),
        (415, False, True),
        (422, True, True),
        (429, False, False),
        (500, False, False),
        (503, False, False),
    ],
)
def test_statuses_that_settle_doubt_and_that_are_final(status: int | None, settles: bool, is_final: bool):
    assert ends_doubt(status) is settles
    assert is_final_refusal(APIError("refused", status=status)) is is_final


@pytest.mark.parametrize("error", [None, ProtocolError("no job", status=400), TransportError("it broke")])
def test_only_a_refusal_by_the_server_is_final(error: Exception | None):
    assert not is_final_refusal(error)


def test_409_waits_a_second_and_is_bounded_as_doubt():
    sub = Submitting(chance=0.0)
    verdicts = [sub.fail(D, 409) for _ in range(8)]
    assert verdicts == [Again(1.0)] * 7 + [GiveUp(doubt=True)]


def test_409_of_a_key_used_elsewhere_ends_at_once():
    fault = class_of(Lane.SUBMIT, 409, b'{"error":"idempotency key reused"}')
    assert Submitting().fail(fault, 409) == GiveUp(doubt=False)


def test_keyless_submission_is_never_resent_once_in_doubt():
    assert Submitting().fail(D, 502, repeatable=False) == GiveUp(doubt=True)


@pytest.mark.parametrize(("fault", "status"), [(N, None), (T, 429)])
def test_keyless_submission_is_retried_while_there_is_no_doubt(fault: Fault, status: int | None):
    sub = Submitting(deadline=600.0)
    assert sub.fail_until_given_up(fault, status, repeatable=False) == GiveUp(doubt=False)
    assert sub.now > 500.0


def test_redirects_get_a_few_tries_and_are_not_doubt():
    sub = Submitting()
    verdicts = [sub.fail(O, 302) for _ in range(POLICY.call_tries)]
    assert [isinstance(verdict, Again) for verdict in verdicts] == [True, True, True, False]
    assert verdicts[-1] == GiveUp(doubt=False)


def test_redirects_do_not_wipe_out_an_earlier_doubt():
    sub = Submitting()
    assert isinstance(sub.fail(D), Again)
    assert sub.fail_until_given_up(O, 302) == GiveUp(doubt=True)


def test_delay_is_never_shorter_than_the_requested_silence():
    assert Submitting().fail(T, 429, silence=77.0) == Again(77.0)


@pytest.mark.parametrize(("silence", "again"), [(59.9, True), (60.0, False), (600.0, False)])
def test_silence_beyond_the_deadline_ends_the_submission_at_once(silence: float, again: bool):
    sub = Submitting(deadline=60.0)
    assert isinstance(sub.fail(T, 429, silence=silence), Again) is again


def test_rate_limit_alone_never_ends_a_submission_in_time():
    sub = Submitting(deadline=60.0, chance=0.9)
    delays: list[float] = []
    while isinstance(verdict := sub.fail(T, 429), Again):
        delays.append(verdict.delay)
        sub.now += 1.0  # until its turn at the gate
    assert delays[:3] == [0.0, 0.0, 0.0], "it goes first again, at the pace of the gate"
    assert sub.now >= 55.0, "many refusals that came together are no reason to give it up"


STATUSES = st.sampled_from([None, 302, 400, 401, 404, 408, 409, 413, 422, 429, 500, 502, 503])
FAILURES = st.lists(
    st.tuples(
        st.sampled_from([N, D, T, O, R, S]),
        STATUSES,
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 400) | st.just(0.0),
        st.floats(0, 60),
    ),
    max_size=60,
)


@given(failures=FAILURES, deadline=st.floats(0, 2_000), repeatable=st.booleans())
def test_any_sequence_of_failures_keeps_to_its_bounds(
    failures: list[tuple[Fault, int | None, float, float, float]], deadline: float, repeatable: bool
):
    now, sub, doubts = 0.0, SubmitTries(POLICY), 0
    bounds = Bounds(until=deadline, silence=300.0)
    first_doubt = math.inf
    for fault, status, chance, silence, took in failures:
        now += took
        doubts += fault is D
        first_doubt = min(first_doubt, now if fault is D else math.inf)
        verdict = sub.failed(
            fault,
            now,
            chance,
            doubt=doubts > 0,
            repeatable=repeatable,
            bounds=bounds,
            status=status,
            silence=silence,
        )
        if isinstance(verdict, GiveUp):
            assert verdict.doubt is (doubts > 0 and not (fault is R and status in (400, 413, 422)))
            return
        assert fault not in (R, S)
        assert silence <= verdict.delay <= max(silence, POLICY.max_delay)
        assert fault is not T or silence <= bounds.silence
        assert now + verdict.delay < deadline
        assert doubts < POLICY.doubt_tries
        assert repeatable or not doubts
        assert now - first_doubt < POLICY.doubt_seconds
        now += verdict.delay


# The rule over faults and phases: after a first failure, in an API whose submissions may be sent again in doubt. The
# phase is the one that the submission was in while the attempt was on the wire. Again: another attempt follows.
NO_DOUBT, IN_DOUBT = GiveUp(doubt=False), GiveUp(doubt=True)
RULE: list[tuple[Fault, int | None, Again | GiveUp, Again | GiveUp]] = [
    # fault, status, sent for the first time, sent again after a lost answer
    (N, None, Again(0.25), Again(0.25)),
    (T, 429, Again(0.0), Again(0.0)),
    (T, 425, Again(0.5), Again(0.5)),
    (T, 503, Again(0.5), Again(0.5)),
    (O, 302, Again(0.25), Again(0.25)),
    (D, None, Again(0.25), Again(0.25)),
    (D, 500, Again(0.25), Again(0.25)),
    (D, 409, Again(1.0), Again(1.0)),
    (R, 400, NO_DOUBT, NO_DOUBT),
    (R, 413, NO_DOUBT, NO_DOUBT),
    (R, 422, NO_DOUBT, NO_DOUBT),
    (R, 404, NO_DOUBT, IN_DOUBT),
    (R, 409, NO_DOUBT, IN_DOUBT),
    (S, 401, NO_DOUBT, IN_DOUBT),
    (S, 402, NO_DOUBT, IN_DOUBT),
    (S, None, NO_DOUBT, IN_DOUBT),
]


@pytest.mark.parametrize("phase", [Phase.SENDING, Phase.RESENDING])
@pytest.mark.parametrize(("fault", "status", "first", "again"), RULE)
def test_rule_for_each_fault_and_phase(
    fault: Fault, status: int | None, first: Again | GiveUp, again: Again | GiveUp, phase: Phase
):
    sub = Submitting(in_doubt=phase is Phase.RESENDING)
    assert sub.fail(fault, status) == (first if phase is Phase.SENDING else again)


@pytest.mark.parametrize("phase", [Phase.SENDING, Phase.RESENDING])
@pytest.mark.parametrize(("fault", "status", "first", "again"), RULE)
def test_rule_without_resending_differs_only_in_doubt(
    fault: Fault, status: int | None, first: Again | GiveUp, again: Again | GiveUp, phase: Phase
):
    sub = Submitting(in_doubt=phase is Phase.RESENDING)
    usual = first if phase is Phase.SENDING else again
    assert sub.fail(fault, status, repeatable=False) == (IN_DOUBT if fault is D else usual)


def test_rule_covers_every_fault_of_a_submission():
    assert {row[0] for row in RULE} == set(Fault) - {P}


@pytest.mark.parametrize(
    ("on_doubt", "with_keys", "without_keys"), [(None, True, False), ("resend", True, True), ("hold", False, False)]
)
def test_on_doubt_decides_resending_else_keys_do(on_doubt: OnDoubt | None, with_keys: bool, without_keys: bool):
    policy = RetryPolicy(on_doubt=on_doubt)
    assert (policy.resends(True), policy.resends(False)) == (with_keys, without_keys)


@pytest.mark.parametrize("word", ["Hold", "", "send", True, 1])
def test_policy_refuses_a_misspelt_word(word: object):
    with pytest.raises(ValueError, match="on_doubt must be None, 'resend' or 'hold'"):
        RetryPolicy(on_doubt=word)  # type: ignore[arg-type] - this is the mistake


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_bounds_default_to_none():
    assert Bounds() == Bounds(until=math.inf, silence=math.inf, unanswered=math.inf)


@pytest.mark.parametrize(("silence", "longest"), [(120.0, 120.0), (math.inf, 600.0), (900.0, 600.0)])
def test_no_wait_of_a_submission_outlasts_its_job(silence: float, longest: float):
    assert Bounds.within(600.0, until=77.0, silence=silence) == Bounds(77.0, longest, 600.0)


@pytest.mark.parametrize(("until", "deadline", "latest"), [(math.inf, 50.0, 50.0), (40.0, 50.0, 40.0)])
def test_bounds_of_retries_end_at_the_deadline(until: float, deadline: float, latest: float):
    # What other submissions have met bounds only the wait for the first attempt.
    assert Bounds(until, 30.0, 20.0).for_retries(deadline) == Bounds(latest, 30.0, math.inf)


@pytest.mark.parametrize(("fault", "status"), [(T, 429), (N, None), (D, 502)])
@pytest.mark.parametrize(("silence", "is_too_long"), [(30.0, False), (30.1, True)])
def test_silence_longer_than_its_bound_ends_throttled_submissions(
    fault: Fault, status: int | None, silence: float, is_too_long: bool
):
    # What failed otherwise waits for it: it did not ask for the silence, and ends at the gate if that lasts.
    sub = Submitting()
    sub.bounds = Bounds(until=3_600.0, silence=30.0)
    verdict = sub.fail(fault, status, silence=silence)
    assert isinstance(verdict, GiveUp) is (is_too_long and fault is T)


# --- single calls -----------------------------------------------------------------------------------------------------


def test_call_is_made_four_times_in_all():
    tries = CallTries(POLICY, 0.0)
    assert [isinstance(tries.failed(P, 0.0, 0.5), Again) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("fault", [R, S])
def test_refused_call_is_not_repeated(fault: Fault):
    assert CallTries(POLICY, 0.0).failed(fault, 0.0, 0.5) == GiveUp()


@pytest.mark.parametrize(("silence", "verdict"), [(110.0, Again(110.0)), (110.1, GiveUp())])
def test_call_waits_through_a_silence_within_two_minutes(silence: float, verdict: Again | GiveUp):
    assert CallTries(POLICY, 1_000.0).failed(T, 1_010.0, 0.0, silence) == verdict


@given(
    failures=st.lists(
        st.tuples(st.sampled_from([P, T]), st.floats(0, 1, exclude_max=True), st.floats(0, 200), st.floats(0, 60)),
        min_size=4,
        max_size=10,
    )
)
def test_call_always_ends_within_its_tries_and_time(failures: list[tuple[Fault, float, float, float]]):
    now, tries = 0.0, CallTries(POLICY, 0.0)
    for made, (fault, chance, silence, took) in enumerate(failures, 1):
        now += took
        verdict = tries.failed(fault, now, chance, silence)
        if isinstance(verdict, GiveUp):
            assert verdict == GiveUp(doubt=False)
            return
        assert made < POLICY.call_tries
        assert verdict.delay >= silence
        now += verdict.delay
        assert now <= POLICY.call_seconds
    pytest.fail("it never ended")
