"""A span of time as people write it: `"24h"`, `"30d"`, or a number of seconds. This module knows nothing of clocks."""

from __future__ import annotations

import re

_SPAN = r"(\d+(?:\.\d+)?)\s*([smhdw])"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def span_of(given: object) -> float | None:
    """Seconds; None for what is no span above 0."""
    if isinstance(given, str):
        found = re.fullmatch(_SPAN, given.strip().lower())
        given = float(found[1]) * _SECONDS[found[2]] if found is not None else None
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return float(given) if 0 < given <= 1e15 else None
