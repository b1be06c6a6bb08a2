"""One request and one answer as plain values, and the service's error bodies.

This module knows nothing of aiohttp, of jobs, or of how an answer is chosen.
"""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Any

import msgspec

from aiopplx.emulator._ledger import JobRecord, RequestRecord

JSON = "application/json"
HTML = "text/html; charset=utf-8"


class Asked(msgspec.Struct, frozen=True):
    """One complete request.

    Attributes:
        on: `submit`, `get`, `list`, `cancel`, `files`, `content`; `unknown` if no route fits.
        method, path: as received, the path without its query.
        body: the bytes of the body.
        route: method and path template.
        family: the base path in use.
        job_id: the id in the path, `""` if there is none.
        query: the query's members; the last one where a name is repeated.
        headers: names in lower case.
        api: the name of the API that owns the route, `""` if none does.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    on: str
    route: str
    family: str
    job_id: str
    api: str


class Ending(enum.Enum):
    """How an answer is sent."""

    WHOLE = "whole"
    CLOSE = "close"
    """Nothing is sent; the connection is closed (FIN)."""
    RESET = "reset"
    """Nothing is sent; the connection is reset (RST)."""
    HANG = "hang"
    """Nothing is sent for `delay` seconds; then the connection is closed."""
    PAD = "pad"
    """The body, then spaces up to `size` bytes: still JSON, and huge."""
    BOMB = "bomb"
    """Like PAD, compressed by gzip: `size` bytes when inflated."""
    ENDLESS = "endless"
    """The body, then spaces until the client disconnects."""


class Reply(msgspec.Struct):
    """One answer. `delay` is in client seconds before its first byte; `job` is the record that the answer is about."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = {}
    job: JobRecord | None = None
    ending: Ending = Ending.WHOLE
    delay: float = 0.0
    size: int = 0


def as_json(status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, msgspec.json.encode(body), headers=headers or {})


def error(status: int, type: str, message: str, headers: dict[str, str] | None = None) -> Reply:
    """The envelope of every captured JSON error: `code` is an integer equal to the status."""
    return as_json(status, {"error": {"message": message, "type": type, "code": status}}, headers)


def invalid(rows: list[dict[str, Any]]) -> Reply:
    """A 422 in FastAPI's form, the only one that the service's own document names."""
    return as_json(422, {"detail": rows})


USUAL: dict[int, tuple[str, str]] = {
    400: ("invalid_request", "The request could not be understood."),
    401: ("invalid_api_key", "Invalid API key provided. Ensure your API key is correct and active."),
    402: ("insufficient_credits", "Insufficient credits. Please add credits to continue."),
    403: ("forbidden", "You are not allowed to use this endpoint."),
    404: ("not_found", "The requested async completion was not found."),
    408: ("request_timeout", "The request was not completed in time."),
    409: ("conflict", "A request with this idempotency key is still in progress."),
    413: ("payload_too_large", "The request body is too large."),
    425: ("too_early", "The request was not processed; send it again."),
    429: ("request_rate_limit_exceeded", "Request rate limit exceeded, please try again later."),
    500: ("internal_error", "Internal server error."),
    502: ("bad_gateway", "Bad gateway."),
    503: ("service_unavailable", "The service is temporarily unavailable."),
    504: ("gateway_timeout", "Gateway timeout."),
}

OUT_OF_CREDIT = (
    "You exceeded your current quota, please check your plan and billing details. For more information, visit"
    " https://www.perplexity.ai/settings/api."
)
RETIRED = (
    "Sonar is now the Agent API. Use /v1/responses instead of /v1/sonar. Migrate here:"
    " https://docs.perplexity.ai/docs/agent-api/migrate-from-sonar/overview"
)


def usual(status: int, headers: dict[str, str] | None = None) -> Reply:
    """The usual JSON error for this status."""
    type, message = USUAL.get(status, ("error", f"HTTP {status}."))
    return error(status, type, message, headers)


def unreadable() -> Reply:
    """The answer to a body that is not what its `Content-Encoding` says."""
    return error(
        400, "invalid_request", "invalid request body: it is not encoded as announced", {"Connection": "close"}
    )


def page(status: int, headers: dict[str, str] | None = None) -> Reply:
    """An HTML error page as the proxy in front of the service writes it."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = {520: "Web server is returning an unknown error", 524: "A timeout occurred"}.get(status, "Error")
    title = f"{status} {phrase}"
    body = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>openresty/1.27.4</center>\r\n</body>\r\n</html>\r\n"
    )
    return Reply(status, body.encode(), HTML, headers or {})


def record(at: float, asked: Asked, reply: Reply, fault: str) -> RequestRecord:
    """The ledger's line for one exchange; `at` is real seconds since the emulator's start."""
    job = reply.job
    return RequestRecord(
        at=at,
        on=asked.on,
        route=asked.route,
        path=asked.path,
        status=reply.status,
        fault=fault,
        job_id=asked.job_id or (job.id if job is not None else ""),
        key=job.key if job is not None else "",
        retry_after=reply.headers.get("Retry-After", ""),
    )
