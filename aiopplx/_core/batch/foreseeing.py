"""Says before a batch spends anything if its jobs would outlive their time limits, or what the server keeps.

This module knows nothing of the arithmetic (`_policy.forecast`), or of how a batch is read.
"""

from __future__ import annotations

from collections.abc import Sized

from aiopplx._core.assembly import Core
from aiopplx._policy.forecast import outlook
from aiopplx._submission import Submission


async def count_of_new(core: Core, given: object) -> int | None:
    """How many questions of a source a journal does not have yet, at most; None if that is not known."""
    store = core.life.store
    try:
        count = len(given) if isinstance(given, Sized) else None
        if count is None or not store.remembers:
            return count
        counts = await core.life.reach.answer(store.counts(), core.client.clock.now())
        return max(0, count - sum(counts.values()))
    except Exception:  # of a caller's own class; a journal that cannot be read is told when the first question is named
        return None


def warning_of(core: Core, sub: Submission, count: int, *, at_once: int, prefers_results: bool) -> str:
    """What to say before the first submission of a batch is sent; "" if nothing is wrong as far as anybody knows.

    Args:
        core: the session's.
        sub: the first submission; the others are taken to be like it.
        count: how many there are.
        at_once: how many jobs of the batch run at once at most.
        prefers_results: results go before further submissions, so that they wait for nobody.
    """
    limits, kept = core.client.gate.limits, sub.api.results_live
    per_second = limits.submit.rate if limits.is_shared and not prefers_results else None
    limit = min(sub.timeout, kept)
    jobs = min(count, at_once, core.settings.max_in_flight)
    expected = outlook(core.life.poller.laws.of(sub.kind), jobs, per_second, limit)
    if not expected.is_worth_telling:
        return ""
    what = f"the time limit of a job is {_time(limit)}" if limit < kept else f"the server keeps a job for {_time(kept)}"
    if per_second is not None and expected.oldest > limit:
        why = (
            f"at {per_second * 60.0:,.0f} requests a minute for submissions and polls together, a result waits up to"
            f" {_time(expected.oldest)} for its turn"
        )
        remedy = 'Raise timeout, lower max_in_flight, or use batch(prefer="results")'
    else:
        why = "such jobs take longer, by those that ended so far"
        remedy = "Raise timeout"
    return (
        f"{what}, and {why}: about {expected.late:.0%} of {count:,} jobs are expected to be paid for and not to be"
        f" handed out in time. {remedy}"
    )


def _time(seconds: float) -> str:
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    if seconds < 7_200.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3_600.0:.0f} h" if seconds < 172_800.0 else f"{seconds / 86_400.0:.0f} days"
