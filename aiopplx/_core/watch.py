"""One watched job: what is known of it while it runs, who wants it, and the value it becomes in the end.

This module knows nothing of when or how jobs are looked at.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from aiopplx._errors import AiopplxError, JobFailed, ResultMissing
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._submission import Submission
from aiopplx._text import plain
from aiopplx._wire.api import API
from aiopplx._wire.call import Call, Reply


class Sink(Protocol):
    """Who wants a job: decides whether there is room for its result, and takes it."""

    def may_look(self, watch: Watch) -> bool:
        """Is there room for one more result? If not, the sink keeps the watch and hands it to `Poller.unpark` later."""
        ...

    def looked(self, watch: Watch) -> None:
        """The look ended and the job runs on: its room is free again."""
        ...

    def done(self, watch: Watch, job: Job) -> None:
        """Nothing more will come of it."""
        ...


class Watch(msgspec.Struct, eq=False):
    """One job that is being watched, for one sink. `call` is how it is looked at, built once for all looks."""

    sink: Sink
    api: API
    job_id: str
    call: Call
    sub: Submission | None
    accepted_at: float
    deadline: float
    fresh: bool
    holds_slot: bool = False
    grace_until: float = 0.0
    task: asyncio.Task[None] | None = None
    looks: int = 0
    errors: int = 0
    empty: int = 0
    unreadable: int = 0
    unreadable_since: float = 0.0
    missing: bool = False
    warned: bool = False
    server_status: str = ""
    model: str = ""

    def read(self, reply: Reply) -> Snapshot:
        """A 200 as this job's snapshot; raises `ProtocolError` if it is something else."""
        return self.api.read_job(reply, self.job_id)


def outcome_error(snapshot: Snapshot) -> AiopplxError | None:
    """What is wrong with a job that the server calls finished; None if there is a result, or while it runs."""
    match snapshot.status:
        case JobStatus.COMPLETED:
            if not snapshot.is_empty:
                return None
            return ResultMissing("the server says COMPLETED and gives no answer; the job was charged")
        case JobStatus.FAILED | JobStatus.CANCELLED | JobStatus.INCOMPLETE:
            return JobFailed(plain(snapshot.error_message or "") or f"{snapshot.server_status}, no reason given")
        case _:
            return None


def make_job(
    job_id: str,
    status: JobStatus,
    error: AiopplxError | None,
    snapshot: Snapshot | None,
    sub: Submission | None,
    *,
    looks: int = 0,
    api: str = "",
    key: str = "",
    tag: str | int | None = None,
) -> Job:
    """The value that users get: a snapshot and the submission it belongs to."""
    key = sub.key if sub else key
    tag = sub.tag if sub else tag
    attempts = sub.attempts if sub else 0
    if error is not None:
        error = error.about(job_id=job_id, idempotency_key=key, tag=tag, attempts=attempts)
    if snapshot is None:
        snapshot = Snapshot(
            id=job_id,
            status=status,
            server_status="",
        )
    return Job(
        id=job_id,
        status=status,
        server_status=snapshot.server_status,
        api=sub.api.name if sub else api,
        model=snapshot.model,
        idempotency_key=key,
        tag=tag,
        index=sub.index if sub else None,
        created_at=snapshot.created_at,
        started_at=snapshot.started_at,
        completed_at=snapshot.completed_at,
        failed_at=snapshot.failed_at,
        error=error,
        # Without its error it is not over: the next look may bring the answer, and a response would make it `ok`.
        response=None if snapshot.is_empty and error is None else snapshot.response,
        raw=snapshot.raw,
        looks=looks,
        attempts=attempts,
    )
