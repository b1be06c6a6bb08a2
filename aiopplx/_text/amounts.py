"""Amounts as people read them: money, time, and how many of something. This module knows nothing of what is counted."""

from __future__ import annotations


def dollars(amount: float) -> str:
    """`$1,204.50`; with four digits below ten cents: `$0.0123`."""
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def duration(seconds: float) -> str:
    """`11 s`, `4 min 11 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def roughly(seconds: float) -> str:
    """`40 s`, `11 min`, `1 h 5 min`: for what moves on as it is read."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def many(count: int, noun: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
