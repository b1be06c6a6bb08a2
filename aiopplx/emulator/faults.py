"""The faults that the emulator can apply, as values that also have a JSON form.

A fault says what goes wrong; when it is applied is the script's business (`Emulator.faults`). This module knows nothing
of jobs or of aiohttp.

    server.faults.add("submit", faults.Drop(after_accept=True), rate=0.3)
    server.faults.add("get", faults.Status(502, html=True), times=3)
    server.faults.add("*", faults.NAMED["rate_limited_120"], times=1)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import msgspec

__all__ = [
    "NAMED",
    "ONLY",
    "RETRY_AFTER_FORMS",
    "Corrupt",
    "Delay",
    "Drop",
    "Fault",
    "Flood",
    "Hang",
    "How",
    "RateLimited",
    "Redirect",
    "SayStatus",
    "Status",
    "name_of",
]


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="status"):
    """Another answer in place of the true one: any status with any body.

    Attributes:
        status: the HTTP status.
        body: the body as text; None is the usual JSON error for this status.
        html: an HTML page as the proxy in front of the service writes it, instead of `body`.
        type, message: `error.type` and `error.message` of the JSON error, in place of the usual ones.
        content_type: of `body`; None is `application/json`, or HTML if the body looks like HTML.
        headers: further headers.
        after_accept: the request is executed first (the job exists and is billed) and only its answer is replaced.
    """

    status: int
    body: str | None = None
    html: bool = False
    type: str | None = None
    message: str | None = None
    content_type: str | None = None
    headers: dict[str, str] = {}
    after_accept: bool = False


class RateLimited(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="rate_limited"):
    """A 429 (or `status=503`) with a retry hint in any form.

    Attributes:
        retry_after: the header `Retry-After`, sent exactly as given.
        retry_at: the header as an HTTP date, this many seconds after the answer's own `Date`.
        limit: sends `x-ratelimit-limit`, `-remaining` (0), `-used` and `-reset`.
        reset_in: seconds from the answer's `Date` to `x-ratelimit-reset`, which is in seconds since 1970.
    """

    retry_after: str | None = None
    retry_at: float | None = None
    limit: int | None = None
    reset_in: float = 1.0
    status: int = 429


class Redirect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="redirect"):
    """A redirect to `to` with this `status`; following it would disclose the key and the question."""

    to: str = "http://127.0.0.1:9/elsewhere"
    status: int = 307


class Drop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="drop"):
    """The connection ends without an answer: closed, or reset with `reset`.

    With `after_accept` the job is made and billed first; without it the request was never seen.
    """

    after_accept: bool = False
    reset: bool = False


class Hang(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="hang"):
    """No answer for `seconds` of the client's time; then the connection is closed. With `after_accept` a job is made.

    Ends earlier when the client or the server does.
    """

    seconds: float = 60.0
    after_accept: bool = False


class Delay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="delay"):
    """The true answer, `seconds` of the client's time later."""

    seconds: float = 1.0


class Flood(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="flood"):
    """The true answer followed by spaces: valid JSON of `size` bytes, which a client with a higher limit can still
    read.

    `how`: `plain`; `gzip`, a bomb that inflates to `size`; `endless`, which ignores `size`.
    """

    how: Literal["plain", "gzip", "endless"] = "plain"
    size: int = 128 * 1024 * 1024


class SayStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="say_status"):
    """The true job with `status` for its status; a job that has ended keeps its own. In a list, in every row."""

    status: str = "QUEUED"


How: TypeAlias = Literal[
    "html",
    "empty",
    "scalar",
    "null",
    "array",
    "truncated",
    "trailing",
    "bom",
    "invalid_utf8",
    "not_a_number",
    "deep",
    "wrong_content_type",
    "empty_content_type",
    "undeclared_gzip",
    "unknown_fields",
    "id_null",
    "id_missing",
    "id_number",
    "list",
    "other_job",
    "duplicate_id",
    "null_response",
    "no_response",
    "empty_choices",
    "null_content",
    "flip",
    "bad_row",
]
"""How an answer is corrupted: see `Corrupt`."""


