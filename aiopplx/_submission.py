"""Room: one submission: what is sent under one idempotency key, and how far it has come.

This module knows nothing of how it is sent, watched or written down.
"""

from __future__ import annotations

from aiopplx._agent_request import AgentRequest
from aiopplx._api import API
from aiopplx._journal import Claim
from aiopplx._request import ResearchRequest


class Submission:
    """One request under one idempotency key: what is sent, and how far it has come."""

    __slots__ = (
        "api",
        "attempts",
        "body",
        "claim",
        "deadline",
        "index",
        "is_held_for",
        "job_id",
        "key",
        "leaving",
        "repeatable",
        "request",
        "sending",
        "settled",
        "stored",
        "tag",
        "timeout",
        "was_in_doubt",
    )

    def __init__(
        self,
        api: API,
        body: bytes,
        key: str,
        *,
        tag: str | int | None,
        index: int | None,
        timeout: float,
        request: ResearchRequest | AgentRequest | None = None,
        repeatable: bool = True,
    ) -> None:
        self.api = api
        self.body = body
        self.key = key
        self.tag = tag
        self.index = index
        self.timeout = timeout
        self.request = request
        self.repeatable = repeatable
        self.job_id = ""
        self.claim: Claim | None = None
        self.settled = False
        self.stored = False
        self.is_held_for = False
        self.was_in_doubt = False
        self.attempts = 0
        self.deadline = 0.0
        self.sending = False
        self.leaving = False
