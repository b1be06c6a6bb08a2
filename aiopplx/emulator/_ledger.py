"""What the emulated service has done: the jobs it made, the dollars it billed, the requests it answered.

The ledger only records. It knows nothing of HTTP, of the content of jobs, or of faults.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec


class JobRecord(msgspec.Struct, eq=False):
    """One job as the service keeps it. `body` is the exact body of the POST that made it.

    Attributes:
        seq: position among all jobs, from 0.
        id: the job's id.
        told_id: the id in the answer to its submission: differs from `id` only under the fault `duplicate_id`.
        key: the idempotency key, `""` if the submission had none.
        api, model: which API made it, and the model or preset that was asked for.
        account: the account that it belongs to.
        digest: a digest of the request without its key: equal questions have equal digests.
        created_at, started_at, finished_at: emulated seconds since 1970; `finished_at` is infinite while unknown.
        fails: the job ends FAILED.
        polls: how many times the job itself was polled.
        told_final: how often a final status was sent, in the job itself or in a list.
        cost: US dollars, as in `usage.cost.total_cost`; 0 for a job that fails, the used part for a cancelled one.
        billed: the account was charged.
        hidden: the job is never shown, as with `store: false`.
        waits: it does not complete, but waits for something that its caller has to give.
        cancelled: it ends CANCELLED; `stopped_at` is the share of its work, from 0 to 1, that was done by then.
        last_poll: the poll at which it ends; None if it ends by the clock.
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
    waits: bool = False
    cancelled: bool = False
    stopped_at: float | None = None
    last_poll: int | None = None


class RequestRecord(msgspec.Struct, frozen=True):
    """One answered request.

    Attributes:
        at: real seconds since the emulator's start when it had been read completely.
        on: its kind: `submit`, `get`, `list`, `cancel`, `files`, `content`, `control` or `unknown`.
        route: method and path template, as counted in `Ledger.requests`.
        path: the path as received.
        status: the HTTP status answered, 0 if no answer was given.
        fault: the fault that was applied, `""` if none.
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
    """Everything that happened, for tests to check. It grows with the jobs; the log of requests is bounded.

    Attributes:
        jobs: every job made, oldest first, including expired ones.
        billed: US dollars billed.
        created_by_key: how many jobs were made under each idempotency key; a value above 1 means paid twice.
        requests: how many requests came, by method and path template (`"GET /v1/async/sonar/{id}"`).
        log: the latest requests, oldest first.
        in_flight, peak: requests being answered now, and the most at any moment.
    """

    def __init__(self, log_size: int) -> None:
        self.jobs: list[JobRecord] = []
        self.billed: float = 0.0
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
        """Records a new job and its bill."""
        self.jobs.append(job)
        if job.key:
            self.created_by_key[job.key] += 1
        if job.billed:
            self.billed += job.cost

    def settle(self, job: JobRecord, cost: float) -> None:
        """Corrects what `job` was billed: `cost` in US dollars."""
        self.billed += cost - (job.cost if job.billed else 0.0)
        job.cost, job.billed = cost, True

    def saw(self, request: RequestRecord) -> None:
        """Records a request and its answer."""
        self.requests[request.route] += 1
        self.log.append(request)
