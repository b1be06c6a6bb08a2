"""One HTTP exchange as plain values, and the error that a refusal becomes.

A `Call` is a request to send; a `Reply` is a complete answer; a `NoReply` says what is known when no usable answer
came. `error_of` reads the body of a refusal in any of the shapes in which the service, and the gateways in front of it,
were seen to send it. This module knows nothing of aiohttp, of which API is called, or of how an error is handled.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from aiopplx._errors import (
    APIError,
    AuthenticationError,
    EndpointRetired,
    NotFound,
    OutOfCredit,
    ProtocolError,
    RateLimited,
)
from aiopplx._text.safe import excerpt, plain
from aiopplx._text.values import is_array, is_object
from aiopplx._text.words import (
    is_always_error_name,
    is_error_name,
    is_message_name,
    joined,
    kinds_of,
    message_of,
    object_in,
    words_of,
)
from aiopplx._wire.limited import limited_by
from aiopplx._wire.naming import names_a_job
from aiopplx._wire.said import opened, value_in_headers, value_of

# The server's names for the errors that are handled specially, from captured bodies.
RETIRED = frozenset({"chat_completions_not_available", "agent_api_migration_required"})
NO_CREDIT = frozenset({
    "insufficient_quota",
    "insufficient_credit",
    "insufficient_credits",
    "billing_hard_limit_reached",
    "out_of_credit",
    "out_of_credits",
})


class Lane(enum.IntEnum):
    """A kind of exchange. A number, so that what each has of its own stands in a list."""

    SUBMIT = 0
    POLL = 1
    LIST = 2
    CANCEL = 3
    FILE = 4


class Call(msgspec.Struct, frozen=True, gc=False):
    """One HTTP exchange to make.

    Attributes:
        lane: what kind of exchange it is.
        method: `GET` or `POST`.
        path: absolute and percent-encoded.
        body: the exact bytes of a POST that has a body.
        api: the name of the API that it is a call of.
    """

    lane: Lane
    method: str
    path: str
    body: bytes | None = None
    api: str = ""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One complete answer. `headers` ignores the case of names; `body` is decompressed and complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Broken(enum.Enum):
    """How an exchange ended without a usable answer."""

    CONNECT = "could not connect"
    DNS = "host name not found"
    TLS = "the TLS handshake failed"
    PROXY = "the proxy refused"
    TIMEOUT = "time limit"
    RESET = "the connection broke"
    ROUTE = "the HTTP client failed"
    CLOSED = "the HTTP client is closed"
    TRUNCATED = "the answer was cut short"
    MALFORMED = "the answer was not HTTP"
    TOO_LARGE = "the answer was too large"
    DISK = "the file could not be written"


class NoReply(msgspec.Struct, frozen=True, gc=False):
    """What is known when no usable answer was received.

    Attributes:
        broken: how the exchange ended.
        detail: the transport's explanation, for a person.
        sent: False only if it is certain that no byte of the request's body was sent.
        permanent: trying again cannot help, as with a bad certificate, or a proxy that requires a password.
        unused_proxy: the variable of the environment that names a proxy, which was not used; `""` if there is none, or
            the server was reached.
    """

    broken: Broken
    detail: str
    sent: bool
    permanent: bool = False
    unused_proxy: str = ""


# For gateways that use other error names; only with statuses whose message cannot quote the question.
_CREDIT_SAID = (
    r"(?i)insufficient (credit|quota|fund|balance)|exceeded your current quota|(not (have )?enough|out of) credit"
)


def _described(body: bytes, headers: Mapping[str, str]) -> tuple[str, str, str]:
    """(type, message, param) of an error body in any of the known shapes; `""` where it has none."""
    data: Any = value_of(body, headers.get("content-type") or "")
    if not data:
        data = value_in_headers(headers)
    if not isinstance(data, dict):
        return "", plain(words_of(data)), ""
    fields = cast("dict[str, Any]", data)
    if isinstance(name := fields.get("type"), str) and (is_problem(fields) or ":" in name):
        fields = {**fields, "type": _name_in(name)}
    fields = {**fields, **{name: opened(fields[name]) for name in ("error", "errors") if fields.get(name)}}
    error: Any = fields.get("error") or fields.get("errors") or fields
    named = object_in(error)
    names = [plain(name, 80) for name in kinds_of(named)]
    # The decisive name has been seen in both places.
    kind = next((name for name in names if name in RETIRED or name in NO_CREDIT), names[0] if names else "")
    said = [message_of(fields)]
    if named is error is not fields:
        others = {name: value for name, value in fields.items() if value is not error}
        said = [message_of(named), message_of(others)]
    param = named.get("param")
    return kind, plain(joined(filter(None, said))), plain(param, 80) if isinstance(param, str) else ""


_MEANT = {
    **dict.fromkeys(RETIRED, 403),
    **dict.fromkeys(NO_CREDIT, 402),
    **dict.fromkeys(("invalid_api_key", "authentication_error", "unauthorized"), 401),
    **dict.fromkeys(("request_rate_limit_exceeded", "rate_limit_exceeded", "rate_limit_error"), 429),
    **dict.fromkeys(("invalid_request", "invalid_request_error", "invalid_message", "invalid_model"), 400),
    "not_found": 404,
}
"""The status that belongs to a name of an error, where a gateway sends the error in a success."""


def is_problem(fields: dict[str, Any]) -> bool:
    """Whether this is an error in the form of RFC 9457, `application/problem+json`."""
    status = fields.get("status")
    is_error = isinstance(status, int) and 400 <= status < 600
    return is_error and ("title" in fields or "detail" in fields) and "id" not in fields


def _name_in(address: str) -> str:
    """The name of an error in the address that stands for its type; `""` in `about:blank`, which names none."""
    name = re.split(r"[/#:]", address.rstrip("/#"))[-1]
    return "" if address.startswith("about:") else name.replace("-", "_")


def error_said(reply: Reply) -> str:
    """The words of an error that stands in place of a file, in a success; `""` if it is the file.

    It is an error if it says one, and nothing else: every other field is a fact, or an object of facts (captured
    errors have `error` alone; those of gateways have ids, dates and addresses beside it). It is one, too, if it is a
    run that has failed. A table of results may have an `error` in a field of its own, and is a file. A `problem` or a
    `cause` alone is no error, since a run may have been asked for it. Whatever the server calls a file
    (`Content-Disposition: attachment`) is one, and so is what is not JSON: a page or a text may well be what a run
    wrote. In doubt it is an error, which is told, and can be overruled by a file whose size is known: an error that is
    taken for the file replaces what was there.
    """
    headers = reply.headers
    if (headers.get("content-disposition") or "").strip().lower().startswith("attachment"):
        return ""
    try:
        data: Any = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(data, dict):
        return ""
    fields = cast("dict[str, Any]", data)
    content = (headers.get("content-type") or "").lower()
    if not (content.startswith("application/problem+json") or is_problem(fields)):
        errors = [name for name in fields if is_always_error_name(name)]
        others = (said for name, said in fields.items() if name not in errors and not is_message_name(name))
        is_file = any(map(_is_content, others)) and fields.get("object") != "response"
        said = (fields[name] for name in errors if not isinstance(fields[name], (int, float)))
        if is_file or not any(map(words_of, said)):
            return ""
    return _described(reply.body, headers)[1] or "no reason given"


def _is_content(value: object) -> bool:
    """Whether a value is more than facts, as what a file consists of."""
    if is_object(value):
        return any(bool(inner) for inner in value.values() if is_array(inner) or is_object(inner))
    return is_array(value) and bool(value)


def refusal_in(reply: Reply) -> Reply | None:
    """A success that has an error in place of a job, as the refusal that it means; None if it does not say which.

    It has an error, or the status of one (`code`, `statusCode`) and words, or a body within the body.

    A body that names a job, in whatever way, is not one, whatever else it says: believed, that would pay for it twice.
    """
    try:
        data: Any = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not is_object(data):
        return None
    errors = [said for name, said in data.items() if is_error_name(name) and said]
    if not errors and is_problem(data):
        errors = [{"type": _name_in(str(data.get("type") or ""))}]
    if not errors and "id" in data:
        return None
    inner = value_of(held.encode("utf-8", "replace")) if isinstance(held := data.get("body"), str) else held
    is_held = not errors and bool(inner) and "statusCode" in data
    says_something = errors or is_held or any(is_message_name(name) and said for name, said in data.items())
    if not says_something or names_a_job(data):
        return None
    fields = [*map(object_in, errors), data]
    said = [each.get(name) for each in fields for name in ("statusCode", "status_code", "status", "code", "type")]
    for name in (*said, *errors):
        status = _MEANT.get(name) if isinstance(name, str) else None
        if status is None and str(name).isdecimal() and len(str(name)) == 3:
            status = int(str(name))
        if status is not None and 400 <= status < 600:
            return Reply(status, reply.headers, msgspec.json.encode(inner) if is_held else reply.body)
    return None


_NO_ROUTE = (
    r"(?i)\bno (such |matching )?route|route (was )?not found|(unknown|invalid|no such) (path|endpoint|url)"
    r"|page not found|cannot (get|post) /"
)


def _page_in_place_of(body: bytes, message: str) -> str:
    """What the body of a 404 is, if it is not the API's own word that a job is unknown; `""` if it is.

    A gateway that is being changed answers 404 for all of its paths. Believed, that would give up every paid job.
    """
    if re.search(_NO_ROUTE, message):
        return "words about its own paths"
    try:
        value: object = opened(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if isinstance(value, dict):
        return ""
    start = body.lstrip()[:1]
    return "an empty body" if not start else "a page of HTML" if start == b"<" else "something other than JSON"


NO_ENDPOINT = frozenset({404, 405, 501})
"""What a server answers at a path, or to a method, that it does not have."""


def error_of(reply: Reply, lane: Lane = Lane.POLL) -> APIError | ProtocolError:
    """The error for a reply that is not a success, from its status and the server's name for the error.

    Args:
        reply: what the server answered.
        lane: what was asked. Only a poll asks for a job, so only there does a 404 say that it is not known.

    Returns:
        A `ProtocolError` for a redirect, and for a success where a refusal was expected; otherwise the `APIError` for
        that name or status. Whether to try again is decided elsewhere.
    """
    kind, message, param = _described(reply.body, reply.headers)
    status = reply.status
    request_id = plain(reply.headers.get("x-request-id") or reply.headers.get("cf-ray") or "", 120)
    said = message or f"no reason given (HTTP {status}{kind and f', {kind}'})"
    if 300 <= status < 400:
        host = _host(reply.headers.get("location", ""))
        return ProtocolError(
            f"the server redirects to {host or 'another address'}; redirects are not followed, since that would"
            " send the API key and the question there",
            status=status,
            request_id=request_id,
            remedy="Check base_url",
        )
    if status < 300:
        return ProtocolError(
            "the server answered with something other than a job", status=status, body=excerpt(reply.body)
        )
    cls: type[APIError] = APIError
    advice = ""
    if kind in RETIRED:
        cls = EndpointRetired
        advice = (
            ". This key can no longer use the Sonar API; its successor is the Agent API (POST /v1/responses with"
            " background: true). Nothing was created or billed"
        )
    elif kind in NO_CREDIT or status == 402 or (status in (401, 403, 429) and re.search(_CREDIT_SAID, message)):
        cls = OutOfCredit
        advice = (
            ". Nothing was created or billed by this request: add credit at https://console.perplexity.ai, then retry"
        )
    elif status in (401, 403):
        cls = AuthenticationError
        advice = (
            ". Nothing was created or billed by this request. Check PERPLEXITY_API_KEY; keys are made at"
            " https://console.perplexity.ai"
        )
    elif status == 429:
        return _rate_limited(reply, kind, said, request_id)
    elif status in NO_ENDPOINT and lane is Lane.LIST:
        said = f"the server has no list of jobs (HTTP {status}: {said}). Keep the ids, or give the session a journal"
    elif status in NO_ENDPOINT and lane is Lane.CANCEL:
        said = f"the server has no way to cancel a job, or does not know this one (HTTP {status}: {said})"
    elif status == 404 and lane not in (Lane.POLL, Lane.FILE):
        cls = NotFound
    elif status == 404:
        if what := _page_in_place_of(reply.body, message):
            return APIError(
                f"the server answered 404 with {what}, as a gateway does at a path that it does not know; that says"
                f" nothing of the job ({said})",
                status=status,
                request_id=request_id,
                remedy="Check base_url",
            )
        cls = NotFound
    error = cls(f"{said.rstrip('.')}{advice}" if advice else said, status=status, type=kind, request_id=request_id)
    error.param = param
    return error


def _rate_limited(reply: Reply, kind: str, said: str, request_id: str) -> RateLimited:
    limit = limited_by(kind, said, reply.headers)
    if limit == "tokens":
        said = (
            f"{said.rstrip('.')}. This limit is on tokens, not on requests: fewer jobs at once, or a higher usage tier"
        )
    error = RateLimited(said, status=reply.status, type=kind, request_id=request_id)
    error.limit = limit
    return error


def _host(location: str) -> str:
    match = re.match(r"https?://([^/?#@]+@)?([A-Za-z0-9.\-:\[\]]{1,200})", location)
    return match[2] if match else ""
