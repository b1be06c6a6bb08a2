"""Which of an account's limits a 429 is about: requests, or tokens.

The Agent API has both, by the provider's page on rate limits (October 2026): requests a second for an organization, and
tokens a minute and an hour for an organization and a model. So a 429 by itself does not say that requests were too
many. Its words do, where it has any; the service's own for tokens have not been seen, so those of other services with
two limits are understood too.

This module knows nothing of what is done about a limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

Limit: TypeAlias = Literal["requests", "tokens", ""]
"""The limit that was met; `""` if the answer does not say."""

_TOKENS = (
    r"(?i)\btokens?\b[^.]{0,60}\b(per|limits?|budgets?|quotas?|minutes?|hours?|rate)\b"
    r"|\b(limits?|budgets?|quotas?|rate)\b[^.]{0,60}\btokens\b"
    r"|\btoo many tokens\b|\b[io]?tp[mhd]\b"
)
_REQUESTS = r"(?i)\brequests?\b|\bqueries\b|\b(rp[msd]|qps)\b"


def limited_by(name: str, message: str, headers: Mapping[str, str]) -> Limit:
    """The limit that a 429 is about.

    Args:
        name: the server's name for the error (`request_rate_limit_exceeded`): it decides if it names one of the two.
        message: the server's explanation.
        headers: of the answer: counts for each of the limits, if the server has them.
    """
    words = frozenset(re.split(r"[\W_]+", name.lower()))
    if words & {"token", "tokens"}:
        return "tokens"
    if words & {"request", "requests"}:
        return "requests"
    # "Request" stands in many sentences about tokens, and "tokens" in none about requests: it is looked for first.
    if re.search(_TOKENS, message):
        return "tokens"
    if re.search(_REQUESTS, message):
        return "requests"
    remaining = {kind: (headers.get(f"x-ratelimit-remaining-{kind}") or "").strip() for kind in ("requests", "tokens")}
    if remaining["tokens"] == "0" and remaining["requests"] != "0":
        return "tokens"
    return "requests" if remaining["requests"] == "0" and remaining["tokens"] != "0" else ""
