"""What the modules for web frameworks share: an error as an HTTP status, and the follows that end with the app.

An HTTP server that is told to stop waits for its open connections first, and closes the session after that. A page that
follows a job holds its connection for minutes, so it has to be ended when the stop begins: the browser comes back by
itself, to the next process. This module knows nothing of any framework.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator
from contextlib import contextmanager

from aiopplx import (
    AiopplxError,
    AuthenticationError,
    BudgetReached,
    ConfigError,
    EndpointRetired,
    InvalidRequest,
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

DONE = frozenset(status.value.lower() for status in JobStatus if status.is_final)
"""Ids of updates after which there is none: a browser that has one of these need not come back."""

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


def status_of(error: AiopplxError) -> int:
    """The HTTP status for an error.

    422 for what the caller got wrong, 404 for a job that the service does not know, 503 while nothing can be submitted,
    502 for everything else that is the service's.
    """
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 502)


def said(error: AiopplxError) -> dict[str, str]:
    """The body of such an answer. What only the operator can mend (key, credit, budget) is for the log to explain."""
    if status_of(error) == 503:
        logger.warning("a request was answered with 503: %s", error)
        return {"error": type(error).__name__, "detail": "research is paused"}
    return {"error": type(error).__name__, "detail": error.message}


class Follows:
    """The follows of one app that are being read, so that they can be ended together.

    Args:
        session: the app's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: weakref.WeakSet[Follow] = weakref.WeakSet()
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

    def end(self) -> None:
        """The app stops: no page is told anything more, and those that ask now are told nothing.

        Logs the ids of the jobs that go on at the service. A second call does nothing.
        """
        if self._is_ended:
            return
        self._is_ended = True
        ids = [job.id for job in self._session.pending]  # before nobody follows them any more
        if ids:
            logger.warning("the app stops; %d jobs go on, and are billed, at the service: %s", len(ids), " ".join(ids))
        for follow in list(self._open):
            follow.close()