class Corrupt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag="corrupt"):
    """The true answer of a 200, corrupted. The request is executed first, so a submission is made and billed.

    A corruption that does not apply (a `null_response` for a job that is still running) leaves the answer unchanged
    and does not count towards the rule's `times`. `how`:

    - any answer: `html` (the page of a captive portal), `empty`, `scalar`, `null`, `array`, `truncated` (with the right
      length), `trailing` (further text), `bom`, `invalid_utf8`, `not_a_number` (NaN), `deep` (nested 100,000 times),
      `wrong_content_type`, `empty_content_type`, `undeclared_gzip`, `unknown_fields` (harmless ones, at every level);
    - a job: `id_null`, `id_missing`, `id_number`, `list` (the list instead), `other_job` (another job's body);
    - a submission: `duplicate_id` (the id of an earlier job, for good);
    - a finished job: `null_response`, `no_response`, `empty_choices`, `null_content`, `flip` (IN_PROGRESS again, after
      COMPLETED was sent);
    - a list: `bad_row` (its first row cannot be read).

    On the Agent API the corruptions of `response` and `choices` apply to `output`, and `flip` and `list` use that
    API's own words and style.
    """

    how: How


ONLY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("id_null", "id_missing", "id_number", "list", "other_job"), ("submit", "get")),
    **dict.fromkeys(("null_response", "no_response", "empty_choices", "null_content", "flip"), ("get",)),
    "duplicate_id": ("submit",),
    "bad_row": ("list",),
}
"""The kinds of request that some corruptions are restricted to; the others apply to any."""

Fault: TypeAlias = Status | RateLimited | Redirect | Drop | Hang | Delay | Flood | SayStatus | Corrupt
"""What can go wrong with one request."""

RETRY_AFTER_FORMS: tuple[str, ...] = (
    "1",
    "0",
    "120",
    "0.5",
    "-1",
    "nan",
    "inf",
    "1e400",
    "1_0",
    "\u0663",
    "5,10",
    "",
    "soon",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 99999 23:59:59 GMT",
)
"""Values of `Retry-After` that were seen, or may be."""

NAMED: Mapping[str, Fault] = {
    "internal_error": Status(500),
    "internal_error_html": Status(500, html=True),
    "internal_error_empty": Status(500, body=""),
    "bad_gateway_html": Status(502, html=True),
    "unavailable": Status(503),
    "unavailable_retry_after": RateLimited(retry_after="1", status=503),
    "gateway_timeout_html": Status(504, html=True),
    "unknown_error_html": Status(520, html=True),
    "timeout_html": Status(524, html=True),
    "accept_then_500": Status(500, after_accept=True),
    "accept_then_502_html": Status(502, html=True, after_accept=True),
    "accept_then_504_html": Status(504, html=True, after_accept=True),
    "accept_then_524_html": Status(524, html=True, after_accept=True),
    "accept_then_drop": Drop(after_accept=True),
    "accept_then_reset": Drop(after_accept=True, reset=True),
    "accept_then_hang": Hang(after_accept=True),
    "drop": Drop(),
    "reset": Drop(reset=True),
    "hang": Hang(),
    "rate_limited": RateLimited(),
    "rate_limited_1": RateLimited(retry_after="1"),
    "rate_limited_120": RateLimited(retry_after="120"),
    "rate_limited_date": RateLimited(retry_at=2.0),
    "rate_limited_headers": RateLimited(limit=50),
    "rate_limited_html": Status(429, html=True),
    "invalid_key": Status(401),
    "invalid_key_html": Status(401, html=True),
    "out_of_credit": Status(
        401,
        type="insufficient_quota",
        message="You exceeded your current quota, please check your plan and billing details.",
    ),
    "payment_required": Status(402),
    "forbidden": Status(403),
    "retired": Status(403, type="chat_completions_not_available", message="Sonar is now the Agent API."),
    "migration_required": Status(403, type="agent_api_migration_required", message="Sonar is now the Agent API."),
    "bad_request": Status(400),
    "not_found": Status(404),
    "method_not_allowed": Status(405),
    "request_timeout": Status(408),
    "conflict": Status(409),
    "gone": Status(410),
    "too_large": Status(413),
    "too_early": Status(425),
    "error_text": Status(500, body='{"error":"something broke"}'),
    "error_bare": Status(500, body='{"type":"internal_error"}'),
    "redirect": Redirect(),
    "huge": Flood(),
    "bomb": Flood("gzip"),
    "endless": Flood("endless"),
    "queued": SayStatus("QUEUED"),
    "cancelled": SayStatus("CANCELLED"),
    "lower_case": SayStatus("in_progress"),
    **{how: Corrupt(how) for how in get_args(How)},
}
"""Faults by name: for the control path, and for tests that go through all of them."""


def name_of(fault: Fault) -> str:
    """A short name for the log."""
    match fault:
        case Status(status=status, after_accept=after):
            return f"{status} after accept" if after else str(status)
        case Corrupt(how=how):
            return how
        case Drop(after_accept=after, reset=reset):
            return ("reset" if reset else "drop") + (" after accept" if after else "")
        case Flood(how=how):
            return f"flood {how}"
        case _:
            return str(fault.__struct_config__.tag)
