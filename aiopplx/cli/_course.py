"""The course of a run: its facts at a moment, from what was counted, what the session foretells, and the last answers.

Counts can be read by the thread that draws the display. What has to be reckoned from many jobs is reckoned on the event
loop, every few seconds. This module knows nothing of screens.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiopplx._text.amounts import dollars
from aiopplx.cli._facts import TRUSTED, Answer, Facts
from aiopplx.cli._tally import Tally
from aiopplx.cli._text import clock

if TYPE_CHECKING:
    from aiopplx import Estimate, Job, Session

EVERY = 2.0
"""Seconds between two reckonings."""
FORETELL_EVERY = 15.0
"""Seconds between two forecasts, of which one of a thousand jobs takes 80 milliseconds; less near the end of a run: a
tenth of the time left."""
FIRST_OF = 20
"""Nothing is foretold before one job has ended for so many that run: the first of many say little of the rest."""
RECENT = 300
"""Submissions from which the rate of late follows."""
LATEST = 3
"""Answers that are remembered."""


class Course:
    """The course of a run.

    Args:
        tally: the counts.
        total: how many questions there are; None while there may be more.
        place_of: where the question of a position in the batch stands, in words.
        files, journal: what goes where, and the journal, in words; "" for none.
        max_cost: US dollars that may be spent over all runs of the journal.
        spent: what earlier runs have spent of them.

    Attributes:
        session: the one that foretells when its jobs end; None if nobody wants to know.
    """

    def __init__(
        self,
        tally: Tally,
        total: Callable[[], int | None],
        place_of: Callable[[int], str],
        *,
        files: str = "",
        journal: str = "",
        max_cost: float | None = None,
        spent: float = 0.0,
    ) -> None:
        self.session: Session | None = None
        self._tally = tally
        self._total = total
        self._place_of = place_of
        self._files = files
        self._journal = journal
        self._max_cost = max_cost
        self._spent = spent
        self._expected = self._likely = ""
        self._submitted: deque[float] = deque(maxlen=RECENT)
        self._came = 0
        self._latest: tuple[Answer, ...] = ()
        self._end = math.nan
        self._rate: float | None = None
        self._longest = ("", "", 0.0)
        self._reckoned_at = self._foretold_at = -math.inf

    def expects(self, estimate: Estimate) -> None:
        """What the run is expected to cost from here on. Nothing is said where the journal has a part of it."""
        if estimate.low is None or estimate.high is None or not estimate.count:
            return
        if estimate.finished or estimate.running or estimate.in_doubt:
            return
        before = self._tally.cost
        likely = f"{_whole(before + estimate.low)}-{_whole(before + estimate.high)}"
        if estimate.middle is None:
            self._expected, self._likely = likely, ""
        else:
            self._expected, self._likely = f"about {_whole(before + estimate.middle)}", likely

    def submitted(self) -> None:
        """A submission was accepted."""
        self._submitted.append(time.monotonic())

    def answered(self, place: str, question: str, job: Job, *, is_shown: bool) -> None:
        """An answer has come.

        Args:
            place: where its question stands.
            question: its beginning, on one line.
            job: the answer.
            is_shown: the latest answers are shown; if not, its sources need not be counted.
        """
        if is_shown:
            answer = Answer(place, question, job.cost, job.seconds, len(job.sources))
            self._latest = (*self._latest, answer)[-LATEST:]
        # An answer of the journal was not waited for, nor was one that had ended before this run asked for it.
        if job.seconds is not None and (job.polls > 1 or (job.polls and job.attempts)):
            self._came += 1

    def reckon(self) -> None:
        """Reckon again what counts do not tell, if that was some seconds ago. To be called on the event loop."""
        now = time.monotonic()
        if now - self._reckoned_at < EVERY:
            return
        self._reckoned_at = now
        self._foretell(now)
        since = now - self._submitted[0] if len(self._submitted) > 2 else 0.0
        self._rate = (len(self._submitted) - 1) / since if since > 0.0 else None
        first = next(iter(self._tally.running.items()), None)
        if first is None or first[1].since is None:
            self._longest = ("", "", 0.0)
        else:
            job_id, running = first
            place = self._place_of(running.index) if running.index is not None else ""
            self._longest = (job_id, place or f"job {job_id[:12]}", running.since or now)

    def _foretell(self, now: float) -> None:
        """When the run will have ended, by the session's forecast for what runs and for what is still to be sent."""
        total, running = self._total(), len(self._tally.running)
        if self.session is None or total is None or self._came < max(TRUSTED, running // FIRST_OF):
            return
        left = self._end - now if math.isfinite(self._end) else 0.0
        if now - self._foretold_at < max(EVERY, min(FORETELL_EVERY, left / 10.0)):
            return
        self._foretold_at = now
        waiting = total - self._tally.finished - running - len(self._tally.unwritten)
        last = self.session.eta(waiting=max(0, waiting)).last
        self._end = math.nan if last is None else now + last - time.time()

    def facts(self, elapsed: float) -> Facts:
        """The facts now. May be called by any thread.

        Args:
            elapsed: seconds since the run began.
        """
        tally, total, now = self._tally, self._total(), time.monotonic()
        running = len(tally.running)
        waiting = max(0, (total or 0) - tally.finished - running)
        job_id, place, since = self._longest
        is_foretold = math.isfinite(self._end) and (running or waiting)
        budget = ""
        if self._max_cost is not None:
            rest = max(0.0, self._max_cost - self._spent - tally.paid)
            budget = f"budget {_whole(self._max_cost)}, {dollars(rest)} left"
        return Facts(
            finished=tally.finished,
            total=total,
            done=tally.done,
            failed=tally.failed.total(),
            in_doubt=tally.in_doubt,
            running=running,
            cost=tally.cost,
            elapsed=elapsed,
            remaining=max(0.0, self._end - now) if is_foretold else None,
            expected=self._expected,
            likely=self._likely,
            rate=self._rate * 60.0 if self._rate is not None and waiting else None,
            longest=f"{place}, {clock(now - since)}" if job_id in tally.running else "",
            budget=budget,
            files=self._files,
            journal=self._journal,
            latest=self._latest,
        )


def _whole(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 10 else f"${amount:.2f}"
