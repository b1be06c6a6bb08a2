"""The exceptions of the library, with the facts of each failure as attributes.

An error says what happened, to which job, whether anything was paid, and what to do. It decides nothing: whether to try
again is up to `_policy`. This module knows nothing of HTTP libraries, of sessions or of the API key; whoever builds an
error from server text has already removed the key from it.
"""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple, Self
from urllib.parse import quote


class AiopplxError(Exception):
    """Root of every exception that aiopplx raises.

    All subclasses have all of these attributes, empty where they do not apply. Instances can be pickled, and contain
    neither the API key nor any part of a prompt.

    Attributes:
        message: the explanation, without the facts and the remedy.
        remedy: what to do, in the words of a Python program, which `str` adds to the message; `""` if that says it.
        job_id: the server's id of the job, `""` if none is known.
        idempotency_key: the key under which the submission was (or would have been) sent, `""` if there is none.
        tag: the caller's tag for the submission, `None` if there was none.
        status: the HTTP status of the answer that caused this, `None` if there was no answer.
        type: the server's own name for the error (`error.type`), `""` if it gave none.
        request_id: the server's `x-request-id` (or `cf-ray`), to quote to its support; `""` if it sent none.
        retry_after: seconds for which the server asked not to be called, `None` if it did not ask.
        attempts: how many HTTP exchanges were made before giving up.
        body: the first 4 KiB of an unusable answer, `""` otherwise.
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
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
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
        """True if a job may exist and be billed whose id is unknown."""
        return False

    @property
    def token(self) -> str:
        """One line of text, without any secret, that names the job; `session.wait` accepts it if there is an id."""
        return f"aiopplx/1//{quote(self.job_id, safe=':', errors='replace')}/{self.idempotency_key}"

    def about(
        self, *, job_id: str = "", idempotency_key: str = "", tag: str | int | None = None, attempts: int = 0
    ) -> Self:
        """A copy of this error that names the job by these facts; those it already has are kept.

        Args:
            job_id, idempotency_key, tag, attempts: as on the error; what is not known is left out.

        Each waiting call raises a copy of its own, so that their tracebacks do not accumulate on one object.
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
        other.args = self.args  # OSError, a base of JobTimeout, sets its args in __init__, which is not run here
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
        said = f"{self.message}. {self.remedy}" if self.remedy else self.message
        return f"{said} ({', '.join(facts)})" if facts else said


def _one_line(value: object) -> str:
    """A fact safe for a log: an id may have been pasted from a browser, and must not start a line of its own."""
    return "".join(ch if ch.isprintable() else "?" for ch in str(value))


def _rebuild(cls: type[AiopplxError], args: tuple[object, ...], facts: dict[str, object]) -> AiopplxError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(facts)
    error.args = args
    return error


class ConfigError(AiopplxError, ValueError):
    """The session cannot be built or used as asked: no API key, a base URL that is not https, another event loop.

    Attributes:
        argument: the argument that cannot be used, with which the message then begins; `""` if it is none.
    """

    def __init__(self, message: str, *, argument: str = "", remedy: str = "") -> None:
        super().__init__(f"{argument} {message}" if argument else message, remedy=remedy)
        self.argument = argument


class InvalidRequest(AiopplxError, ValueError):
    """The request breaks a rule of the API. It was refused locally, before anything was sent or paid.

    Attributes:
        field: the offending field, dotted (`messages[1].role`), `""` if it is the request as a whole.
    """

    def __init__(self, message: str, *, field: str = "", tag: str | int | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message, tag=tag)
        self.field = field


class TransportError(AiopplxError):
    """No usable answer was received: no connection, a time limit, a broken connection.

    Attributes:
        sent: False if it is certain that the request never left this machine.
        unused_proxy: the variable of the environment that names a proxy for this server, if it could not be reached:
            it was not used. `""` otherwise.
    """

    sent: bool = False
    unused_proxy: str = ""


class ProtocolError(AiopplxError):
    """The answer is unusable: not JSON, of the wrong shape, or about another job. `body` has its beginning.

    Attributes:
        named: ids in the answer to a submission that may be the job's, the likeliest first. `()` for another answer.
    """

    named: tuple[str, ...] = ()


class ResponseTooLarge(ProtocolError):
    """The answer exceeds `max_response_bytes` and was not read further. The server still has the job."""


class APIError(AiopplxError):
    """The server refused the request and said why (`status`, `type`, `message`).

    Attributes:
        param: the field that the server names as the reason (`error.param`), `""` if it names none.
    """

    param: str = ""


class AuthenticationError(APIError):
    """The server does not accept the API key (401, or 403 without a retirement notice). All submissions stop."""


class OutOfCredit(APIError):
    """The account has no credit (401 `insufficient_quota`, 402). Submissions stop; running jobs are still collected."""


class EndpointRetired(APIError):
    """The API is switched off for this key (403 `chat_completions_not_available`, `agent_api_migration_required`)."""


class RateLimited(APIError):
    """The server asked for fewer calls (429) and a pause (`retry_after`) longer than this call may wait.

    Attributes:
        limit: the limit that was met, `"requests"` or `"tokens"`; `""` if the server does not say.
    """

    limit: Literal["requests", "tokens", ""] = ""


class NotFound(APIError):
    """The server does not know the job: the id is wrong, another account's, or too old (404)."""


class BudgetReached(AiopplxError):
    """Not sent, since it does not fit under the session's `max_cost`. Jobs already paid for are still collected."""


class InDoubt(AiopplxError):
    """A submission was sent and no usable answer came: a job may exist and be billed, and its id is unknown.

    Sending the same `idempotency_key` again cannot cost twice at a server that honours keys; a new key can.

    Attributes:
        look_in: where to look for what became of it: the service's `"list"` of jobs, or the `"journal"`, which has it
            until the user decides; `""` if there is neither.
        named: ids that stood in an unusable answer and may be the job's, the likeliest first: `session.get(id)` shows
            whether one is.
    """

    look_in: Literal["list", "journal", ""] = ""
    named: tuple[str, ...] = ()

    @property
    def is_in_doubt(self) -> bool:
        """True."""
        return True


class JobError(AiopplxError):
    """An accepted job has no result. Its id and idempotency key are on the error."""


class JobFailed(JobError):
    """The server ended the job without a result; `message` has its reason."""


class RequiredAction(NamedTuple):
    """Something that a run waits for.

    Attributes:
        kind: the server's word: `function_call`, `mcp_approval_request`, ...
        name: of the function or the tool, `""` if the server does not say.
        id: with which it is answered, `""` likewise.
    """

    kind: str
    name: str = ""
    id: str = ""

    def __str__(self) -> str:
        """`function_call lookup (call_1)`."""
        named = f"{self.kind} {self.name}".strip()
        return f"{named} ({self.id})" if self.id else named


class ActionRequired(JobFailed):
    """The run waits for something that this library cannot give, such as the result of a function or an approval.

    It will not go on by itself. The caller goes on with a new request that names it as `previous_response_id`.

    Attributes:
        actions: what it waits for, as far as the server says. `job.response` has the arguments of a call.
    """

    actions: tuple[RequiredAction, ...] = ()


class JobExpired(JobError):
    """The server no longer knows a job that it accepted (it keeps results for 7 days). It was not sent again."""


class JobTimeout(JobError, TimeoutError):
    """The job was still running when its time limit ended. It continues and is billed: `session.wait(job.id)`.

    One that has ended, and whose outcome could not be written to the journal by then, says so; it is collected alike.
    """


class ResultMissing(JobError):
    """The server says COMPLETED but gives no answer, even when polled again. The job was charged."""
