"""The emulated service's jobs: how they are made, how long they take, when they expire.

No timers: a job's status is computed from the clock when it is asked for. This module knows nothing of HTTP or of any
one API.
"""

from __future__ import annotations

import math
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec

from aiopplx.emulator._clock import Clock
from aiopplx.emulator._ledger import JobRecord, Ledger

MEDIAN = 240.0
SIGMA = 0.35
LONGEST_START = 3.0
# With `AfterPolls`, a cancelled job becomes CANCELLED at the second poll after the cancel.
CANCEL_POLLS = 2


class AfterPolls(msgspec.Struct, frozen=True):
    """A job's duration in polls: it is done at its `n`-th GET (from 1), whatever the clock says."""

    n: int

    def __post_init__(self) -> None:
        """Refuses fewer than one: nobody sees a job before its first poll."""
        if not self.n >= 1:
            raise ValueError("AfterPolls needs 1 poll or more")


Duration: TypeAlias = float | AfterPolls | Callable[[str], float] | None
Failing: TypeAlias = float | Callable[[str], bool]
State: TypeAlias = Literal["CREATED", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "REQUIRES_ACTION"]


class New(msgspec.Struct, frozen=True):
    """A valid submission.

    `question` is passed to a duration function; `cost` is in US dollars; `prefix` begins the id; a `hidden` job runs
    and is billed, but is never shown; one that `waits` does not complete, but waits for its caller.
    """

    account: str
    api: str
    model: str
    key: str
    body: bytes
    digest: bytes
    question: str
    cost: float
    prefix: str = ""
    hidden: bool = False
    waits: bool = False


