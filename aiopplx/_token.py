"""Room: a job's token: one line of text by which it is found again from anywhere, made and read.

Plain text on purpose, versioned, without any secret: it can stand in a log, a queue or a ticket. This module knows
nothing of jobs as values or of sessions.
"""

from __future__ import annotations

from typing import NamedTuple

from aiopplx._errors import InvalidRequest

_START = "aiopplx/1/"


class Named(NamedTuple):
    """What a token, or a bare id, names; `""` where it says nothing."""

    job_id: str
    api: str = ""
    idempotency_key: str = ""


def token_of(job_id: str, api: str, idempotency_key: str) -> str:
    """`aiopplx/1/<api>/<job id>/<idempotency key>`: the key comes last, since it alone may have a slash in it."""
    return f"{_START}{api}/{job_id}/{idempotency_key}"


def named_by(text: str) -> Named:
    """What a token or a bare id names.

    Raises:
        InvalidRequest: it is a token of another version, or one that was cut.
    """
    if not text.startswith("aiopplx/"):
        return Named(text)
    parts = text.removeprefix(_START).split("/", 2)
    if not text.startswith(_START) or len(parts) != 3:
        raise InvalidRequest("is not a token that this version can read: aiopplx/1/<api>/<id>/<key>", field="id")
    return Named(parts[1], parts[0], parts[2])
