"""What the headers of an answer say about limits: seconds of silence, and the server's own counts.

This module knows nothing of what is done about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"\d{1,7}(\.\d{1,9})?", re.ASCII)


_IMF_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
    r" \d{2}:\d{2}:\d{2} GMT",
    re.ASCII,
)


def hint(headers: Mapping[str, str]) -> float | None:
    """Seconds of silence that `Retry-After` asks for; None if it is absent or absurd.

    Takes seconds (plain ASCII digits, at most seven, a fraction allowed) or an IMF date. A date is read against the
    `Date` of the same answer, so that neither clock has to be right; without one it says nothing we could trust.
    """
    value = (headers.get("retry-after") or "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    then, now = _epoch(value), _epoch((headers.get("date") or "").strip())
    if then is None or now is None:
        return None
    return min(max(0.0, then - now), 9_999_999.0)


def _epoch(value: str) -> float | None:
    if not _IMF_DATE.fullmatch(value):
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def exhausted_until(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server's own count (`x-ratelimit-remaining: 0`) starts again; None if there is room.

    `x-ratelimit-reset` is epoch seconds on the Agent API (captured 2026-10-09); it too is read against `Date`.
    """
    if (headers.get("x-ratelimit-remaining") or "").strip() != "0":
        return None
    reset, now = (headers.get("x-ratelimit-reset") or "").strip(), _epoch((headers.get("date") or "").strip())
    if not _SECONDS.fullmatch(reset) and not re.fullmatch(r"\d{10}", reset, re.ASCII):
        return None
    seconds = float(reset)
    if seconds > 1e9:
        if now is None:
            return None
        seconds -= now
    return min(max(0.0, seconds), 60.0)


def counts(headers: Mapping[str, str]) -> dict[str, int]:
    """The server's own counts of this key's requests, by its own names without their prefix: `limit`, `remaining`,
    `used`, and `reset` in seconds since 1970. What is missing or no number is left out.
    """
    said = {
        name: (headers.get(f"x-ratelimit-{name}") or "").strip() for name in ("limit", "remaining", "used", "reset")
    }
    return {name: int(value) for name, value in said.items() if re.fullmatch(r"\d{1,12}", value, re.ASCII)}
