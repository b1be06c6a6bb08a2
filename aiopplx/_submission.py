"""One submission: what is sent under one idempotency key, and how far it has come.

This module knows nothing of how it is sent, watched or written down.
"""

from __future__ import annotations

import msgspec

from aiopplx._wire.api import API
from aiopplx._wire.request import Request
from aiopplx.journal._protocol import Claim


class Submission(msgspec.Struct, eq=False):
    """One request under one idempotency key: what is sent, and how far it has come."""

    api: API
    body: bytes
    key: str
    tag: str | int | None
    index: int | None
    timeout: float
    request: Request | None = None
    repeatable: bool = True
    job_id: str = ""
    claim: Claim | None = None
    settled: bool = False
    stored: bool = False
    is_held_for: bool = False
    was_in_doubt: bool = False
    attempts: int = 0
    deadline: float = 0.0
    sending: bool = False
    leaving: bool = False

    def __repr__(self) -> str:
        # Without the question, which the body and the request have in them.
        return f"Submission(key={self.key!r}, job_id={self.job_id!r}, attempts={self.attempts})"
