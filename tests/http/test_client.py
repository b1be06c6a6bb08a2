"""One submission is sent step by step, and each cancellation leaves the phase that is true.

The test plays everything that the client talks to, and all of it writes one log: the transport, the owner of the
submission, and a clock that jumps. A test may step in at each point where the client waits.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest
from _source import PACKAGE, tree_of
from _virtual import ask_for_silence

from aiopplx._errors import (
    AiopplxError,
    APIError,
    AuthenticationError,
    InDoubt,
    InvalidRequest,
    NotFound,
    ProtocolError,
    RateLimited,
    TransportError,
)
from aiopplx._events import Event, EventKind
from aiopplx._http.client import Client
from aiopplx._http.line import SUBMITS_AT_ONCE
from aiopplx._job import Job
from aiopplx._policy.gate import SILENT_AFTER, Gate
from aiopplx._policy.retry import Bounds, RetryPolicy
from aiopplx._submission import ON_WIRE, Listener, Phase, Submission
from aiopplx._wire.call import Broken, Call, Lane, NoReply, Reply
from aiopplx.agent import AGENT
from aiopplx.sonar import SONAR

START = 10_000.0
TIMEOUT = 600.0

ACCEPTED = Reply(200, {}, b'{"id": "job-1", "status": "CREATED", "model": "sonar-deep-research", "created_at": 1}')
THROTTLED = Reply(429, {}, b"")
BUSY = Reply(425, {}, b"")
QUIET_PLEASE = Reply(429, {"retry-after": "30"}, b"")
REFUSED = Reply(400, {}, b'{"error": {"message": "no such model", "type": "invalid_request"}}')
UNKNOWN = Reply(404, {}, b'{"error":{"message":"Request not found","type":"not_found"}}')
BAD_KEY = Reply(401, {}, b"")
LOST = NoReply(Broken.RESET, "closed", sent=True)
NOT_SENT = NoReply(Broken.CONNECT, "refused", sent=False)
NO_HOST = NoReply(Broken.DNS, "nowhere", sent=False, permanent=True)

Step = Callable[[], Awaitable[object] | object]


class _Anybody(Listener, eq=False, kw_only=True):
    """Somebody who waits, and does nothing with what comes."""

    def deliver(self, job: Job | None) -> None:
        """See `Listener`."""


class Stage:
    """The log of what happened, and where a test steps in: at the n-th time that a point is reached (from 1)."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.steps: dict[tuple[str, int], Step] = {}

    def on(self, point: str, step: Step, *, time: int = 1) -> None:
        self.steps[point, time] = step

    async def at(self, point: str) -> None:
        self.log.append(point)
        step = self.steps.get((point, self.log.count(point)))
        result = step() if step is not None else None
        if isinstance(result, Awaitable):
            await result
        await asyncio.sleep(0)  # where a cancellation arrives


