"""What the modules for web frameworks share: an error as an HTTP status, and what ends with the app.

An HTTP server that is told to stop waits for its open connections first, and closes the session after that. A page
that follows a job holds its connection for minutes, and a request that waits for one nearly as long, so both have to be
ended when the stop begins: the browser comes back, to the next process. This module knows nothing of any framework.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from aiopplx import (
    AiopplxError,
    APIError,
    AuthenticationError,
    BudgetReached,
    ConfigError,
    EndpointRetired,
    InvalidRequest,
    Job,
    JobError,
    JobStatus,
    NotFound,
    OutOfCredit,
    RateLimited,
    Session,
    TransportError,
)
from aiopplx.progress import Follow

logger = logging.getLogger("aiopplx.contrib")

_ENDS = frozenset(status for status in JobStatus if status.is_final) - {JobStatus.TIMED_OUT, JobStatus.STOPPED}
"""How a job ends. At a time limit, or when a session stops, only the waiting ends: the browser is to come back."""
DONE = frozenset(status.value.lower() for status in _ENDS)
"""Ids of updates after which there is none: a browser that has one of these need not come back."""
_MOMENT = 1.0
"""Seconds for a call that begins while the app stops: the journal may say meanwhile that the job has ended."""

_REFUSED = frozenset({400, 422})
"""The service's own words for a request that it will never take."""
_STATUS: tuple[tuple[type[AiopplxError], int], ...] = (
    (InvalidRequest, 422),
    (NotFound, 404),
    (RateLimited, 503),
    (AuthenticationError, 503),
    (OutOfCredit, 503),
    (EndpointRetired, 503),
    (BudgetReached, 503),
    (ConfigError, 503),
    (TransportError, 502),
    (JobError, 502),
)


def is_over(job: Job) -> bool:
    """Whether a browser that follows the job has heard its last word."""
    return job.status in _ENDS


def known(job: Job) -> Job:
    """The job, unless the service does not know its id, or refuses that: then whoever asked has got the id wrong.

    Raises:
        NotFound: it knows no such job, or none any more.
        APIError: this is not a job id of its own (400 or 422).
    """
    error = job.error
    if job.status is JobStatus.EXPIRED and error is not None:
        raise NotFound(error.message, job_id=job.id, status=error.status, type=error.type, request_id=error.request_id)
    if job.status is JobStatus.UNREADABLE and type(error) is APIError and error.status in _REFUSED:
        raise error
    return job


def status_of(error: AiopplxError) -> int:
    """The HTTP status for an error.

    422 for what the caller got wrong, such as an id of a form that the service does not have, 404 for a job that it
    does not know, 503 while nothing can be submitted, 502 for everything else that is the service's.
    """
    if type(error) is APIError and error.status in _REFUSED:
        return 422
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 502)


def said(error: AiopplxError) -> dict[str, str]:
    """The body of such an answer. What only the operator can mend (key, credit, budget) is for the log to explain."""
    if status_of(error) == 503:
        logger.warning("a request was answered with 503: %s", error)
        return {"error": type(error).__name__, "detail": "research is paused"}
    return {"error": type(error).__name__, "detail": error.message}


class Follows:
    """The follows of one app that are being read, and the calls that wait for a job, so that all can end together.

    Args:
        session: the app's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: weakref.WeakSet[Follow] = weakref.WeakSet()
        self._waiting: set[anyio.CancelScope] = set()
        self._is_ended = False

    @contextmanager
    def reading(self, follow: Follow) -> Generator[Follow]:
        """While it is read."""
        self._open.add(follow)
        if self._is_ended:
            follow.close()
        try:
            yield follow
        finally:
            self._open.discard(follow)
            follow.close()

    async def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:
        """As `Session.wait`; when the app stops first, the job as it stands then, as at a time limit.

        Raises what `known` raises.
        """
        if not self._is_ended:
            with anyio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    return known(await self._session.wait(job, timeout=timeout))
                finally:
                    self._waiting.discard(scope)
        return known(await self._session.wait(job, timeout=_MOMENT))

    def end(self) -> None:
        """The app stops: no page is told anything more, those that ask now are told nothing, and no call waits on.

        Logs the ids of the jobs that go on at the service. A second call does nothing.
        """
        if self._is_ended:
            return
        self._is_ended = True
        self._session.log_pending()  # before nobody follows them any more
        for follow in list(self._open):
            follow.close()
        for scope in list(self._waiting):
            scope.cancel()
