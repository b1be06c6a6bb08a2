"""What a session does at one moment, in numbers: for a health page. Nothing is asked of the server for it.

This module knows nothing of who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from aiopplx._core.spending import Bounded
from aiopplx._job import JobStatus
from aiopplx._policy.forecast import Forecast

if TYPE_CHECKING:
    from aiopplx._core.assembly import Core


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """A session at one moment; see `Session.stats`.

    Attributes:
        running: jobs at the service that this session polls.
        in_flight: how many slots of `max_in_flight` are taken: by jobs that run, and by submissions on their way.
        accepted: submissions that the server has accepted since the session was opened.
        ended: how many submissions ended since then, by what they ended as; those without any are not in it.
        spent: US dollars spent of `max_cost`, with a journal over all its runs; None if the session has no `max_cost`.
        reserved: US dollars of it that are reserved for jobs whose cost is not known yet; None likewise.
        silent_for: seconds for which no request leaves, because the server asked for it, or because it does not answer
            and is to be tried again then; 0.0 if requests may leave.
        unanswered_for: seconds since the first request was sent that was sent after the server's last complete answer;
            0.0 if none was, or if nothing is on its way and nothing was tried for 3 minutes. Some seconds are usual:
            a submission takes two. After eight, a `WARNING` tells of it, and a `RESUMED` follows with the next answer.
        stopped: why nothing is submitted any more, in a sentence; `""` if nothing stopped the submissions.
        eta: when the running jobs are expected to be done, as `Session.eta` says.
    """

    running: int = 0
    in_flight: int = 0
    accepted: int = 0
    ended: Mapping[JobStatus, int] = {}
    spent: float | None = None
    reserved: float | None = None
    silent_for: float = 0.0
    unanswered_for: float = 0.0
    stopped: str = ""
    eta: Forecast = Forecast()


def stats(core: Core) -> SessionStats:
    """What this session does now."""
    life, client = core.life, core.client
    gate = client.gate
    spending = life.spending
    budget = spending.budget if isinstance(spending, Bounded) else None
    return SessionStats(
        running=len(life.live.by_id),
        in_flight=core.settings.max_in_flight - life.slots.value,
        accepted=life.announcer.accepted,
        ended=dict(life.announcer.ended),
        spent=budget.spent if budget is not None else None,
        reserved=budget.reserved if budget is not None else None,
        silent_for=gate.shut_for(client.clock.now()),
        unanswered_for=client.unanswered_for(),
        stopped=gate.stop.message if gate.stop is not None else "",
        eta=core.forecast(),
    )