class JumpingClock:
    """Whoever waits makes time pass."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.time = START

    def now(self) -> float:
        return self.time

    def wire_now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await self.stage.at("pause")
        self.time += seconds

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        await self.stage.at("wait")
        self.time += seconds
        return event.is_set()

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(0 if seconds == 0.0 else None)


class Wire:
    """A transport: one outcome for each exchange, the last one for all that follow."""

    limit = 1_000

    def __init__(self, stage: Stage, outcomes: list[Reply | NoReply]) -> None:
        self.stage = stage
        self.outcomes = outcomes
        self.calls: list[Call] = []

    async def exchange(self, call: Call, sink: object = None) -> Reply | NoReply:
        self.calls.append(call)
        await self.stage.at("exchange")
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    def open_since(self, moment: float) -> float:
        return math.inf

    def scrub(self, text: str) -> str:
        return text


class Owner:
    """The owner of submissions, as its protocol says, and as strict as the table of transitions."""

    def __init__(self, stage: Stage, clock: JumpingClock) -> None:
        self.stage = stage
        self.clock = clock

    async def mark(self, sub: Submission, now: float) -> float:
        await self.stage.at("mark")
        sub.to(Phase.RESENDING if sub.phase is Phase.UNANSWERED else Phase.SENDING)
        sub.deadline = sub.deadline or now + sub.timeout
        return self.clock.now()

    async def take_back(self, sub: Submission) -> None:
        if sub.phase is Phase.SENDING:
            await self.stage.at("take back")
            sub.to(Phase.QUEUED)

    def began(self, sub: Submission) -> None:
        assert sub.phase in ON_WIRE
        self.stage.log.append("began")
        sub.attempts += 1

    def unanswered(self, sub: Submission) -> None:
        self.stage.log.append("unanswered")
        sub.to(Phase.UNANSWERED)


class Play:
    """A client with everything round it."""

    def __init__(
        self, *outcomes: Reply | NoReply, gate: Gate | None = None, policy: RetryPolicy | None = None, api=SONAR
    ) -> None:
        self.stage = Stage()
        self.log = self.stage.log
        self.clock = JumpingClock(self.stage)
        self.wire = Wire(self.stage, list(outcomes))
        self.gate = gate or Gate()
        # A first attempt elsewhere has shown that the server is there.
        self.gate.accepted(Lane.POLL, START, START)
        self.events: list[Event] = []
        self.phases: list[Phase] = []
        self.stops: list[AiopplxError | None] = []
        self.client = Client(
            self.wire,
            self.gate,
            policy or RetryPolicy(),
            clock=self.clock,
            random=lambda: 0.5,
            emit=self.emit,
            has_handlers=lambda: True,
            is_only_api=lambda name: False,
        )
        self.client.on_stop = lambda: self.stops.append(self.gate.stop)
        self.owner = Owner(self.stage, self.clock)
        self.sub = self.submission(api)

    def submission(self, api=SONAR) -> Submission:
        sub = Submission(api, "a-key", b"{}", timeout=TIMEOUT, tag="a tag", phase=Phase.QUEUED)
        sub.listeners = (_Anybody(sub=sub, tag="a tag"),)
        return sub

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.phases.append(self.sub.phase)

    def told(self) -> list[EventKind]:
        return [event.kind for event in self.events]

    async def submit(self, **bounds: float):
        snapshot, _ = await self.client.submit(self.sub, self.owner, Bounds(**bounds))
        return snapshot

    async def submit_in_vain(self, error: type[AiopplxError], **bounds: float) -> AiopplxError:
        with pytest.raises(error) as raised:
            await self.submit(**bounds)
        assert type(raised.value) is error
        return raised.value

    async def cancelled(self, **bounds: float) -> None:
        task = asyncio.ensure_future(self.submit(**bounds))
        with pytest.raises(asyncio.CancelledError):
            await task

    def leave(self) -> None:
        self.sub.listeners = ()


def cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@contextlib.contextmanager
def nothing_is_held(play: Play) -> Iterator[None]:
    """After whatever happened, another submission gets through at once."""
    yield
    passed = [play.client.line.submitting, play.client.line.passes(Lane.POLL, play.clock.now())]
    assert passed == [0, True]


# --- the order of things ----------------------------------------------------------------------------------------------


async def test_mark_comes_before_the_attempt():
    play = Play(ACCEPTED)
    snapshot = await play.submit()
    assert snapshot.id == "job-1"
    assert play.log == ["mark", "began", "exchange"]
    assert play.sub.phase is Phase.SENDING
    assert play.events == []


async def test_every_attempt_sends_the_same_bytes():
    play = Play(LOST, THROTTLED, ACCEPTED)
    await play.submit()
    assert len({(call.path, call.body) for call in play.wire.calls}) == 1


@pytest.mark.parametrize("outcome", [BUSY, NOT_SENT, QUIET_PLEASE], ids=["busy", "not sent", "silence"])
async def test_mark_is_undone_before_the_pause(outcome: Reply | NoReply):
    play = Play(outcome, ACCEPTED)
    await play.submit()
    assert [point for point in play.log if point != "wait"] == [
        *("mark", "began", "exchange", "take back", "pause"),
        *("mark", "began", "exchange"),
    ]
    assert play.phases[-1] is Phase.QUEUED


@pytest.mark.parametrize(("name", "is_taught"), [("request_rate_limit_exceeded", True), ("tokens", False)])
async def test_refusal_by_tokens_is_told_and_teaches_no_pace(name: str, is_taught: bool):
    refused = Reply(429, {}, json.dumps({"error": {"message": "Too much.", "type": name, "code": 429}}).encode())
    play = Play(*[refused] * 20, ACCEPTED)
    await play.submit()
    assert (play.gate.limits.tokens is None) == is_taught
    assert play.gate.delay(Lane.POLL, play.clock.now()) == 0.0
    reasons = {event.reason for event in play.events if event.kind is EventKind.RETRYING}
    assert ["tokens" in reason for reason in reasons] == [not is_taught]


async def test_doubt_is_on_record_before_anything_else():
    play = Play(LOST, ACCEPTED)
    await play.submit()
    assert play.log == ["mark", "began", "exchange", "unanswered", "pause", "mark", "began", "exchange"]
    assert play.told() == [EventKind.RETRYING]
    assert play.phases == [Phase.UNANSWERED]
    assert play.sub.phase is Phase.RESENDING


@pytest.mark.parametrize("outcome", [THROTTLED, NOT_SENT, LOST], ids=["throttled", "not sent", "lost"])
async def test_failed_resending_is_unanswered_whatever_the_cause(outcome: Reply | NoReply):
    play = Play(LOST, outcome, ACCEPTED)
    await play.submit()
    assert "take back" not in play.log
    assert play.log.count("unanswered") == 2
    assert set(play.phases) <= {Phase.UNANSWERED, Phase.RESENDING}


async def test_refusal_leaves_the_phase_to_the_owner():
    play = Play(REFUSED)
    error = await play.submit_in_vain(APIError)
    assert play.log == ["mark", "began", "exchange"]
    assert play.sub.phase is Phase.SENDING
    assert (error.idempotency_key, error.tag, error.attempts) == ("a-key", "a tag", 1)


@pytest.mark.parametrize(
    ("refusal", "error"), [(REFUSED, APIError), (UNKNOWN, InDoubt), (BAD_KEY, InDoubt)], ids=["400", "404", "401"]
)
async def test_only_malformed_bytes_end_a_doubt(refusal: Reply, error: type[AiopplxError]):
    play = Play(LOST, refusal)
    await play.submit_in_vain(error)
    assert play.sub.phase is Phase.UNANSWERED


async def test_doubt_says_nothing_of_what_its_last_attempt_billed():
    error = await Play(LOST, NOT_SENT).submit_in_vain(InDoubt)
    assert "could not connect" in error.message
    assert "nothing was" not in error.message


async def test_lasting_doubt_is_raised_with_its_facts():
    play = Play(LOST)
    error = await play.submit_in_vain(InDoubt)
    assert error.message.startswith("sent 8 times and no usable answer came (the connection broke: closed after the ")
    assert (error.remedy, error.look_in) == ("Look for it with session.list()", "list")
    assert (error.idempotency_key, error.tag, error.attempts) == ("a-key", "a tag", 8)
    assert play.log.count("exchange") == RetryPolicy().doubt_tries


async def test_api_without_keys_is_not_asked_twice_in_doubt():
    play = Play(LOST, api=AGENT)
    error = await play.submit_in_vain(InDoubt)
    assert "Sending it again may pay twice, since this API knows no keys; it has no list of jobs" in error.message
    assert play.log == ["mark", "began", "exchange", "unanswered"]


async def test_resending_without_keys_is_reported_each_time():
    play = Play(LOST, api=AGENT, policy=RetryPolicy(on_doubt="resend", doubt_tries=3))
    await play.submit_in_vain(InDoubt)
    assert play.told() == [EventKind.WARNING, EventKind.RETRYING] * 2
    assert all("two bills" in event.reason for event in play.events[::2])


async def test_holding_policy_never_resends_even_with_keys():
    play = Play(LOST, policy=RetryPolicy(on_doubt="hold"))
    await play.submit_in_vain(InDoubt)
    assert play.log.count("exchange") == 1


async def test_retry_event_has_the_names_and_the_fault():
    play = Play(NOT_SENT, ACCEPTED)
    await play.submit()
    (event,) = play.events
    assert (event.kind, event.idempotency_key, event.tag) == (EventKind.RETRYING, "a-key", "a tag")
    assert (event.attempt, event.delay, event.fault) == (1, 0.25, "N")


async def test_nothing_leaves_after_the_deadline():
    play = Play(THROTTLED)
    await play.submit_in_vain(RateLimited)
    assert START + TIMEOUT - 60.0 < play.clock.now() < START + TIMEOUT


async def test_given_moment_holds_before_the_deadline():
    play = Play(NOT_SENT)
    await play.submit_in_vain(TransportError, until=START + 20.0)
    assert play.clock.now() < START + 20.0


# --- silence ----------------------------------------------------------------------------------------------------------


async def test_silence_that_begins_during_the_mark_is_kept():
    play = Play(ACCEPTED)
    play.stage.on("mark", lambda: ask_for_silence(play.gate, play.clock.now(), 30.0))
    play.stage.on("wait", lambda: play.phases.append(play.sub.phase))
    await play.submit()
    assert play.log == ["mark", "take back", "wait", "mark", "began", "exchange"]
    assert play.phases == [Phase.QUEUED]
    assert play.clock.now() == START + 30.0


async def test_each_mark_that_meets_silence_is_undone():
    play = Play(ACCEPTED)
    for time in (1, 2, 3):
        play.stage.on("mark", lambda: ask_for_silence(play.gate, play.clock.now(), 30.0), time=time)
    await play.submit()
    assert play.log == ["mark", "take back", "wait"] * 3 + ["mark", "began", "exchange"]


async def test_silence_during_the_mark_of_a_doubt_keeps_it():
    play = Play(LOST, ACCEPTED)
    play.stage.on("mark", lambda: ask_for_silence(play.gate, play.clock.now(), 30.0), time=2)
    play.stage.on("wait", lambda: play.phases.append(play.sub.phase))
    await play.submit()
    assert play.log[5:] == ["mark", "unanswered", "wait", "mark", "began", "exchange"]
    assert play.phases[-1] is Phase.UNANSWERED


async def test_probe_that_waits_through_silence_leaves_when_it_ends():
    play = Play(ACCEPTED)
    for _ in range(SILENT_AFTER):
        play.gate.failed(START - 10.0, connected=True)
    play.stage.on("mark", lambda: ask_for_silence(play.gate, play.clock.now(), 30.0))
    await play.submit()
    assert play.clock.now() == START + 30.0


async def test_silence_longer_than_its_bound_ends_the_wait():
    play = Play(ACCEPTED)
    play.stage.on("mark", lambda: ask_for_silence(play.gate, play.clock.now(), 30.0))
    error = await play.submit_in_vain(RateLimited, silence=20.0)
    assert error.message == "not sent within the time limit: the server asked for silence; nothing was billed"
    assert error.retry_after == 30.0
    assert play.log == ["mark", "take back"]
    assert play.sub.phase is Phase.QUEUED


async def test_retry_after_beyond_its_bound_is_not_waited_for():
    play = Play(QUIET_PLEASE)
    error = await play.submit_in_vain(RateLimited, silence=20.0)
    assert error.retry_after == 30.0
    assert play.log == ["mark", "began", "exchange"]


# --- a mark that fails ------------------------------------------------------------------------------------------------


def broken_journal() -> None:
    raise InvalidRequest("the journal is full")


async def test_nothing_leaves_without_a_mark():
    play = Play(ACCEPTED)
    play.stage.on("mark", broken_journal)
    with nothing_is_held(play):
        await play.submit_in_vain(InvalidRequest)
    assert play.log == ["mark"]


async def test_later_mark_that_fails_ends_with_its_error():
    play = Play(THROTTLED)
    play.stage.on("mark", broken_journal, time=2)
    error = await play.submit_in_vain(InvalidRequest)
    assert (error.idempotency_key, error.attempts) == ("a-key", 1)
    assert play.sub.phase is Phase.QUEUED


async def test_mark_that_fails_in_doubt_is_reported_as_doubt():
    play = Play(LOST)
    play.stage.on("mark", broken_journal, time=2)
    error = await play.submit_in_vain(InDoubt)
    assert "the journal is full" in error.message
    assert play.sub.phase is Phase.UNANSWERED


@pytest.mark.parametrize("ends", [broken_journal, cancel], ids=["fails", "is cancelled"])
async def test_probe_whose_mark_fails_makes_way_for_another(ends: Step):
    play = Play(ACCEPTED)
    for _ in range(SILENT_AFTER):
        play.gate.failed(START - 10.0, connected=True)
    play.stage.on("mark", ends)
    with contextlib.suppress(InvalidRequest, asyncio.CancelledError):
        await asyncio.ensure_future(play.submit())
    assert play.log == ["mark"]
    assert play.gate.delay(Lane.SUBMIT, START) == 0.0


# --- cancellation at every await --------------------------------------------------------------------------------------


def silence(play: Play) -> None:
    play.stage.on("mark", lambda: ask_for_silence(play.gate, play.clock.now(), 30.0))


def closed_gate(play: Play) -> None:
    ask_for_silence(play.gate, START, 30.0)


def as_it_is(play: Play) -> None:
    pass


# what came back, what else is going on, where it is cancelled, what it is afterwards, whether anything left
CUT: list[tuple[list[Reply | NoReply], Callable[[Play], None], tuple[str, int], Phase, int]] = [
    ([ACCEPTED], closed_gate, ("wait", 1), Phase.QUEUED, 0),
    ([ACCEPTED], as_it_is, ("mark", 1), Phase.QUEUED, 0),
    ([ACCEPTED], silence, ("take back", 1), Phase.QUEUED, 0),
    ([ACCEPTED], silence, ("wait", 1), Phase.QUEUED, 0),
    ([ACCEPTED], silence, ("mark", 2), Phase.QUEUED, 0),
    ([ACCEPTED], as_it_is, ("exchange", 1), Phase.SENDING, 1),
    # The cautious answer: what was being written down may not be on disk yet.
    ([THROTTLED], as_it_is, ("take back", 1), Phase.SENDING, 1),
    ([THROTTLED], as_it_is, ("pause", 1), Phase.QUEUED, 4),  # refused three times, it makes way for others
    ([QUIET_PLEASE], as_it_is, ("pause", 1), Phase.QUEUED, 1),
    ([THROTTLED], as_it_is, ("mark", 2), Phase.QUEUED, 1),
    ([THROTTLED], as_it_is, ("exchange", 2), Phase.SENDING, 2),
    ([LOST], as_it_is, ("pause", 1), Phase.UNANSWERED, 1),
    ([LOST], as_it_is, ("mark", 2), Phase.UNANSWERED, 1),
    ([LOST], as_it_is, ("exchange", 2), Phase.RESENDING, 2),
]


@pytest.mark.parametrize(("outcomes", "meanwhile", "point", "phase", "attempts"), CUT)
async def test_cancellation_leaves_the_phase_that_is_true(
    outcomes: list[Reply | NoReply],
    meanwhile: Callable[[Play], None],
    point: tuple[str, int],
    phase: Phase,
    attempts: int,
):
    play = Play(*outcomes)
    meanwhile(play)
    play.stage.on(point[0], cancel, time=point[1])
    await play.cancelled()
    play.clock.time += 60.0
    with nothing_is_held(play):
        assert (play.sub.phase, play.sub.attempts) == (phase, attempts)


@pytest.mark.parametrize(("outcomes", "meanwhile", "point", "phase", "attempts"), CUT)
async def test_cancel_scope_leaves_the_same_phase(
    outcomes: list[Reply | NoReply],
    meanwhile: Callable[[Play], None],
    point: tuple[str, int],
    phase: Phase,
    attempts: int,
):
    # Such a scope cancels every later await too, so that taking the mark back needs its shield.
    play = Play(*outcomes)
    meanwhile(play)
    with anyio.CancelScope() as scope:
        play.stage.on(point[0], scope.cancel, time=point[1])
        await play.submit()
    assert scope.cancelled_caught
    assert (play.sub.phase, play.sub.attempts) == (phase, attempts)


# --- nobody wants it any more -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["exchange", "take back"])
async def test_no_attempt_follows_once_the_listeners_left(point: str):
    play = Play(THROTTLED)
    play.stage.on(point, play.leave)
    await play.submit_in_vain(RateLimited)
    assert play.log == ["mark", "began", "exchange", "take back"]
    assert play.sub.phase is Phase.QUEUED
    assert play.told() == []


async def test_doubt_outlasts_the_listeners():
    play = Play(LOST)
    play.stage.on("exchange", play.leave)
    await play.submit_in_vain(InDoubt)
    assert play.log == ["mark", "began", "exchange", "unanswered"]
    assert play.told() == []


async def test_acceptance_is_delivered_though_the_listeners_left():
    play = Play(ACCEPTED)
    play.stage.on("exchange", play.leave)
    assert (await play.submit()).id == "job-1"


# --- stops and waits --------------------------------------------------------------------------------------------------


async def test_stop_is_emitted_once_and_names_no_submission():
    play = Play(BAD_KEY)
    await play.submit_in_vain(AuthenticationError)
    (event,) = play.events
    assert (event.kind, event.idempotency_key, event.tag) == (EventKind.STOPPED, "", None)
    stop = play.gate.stop
    assert stop is not None
    assert (stop.idempotency_key, stop.tag, stop.attempts) == ("", None, 0)
    assert play.stops == [stop]
    await play.submit_in_vain(AuthenticationError)
    assert len(play.events) == 1


async def test_every_session_of_the_account_hears_of_its_stop():
    first = Play(BAD_KEY)
    second = Play(BAD_KEY, gate=first.gate)
    await first.submit_in_vain(AuthenticationError)
    second.clock.time += 60.0
    await second.submit_in_vain(AuthenticationError)
    assert len(second.stops) == 1
    assert second.told() == []


async def test_stopped_submission_never_leaves():
    play = Play(ACCEPTED)
    play.client.halt(AuthenticationError("bad key"), Lane.SUBMIT)
    await play.submit_in_vain(AuthenticationError)
    assert play.log == []


async def test_accepted_probe_resumes_submissions():
    play = Play(ACCEPTED)
    play.client.halt(AuthenticationError("bad key"), Lane.SUBMIT)
    play.clock.time += 31.0
    await play.submit()
    assert play.told() == [EventKind.STOPPED, EventKind.RESUMED]
    assert play.gate.stop is None


async def test_server_never_reached_stops_after_few_tries():
    play = Play(NOT_SENT)
    play.gate = play.client.gate = play.client.line.gate = Gate()
    error = await play.submit_in_vain(TransportError)
    assert "nothing was billed" in error.message
    assert error.attempts == RetryPolicy().first_contact_tries
    assert play.told()[-1] is EventKind.STOPPED


async def test_host_that_does_not_exist_stops_at_once():
    play = Play(NO_HOST)
    play.gate = play.client.gate = play.client.line.gate = Gate()
    await play.submit_in_vain(TransportError)
    assert play.log == ["mark", "began", "exchange"]
    assert play.told() == [EventKind.STOPPED]


async def test_host_that_once_answered_is_merely_away():
    play = Play(NO_HOST, NO_HOST, ACCEPTED)
    assert (await play.submit()).id
    assert play.told() == [EventKind.RETRYING, EventKind.RETRYING]
    assert play.sub.attempts == 3


async def test_waiting_at_a_silent_server_ends():
    play = Play(ACCEPTED)
    for _ in range(SILENT_AFTER):
        play.gate.failed(START, connected=True)
    play.gate.submit_failed(START)
    play.gate.leave(Lane.POLL, START)  # the probe is out, and does not come back
    error = await play.submit_in_vain(TransportError, unanswered=60.0)
    assert error.message == "not sent: no submission was accepted or rejected for 60 s; nothing was billed"
    assert set(play.log) == {"wait"}


async def test_wait_for_a_place_ends_at_its_moment():
    play = Play(ACCEPTED)
    play.gate.limits.allow_tier(1e6, None, None)  # so that no limit of the account's is in the way
    full, answers = asyncio.Event(), asyncio.Event()

    async def answer_later() -> None:
        if play.log.count("exchange") == SUBMITS_AT_ONCE:
            full.set()
        await answers.wait()

    for time in range(1, SUBMITS_AT_ONCE + 1):
        play.stage.on("exchange", answer_later, time=time)
    subs = [play.submission() for _ in range(SUBMITS_AT_ONCE)]
    tasks = [asyncio.ensure_future(play.client.submit(sub, play.owner, Bounds())) for sub in subs]
    await full.wait()
    error = await play.submit_in_vain(RateLimited, until=START)
    assert error.message == "not sent within the time limit: others were in front; nothing was billed"
    answers.set()
    assert {snapshot.id for snapshot, _ in await asyncio.gather(*tasks)} == {"job-1"}


# --- single calls -----------------------------------------------------------------------------------------------------


def poll(play: Play) -> Awaitable[object]:
    return play.client.call(SONAR.get("job-1"), lambda reply: SONAR.read_job(reply, "job-1"))


async def test_call_is_repeated_within_its_bounds():
    play = Play(LOST)
    with pytest.raises(TransportError) as raised:
        await poll(play)
    assert raised.value.attempts == RetryPolicy().call_tries
    assert play.log == ["exchange", "pause"] * 3 + ["exchange"]


async def test_refused_call_is_not_repeated():
    play = Play(UNKNOWN)
    with pytest.raises(NotFound):
        await poll(play)
    assert play.log == ["exchange"]


async def test_call_does_not_wait_through_a_longer_silence():
    play = Play(ACCEPTED)
    ask_for_silence(play.gate, START, 500.0)
    with pytest.raises(RateLimited, match="the server asked for silence"):
        await poll(play)
    assert play.log == []


async def test_odd_answer_proves_that_the_server_works():
    play = Play(Reply(200, {}, b"<html>"))
    for _ in range(SILENT_AFTER - 1):
        play.gate.failed(START, connected=True)
    with pytest.raises(ProtocolError):
        await poll(play)
    assert play.gate.failed(START, connected=True) == 0.0


# --- whose facts they are ---------------------------------------------------------------------------------------------


def test_client_writes_no_fact_of_a_submission():
    written = [
        ast.unparse(node)
        for node in ast.walk(tree_of(PACKAGE / "_http" / "client.py"))
        if (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "sub")
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "sub.to")
    ]
    assert written == []
