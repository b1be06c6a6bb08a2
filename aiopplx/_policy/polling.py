"""When a running job is polled, what the outcome of a poll means, and which jobs are due.

The schedule
------------
A job is finished at a moment that nobody knows, and a poll costs a request. For one job the two that matter are the
number of polls and the delay between the job's end and the poll that sees it. By default the next poll is where a
learnt law of durations says that it is worth its price (`durations`). Even gaps after a quiet start, which grow for
what runs far beyond the usual, can take its place, and so can a caller's own function of a `RunningJob`.

A schedule belongs to the job and not to those who wait for it: `Polls` has the age at which the job was last seen
running and the moment at which its next poll is due, as long as the session knows of the job. A poll that fell due
while nobody waited is made when somebody comes back.

What a poll means
-----------------
A poll that fails says nothing about the job: the job goes on at the server, and is billed. So only the server can end a
job, in one of three ways: it says so in a final status; it says twice, some time apart, that it does not know the job,
or that this is no id, where nobody here knows more than the id; or it has answered for minutes, and never with this job
in a form that can be read. `Polls` counts these for one job
and decides; a listener's time limit is not among them, because it ends the listener's wait and not the job.

A page of a list is not a poll in this sense: it has neither answers nor error messages, and its failure says nothing of
any job (`paging`). A job that has ended by its word is polled, and the poll decides.

At a time limit
---------------
One last poll decides: the one that is out, or one that leaves at once. If none may leave, the wait ends without it. A
poll that failed is not the last while the listener is in its grace (`GRACE`). A `wait` that can be repeated has no last
poll where the law says that hardly anything can have happened since the job was last seen running: whoever waits again
and again in short windows would pay for a poll at the end of each.

This module knows nothing of requests, tasks or clocks: `now` and `random` are arguments.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from aiopplx._checks.unseen import unseen
from aiopplx._errors import AiopplxError, APIError, ConfigError, JobExpired, NotFound, ProtocolError, ResponseTooLarge
from aiopplx._job import CLOCKS_DIFFER, JobStatus, Snapshot, outcome_error
from aiopplx._policy.durations import PRICE, Law
from aiopplx._policy.retry import Again, Fault, RetryPolicy
from aiopplx._policy.turns import CONTESTED

K = TypeVar("K")

SHORTEST = 0.01
"""Seconds: a rule that asks for less would only spin."""
LONGEST = 86_400.0
"""Seconds: no gap is longer, whatever a rule says."""
GRACE = 60.0
"""Seconds in which a failed poll is nobody's last: after the machine slept, or after a job waited for its consumer. The
network may need a moment, and the job did not stand still."""
SHORT_RECHECK = 5.0
"""Seconds after which a 404 at the very first poll of a job from elsewhere is checked: most likely the id is wrong."""
_MALFORMED = frozenset({400, 422})
"""What an API answers to an id that is none of its own."""

_RESULTS_LIVE = 7 * 86_400.0
_INF = float("inf")


# --- when ------------------------------------------------------------------------------------------------------------


class RunningJob(msgspec.Struct, frozen=True, gc=False):
    """What a poll rule is asked with.

    Attributes:
        age: seconds since the server accepted the job.
        polls: how many times it was polled so far.
        status: the server's word at the last poll, `""` before the first.
        model: the model it runs on, `""` before the first poll.
    """

    age: float
    polls: int
    status: str = ""
    model: str = ""


PollRule = Callable[[RunningJob], float]


class PollPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to poll a job, and when to believe what a poll says. All times are seconds.

    `PollPolicy.adaptive()` is what a session does by default, `PollPolicy()` even gaps after a quiet start.

    Attributes:
        price: seconds of a result's delay that one poll is worth. With a price, polls are made by the learnt law of
            the durations of such jobs, in the place of the fields from `quiet` to `max_gap`. Default None.
        quiet: no poll before this age. Default 30: hardly any deep-research job finishes earlier.
        gap: between polls after that. Default 10; the mean delay of a result is half of it.
        tail_after: from this age on gaps grow. Default 900: few jobs take a quarter of an hour.
        growth: factor from gap to gap in the tail. Default 1.25.
        max_gap: no gap grows beyond this (a `gap` that is longer already stays as it is). Default 120.
        jitter: each gap is stretched or shortened by up to this share (the first only stretched), so that jobs
            submitted together are not polled together. Default 0.1.
        budget: polls a minute over all jobs of the session, None for no bound. Default 6000: what the service allows
            one key (usage tiers, "GET async by id").
        missing_grace: a 404 so soon after acceptance is the server's own delay, not an answer. Default 60.
        missing_recheck: a 404 later than that is checked once more after this long, and believed then. Default 30.
        empty_polls, empty_seconds: a job that is COMPLETED without an answer is polled this many times more, spread
            over this long. Default 3 over 30.
        unreadable_polls, unreadable_seconds: this many polls in a row that cannot be read are final, once they span
            at least this long. Default 8 over 120.
        refused_pause: pause after a poll that the server refused (401, 403), or whose outcome could not be stored.
            Default 30.
        rule: a function of your own from a `RunningJob` to the seconds until its next poll. It takes the place of the
            fields from `price` to `max_gap`. Default None.
    """

    price: float | None = None
    quiet: float = 30.0
    gap: float = 10.0
    tail_after: float = 900.0
    growth: float = 1.25
    max_gap: float = 120.0
    jitter: float = 0.1
    budget: float | None = 6000.0
    missing_grace: float = 60.0
    missing_recheck: float = 30.0
    empty_polls: int = 3
    empty_seconds: float = 30.0
    unreadable_polls: int = 8
    unreadable_seconds: float = 120.0
    refused_pause: float = 30.0
    rule: PollRule | None = None

    @unseen
    def __post_init__(self) -> None:
        """Refuses a policy that would never poll or always. Raises `ConfigError`."""
        if not self._is_possible():
            raise ConfigError(
                f"a poll policy needs gap >= {SHORTEST} s, quiet >= 0 s, tail_after >= 0 s, growth >= 1, max_gap > 0 s,"
                " 0 <= jitter < 1, budget > 0 and price > 0 s"
            )

    def _is_possible(self) -> bool:
        try:
            # Written so that nan, of which every comparison is false, is refused too.
            timed = SHORTEST <= self.gap < _INF and 0 <= self.quiet < _INF and self.tail_after >= 0 and self.max_gap > 0
            bounded = (self.budget is None or self.budget > 0) and (self.price is None or 0 < self.price < _INF)
            return timed and bounded and 1 <= self.growth < _INF and 0 <= self.jitter < 1
        except (TypeError, ArithmeticError):  # not numbers; a Decimal that is none refuses to be compared
            return False

    @classmethod
    def adaptive(cls, price: float = PRICE, *, budget: float | None = 6000.0) -> PollPolicy:
        """Polls by the learnt law of durations: what a session does by default.

        Args:
            price: seconds of a result's delay that one poll is worth. Four times the price is half the polls and twice
                the delay. Default 0.25: of jobs of about three minutes some 19 polls each, and 5 seconds.
            budget: polls a minute over all jobs of the session, None for no bound.
        """
        return cls(price=price, budget=budget)

    @classmethod
    def fixed(cls, seconds: float, *, budget: float | None = None) -> PollPolicy:
        """The same gap of `seconds` from the first poll on, a tenth of jitter; no `budget` unless one is given."""
        return cls(quiet=seconds, gap=seconds, tail_after=_INF, budget=budget)

    @classmethod
    def by(cls, rule: PollRule) -> PollPolicy:
        """A function of your own as it is: no jitter, no budget, every other bound as by default."""
        return cls(rule=rule, jitter=0.0, budget=None)

    def __call__(self, job: RunningJob) -> float:
        """Seconds from now until the next poll of a job that stands as `job` says (before jitter)."""
        if self.rule is not None:
            return self.rule(job)
        if job.age < self.quiet:
            return max(self.quiet - job.age, SHORTEST)
        if job.age <= self.tail_after:
            return self.gap
        # A gap that grows by a factor at each poll is, in closed form, one that grows evenly with age.
        return max(self.gap, min(self.max_gap, self.gap + (job.age - self.tail_after) * (self.growth - 1.0)))

    def next_gap(self, job: RunningJob, random: float) -> float:
        """Seconds until the next poll of `job`: the rule's answer, jittered by `random` (from 0 to 1), and kept where
        waiting makes sense.
        """
        gap = self(job)
        if not gap > SHORTEST:  # also catches nan from a caller's own rule
            gap = SHORTEST
        # The first poll is only ever put off: one before the end of the quiet would be wasted.
        spread = 2.0 * random - 1.0 if job.polls else random
        gap *= 1.0 + self.jitter * spread
        return gap if gap < LONGEST else LONGEST

    def law_gap(self, law: Law, age: float, random: float) -> float:
        """Seconds until the next poll by `law` of a job that is `age` seconds old, jittered by `random` (from 0 to 1):
        for a policy with a price and without a rule.
        """
        return law.next_gap(age) * (1.0 + self.jitter * (2.0 * random - 1.0))

    @property
    def is_adaptive(self) -> bool:
        """Whether polls are made by the learnt law."""
        return self.price is not None and self.rule is None

    def without_rule(self) -> PollPolicy:
        """The same bounds with the schedule that is the default: what goes on when a caller's own rule fails."""
        return msgspec.structs.replace(self, rule=None, price=PRICE)