class Jobs:
    """All jobs, by id, by account and by idempotency key."""

    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        seed: int,
        duration: Duration,
        failing: Failing,
        ttl: float,
        credits: float | None,
        cancel_delay: float,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._seed = seed
        self._duration = duration
        self._failing = failing
        self._ttl = ttl
        self.credits = credits
        self._cancel_delay = cancel_delay
        self._by_id: dict[str, JobRecord] = {}
        self._by_account: dict[tuple[str, str], list[JobRecord]] = {}
        self._by_key: dict[tuple[str, str], JobRecord] = {}
        self._twins: Counter[bytes] = Counter()

    def _rng(self, new: New) -> random.Random:
        # Seeded by the question and its number of repetitions, never by the idempotency key: that is random, and a run
        # must be repeatable.
        twin = self._twins[new.digest]
        self._twins[new.digest] += 1
        return random.Random(b"%d/%d/" % (self._seed, twin) + new.digest)  # noqa: S311, not a secret

    def _new_id(self, new: New) -> str:
        # The idempotency key is hashed in, so that an emulator started anew gives new ids to new submissions.
        ledger = self._ledger
        twins = ledger.created_by_key[new.key] if new.key else ledger.created
        said = f"{self._seed}/{new.account}/{new.key}/{twins}".encode()
        return new.prefix + str(uuid.UUID(bytes=blake2b(said + new.digest, digest_size=16).digest(), version=4))

    def _timing(self, rng: random.Random, question: str) -> tuple[float, float]:
        """(seconds until it starts, seconds until it ends), both from its creation, both emulated."""
        lag = rng.uniform(0.0, LONGEST_START)
        drawn = rng.lognormvariate(math.log(MEDIAN), SIGMA)
        if isinstance(self._duration, AfterPolls):
            return 0.0, math.inf
        if self._duration is None:
            return lag, lag + drawn
        total = max(0.0, float(self._duration(question) if callable(self._duration) else self._duration))
        return min(lag, total / 10), total

    @property
    def out_of_credit(self) -> bool:
        """True if the credit is used up: new submissions are refused."""
        return self.credits is not None and self._ledger.billed >= self.credits

    def make(self, new: New) -> JobRecord:
        """Makes the job and enters it in the ledger."""
        rng = self._rng(new)
        now = self._clock.now()
        lag, total = self._timing(rng, new.question)
        fails = self._failing(new.question) if callable(self._failing) else rng.random() < self._failing
        id = self._new_id(new)
        job = JobRecord(
            seq=self._ledger.created,
            id=id,
            told_id=id,
            key=new.key,
            account=new.account,
            api=new.api,
            model=new.model,
            body=new.body,
            digest=new.digest,
            created_at=now,
            started_at=now + lag,
            finished_at=now + total,
            fails=fails,
            cost=0.0 if fails else new.cost,
            billed=not fails,
            hidden=new.hidden,
            waits=new.waits,
            last_poll=self._duration.n if isinstance(self._duration, AfterPolls) else None,
        )
        self._by_id[id] = job
        self._by_account.setdefault((new.api, new.account), []).append(job)
        if new.key:
            self._by_key[new.account, new.key] = job
        self._ledger.enter(job)
        return job

    def age(self, job: JobRecord) -> float:
        """Emulated seconds since it was made."""
        return self._clock.now() - job.created_at

    def _lives(self, job: JobRecord) -> bool:
        return self.age(job) <= self._ttl

    def find(self, api: str, account: str, id: str) -> JobRecord | None:
        """The job; None if it does not exist, belongs to another API or account, or has expired."""
        job = self._by_id.get(id)
        return job if job is not None and (job.api, job.account) == (api, account) and self._lives(job) else None

    def under(self, account: str, key: str) -> JobRecord | None:
        """The job that was made under this idempotency key."""
        return self._by_key.get((account, key))

    def newest_first(self, api: str, account: str, before: int | None = None) -> Iterator[JobRecord]:
        """The account's jobs that have not expired; with `before` only those whose `seq` is lower."""
        for job in reversed(self._by_account.get((api, account), [])):
            if not self._lives(job):
                return
            if before is None or job.seq < before:
                yield job

    def another(self, job: JobRecord) -> JobRecord | None:
        """Some other job of the same API and account, the oldest if possible."""
        mine = self._by_account[job.api, job.account]
        return next((other for other in (mine[0], mine[-1]) if other is not job), None)

    def poll(self, job: JobRecord) -> State:
        """One GET of the job itself, which is what `AfterPolls` counts."""
        job.polls += 1
        if job.last_poll is not None and job.polls >= job.last_poll:
            job.finished_at = min(job.finished_at, self._clock.now())
        return self.state(job)

    def state(self, job: JobRecord) -> State:
        now = self._clock.now()
        if now >= job.finished_at:
            return self.ending(job)
        return "IN_PROGRESS" if now >= job.started_at else "CREATED"

    def ending(self, job: JobRecord) -> State:
        """The state in which it ends."""
        if job.cancelled:
            return "CANCELLED"
        return "FAILED" if job.fails else "REQUIRES_ACTION" if job.waits else "COMPLETED"

    def share(self, job: JobRecord) -> float:
        """How much of the work is done, from 0 to 1; a cancel stops it where it is."""
        if job.stopped_at is not None:
            return job.stopped_at
        if job.last_poll is not None:
            return min(1.0, job.polls / job.last_poll)
        span = job.finished_at - job.started_at
        return min(1.0, max(0.0, (self._clock.now() - job.started_at) / span)) if span > 0 else 1.0

    def cancel(self, job: JobRecord) -> bool:
        """Starts the cancellation of a job that has not ended; it ends a little later.

        True if this cancel will end it; False if an earlier one will, or if it ends by itself before.
        """
        share = self.share(job)
        if job.cancelled or not self._ends_early(job):
            return False
        job.cancelled, job.stopped_at = True, share
        return True

    def _ends_early(self, job: JobRecord) -> bool:
        """Moves the job's end to when a cancel made now takes effect, if that is earlier."""
        waits = self.state(job) == "REQUIRES_ACTION"
        if job.last_poll is not None:
            last = job.polls + CANCEL_POLLS
            if last > job.last_poll and not waits:
                return False
            job.last_poll = last
            job.finished_at = math.inf
            return True
        at = self._clock.now() + self._cancel_delay
        if at > job.finished_at and not waits:
            return False
        job.finished_at = at
        return True

    def end(self, job: JobRecord) -> float:
        """When the job ends without being polled: emulated seconds since 1970."""
        if job.last_poll is not None:
            job.last_poll, job.finished_at = None, self._clock.now()
        return job.finished_at

    def settle(self, job: JobRecord, cost: float) -> None:
        """Bills an unfinished job for what it has used."""
        self._ledger.settle(job, cost)
