"""What the emulated service has done: the jobs it made, the dollars it took, the requests it saw.

The ledger only writes down. It knows nothing of HTTP, of what a job is asked, or of faults.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec


class JobRecord(msgspec.Struct, eq=False):
    """One job as the service keeps it. `body` is the exact body of the POST that made it.

    Attributes:
        seq: position among all jobs, from 0.
        id: the job's id.
        told_id: the id that submissions are answered with: another than `id` only under the fault `duplicate_id`.
        key: the idempotency key, `""` if the submission had none.
        account: whose job it is.
        digest: stands for the request alone, without the key: equal questions have equal digests.
        created_at, started_at, finished_at: emulated seconds since 1970; `finished_at` is infinite while it is not
        known.
        fails: the job ends FAILED.
        polls: how many times the job itself was looked at.
        told_final: how often a terminal status was told, by the job itself or in a list.
        cost: US dollars, as `usage.cost.total_cost` will say; 0 for a job that fails, and of a cancelled one the part
        that was used.
        billed: the account was charged.
        hidden: the job is never shown, as with `store: false`.
        cancelled: it ends CANCELLED; `stopped_at` is the share of its work, from 0 to 1, that was done by then.
        last_poll: the look at which it ends; None if it ends by the clock.
    """

    seq: int
    id: str
    told_id: str
    key: str
    account: str
    api: str
    model: str
    body: bytes
    digest: bytes
    created_at: float
    started_at: float
    finished_at: float
    fails: bool
    cost: float
    billed: bool
    polls: int = 0
    told_final: int = 0
    hidden: bool = False
    cancelled: bool = False
    stopped_at: float | None = None
    last_poll: int | None = None


class RequestRecord(msgspec.Struct, frozen=True):
    """One request as it was answered.

    Attributes:
        at: real seconds since the emulator's start when it had been read whole.
        on: which kind: `submit`, `get`, `list`, `cancel`, `control` or `unknown`.
        route: method and path template, as counted in `Ledger.requests`.
        path: the path as it came.
        status: the HTTP status answered, 0 if no answer was given.
        fault: the fault that was played, `""` if none.
        job_id: the job concerned, `""` if none.
        key: the idempotency key of a submission, `""` if none.
        retry_after: the `Retry-After` that the answer carried, as sent, `""` if none.
    """

    at: float
    on: str
    route: str
    path: str
    status: int
    fault: str
    job_id: str
    key: str
    retry_after: str


class Ledger:
    """Everything that happened, for tests to read. It grows with the jobs; the log of requests is bounded.

    Attributes:
        jobs: every job made, oldest first, also those that have expired.
        billed: US dollars taken.
        created_by_key: how many jobs were made under each idempotency key; a value above 1 was paid twice.
        requests: how many requests came, by method and path template (`"GET /v1/async/sonar/{id}"`).
        log: the last requests, oldest first.
        in_flight, peak: requests being answered now, and at most at any moment.
    """

    def __init__(self, log_size: int) -> None:
        self.jobs: list[JobRecord] = []
        self.billed = 0.0
        self.created_by_key: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.log: deque[RequestRecord] = deque(maxlen=log_size)
        self.in_flight = 0
        self.peak = 0

    @property
    def created(self) -> int:
        """How many jobs were made."""
        return len(self.jobs)

    @property
    def created_by_api(self) -> Counter[str]:
        """How many jobs each API made."""
        return Counter(job.api for job in self.jobs)

    def enter(self, job: JobRecord) -> None:
        """Writes down a job that was made, and what it is charged."""
        self.jobs.append(job)
        if job.key:
            self.created_by_key[job.key] += 1
        if job.billed:
            self.billed += job.cost

    def settle(self, job: JobRecord, cost: float) -> None:
        """Charges another amount than was entered."""
        self.billed += cost - (job.cost if job.billed else 0.0)
        job.cost, job.billed = cost, True

    def saw(self, request: RequestRecord) -> None:
        """Writes down a request and how it was answered."""
        self.requests[request.route] += 1
        self.log.append(request)
