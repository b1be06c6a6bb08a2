"""The gate in virtual time: why it is shut, and what opens it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable

import pytest
from _virtual import START, Steps, World, ask_for_silence
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import AuthenticationError, OutOfCredit
from aiopplx._policy.gate import (
    FORGOTTEN,
    LONGEST_PROBE,
    SILENT_AFTER,
    STOP_PROBE,
    Breaker,
    Cause,
    FirstContact,
    Gate,
    LastAnswer,
    Silence,
    Stop,
    Unanswered,
)
from aiopplx._policy.retry import Bounds, Fault, GiveUp, RetryPolicy, SubmitTries
from aiopplx._wire.call import Lane

POLICY = RetryPolicy()
TINY = 1e-6
CHANCE = st.floats(0, 1, exclude_max=True)

NO_KEY, NO_MONEY = AuthenticationError("bad key"), OutOfCredit("no credit")


# --- silence ----------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "pass", "pass", "throttled", "hint", "used_up", "answered", "failed", "back", "halt"]),
        st.sampled_from(Lane),
        st.floats(0, 200),
        CHANCE,
    ),
    max_size=60,
)


@given(rpm=st.none() | st.floats(1, 1_000), events=EVENTS)
def test_gate_lets_nothing_out_inside_a_silence(rpm: float | None, events: list[tuple[str, Lane, float, float]]):
    gate, now = Gate(rpm), START
    silent_until = 0.0
    for event, lane, seconds, chance in events:
        match event:
            case "wait":
                now += seconds
            case "pass":
                if gate.delay(lane, now) == 0.0:
                    assert now >= silent_until
                    gate.leave(lane, now)
            case "hint":
                pause = gate.throttled(lane, now, now, seconds, chance)
                assert seconds <= pause <= seconds * 1.1
                silent_until = max(silent_until, now + seconds)
            case "throttled":
                assert gate.throttled(lane, now, now, None, chance) == 0.0
            case "used_up":
                ask_for_silence(gate, now, seconds)
                silent_until = max(silent_until, now + seconds)
            case "answered":
                gate.accepted(lane, now, now)
            case "failed":
                gate.failed(now, connected=chance < 0.5)
            case "halt":
                gate.halt(AuthenticationError("no"), lane, now)
            case _:
                gate.back(Lane.SUBMIT, now)
        assert gate.silence(now) >= silent_until - now


@given(seconds=st.floats(0, 1_000), chance=CHANCE)
def test_gate_opens_when_the_silence_is_over(seconds: float, chance: float):
    gate = Gate()
    pause = gate.throttled(Lane.POLL, START, START, seconds, chance)
    assert gate.delay(Lane.POLL, START) == pytest.approx(pause)
    assert gate.delay(Lane.POLL, START + pause + TINY) == 0.0
    assert gate.silence(START + pause + TINY) == 0.0


@pytest.mark.parametrize("lane", list(Lane))
def test_silence_asked_on_one_lane_holds_on_all(lane: Lane):
    gate = Gate()
    gate.throttled(lane, START, START, 120.0, 0.0)
    assert {gate.delay(other, START) >= 120.0 for other in Lane} == {True}


def test_longest_silence_holds_over_shorter_ones():
    gate = Gate()
    gate.throttled(Lane.POLL, START, START, 120.0, 0.0)
    gate.throttled(Lane.POLL, START + 1, START, 0.0, 0.0)
    ask_for_silence(gate, START + 2, 5.0)
    assert gate.silence(START + 2) == 118.0


def test_throttled_submission_without_a_hint_leaves_polls_alone():
    gate = Gate()
    gate.leave(Lane.SUBMIT, START)
    for _ in range(2):
        assert gate.throttled(Lane.SUBMIT, START, START, None, 0.5) == 0.0, "that is not a silence"
    assert gate.delay(Lane.SUBMIT, START) > 0.0
    assert gate.delay(Lane.POLL, START) == gate.silence(START) == 0.0


def test_refusal_by_tokens_holds_back_submissions_only():
    gate = Gate()
    for _ in range(2):
        gate.throttled(Lane.SUBMIT, START, START - 1.0, None, 0.5, is_by_tokens=True)
    assert gate.delay(Lane.SUBMIT, START) > 0.0
    assert gate.delay(Lane.POLL, START) == 0.0
    assert gate.throttled(Lane.SUBMIT, START, START, 60.0, 0.0, is_by_tokens=True) >= 60.0


def test_throttled_poll_without_a_hint_leaves_submissions_alone():
    gate = Gate()
    for _ in range(2):
        assert gate.throttled(Lane.POLL, START, START, None, 0.5) == 0.0
    assert gate.delay(Lane.POLL, START) > 0.0
    assert gate.delay(Lane.SUBMIT, START) == 0.0


def test_busy_server_says_nothing_of_its_limits():
    gate = Gate()
    for _ in range(20):
        gate.throttled(Lane.SUBMIT, START, START, 1.0, 0.0, is_limit=False)
    assert gate.delay(Lane.SUBMIT, START + 1.0) == 0.0


# --- a server that does not answer ------------------------------------------------------------------------------------


def silent_gate() -> Gate:
    gate = Gate()
    for _ in range(SILENT_AFTER):
        gate.failed(START, connected=True)
    return gate


def test_few_failures_hold_nothing_back():
    gate = Gate()
    for _ in range(SILENT_AFTER - 1):
        assert gate.failed(START, connected=True) == 0.0
    assert {gate.delay(lane, START) for lane in Lane} == {0.0}


def test_one_answer_starts_the_count_of_failures_anew():
    gate = Gate()
    for _ in range(10 * SILENT_AFTER):
        for _ in range(SILENT_AFTER - 1):
            assert gate.failed(START, connected=True) == 0.0
        gate.accepted(Lane.POLL, START, START)
        assert gate.delay(Lane.SUBMIT, START) == 0.0


def test_probes_come_further_apart_up_to_a_minute():
    gate, now, waits = silent_gate(), START, list[float]()
    for _ in range(9):
        wait = gate.delay(Lane.SUBMIT, now)
        waits.append(wait)
        now += wait
        assert gate.delay(Lane.SUBMIT, now) == 0.0
        gate.leave(Lane.SUBMIT, now)
        gate.back(Lane.SUBMIT, now)
        gate.failed(now, connected=True)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize("lane", list(Lane))
def test_first_answer_opens_the_gate_and_forgets_the_outage(lane: Lane):
    gate = silent_gate()
    for later in (1.0, 3.0, 7.0):
        gate.leave(lane, START + later)
        gate.back(lane, START + later)
        gate.failed(START + later, connected=True)
    gate.leave(lane, START + 15.0)
    gate.accepted(lane, START + 15.0, START + 15.0)
    assert {gate.delay(other, START + 15.0) for other in Lane} == {0.0}
    for _ in range(SILENT_AFTER):
        gate.failed(START + 16.0, connected=True)
    assert gate.delay(Lane.POLL, START + 16.0) == 1.0


def test_throttled_answer_counts_as_an_answer():
    gate = silent_gate()
    gate.throttled(Lane.POLL, START, START, None, 0.0)
    assert gate.delay(Lane.POLL, START) == 0.0


@given(events=st.lists(st.tuples(st.sampled_from(["pass", "pass", "fail"]), st.sampled_from(Lane), st.floats(0, 70))))
def test_never_more_than_one_probe_is_out(events: list[tuple[str, Lane, float]]):
    gate, now = silent_gate(), START
    out_since: float | None = None
    for event, lane, later in events:
        now += later
        if out_since is not None and (event == "fail" or now - out_since > 100.0):
            gate.back(Lane.SUBMIT, out_since)
            gate.failed(now, connected=True)
            out_since = None
        elif event == "pass" and gate.delay(lane, now) == 0.0:
            assert out_since is None
            gate.leave(lane, now)
            out_since = now


def test_probe_that_never_reports_back_is_replaced():
    gate = silent_gate()
    gate.leave(Lane.SUBMIT, START + 1.0)
    assert gate.delay(Lane.SUBMIT, START + 100.0) > 0.0
    assert gate.delay(Lane.SUBMIT, START + 121.0 + TINY) == 0.0


def test_others_ask_again_soon_while_a_probe_is_out():
    gate = silent_gate()
    gate.leave(Lane.SUBMIT, START + 1.0)
    assert 0.0 < gate.delay(Lane.SUBMIT, START + 1.0) <= 1.0


@pytest.mark.parametrize(("connected", "unreachable"), [(False, True), (True, False)])
def test_server_never_reached_differs_from_one_not_answering(connected: bool, unreachable: bool):
    gate = Gate()
    for _ in range(3):
        gate.failed(START, connected=connected)
    assert gate.is_unreachable(3) is unreachable
    assert not gate.is_unreachable(4)
    gate.accepted(Lane.POLL, START, START)
    gate.failed(START, connected=False)
    assert not gate.is_unreachable(1)


def test_failed_connections_side_by_side_are_one_try():
    gate = Gate()
    for _ in range(32):
        gate.failed(START + 0.1, connected=False, sent_at=START)
    assert gate.is_unreachable(1)
    assert not gate.is_unreachable(2)
    gate.failed(START + 1.1, connected=False, sent_at=START + 1.0)
    assert gate.is_unreachable(2)


class Outage:
    """Jobs submitted some at once, through a time in which every attempt fails."""

    def __init__(self, fault: Fault, *, fails_after: float, seed: int) -> None:
        self.world = World(seed)
        self.gate = Gate()
        self.fault = fault
        self.fails_after = fails_after
        self.attempts = 0
        self.accepted = 0
        self.failed = 0
        self.ended_at = 0.0

    def run(self, jobs: int, at_once: int) -> None:
        todo = iter(range(jobs))
        self.world.run([self.submitter(todo) for _ in range(at_once)])

    def submitter(self, todo: Iterable[int]) -> Steps:
        for _ in todo:
            tries, bounds = SubmitTries(POLICY), Bounds(until=self.world.now + 3_600.0)
            doubt = self.fault is Fault.DOUBT
            while not (yield from self.attempt()):
                now, chance = self.world.now, self.world.chance.random()
                verdict = tries.failed(self.fault, now, chance, doubt=doubt, repeatable=True, bounds=bounds)
                if isinstance(verdict, GiveUp):
                    self.failed += 1
                    break
                yield verdict.delay

    def attempt(self) -> Generator[float, None, bool]:
        while (delay := self.gate.delay(Lane.SUBMIT, self.world.now)) > 0.0:
            yield delay
        self.gate.leave(Lane.SUBMIT, self.world.now)
        self.attempts += 1
        sent_at = self.world.now
        works = not START + 2.0 <= self.world.now < START + 62.0
        yield self.world.chance.uniform(0.2, 0.5) if works else self.fails_after
        if works:
            self.gate.accepted(Lane.SUBMIT, self.world.now, sent_at)
            self.accepted += 1
            self.ended_at = self.world.now
        else:
            self.gate.back(Lane.SUBMIT, sent_at)
            self.gate.failed(self.world.now, connected=self.fault is Fault.DOUBT)
        return works


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("fault", "fails_after"), [(Fault.NOT_SENT, 0.001), (Fault.DOUBT, 0.05), (Fault.DOUBT, 30.0)])
def test_minute_of_outage_costs_few_attempts_and_no_job(fault: Fault, fails_after: float, seed: int):
    outage = Outage(fault, fails_after=fails_after, seed=seed)
    outage.run(1_000, at_once=50)
    assert (outage.accepted, outage.failed) == (1_000, 0)
    assert outage.attempts <= 1_100
    # Probes double, so the gate opens after at most as long again as the outage was.
    assert outage.ended_at - START <= 2.0 + 2 * 60.0 + 10.0


# --- stops ------------------------------------------------------------------------------------------------------------


def test_stop_holds_for_half_a_minute_then_admits_one():
    gate = Gate()
    assert gate.halted(START) is None
    assert gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert gate.halted(START) is gate.halted(START + 29.9) is NO_KEY
    assert gate.halted(START + 30.0) is None


def test_repeated_stop_holds_on_and_is_not_news():
    gate = Gate()
    gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert not gate.halt(AuthenticationError("bad key"), Lane.SUBMIT, START + 30.0)
    assert gate.halted(START + 59.9) is not None


def test_stop_for_another_reason_is_news():
    gate = Gate()
    gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert gate.halt(NO_MONEY, Lane.SUBMIT, START + 1.0)
    assert gate.halted(START + 1.0) is NO_MONEY


def test_stop_holds_back_no_poll():
    gate = Gate()
    gate.halt(NO_MONEY, Lane.SUBMIT, START)
    assert gate.delay(Lane.POLL, START) == 0.0
    assert not gate.polls_refused


@pytest.mark.parametrize("lane", [Lane.POLL, Lane.LIST])
def test_refused_poll_stops_submissions_too_and_once(lane: Lane):
    gate = Gate()
    assert gate.halt(NO_KEY, lane, START)
    assert not gate.halt(NO_KEY, lane, START)
    assert gate.polls_refused
    assert gate.halted(START) is NO_KEY


def test_poll_refused_after_a_submission_is_news():
    gate = Gate()
    gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert gate.halt(NO_KEY, Lane.POLL, START)
    assert gate.polls_refused


def test_resume_lifts_a_stop_and_says_whether_it_did():
    gate = Gate()
    assert not gate.resume()
    gate.halt(NO_KEY, Lane.POLL, START)
    assert gate.resume()
    assert gate.halted(START) is None
    assert not gate.polls_refused
    assert gate.halt(NO_KEY, Lane.SUBMIT, START)


@pytest.mark.parametrize("stopped_by", [Lane.SUBMIT, Lane.POLL])
def test_accepted_submission_lifts_every_stop(stopped_by: Lane):
    gate = Gate()
    gate.halt(NO_KEY, stopped_by, START)
    assert gate.accepted(Lane.SUBMIT, START, START)
    assert gate.halted(START) is None
    assert not gate.polls_refused


def test_accepted_poll_lifts_only_what_a_poll_stopped():
    gate = Gate()
    gate.halt(NO_MONEY, Lane.SUBMIT, START)
    assert not gate.accepted(Lane.POLL, START, START)
    assert gate.halted(START) is NO_MONEY
    gate.resume()
    gate.halt(NO_KEY, Lane.POLL, START)
    assert gate.accepted(Lane.POLL, START, START)
    assert gate.halted(START) is None


# --- why it is shut ---------------------------------------------------------------------------------------------------


def unanswered_attempts(gate: Gate) -> None:
    for _ in range(SILENT_AFTER):
        gate.failed(START, connected=True)


def left_at_a_given_rate(gate: Gate) -> None:
    gate.limits.allow(60)
    gate.leave(Lane.SUBMIT, START)


SHUT: dict[Cause, Callable[[Gate], object]] = {
    Cause.STOP: lambda gate: gate.halt(NO_KEY, Lane.SUBMIT, START),
    Cause.SILENCE: lambda gate: ask_for_silence(gate, START, 0.5),
    Cause.OUTAGE: unanswered_attempts,
    Cause.LIMIT: left_at_a_given_rate,
}
FOR_ALL = (Cause.SILENCE, Cause.OUTAGE)


def test_open_gate_has_no_reason():
    gate = Gate()
    assert {gate.why(lane, START) for lane in Lane} == {None}


def test_every_reason_is_in_the_table():
    assert list(SHUT) == list(Cause)


@pytest.mark.parametrize("reason", Cause)
def test_gate_says_why_it_is_shut(reason: Cause):
    gate = Gate()
    SHUT[reason](gate)
    assert gate.why(Lane.SUBMIT, START) is reason
    for lane in (Lane.POLL, Lane.LIST, Lane.CANCEL):
        assert gate.why(lane, START) is (reason if reason in FOR_ALL else None)


# A Retry-After is an answer and so ends an outage: these two hold together only if the answer came first.
@pytest.mark.parametrize("second", Cause)
@pytest.mark.parametrize("first", Cause)
def test_first_of_two_reasons_is_named(first: Cause, second: Cause):
    gate = Gate()
    SHUT[first](gate)
    SHUT[second](gate)
    both = {first, second} - ({Cause.OUTAGE} if (first, second) == (Cause.OUTAGE, Cause.SILENCE) else set())
    assert gate.why(Lane.SUBMIT, START) is min(both, key=list(Cause).index)


@given(events=EVENTS)
def test_gate_has_a_reason_exactly_when_it_is_shut(events: list[tuple[str, Lane, float, float]]):
    gate, now = Gate(), START
    for event, lane, seconds, chance in events:
        now += seconds if event == "wait" else 0.0
        happen(gate, event, lane, now, seconds, chance)
        for asked in Lane:
            is_stopped = asked is Lane.SUBMIT and gate.halted(now) is not None
            assert (gate.why(asked, now) is not None) is (gate.delay(asked, now) > 0.0 or is_stopped)


def happen(gate: Gate, event: str, lane: Lane, now: float, seconds: float, chance: float) -> None:
    match event:
        case "pass":
            if gate.delay(lane, now) == 0.0:
                gate.leave(lane, now)
        case "hint":
            gate.throttled(lane, now, now, seconds, chance)
        case "throttled":
            gate.throttled(lane, now, now, None, chance)
        case "used_up":
            ask_for_silence(gate, now, seconds)
        case "answered":
            gate.accepted(lane, now, now)
        case "failed":
            gate.failed(now, connected=chance < 0.5)
        case "halt":
            gate.halt(NO_KEY, lane, now)
        case "back":
            gate.back(Lane.SUBMIT, now)


# --- each value by itself ---------------------------------------------------------------------------------------------


def test_stop_has_no_error_before_the_first_refusal():
    stop = Stop()
    assert stop.error is stop.error_at(START) is None
    assert not stop.lift()
    assert not stop.accepted(is_poll=False)


def test_stop_stays_known_while_one_may_try():
    stop = Stop()
    stop.refused(NO_KEY, START, by_poll=False)
    assert stop.error_at(START + STOP_PROBE) is None
    assert stop.error is NO_KEY


# begun by, then refused too, then accepted: does it lift the stop, and are polls refused afterwards
@pytest.mark.parametrize(
    ("begun_by_poll", "poll_refused", "poll_accepted", "lifts", "polls_refused"),
    [
        (False, False, False, True, False),
        (False, True, False, True, False),
        (True, True, False, True, False),
        (False, False, True, False, False),
        (False, True, True, False, False),
        (True, True, True, True, False),
    ],
)
def test_stop_is_lifted_by_the_lane_that_began_it(
    begun_by_poll: bool, poll_refused: bool, poll_accepted: bool, lifts: bool, polls_refused: bool
):
    stop = Stop()
    stop.refused(NO_KEY, START, by_poll=begun_by_poll)
    if poll_refused:
        stop.refused(NO_KEY, START, by_poll=True)
    assert stop.polls_refused is poll_refused
    assert stop.accepted(is_poll=poll_accepted) is lifts
    assert (stop.error is None) is lifts
    assert stop.polls_refused is polls_refused


def test_silence_is_stretched_and_never_shortened():
    silence = Silence()
    assert silence.asked(START, 100.0, random=0.5) == pytest.approx(105.0)
    assert silence.asked(START, 10.0) == 10.0
    assert silence.seconds(START) == pytest.approx(105.0)
    assert silence.seconds(START + 106.0) == 0.0


def test_breaker_holds_nothing_back_while_closed():
    breaker = Breaker()
    for _ in range(SILENT_AFTER - 1):
        assert breaker.failed(START) == 0.0
    breaker.leave(START)
    assert not breaker.is_open
    assert breaker.delay(START) == 0.0


def test_breaker_lets_one_probe_out_and_closes_when_answered():
    breaker = Breaker()
    for _ in range(SILENT_AFTER):
        breaker.failed(START)
    assert breaker.is_open
    assert breaker.delay(START) == 1.0
    breaker.leave(START + 1.0)
    assert breaker.delay(START + 1.0) == 1.0
    assert breaker.delay(START + 1.0 + LONGEST_PROBE) <= 0.0
    breaker.back(START + 1.0)
    assert breaker.delay(START + 1.0) == 0.0
    breaker.answered()
    assert not breaker.is_open


def test_breaker_takes_an_earlier_request_for_no_probe():
    breaker = Breaker()
    for _ in range(SILENT_AFTER):
        breaker.failed(START)
    breaker.leave(START + 1.0)
    breaker.back(START + 0.5)
    assert breaker.delay(START + 1.0) > 0.0


def test_first_contact_counts_each_moment_once():
    contact = FirstContact()
    contact.failed(START + 1.0, sent_at=START)
    contact.failed(START + 1.5, sent_at=START + 0.5)
    assert contact.tries == 1
    contact.failed(START + 2.0, sent_at=None)
    assert contact.tries == 2
    contact.is_made = True
    contact.failed(START + 9.0, sent_at=None)
    assert contact.tries == 2


def test_unanswered_counts_from_the_first_failure():
    unanswered = Unanswered()
    assert unanswered.seconds(START) == 0.0
    unanswered.failed(START)
    unanswered.failed(START + 5.0)
    assert unanswered.seconds(START + 9.0) == 9.0
    unanswered.answered()
    assert unanswered.seconds(START + 9.0) == 0.0


def test_rate_refusals_neither_accept_nor_reject_a_submission():
    gate = Gate()
    gate.throttled(Lane.SUBMIT, START, START, None, 0.5)
    assert gate.silent_server(START + 10.0) == 10.0


# what happens to a submission: is it an answer that ends the time without one
@pytest.mark.parametrize(
    ("happens", "seconds"),
    [
        (lambda gate: gate.accepted(Lane.SUBMIT, START, START), 0.0),
        (lambda gate: gate.throttled(Lane.SUBMIT, START + 5.0, START, None, 0.5), 10.0),
        (lambda gate: gate.throttled(Lane.SUBMIT, START + 5.0, START, 1.0, 0.5), 10.0),
        (lambda gate: gate.submit_failed(START + 5.0), 10.0),
        (lambda gate: gate.accepted(Lane.POLL, START, START), 10.0),
        (lambda gate: gate.throttled(Lane.POLL, START + 5.0, START, 1.0, 0.5), 10.0),
    ],
    ids=["answered", "throttled", "throttled with a hint", "failed", "poll answered", "poll throttled"],
)
def test_only_accepting_or_rejecting_a_submission_ends_the_silence(happens: Callable[[Gate], object], seconds: float):
    gate = Gate()
    gate.submit_failed(START)
    happens(gate)
    assert gate.silent_server(START + 10.0) == seconds


def test_failure_of_long_ago_says_nothing_of_now() -> None:
    last = LastAnswer()
    last.failed(10.0, "refused")
    last.failed(100.0, "refused")
    assert (last.recent(101.0), last.recent(101.0 + FORGOTTEN)) == (10.0, math.inf)
    last.failed(3_600.0, "refused")
    assert last.recent(3_601.0) == 3_600.0
    last.came(3_602.0)
    assert last.recent(3_603.0) == math.inf
