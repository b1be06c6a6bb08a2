"""Counts, amounts and durations as a report and a notebook say them.

This module knows nothing of what they belong to.
"""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """`1 source`, `3 sources`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def dollars(amount: float) -> str:
    """`$0.94`; with more digits below a cent."""
    return f"${amount:,.2f}" if amount >= 0.01 or amount == 0 else f"${amount:.4f}"


def duration(seconds: float) -> str:
    """`4 min 11 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
