"""One HTTP exchange as plain values, and the error that a refusal becomes.

A `Call` is a request to send; a `Reply` is a complete answer; a `NoReply` says what is known when no usable answer
came. `error_of` reads the body of a refusal in any of the shapes in which the service, and the gateways in front of it,
were seen to send it. This module knows nothing of aiohttp, of which API is called, or of how an error is handled.
"""

from __future__ import annotations

import codecs
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
from aiopplx._text.safe import BODY_KEPT, excerpt, plain
from aiopplx._text.words import message_of, object_in, words_of
from aiopplx._wire.limited import limited_by

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
_TITLE = rb"(?is)<title[^>]{0,200}>(.{0,400}?)</title"


def _described(body: bytes) -> tuple[str, str, str]:
    """(type, message, param) of an error body in any of the known shapes; `""` where it has none."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        data: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", _said_without_json(body), ""
    if not isinstance(data, dict):
        return "", plain(words_of(data)), ""
    fields = cast("dict[str, Any]", data)
    if isinstance(name := fields.get("type"), str) and (is_problem(fields) or ":" in name):
        fields = {**fields, "type": _name_in(name)}
    error: Any = fields.get("error") or fields.get("errors") or fields
    if isinstance(error, str):
        # A name of the status, in bodies that have the words beside it.
        said = message_of({**fields, "error": None})
        return "", plain(said if error in said else f"{said} ({error})" if said else error), ""
    named = object_in(error)
    names = [plain(name, 80) for name in (named.get("type"), named.get("code")) if isinstance(name, str) and name]
    # The decisive name has been seen in both places.
    kind = next((name for name in names if name in RETIRED or name in NO_CREDIT), names[0] if names else "")
    message = message_of(named) or message_of(fields) if named is error else words_of(error)
    param = named.get("param")
    return kind, plain(message), plain(param, 80) if isinstance(param, str) else ""


def _said_without_json(body: bytes) -> str:
    """The words of an error body that is not JSON: the title of a page, or a text; `""` for anything else."""
    if title := re.search(_TITLE, body[:BODY_KEPT]):
        import html  # all names of characters; few servers answer with a page

        return plain(html.unescape(excerpt(title[1])))
    text = excerpt(body).strip()
    # Not markup, and not JSON that was cut short or is nested too deeply.
    is_text = text[:1] not in ("<", "{", "[") and "\ufffd" not in text and all(map(_is_of_text, text))
    return plain(text) if is_text else ""


def _is_of_text(character: str) -> bool:
    return character.isprintable() or character in "\r\n\t"


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
    """The words of an error that a success consists of; `""` if it is something else."""
    try:
        data: Any = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(data, dict):
        return ""
    fields = cast("dict[str, Any]", data)
    content = (reply.headers.get("content-type") or "").lower()
    if not (content.startswith("application/problem+json") or is_problem(fields)):
        others = fields.keys() - _OF_AN_ERROR
        if others or not (fields.get("error") or fields.get("errors")):
            return ""
    return _described(reply.body)[1] or "no reason given"


_OF_AN_ERROR = frozenset({"error", "errors", "message", "detail", "code", "type", "status", "request_id", "success"})


def refusal_in(reply: Reply) -> Reply | None:
    """A success that has an error in place of a job, as the refusal that it means; None if it does not say which.

    A body that names a job is not one, whatever else it says.
    """
    try:
        data: Any = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    error = fields.get("error")
    if error is None and is_problem(fields):
        error = {"status": fields["status"], "type": _name_in(str(fields.get("type") or ""))}
    if fields.get("id") not in (None, "") or not isinstance(error, dict):
        return None
    named = cast("dict[str, Any]", error)
    for said in (named.get("status"), named.get("code"), named.get("type"), fields.get("code")):
        status = _MEANT.get(said) if isinstance(said, str) else None
        if status is None and str(said).isdecimal() and len(str(said)) == 3:
            status = int(str(said))
        if status is not None and 400 <= status < 600:
            return Reply(status, reply.headers, reply.body)
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
        value: object = msgspec.json.decode(body)
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
    kind, message, param = _described(reply.body)
    status = reply.status
    request_id = plain(reply.headers.get("x-request-id") or reply.headers.get("cf-ray") or "", 120)
    said = message or f"no reason given (HTTP {status})"
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
