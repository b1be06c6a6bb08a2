"""Room: what is wrong with a 200 that is no job: each unusable body refused by what it is.

This module knows nothing of any one API's structs, of endpoints, or of what is done about a refusal.
"""

from __future__ import annotations

from typing import Any, NoReturn

from aiopplx._api import quoted_id
from aiopplx._call import BODY_KEPT, Reply, beginning, plain
from aiopplx._errors import InvalidRequest, ProtocolError
from aiopplx._tolerant import is_object, loosely


def unusable(reply: Reply, why: str) -> NoReturn:
    """Raise the refusal of a body; `why` ends the sentence that begins `the server answered with`."""
    raise ProtocolError(
        f"the server answered with {why}",
        status=reply.status,
        request_id=plain(reply.headers.get("x-request-id") or reply.headers.get("cf-ray") or "", 120),
        body=beginning(reply.body, BODY_KEPT),
    )


def check_id(reply: Reply, job_id: str, expected_id: str) -> None:
    """Refuse a job that cannot be asked for again, or is another than the one asked for. Raises `ProtocolError`."""
    if not is_usable(job_id):
        unusable(reply, "a job without a usable id")
    if expected_id and job_id != expected_id:
        unusable(reply, f"another job ({plain(job_id, 64)!r}) than the one asked for")


def is_usable(job_id: str) -> bool:
    """Whether the job can be asked for again: an id that cannot stand in a path cannot be polled."""
    try:
        quoted_id(job_id)
    except InvalidRequest:
        return False
    return True


def plain_values(reply: Reply) -> Any:
    """The body as plain values. Raises `ProtocolError`, which says what it is, if it is not JSON."""
    why = ""
    try:
        return loosely(reply.body)
    except RecursionError:
        why = "JSON that is nested too deeply"
    except ValueError:
        why = _not_json(reply.body)
    unusable(reply, why)


def reason_in(raw: bytes) -> str | None:
    """Why a job failed, where the body says so in an unusual place or form; None if it does not say."""
    try:
        value = loosely(raw)
    except (ValueError, RecursionError):
        return None
    if not is_object(value):
        return None
    for name in ("error_message", "error", "message", "detail"):
        said = value.get(name)
        if is_object(said):
            said = said.get("message") or said.get("detail") or said.get("type")
        if isinstance(said, str) and said.strip():
            return said
    return None


def _not_json(body: bytes) -> str:
    start = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not start:
        return "an empty body"
    if start == b"<":
        return "a page of HTML or XML, not JSON"
    return "JSON that is cut short or malformed" if start in (b"{", b"[") else "something that is not JSON"
