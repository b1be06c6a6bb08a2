"""What can go wrong, as exceptions that carry facts.

An error says what happened, to which job, what was or was not paid, and what to do. It decides nothing: whether to try
again is the business of `_policy`. This module knows nothing of HTTP libraries, of sessions or of the API key; whoever
builds an error from server text has already removed the key from it.
"""

from __future__ import annotations

import copy
from typing import Self


class AiopplxError(Exception):
    """Root of every exception that aiopplx raises.

    Every fact below is also on every subclass, empty where it does not apply. Instances can be pickled, and hold
    neither the API key nor any part of a prompt.

    Attributes:
        message: the sentence for the reader, without the facts.
        job_id: the server's id of the job, `""` if none is known.
        idempotency_key: the key under which the submission was (or would have been) sent, `""` if there is none.
        tag: the user's own tag of the submission, `None` if there was none.
        status: the HTTP status of the answer that caused this, `None` if there was no answer.
        type: the server's own name for the error (`error.type`), `""` if it gave none.
        request_id: the server's `x-request-id` (or `cf-ray`), `""` if it sent none: what its support asks for.
        retry_after: seconds of silence that the server asked for, `None` if it did not.
        attempts: how many HTTP exchanges were made before giving up.
        body: the first 4 KiB of an answer that could not be used, `""` otherwise.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str = "",
        idempotency_key: str = "",
        tag: str | int | None = None,
        status: int | None = None,
        type: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        attempts: int = 0,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.job_id = job_id
        self.idempotency_key = idempotency_key
        self.tag = tag
        self.status = status
        self.type = type
        self.request_id = request_id
        self.retry_after = retry_after
        self.attempts = attempts
        self.body = body

    @property
    def is_in_doubt(self) -> bool:
        """True if a job may exist, and be billed, of which no id is known."""
        return False

    @property
    def token(self) -> str:
        """One line of text, without any secret, that names the job: `session.wait` takes it where there is an id."""
        return f"aiopplx/1//{self.job_id}/{self.idempotency_key}"

    def about(
        self, *, job_id: str = "", idempotency_key: str = "", tag: str | int | None = None, attempts: int = 0
    ) -> Self:
        """A copy of this error that names the job; facts it already has stay.

        Each waiting call gets a copy of its own, so that one traceback never grows through another's.
        """
        other = copy.copy(self)
        other.job_id = self.job_id or job_id
        other.idempotency_key = self.idempotency_key or idempotency_key
        other.tag = tag if self.tag is None else self.tag
        other.attempts = self.attempts or attempts
        return other

    def __copy__(self) -> Self:
        other = self.__class__.__new__(self.__class__, *self.args)
        other.__dict__.update(self.__dict__)
        other.args = self.args  # OSError, an ancestor of JobTimeout, takes its args in __init__, which is not run here
        return other

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.__class__, self.args, self.__dict__.copy())

    def __str__(self) -> str:
        facts = [
            f"{name} {_one_line(value)}"
            for name, value in (
                ("job", self.job_id),
                ("key", self.idempotency_key),
                ("tag", self.tag),
                ("HTTP", self.status),
                ("request id", self.request_id),
            )
            if value not in ("", None)
        ]
        return f"{self.message} ({', '.join(facts)})" if facts else self.message


def _one_line(value: object) -> str:
    """A fact fit for a log: an id may come from a browser, and must not begin a line of its own."""
    return "".join(ch if ch.isprintable() else "?" for ch in str(value))


def _rebuild(cls: type[AiopplxError], args: tuple[object, ...], facts: dict[str, object]) -> AiopplxError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(facts)
    error.args = args
    return error


class ConfigError(AiopplxError, ValueError):
    """The session cannot be built or used as asked: no API key, a base URL that is not https, another event loop."""


class InvalidRequest(AiopplxError, ValueError):
    """The request breaks a rule of the API; it was refused here, before anything was sent or paid.

    Attributes:
        field: the request field at fault, dotted (`messages[1].role`), `""` if it is the whole request.
    """

    def __init__(self, message: str, *, field: str = "", tag: str | int | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message, tag=tag)
        self.field = field


class TransportError(AiopplxError):
    """No usable answer came: no connection, a time limit, a connection that broke.

    Attributes:
        sent: False if it is proved that the request never left this machine.
    """

    sent: bool = False


class ProtocolError(AiopplxError):
    """An answer came that cannot be used: not JSON, the wrong shape, another job's body. `body` has its beginning."""


class ResponseTooLarge(ProtocolError):
    """The answer is larger than `max_response_bytes`; reading stopped there. The job stays at the server."""


class APIError(AiopplxError):
    """The server refused the request, in words of its own (`status`, `type`, `message`)."""


class AuthenticationError(APIError):
    """The server does not accept the API key (401, or 403 without a retirement notice). All submissions stop."""


class OutOfCredit(APIError):
    """The account has no credit (401 `insufficient_quota`, 402). Submissions stop; running jobs are still collected."""


class EndpointRetired(APIError):
    """The API is switched off for this key (403 `chat_completions_not_available`, `agent_api_migration_required`)."""


class RateLimited(APIError):
    """The server asked for less (429), and for a longer silence (`retry_after`) than this call may wait."""


class NotFound(APIError):
    """The server knows no such job: wrong id, another account's, or older than the days it keeps results (404)."""


class BudgetReached(AiopplxError):
    """Not sent, since the session's `max_cost` has no room for it. What is paid for is still collected."""


class InDoubt(AiopplxError):
    """A submission left this machine and no usable answer came: a job may exist and be billed, its id is unknown.

    The same `idempotency_key` sent again cannot pay twice at a server that honours keys; a new key can.
    """

    @property
    def is_in_doubt(self) -> bool:
        """True: that is what this error says."""
        return True


class JobError(AiopplxError):
    """A job was accepted and has no result to give. Its id and idempotency key are on the error."""


class JobFailed(JobError):
    """The server ended the job without a result; `message` has its reason."""


class JobExpired(JobError):
    """The server no longer knows a job that it once accepted (it keeps results for 7 days). Nothing was sent again."""


class JobTimeout(JobError, TimeoutError):
    """The job was still running at its deadline. It goes on, and is billed, at the service: `session.wait(job.id)`."""


class ResultMissing(JobError):
    """The server says COMPLETED and gives no answer, however often it is asked. The job was charged."""