# --- what a poll means -----------------------------------------------------------------------------------------------


class Ended(msgspec.Struct, frozen=True, gc=False):
    """Nothing more will come of the job: how it ended, and why there is no result (None if there is one)."""

    status: JobStatus
    error: AiopplxError | None


class Polls(msgspec.Struct, gc=False):
    """The polls of one job so far: counts them and decides what each outcome means.

    Attributes:
        since: monotonic seconds at which the server accepted the job, as far as this session knows.
        accepted_at: the same in seconds since 1970.
        has_age: `since` is right: this session submitted the job, or its journal or the server has told.
        due: monotonic seconds at which its next poll is due; None if no poll was planned yet.
        seen: the age at which it was last seen running; negative before that, if somebody else submitted it.
        law: the law of such jobs; None if it is not polled here yet.
        is_stalled: it runs longer than all but one in a thousand of the jobs that end, and that was told.
        is_fresh: this session submitted it, so that the server may not know it for a moment.
        count: polls so far.
        failures: polls in a row that brought nothing usable.
        status, model: the server's words at the last poll.
        warned: an unknown status was told.
        was_unkept: it has ended, and that its outcome could not be written was told.
        is_listed: pages of a list may tell of it (`paging`).
        grace_until: monotonic seconds until which a failed poll is nobody's last (`GRACE`).
    """

    since: float
    accepted_at: float = 0.0
    is_fresh: bool = False
    has_age: bool = False
    due: float | None = None
    seen: float = -1.0
    law: Law | None = None
    is_stalled: bool = False
    count: int = 0
    failures: int = 0
    status: str = ""
    model: str = ""
    warned: bool = False
    was_unkept: bool = False
    is_listed: bool = False
    grace_until: float = 0.0
    _empty: int = 0
    _unreadable: int = 0
    _unreadable_since: float = 0.0
    _is_missing: bool = False

    @classmethod
    def begun(cls, now: float, wall: float) -> Polls:
        """Of a job that the server has accepted from this session just now. `wall` is in seconds since 1970."""
        return cls(now, wall, is_fresh=True, has_age=True, seen=0.0)

    @classmethod
    def resumed(cls, now: float, wall: float, age: float | None = None) -> Polls:
        """Of a job of an earlier time, which is due at once.

        Args:
            now: monotonic seconds.
            wall: seconds since 1970.
            age: seconds since it was accepted, if that is known.
        """
        return cls(now - (age or 0.0), wall - (age or 0.0), has_age=age is not None, due=now)

    def running(self, now: float) -> RunningJob:
        """What a poll rule is asked with."""
        return RunningJob(now - self.since, self.count, self.status, self.model)

    def probably_ended(self, now: float) -> bool:
        """Whether the next poll probably finds it ended."""
        law, seen = self.law, max(0.0, self.seen)
        return law is not None and law.has_ended(seen, now - self.since) >= 0.5

    def answered(self, policy: PollPolicy, snapshot: Snapshot, *, is_last: bool) -> Again | Ended | None:
        """Decide after a poll that could be read.

        Args:
            policy: the bounds.
            snapshot: what the server said.
            is_last: every listener's time is up, so that this poll decides.

        Returns:
            None: it runs on, and the policy says when to poll it next.
        """
        self.count += 1
        self.failures = self._unreadable = 0
        self._is_missing = False
        self.status, self.model = snapshot.server_status, snapshot.model
        if not snapshot.status.is_final:
            self.grace_until = 0.0
            return None
        if snapshot.may_have_more and self._empty < policy.empty_polls and not is_last:
            self._empty += 1
            return Again(policy.empty_seconds / policy.empty_polls)
        return Ended(snapshot.status, outcome_error(snapshot))

    # --- what is learned from it ---

    def told_age(self, now: float, age: float) -> None:
        """The server says how old the job is, of which nobody here knew."""
        self.has_age = True
        self.accepted_at += now - age - self.since
        self.since = now - age

    def saw_running(self, now: float) -> None:
        """A poll that can be believed found it running."""
        age = now - self.since
        if self.law is not None and self.seen >= 0.0:
            self.law.ran(self.seen, age)
        self.seen = age

    def saw_end(self, now: float, lasted: float | None) -> None:
        """A poll found that it had ended by itself.

        Args:
            now: monotonic seconds.
            lasted: seconds between its acceptance and its end, by the server's clock; None if that is unknown.
        """
        law, age, seen = self.law, now - self.since, self.seen
        if law is None:
            return
        if lasted is not None and (0.0 <= lasted <= age + CLOCKS_DIFFER or not self.has_age):
            law.ended(max(seen, 0.0), max(age, lasted), lasted)
        elif seen >= 0.0:
            law.ended(seen, age)
        # Otherwise nobody knows when it ended, and nothing is learned.

    def eta(self) -> float | None:
        """Seconds since 1970 by which half of the jobs end that have run for as long; None if nobody knows."""
        law, age = self.law, max(self.seen, 0.0)
        if law is None or not self.has_age:
            return None
        law.refresh()
        if age >= law.stalled_after:
            return None
        return self.accepted_at + law.age_of_end(0.5, age)

    def stalls(self, now: float) -> bool:
        """Whether it runs for longer than hardly any job does that ends. True once."""
        law, age = self.law, now - self.since
        if self.is_stalled or law is None or not self.has_age or age < law.stalled_after:
            return False
        law.refresh()
        if age < law.stalled_after:
            return False
        self.is_stalled = True
        return True

    def is_worth_a_poll(self, now: float) -> bool:
        """Whether so much may have happened since it was last seen running that half the price of a poll is due."""
        law, age = self.law, now - self.since
        return law is None or self.seen < 0.0 or law.unseen(self.seen, age) >= 0.8 * law.price

    def failed(
        self,
        policy: PollPolicy,
        retry: RetryPolicy,
        fault: Fault,
        error: AiopplxError,
        now: float,
        random: float,
        *,
        is_last: bool,
        is_survived: bool,
    ) -> Again | Ended:
        """Decide after a poll that brought nothing usable.

        Args:
            policy: the bounds on polls.
            retry: the delays.
            fault: the class of the failed attempt.
            error: what it is reported as.
            now: monotonic seconds.
            random: even in [0, 1).
            is_last: every listener's time is up: a 404, or that this is no id, is believed without a second one.
            is_survived: a refusal that stops no submission: the job's API is retired, and its successor is not.
        """
        self.count += 1
        self.failures += 1
        delay = retry.delay(fault, self.failures, random)
        if isinstance(error, NotFound) or self._is_no_id(error):
            if not (self._is_missing or is_last):
                return Again(self._after_missing(policy, delay, now))
            if isinstance(error, NotFound):
                return Ended(JobStatus.EXPIRED, _expired(error, now - self.since if self.is_fresh else None))
            return Ended(JobStatus.UNREADABLE, error)
        if isinstance(error, ResponseTooLarge):
            return Ended(JobStatus.UNREADABLE, error)
        counts = isinstance(error, ProtocolError) or fault is Fault.REFUSED
        if fault is Fault.STOP:
            delay, counts = policy.refused_pause, is_survived
        elif not counts:
            self._unreadable = 0
        if counts and self._is_unreadable(policy, now):
            return Ended(JobStatus.UNREADABLE, error)
        return Again(delay)

    def _is_no_id(self, error: AiopplxError) -> bool:
        """Whether the API itself refuses the id, of which nobody here knows that it was ever a job's."""
        is_known = self.is_fresh or self.has_age or self.seen >= 0.0 or bool(self.status)
        return not is_known and isinstance(error, APIError) and bool(error.type) and error.status in _MALFORMED

    def _after_missing(self, policy: PollPolicy, delay: float, now: float) -> float:
        """A 404, or a refused id: the server's own delay at first, then checked once more and believed."""
        if self.is_fresh and now - self.since < policy.missing_grace:
            return delay
        self._is_missing = True
        return policy.missing_recheck if self.is_fresh or self.count > 1 else SHORT_RECHECK

    def _is_unreadable(self, policy: PollPolicy, now: float) -> bool:
        if not self._unreadable:
            self._unreadable_since = now
        self._unreadable += 1
        long = now - self._unreadable_since >= policy.unreadable_seconds
        return long and self._unreadable >= policy.unreadable_polls


