"""Checks of the emulator's settings: each is refused where it is given, before anything is served.

This module knows nothing of what a setting does.
"""

from __future__ import annotations

import math
from typing import Any, get_args


def number(
    name: str, value: float | None, low: float, *, high: float = math.inf, unit: str, above: bool = False
) -> None:
    """Raises `ValueError` for a number outside of `low` to `high`, or not above `low`; None and infinity are let in."""
    if value is None:
        return
    # Written so that nan, of which every comparison is false, is refused too.
    if not (low < value if above else low <= value) or not value <= high:
        least = f"more than {low:g}" if above else f"{low:g} or more"
        raise ValueError(f"{name} must be {least if high == math.inf else f'{low:g} to {high:g}'}: {unit}")


def word(name: str, value: str, kind: Any) -> None:
    """Raises `ValueError` for a word that is not in this `Literal`."""
    if value not in get_args(kind):
        raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
