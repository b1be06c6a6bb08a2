"""The gate in virtual time: rates given and learnt, silence kept, an outage lived through, stops and their lifting."""

from __future__ import annotations

import heapq
import random
from collections.abc import Generator, Iterable
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import AuthenticationError, OutOfCredit
from aiopplx._policy.gate import SILENT_AFTER, Bucket, Gate, Pace
from aiopplx._policy.retry import Fault, Over, RetryPolicy, SubmitTries
from aiopplx._wire.call import Lane

POLICY = RetryPolicy()
START = 10_000.0
TINY = 1e-6
CHANCE = st.floats(0, 1, exclude_max=True)

Steps = Generator[float, None, None]


class World:
    """Processes that yield the seconds they sleep, run in order of time and not in any time at all."""

    def __init__(self, seed: int = 0) -> None:
        self.now = START
        self.chance = random.Random(seed)

    def run(self, processes: Iterable[Steps]) -> None:
        turn = count()
        waiting = [(self.now, next(turn), process) for process in processes]
        heapq.heapify(waiting)
        while waiting:
            self.now, _, process = heapq.heappop(waiting)
            for seconds in process:
                heapq.heappush(waiting, (self.now + seconds, next(turn), process))
                break


class LeakyBucket:
    """The service's limit as it documents it: refilled all the time, a burst of its capacity, refusals cost nothing."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute = self.tokens = float(per_minute)
        self.at = START

    def take(self, now: float) -> bool:
        self.tokens = min(self.per_minute, self.tokens + (now - self.at) * self.per_minute / 60.0)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class Submitters:
    """Many submissions through one gate to a leaky bucket, with the retries of the policy."""

    def __init__(self, world: World, server: LeakyBucket, *, latency: float = 0.35, gate: Gate | None = None) -> None:
        self.world = world
        self.server = server
        self.latency = latency
        self.gate = gate or Gate()
        self.taken: list[float] = []
        self.refused: list[float] = []

    def submit(self, jobs: int, *, at_once: int = 32) -> None:
        todo = iter(range(jobs))
        self.world.run([self.submitter(todo) for _ in range(at_once)])

    def submitter(self, todo: Iterable[int]) -> Steps:
        for _ in todo:
            tries = SubmitTries(POLICY, float("inf"))
            while True:
                left_at = yield from self.passed()
                if (yield from self.answered(left_at)):
                    break
                now, chance = self.world.now, self.world.chance.random()
                verdict = tries.failed(Fault.THROTTLED, now, chance, repeatable=True, status=429)
                assert not isinstance(verdict, Over)
                yield verdict.delay

    def passed(self) -> Generator[float, None, float]:
        while (delay := self.gate.delay(Lane.SUBMIT, self.world.now)) > 0.0:
            yield delay
        self.gate.leave(Lane.SUBMIT, self.world.now)
        return self.world.now

    def answered(self, left_at: float) -> Generator[float, None, bool]:
        yield self.latency * self.world.chance.uniform(0.25, 0.75)
        room = self.server.take(self.world.now)
        (self.taken if room else self.refused).append(self.world.now)
        yield self.latency * self.world.chance.uniform(0.25, 0.75)
        self.gate.back(self.world.now)
        if room:
            self.gate.answered(Lane.SUBMIT, accepted=True)
        else:
            self.gate.throttled(Lane.SUBMIT, self.world.now, left_at, None, self.world.chance.random())
        return room

    def share_of_rate_since(self, since: float) -> float:
        taken = sum(at > since for at in self.taken)
        return taken * 60.0 / (self.taken[-1] - since) / self.server.per_minute

    def share_refused_since(self, since: float) -> float:
        taken, refused = sum(at > since for at in self.taken), sum(at > since for at in self.refused)
        return refused / (taken + refused)


# --- a rate that is given ---------------------------------------------------------------------------------------------

RPM = st.floats(0.1, 10_000)


@given(rpm=RPM, events=st.lists(st.tuples(st.floats(0, 100), st.booleans())))
def test_pace_given_lets_no_two_leave_closer_than_its_interval(rpm: float, events: list[tuple[float, bool]]):
    pace, now, left = Pace(rpm), START, list[float]()
    for later, refuse in events:
        now += max(pace.delay(now), later)
        while (delay := pace.delay(now)) > 0.0:
            now += delay
        pace.leave(now)
        left.append(now)
        if refuse:
            pace.refused(now, now)
    assert all(after - before >= 60.0 / rpm - TINY for before, after in pairwise(left))


def test_pace_given_is_used_in_full():
    pace, now = Pace(60), START
    for _ in range(100):
        now += pace.delay(now)
        pace.leave(now)
    assert now - START == pytest.approx(99.0)


def test_pace_given_does_not_save_up_what_was_not_used():
    pace = Pace(60)
    pace.leave(START)
    pace.leave(START + 600)
    assert pace.delay(START + 600) == pytest.approx(1.0)


@given(first=RPM, second=RPM)
def test_pace_of_two_sessions_is_the_slower_one(first: float, second: float):
    pace = Pace(first)
    pace.limit(second)
    assert pace.interval == pytest.approx(60.0 / min(first, second))
    pace.leave(START)
    assert pace.delay(START) == pytest.approx(60.0 / min(first, second))


def test_pace_given_above_the_servers_rate_falls_to_it():
    subs = Submitters(World(), LeakyBucket(20), gate=Gate(per_minute=100))
    subs.submit(800)
    half = START + (subs.taken[-1] - START) / 2
    assert subs.share_of_rate_since(half) == pytest.approx(1.0, abs=0.1)


# --- a rate that is learnt --------------------------------------------------------------------------------------------


def test_pace_not_given_is_free_until_the_first_refusal():
    pace = Pace()
    for _ in range(10_000):
        assert pace.delay(START) == 0.0
        pace.leave(START)


# Refused: what is tolerated of the submissions made. A bucket is only known to be empty by a refusal, and one in three
# minutes, which costs nothing, is one in fifteen at five a minute.
@pytest.mark.parametrize("latency", [0.05, 0.35, 3.0])
@pytest.mark.parametrize(("rpm", "refused"), [(5, 0.08), (20, 0.03), (100, 0.01)])
def test_pace_learnt_comes_to_the_servers_rate_with_few_refusals(rpm: int, refused: float, latency: float):
    subs = Submitters(World(rpm), LeakyBucket(rpm), latency=latency)
    subs.submit(rpm * 40)
    half = START + (subs.taken[-1] - START) / 2
    assert subs.share_of_rate_since(half) == pytest.approx(1.0, abs=0.1)
    assert subs.share_refused_since(half) <= refused


@pytest.mark.parametrize("rpm", [5, 20, 100])
def test_pace_learnt_is_right_from_the_first_minutes(rpm: int):
    subs = Submitters(World(rpm), LeakyBucket(rpm))
    subs.submit(rpm * 10)
    # A full bucket gives one minute's worth at once, the other nine come at its rate.
    assert subs.taken[-1] - START <= 9.5 * 60.0
    # What is in flight when the bucket runs dry is refused; after that a few.
    assert len(subs.refused) <= 32 + 12


@pytest.mark.parametrize("rpm", [10, 100])
def test_pace_learnt_follows_a_rate_that_is_cut_in_half(rpm: int):
    subs = Submitters(World(), LeakyBucket(rpm))
    subs.submit(rpm * 10)
    subs.server.per_minute /= 2.0
    changed = subs.world.now
    subs.submit(rpm * 10)
    assert subs.share_of_rate_since(changed + 300.0) == pytest.approx(1.0, abs=0.1)
    assert subs.share_refused_since(changed + 300.0) <= 0.1


@pytest.mark.parametrize("rpm", [5, 100])
def test_pace_learnt_finds_a_rate_that_doubles_within_a_quarter_of_an_hour(rpm: int):
    subs = Submitters(World(), LeakyBucket(rpm))
    subs.submit(rpm * 10)
    subs.server.per_minute *= 2.0
    changed = subs.world.now
    subs.submit(rpm * 60)
    assert subs.share_of_rate_since(changed + 900.0) == pytest.approx(1.0, abs=0.1)


def test_pace_learnt_takes_what_another_program_on_the_account_leaves():
    world = World()
    subs = Submitters(world, LeakyBucket(20))
    todo = iter(range(400))

    def other() -> Steps:
        while len(subs.taken) < 400:
            subs.server.take(world.now)
            yield 6.0

    world.run([*(subs.submitter(todo) for _ in range(32)), other()])
    # Of what the two of them ask for, half the rate is the other's at most.
    assert subs.share_of_rate_since(START + 600.0) >= 0.45
    assert subs.share_refused_since(START + 600.0) <= 0.1


def test_pace_learnt_after_hours_of_little_use_is_what_the_last_minute_took():
    pace, now = Pace(), START
    for _ in range(2):
        pace.leave(now)
        now += 18_000.0
    for _ in range(15):
        pace.leave(now)
    for _ in range(10):
        pace.refused(now + 0.3, left_at=now)
    # Five were taken, so five or six a minute and a fifth less; not two in ten hours.
    assert 10.0 <= pace.interval <= 15.0


@given(order=st.permutations([True] * 5 + [False] * 27))
def test_pace_learnt_from_a_burst_does_not_depend_on_the_order_of_the_answers(order: list[bool]):
    pace = Pace()
    for _ in order:
        pace.leave(START)
    for taken in order:
        if not taken:
            pace.refused(START + 0.3, left_at=START)
    assert pace.interval == pytest.approx(12.5, rel=0.05)
    assert pace.delay(START + 0.3) == pytest.approx(pace.interval)


@pytest.mark.parametrize("rpm", [5, 100])
def test_pace_learnt_from_a_bucket_found_empty_is_right_within_minutes(rpm: int):
    # The same program again, just after it was killed: everything that leaves at first is refused.
    subs = Submitters(World(), LeakyBucket(rpm))
    subs.server.tokens = 0.0
    subs.submit(rpm * 10)
    assert subs.share_of_rate_since(START + 300.0) == pytest.approx(1.0, abs=0.1)
    assert subs.taken[-1] - START <= 13.0 * 60.0


def test_pace_is_cut_once_for_all_that_left_before_the_cut():
    pace, now = Pace(60), START
    left: list[float] = []
    for _ in range(600):
        now += pace.delay(now)
        pace.leave(now)
        left.append(now)
    for left_at in left[-Pace.IN_A_ROW - 2 : -2]:
        assert pace.interval == 1.0
        pace.refused(now + 0.1, left_at=left_at)
    once = pace.interval
    pace.refused(now + 0.2, left_at=left[-2])
    pace.refused(now + 0.3, left_at=left[-1])
    assert once > 1.2
    assert pace.interval == pytest.approx(once, rel=0.1)


def test_pace_is_not_learnt_from_a_server_that_refuses_now_and_then():
    pace, now, chance = Pace(), START, random.Random(7)
    for _ in range(2_000):
        now += pace.delay(now) + 0.01
        pace.leave(now)
        if chance.random() < 0.1:
            pace.refused(now, left_at=now)
        else:
            pace.accepted()
    assert pace.interval == 0.0


@given(
    rpm=st.none() | RPM,
    events=st.lists(
        st.tuples(st.floats(0, 2_000), st.sampled_from(["leave", "refused", "stale"]), st.floats(0, 60)), max_size=80
    ),
)
def test_pace_after_any_events_makes_nobody_wait_for_long(rpm: float | None, events: list[tuple[float, str, float]]):
    pace, now = Pace(rpm), START
    slowest = max(75.0, 60.0 / rpm if rpm else 0.0) + TINY
    for later, event, ago in events:
        if event == "leave":
            now += max(later, pace.delay(now))
            pace.leave(now)
        else:
            now += later
            pace.refused(now, left_at=now - (ago if event == "stale" else 0.0))
        assert (60.0 / rpm if rpm else 0.0) <= pace.interval <= slowest
        assert 0.0 <= pace.delay(now) <= slowest + TINY


# --- the budget of looks ----------------------------------------------------------------------------------------------


@given(per_minute=st.floats(0.1, 10_000), laters=st.lists(st.floats(0, 60), min_size=2, max_size=200))
def test_bucket_never_gives_more_than_a_burst_and_its_rate(per_minute: float, laters: list[float]):
    bucket, now, left = Bucket(per_minute), START, list[float]()
    for later in laters:
        now += later
        if bucket.delay(now) == 0.0:
            bucket.leave(now)
            left.append(now)
    burst = max(10.0, per_minute / 60.0)
    for first in range(0, len(left), 7):
        for last in range(first, len(left), 5):
            assert last - first + 1 <= burst + (left[last] - left[first]) * per_minute / 60.0 + TINY


@pytest.mark.parametrize("per_minute", [0.1, 1, 60, 6_000])
def test_bucket_gives_its_rate_in_the_long_run(per_minute: float):
    bucket, now = Bucket(per_minute), START
    for _ in range(500):
        now += bucket.delay(now) + TINY
        bucket.leave(now)
    at_once = max(1.0, min(10.0, per_minute), per_minute / 60.0)
    assert (now - START) * per_minute / 60.0 == pytest.approx(500.0 - at_once, abs=1.1)


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
def test_gate_lets_nothing_out_inside_a_window_of_silence(
    rpm: float | None, events: list[tuple[str, Lane, float, float]]
):
    gate, now = Gate(rpm), START
    silent_until = submits_silent_until = 0.0
    for event, lane, seconds, chance in events:
        match event:
            case "wait":
                now += seconds
            case "pass":
                if gate.delay(lane, now) == 0.0:
                    assert now >= silent_until
                    assert lane is not Lane.SUBMIT or now >= submits_silent_until
                    gate.leave(lane, now)
            case "hint":
                pause = gate.throttled(lane, now, now, seconds, chance)
                assert seconds <= pause <= seconds * 1.1
                silent_until = max(silent_until, now + seconds)
            case "throttled":
                pause = gate.throttled(lane, now, now, None, chance)
                if lane is Lane.SUBMIT:
                    submits_silent_until = max(submits_silent_until, now + pause)
            case "used_up":
                gate.used_up(now, seconds)
                silent_until = max(silent_until, now + seconds)
            case "answered":
                gate.answered(lane, accepted=chance < 0.5)
            case "failed":
                gate.failed(now, connected=chance < 0.5)
            case "halt":
                gate.halt(AuthenticationError("no"), lane, now)
            case _:
                gate.back(now)
        assert gate.silence(now) >= silent_until - now


@given(seconds=st.floats(0, 1_000), chance=CHANCE)
def test_gate_opens_again_when_the_silence_is_over(seconds: float, chance: float):
    gate = Gate()
    pause = gate.throttled(Lane.POLL, START, START, seconds, chance)
    assert gate.delay(Lane.POLL, START) == pytest.approx(pause)
    assert gate.delay(Lane.POLL, START + pause + TINY) == 0.0
    assert gate.silence(START + pause + TINY) == 0.0


@pytest.mark.parametrize("lane", list(Lane))
def test_silence_asked_for_on_one_lane_holds_on_every_lane(lane: Lane):
    gate = Gate()
    gate.throttled(lane, START, START, 120.0, 0.0)
    assert {gate.delay(other, START) >= 120.0 for other in Lane} == {True}


def test_longest_silence_holds_whatever_is_said_after_it():
    gate = Gate()
    gate.throttled(Lane.POLL, START, START, 120.0, 0.0)
    gate.throttled(Lane.POLL, START + 1, START, 0.0, 0.0)
    gate.used_up(START + 2, 5.0)
    assert gate.silence(START + 2) == 118.0


def test_throttled_submission_without_a_hint_leaves_the_looks_alone():
    gate = Gate()
    assert gate.throttled(Lane.SUBMIT, START, START, None, 0.5) == 0.0, "one refusal holds back only what was refused"
    assert gate.throttled(Lane.SUBMIT, START, START, None, 0.5) == 0.5
    assert gate.delay(Lane.SUBMIT, START) >= 0.5
    assert gate.delay(Lane.POLL, START) == gate.silence(START) == 0.0


def test_pause_without_a_hint_holds_submissions_back_beyond_their_pace():
    gate = Gate()
    for _ in range(200):
        gate.leave(Lane.SUBMIT, START)
    pauses = [gate.throttled(Lane.SUBMIT, START, START, None, 0.9) for _ in range(7)]
    assert gate.pace.delay(START) < 2.0
    assert gate.delay(Lane.SUBMIT, START) == pytest.approx(pauses[-1]) == 27.0


def test_throttled_look_without_a_hint_pauses_nobody():
    gate = Gate()
    assert gate.throttled(Lane.POLL, START, START, None, 0.5) == 0.0
    assert {gate.delay(lane, START) for lane in Lane} == {0.0}


def test_pause_without_a_hint_doubles_to_half_a_minute_until_one_is_accepted():
    gate = Gate()
    pauses = [gate.throttled(Lane.SUBMIT, START, START, None, 0.5) for _ in range(9)]
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    gate.answered(Lane.POLL, accepted=True)
    assert gate.throttled(Lane.SUBMIT, START, START, None, 0.5) == 15.0
    gate.answered(Lane.SUBMIT, accepted=True)
    assert gate.throttled(Lane.SUBMIT, START, START, None, 0.5) == 0.0


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


def test_one_answer_among_failures_starts_the_count_anew():
    gate = Gate()
    for _ in range(10 * SILENT_AFTER):
        for _ in range(SILENT_AFTER - 1):
            assert gate.failed(START, connected=True) == 0.0
        gate.answered(Lane.POLL, accepted=False)
        assert gate.delay(Lane.SUBMIT, START) == 0.0


def test_probes_of_a_silent_server_come_further_and_further_apart_to_a_minute():
    gate, now, waits = silent_gate(), START, list[float]()
    for _ in range(9):
        wait = gate.delay(Lane.SUBMIT, now)
        waits.append(wait)
        now += wait
        assert gate.delay(Lane.SUBMIT, now) == 0.0
        gate.leave(Lane.SUBMIT, now)
        gate.back(now)
        gate.failed(now, connected=True)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize("lane", list(Lane))
def test_first_answer_opens_the_gate_to_all_and_forgets_the_outage(lane: Lane):
    gate = silent_gate()
    for later in (1.0, 3.0, 7.0):
        gate.leave(lane, START + later)
        gate.back(START + later)
        gate.failed(START + later, connected=True)
    gate.leave(lane, START + 15.0)
    gate.back(START + 15.0)
    gate.answered(lane, accepted=True)
    assert {gate.delay(other, START + 15.0) for other in Lane} == {0.0}
    for _ in range(SILENT_AFTER):
        gate.failed(START + 16.0, connected=True)
    assert gate.delay(Lane.POLL, START + 16.0) == 1.0


def test_request_for_less_is_an_answer_too():
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
            gate.back(out_since)
            gate.failed(now, connected=True)
            out_since = None
        elif event == "pass" and gate.delay(lane, now) == 0.0:
            assert out_since is None
            gate.leave(lane, now)
            out_since = now


def test_probe_that_never_reports_back_is_followed_by_another():
    gate = silent_gate()
    gate.leave(Lane.SUBMIT, START + 1.0)
    assert gate.delay(Lane.SUBMIT, START + 100.0) > 0.0
    assert gate.delay(Lane.SUBMIT, START + 121.0 + TINY) == 0.0


def test_while_a_probe_is_out_the_others_look_again_soon():
    gate = silent_gate()
    gate.leave(Lane.SUBMIT, START + 1.0)
    assert 0.0 < gate.delay(Lane.SUBMIT, START + 1.0) <= 1.0


@pytest.mark.parametrize(("connected", "tries"), [(False, 3), (True, 0)])
def test_server_that_was_never_reached_is_told_from_one_that_does_not_answer(connected: bool, tries: int):
    gate = Gate()
    for _ in range(3):
        gate.failed(START, connected=connected)
    assert (gate.reached, gate.unreached_tries) == (False, tries)
    gate.answered(Lane.POLL, accepted=False)
    gate.failed(START, connected=False)
    assert (gate.reached, gate.unreached_tries) == (True, tries)


def test_attempts_that_failed_to_connect_side_by_side_are_one_try_at_reaching_the_server():
    gate = Gate()
    for _ in range(32):
        gate.failed(START + 0.1, connected=False, left_at=START)
    assert gate.unreached_tries == 1
    gate.failed(START + 1.1, connected=False, left_at=START + 1.0)
    assert gate.unreached_tries == 2


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
            tries = SubmitTries(POLICY, self.world.now + 3_600.0)
            while not (yield from self.attempt()):
                now, chance = self.world.now, self.world.chance.random()
                verdict = tries.failed(self.fault, now, chance, repeatable=True, status=None)
                if isinstance(verdict, Over):
                    self.failed += 1
                    break
                yield verdict.delay

    def attempt(self) -> Generator[float, None, bool]:
        while (delay := self.gate.delay(Lane.SUBMIT, self.world.now)) > 0.0:
            yield delay
        self.gate.leave(Lane.SUBMIT, self.world.now)
        self.attempts += 1
        left_at = self.world.now
        works = not START + 2.0 <= self.world.now < START + 62.0
        yield self.world.chance.uniform(0.2, 0.5) if works else self.fails_after
        self.gate.back(left_at)
        if works:
            self.gate.answered(Lane.SUBMIT, accepted=True)
            self.accepted += 1
            self.ended_at = self.world.now
        else:
            self.gate.failed(self.world.now, connected=self.fault is Fault.DOUBT)
        return works


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("fault", "fails_after"), [(Fault.NOT_SENT, 0.001), (Fault.DOUBT, 0.05), (Fault.DOUBT, 30.0)])
def test_outage_of_a_minute_fails_no_job_and_costs_few_attempts(fault: Fault, fails_after: float, seed: int):
    outage = Outage(fault, fails_after=fails_after, seed=seed)
    outage.run(1_000, at_once=50)
    assert (outage.accepted, outage.failed) == (1_000, 0)
    assert outage.attempts <= 1_100
    # Probes double, so the gate opens after at most as long again as the outage was.
    assert outage.ended_at - START <= 2.0 + 2 * 60.0 + 10.0


# --- stops ------------------------------------------------------------------------------------------------------------

NO_KEY, NO_MONEY = AuthenticationError("bad key"), OutOfCredit("no credit")


def test_stop_is_every_submissions_error_for_half_a_minute_and_then_one_may_try():
    gate = Gate()
    assert gate.halted(START) is None
    assert gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert gate.halted(START) is gate.halted(START + 29.9) is NO_KEY
    assert gate.halted(START + 30.0) is None


def test_stop_found_again_by_the_probe_holds_for_another_half_minute_and_is_no_news():
    gate = Gate()
    gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert not gate.halt(AuthenticationError("bad key"), Lane.SUBMIT, START + 30.0)
    assert gate.halted(START + 59.9) is not None


def test_stop_for_another_reason_is_news():
    gate = Gate()
    gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert gate.halt(NO_MONEY, Lane.SUBMIT, START + 1.0)
    assert gate.halted(START + 1.0) is NO_MONEY


def test_stop_holds_back_no_look():
    gate = Gate()
    gate.halt(NO_MONEY, Lane.SUBMIT, START)
    assert gate.delay(Lane.POLL, START) == 0.0
    assert not gate.looks_refused


@pytest.mark.parametrize("lane", [Lane.POLL, Lane.LIST])
def test_refused_look_stops_submissions_too_and_says_so_once(lane: Lane):
    gate = Gate()
    assert gate.halt(NO_KEY, lane, START)
    assert not gate.halt(NO_KEY, lane, START)
    assert gate.looks_refused
    assert gate.halted(START) is NO_KEY


def test_look_refused_after_a_submission_was_is_news():
    gate = Gate()
    gate.halt(NO_KEY, Lane.SUBMIT, START)
    assert gate.halt(NO_KEY, Lane.POLL, START)
    assert gate.looks_refused


def test_resume_lifts_a_stop_at_once_and_tells_whether_there_was_one():
    gate = Gate()
    assert not gate.resume()
    gate.halt(NO_KEY, Lane.POLL, START)
    assert gate.resume()
    assert gate.halted(START) is None
    assert not gate.looks_refused
    assert gate.halt(NO_KEY, Lane.SUBMIT, START)


@pytest.mark.parametrize("stopped_by", [Lane.SUBMIT, Lane.POLL])
def test_accepted_submission_lifts_every_stop(stopped_by: Lane):
    gate = Gate()
    gate.halt(NO_KEY, stopped_by, START)
    assert gate.accepted(Lane.SUBMIT)
    assert gate.halted(START) is None
    assert not gate.looks_refused


def test_accepted_look_lifts_only_what_a_look_had_stopped():
    gate = Gate()
    gate.halt(NO_MONEY, Lane.SUBMIT, START)
    assert not gate.accepted(Lane.POLL)
    assert gate.halted(START) is NO_MONEY
    gate.resume()
    gate.halt(NO_KEY, Lane.POLL, START)
    assert gate.accepted(Lane.POLL)
    assert gate.halted(START) is None
