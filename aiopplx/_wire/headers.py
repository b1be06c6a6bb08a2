"""The headers of an answer about limits: how long to pause, and the server's own counts.

Headers come from servers and from proxies in front of them, and some are absurd. Values that cannot be trusted become
None, never an error or an endless pause. A point in time is read against the `Date` of the same answer, so that neither
clock has to be right.

This module has no clock, and knows nothing of what is done about a limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST = 9_999_999.0
"""Seconds: the longest pause that a date may ask for; the seven digits of a number have the same effect (116 days)."""

LONGEST_RESET = 60.0
"""Seconds: the longest wait for the server's count to restart. It limits requests per minute."""

_SECONDS = re.compile(r"\d{1,7}(\.\d{1,9})?", re.ASCII)
_EPOCH_SECONDS = re.compile(r"\d{10}", re.ASCII)
_COUNT = re.compile(r"\d{1,12}", re.ASCII)
_IMF_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
    r" \d{2}:\d{2}:\d{2} GMT",
    re.ASCII,
)


def hint(headers: Mapping[str, str]) -> float | None:
    """Seconds of pause that `Retry-After` asks for (RFC 9110, section 10.2.3); None if it is absent or absurd.

    Seconds are plain ASCII digits, at most seven, optionally with a fraction. A date is an IMF date, and needs the
    `Date` of the same answer.
    """
    value = (headers.get("retry-after") or "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    then, now = _epoch(value), date_in(headers)
    if then is None or now is None:
        return None
    return min(max(0.0, then - now), LONGEST)


def date_in(headers: Mapping[str, str]) -> float | None:
    """The `Date` of an answer in seconds since 1970; None without one."""
    return _epoch((headers.get("date") or "").strip())


def _epoch(value: str) -> float | None:
    """An IMF date in seconds since 1970; None if it is not one."""
    if not _IMF_DATE.fullmatch(value):
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def exhausted_until(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server's own count restarts, if it says `x-ratelimit-remaining: 0`; None otherwise.

    `x-ratelimit-reset` is in seconds since 1970 on the Agent API (captured 2026-10-09), and in seconds from now
    elsewhere. At most `LONGEST_RESET`.
    """
    if (headers.get("x-ratelimit-remaining") or "").strip() != "0":
        return None
    reset, now = (headers.get("x-ratelimit-reset") or "").strip(), date_in(headers)
    if not _SECONDS.fullmatch(reset) and not _EPOCH_SECONDS.fullmatch(reset):
        return None
    seconds = float(reset)
    if seconds > 1e9:
        if now is None:
            return None
        seconds -= now
    return min(max(0.0, seconds), LONGEST_RESET)


def counts(headers: Mapping[str, str]) -> dict[str, int]:
    """The server's own counts of this key's requests: `limit`, `remaining`, `used`, and `reset` in its own seconds.

    The names are the server's without the prefix `x-ratelimit-`. Missing values and non-numbers are left out.
    """
    said = {
        name: (headers.get(f"x-ratelimit-{name}") or "").strip() for name in ("limit", "remaining", "used", "reset")
    }
    return {name: int(value) for name, value in said.items() if _COUNT.fullmatch(value)}