def is_decisive(deadline: float, now: float, *, grace_until: float = 0.0) -> bool:
    """Whether a poll that came back at `now` is the last one for a listener with this deadline.

    Args:
        deadline: monotonic seconds at which the listener stops waiting.
        now: monotonic seconds.
        grace_until: for a poll that failed: until then it is nobody's last.
    """
    return now >= deadline and now >= grace_until


def is_hopeless(wait: float, now: float, *, grace_until: float) -> bool:
    """Whether a listener whose time is up stops waiting without a last poll.

    Args:
        wait: seconds until a poll may leave.
        now: monotonic seconds.
        grace_until: until then it waits all the same.
    """
    return wait > 0.0 and now >= grace_until


def _expired(error: NotFound, age: float | None) -> JobExpired:
    """The error of a job that the server does not know; `age` in seconds if this session submitted it, else None."""
    said = f"the server does not know this job ({error.message})"
    if age is None:
        why = "a wrong id, another account's, or older than the 7 days for which results are kept"
    elif age < _RESULTS_LIVE:
        why = f"it accepted it {age:.0f} s ago, so it lost the job, or is not a server that keeps jobs: check base_url"
    else:
        why = "older than the 7 days for which results are kept"
    return JobExpired(
        f"{said}: {why}. Nothing was submitted again",
        status=error.status,
        type=error.type,
        request_id=error.request_id,
    )


