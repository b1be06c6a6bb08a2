"""The numbers of a run. This module knows nothing of screens, clocks or files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from aiopplx._text.amounts import dollars, many

if TYPE_CHECKING:
    from aiopplx import Estimate, Event, Job

_WORDS = {
    "COMPLETED": "without an answer",
    "FAILED": "failed at the service",
    "CANCELLED": "cancelled",
    "INCOMPLETE": "incomplete",
    "REJECTED": "rejected",
    "TIMED_OUT": "still running at their deadline",
    "EXPIRED": "expired",
    "UNREADABLE": "unreadable",
}


class Unfinished(msgspec.Struct, frozen=True):
    """Submissions that an interrupted run left behind, by what became of them.

    Attributes:
        running: accepted, and running at the service.
        cancelled: the service was asked to cancel them.
        unwritten: finished, but their row was not written.
        in_doubt: sent, and no answer came.
    """

    running: int = 0
    cancelled: int = 0
    unwritten: int = 0
    in_doubt: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.running + self.cancelled + self.unwritten + self.in_doubt


class Running(msgspec.Struct, frozen=True):
    """A job at the service: its position in the batch, and when this run submitted it; None if an earlier one did."""

    index: int | None
    since: float | None = None


class Tally:
    """Counts of a run, from the events of its session and the jobs that came out of its batch.

    Attributes:
        submitted: submissions that the service accepted in this run.
        running: accepted jobs that are still running by their ids, those that were submitted first coming first.
        done: jobs with an answer.
        in_doubt: submissions that may or may not have made a job.
        unsent: questions that were not sent: no connection, no credit, no budget.
        failed: all others that have ended, by status.
        unwritten: ids of jobs that have finished but were not delivered yet.
        cancelling: ids of jobs that the service was asked to cancel.
        cost: US dollars, as billed by the service, of all delivered jobs, whichever run paid for them. A job that
            answers two questions of the file (one tag twice) is counted once.
        paid: the part of it that this run has paid.
    """

    def __init__(self) -> None:
        self.submitted = 0
        self.running: dict[str, Running] = {}
        self.done = 0
        self.in_doubt = 0
        self.unsent = 0
        self.failed: Counter[str] = Counter()
        self.unwritten: set[str] = set()
        self.cancelling: set[str] = set()
        self.cost = 0.0
        self.paid = 0.0
        self._fresh: set[str] = set()
        self._billed: set[str] = set()

    @property
    def finished(self) -> int:
        """Questions that have ended."""
        return self.done + self.in_doubt + self.unsent + self.failed.total()

    @property
    def touched(self) -> bool:
        """True once there is anything to report."""
        return bool(self.submitted or self.finished)

    def on_event(self, event: Event, now: float = 0.0) -> None:
        """Count one event of the session.

        Args:
            event: it.
            now: monotonic seconds.
        """
        if event.kind == "submitted":
            self.submitted += 1
            self.running[event.job_id] = Running(event.index, now)
            self._fresh.add(event.job_id)
        elif event.kind == "polled":
            self.running.setdefault(event.job_id, Running(event.index))  # an earlier run submitted it
        elif event.kind in ("finished", "loaded"):
            self.running.pop(event.job_id, None)
            if event.job_id:
                self.unwritten.add(event.job_id)
        elif event.kind == "cancelling":
            self.cancelling.add(event.job_id)

    def count(self, job: Job) -> None:
        """Count one job that the batch delivered."""
        self.running.pop(job.id, None)
        self.unwritten.discard(job.id)
        if job.id not in self._billed:
            self._billed.add(job.id)
            self.cost += job.cost or 0.0
            self.paid += (job.cost or 0.0) if job.id in self._fresh else 0.0
            self._fresh.discard(job.id)
        if job.ok:
            self.done += 1
        elif job.status == "IN_DOUBT":
            self.in_doubt += 1
        elif job.status == "STOPPED":
            self.unsent += 1
        else:
            self.failed[job.status.value] += 1

    def failures(self) -> str:
        """The failed ones by kind: `1 expired, 2 rejected`."""
        return ", ".join(f"{count:,} {_WORDS.get(status, status)}" for status, count in sorted(self.failed.items()))

    def in_all(self, total: int, before: Estimate, now: Estimate, *, cancelled: int, spent: float) -> str:
        """How far all starts of a run together have come, in one sentence.

        Args:
            total: how many questions there are.
            before: what the journal had when this start began.
            now: what it has at its end.
            cancelled: jobs that the service was asked to cancel, which the journal still has as running.
            spent: US dollars that all runs of the journal have paid.
        """
        here = f"{max(0, now.finished - before.finished):,} in this start"
        failures = f", {self.failures()}" if self.failed else ""
        running = max(0, now.running - cancelled)
        counts = {
            "still running at the service": running,
            "cancelled": cancelled,
            "in doubt": now.in_doubt,
            "not sent": now.count,
        }
        more = "".join(f", {count:,} {word}" for word, count in counts.items() if count)
        return (
            f"{now.finished:,} of {many(total, 'question')} finished ({here}{failures}){more};"
            f" {dollars(spent)} spent by all runs of the journal"
        )

    def summary(self, total: int | None = None, unfinished: Unfinished | None = None, *, rest: str = "not sent") -> str:
        """The run in one sentence whose numbers add up.

        Args:
            total: how many questions there are; None if all were delivered.
            unfinished: submissions that an interrupted run left behind.
            rest: the word for the remaining questions.
        """
        unfinished = unfinished or Unfinished()
        known = self.finished + unfinished.total
        total = max(known, total or 0)
        counts = Counter({
            "still running": unfinished.running,
            "cancelled": unfinished.cancelled,
            "finished but not written": unfinished.unwritten,
            "not sent": self.unsent,
        })
        counts[rest] += total - known
        failures = f" ({self.failures()})" if self.failed else ""
        more = "".join(f" {count:,} {word}," for word, count in counts.items() if count)
        return (
            f"{many(total, 'question')}: {self.done:,} done, {self.failed.total():,} failed{failures},{more}"
            f" {self.in_doubt + unfinished.in_doubt:,} in doubt, {dollars(self.cost)}"
        )
