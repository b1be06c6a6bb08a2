"""What happened, as values: one stream for progress, logs, traces and tests.

This module knows nothing of who makes events or who listens.
"""

from __future__ import annotations

import enum

import msgspec

from aiopplx._job import JobStatus


class EventKind(enum.StrEnum):
    """What an event tells."""

    SUBMITTED = "submitted"
    """The server accepted a submission: `job_id` is known from here on."""
    RETRYING = "retrying"
    """An attempt failed and will be made again after `delay` seconds; `reason` says why."""
    POLLED = "polled"
    """A job was looked at and is still running; `status` and `looks` say how it stands."""
    POLL_FAILED = "poll_failed"
    """A look brought nothing usable. The job is not affected; it is looked at again after `delay` seconds."""
    FINISHED = "finished"
    """Nothing more will come of a submission: `status`, `cost`, and `reason` if there is no result."""
    PAUSED = "paused"
    """No request leaves for `delay` seconds: the server asked for silence, or does not answer."""
    STOPPED = "stopped"
    """Nothing more is submitted: bad key, no credit, retired endpoint. `reason` says what to do."""
    RESUMED = "resumed"
    """Submissions go on after a stop."""
    LEFT = "left"
    """A block was left while `job_id` ran; it goes on, and is billed, at the service."""
    CANCELLING = "cancelling"
    """The server was asked to cancel `job_id`, and will."""
    WARNING = "warning"
    """Something odd that changed nothing: an unknown status, a model that was not asked for."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened in a session. Which fields are set depends on `kind`; the rest keep their defaults.

    Attributes:
        kind: what happened.
        job_id, idempotency_key, tag, index: which submission, as on `Job`.
        status: where the job stands.
        looks: polls of this job so far.
        attempt: which HTTP exchange of this call, from 1.
        delay: seconds until the next one, or of silence.
        cost: US dollars, on FINISHED.
        reason: a sentence for a person; no key and no prompt in it.
        fault: the class of fault, one of N, R, T, D, P (docs/reliability.md), on RETRYING and POLL_FAILED.
    """

    kind: EventKind
    job_id: str = ""
    idempotency_key: str = ""
    tag: str | int | None = None
    index: int | None = None
    status: JobStatus | None = None
    looks: int = 0
    attempt: int = 0
    delay: float = 0.0
    cost: float | None = None
    reason: str = ""
    fault: str = ""