# --- which jobs are due ----------------------------------------------------------------------------------------------


class _Row(msgspec.Struct, order=True, gc=False):
    """A place in the heap, by due moment and then by order of arrival. Without `key` it is passed over."""

    due: float
    seq: int
    key: Any  # of the schedule's type: a generic struct would be slower to make


class Schedule(Generic[K]):
    """Keys in the order in which they are due: urgent ones first, but every fifth that both could give is of the bulk.

    Of those that are equally urgent the first due is the first out, however many there are: that is fair.
    """

    __slots__ = ("_bulk", "_contested", "_rows", "_seq", "_urgent")

    def __init__(self) -> None:
        # Rows are not taken out of the middle of a heap. A forgotten one loses its key, so that it does not live on.
        self._urgent: list[_Row] = []
        self._bulk: list[_Row] = []
        self._rows: dict[K, _Row] = {}
        self._seq = 0
        self._contested = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    def put(self, key: K, due: float, *, is_bulk: bool = True) -> None:
        """`key` is due at `due`; replaces an earlier moment of it."""
        if key in self._rows:
            self.remove(key)
        seq = self._seq = self._seq + 1
        row = self._rows[key] = _Row(due, seq, key)
        heapq.heappush(self._bulk if is_bulk else self._urgent, row)

    def remove(self, key: K) -> bool:
        """Forget `key`; True if it was waiting. Its place in the heap is passed over when it comes up."""
        row = self._rows.pop(key, None)
        if row is None:
            return False
        row.key = None
        # Rows passed over are thrown out once they are the greater part, so each costs no more than its own push.
        rows = len(self._bulk) + len(self._urgent)
        if rows > 64 and rows > 2 * len(self._rows):
            self._bulk, self._urgent = _living(self._bulk), _living(self._urgent)
        return True

    def next_due(self) -> float | None:
        """When the first key is due; None if there is none."""
        bulk = _first_due(self._bulk)
        urgent = _first_due(self._urgent) if self._urgent else None
        if urgent is None or bulk is None:
            return bulk if urgent is None else urgent
        return min(urgent, bulk)

    def next_of(self, *, is_bulk: bool) -> tuple[float, K] | None:
        """The first key of these, and when it is due; None if there is none."""
        heap = self._bulk if is_bulk else self._urgent
        due = _first_due(heap)
        return None if due is None else (due, heap[0].key)

    def pop(self, now: float) -> K | None:
        """The key whose turn it is, taken out; None if none is due."""
        return self.pop_of(now, is_bulk=not self._urgent or self._is_turn_of_bulk(now))

    def _is_turn_of_bulk(self, now: float) -> bool:
        urgent, bulk = _first_due(self._urgent), _first_due(self._bulk)
        if urgent is None or urgent > now:
            return True
        if bulk is None or bulk > now:
            return False
        self._contested += 1
        return self._contested % CONTESTED == 0

    def pop_of(self, now: float, *, is_bulk: bool) -> K | None:
        """As `pop`, of these keys."""
        heap = self._bulk if is_bulk else self._urgent
        due = _first_due(heap)
        if due is None or due > now:
            return None
        key: K = heapq.heappop(heap).key
        del self._rows[key]
        return key


def _first_due(heap: list[_Row]) -> float | None:
    """When the first row with a key is due, which then is the first of all; None if there is none."""
    while heap:
        row = heap[0]
        if row.key is not None:
            return row.due
        heapq.heappop(heap)
    return None


def _living(heap: list[_Row]) -> list[_Row]:
    living = [row for row in heap if row.key is not None]
    heapq.heapify(living)
    return living
