"""A batch as a notebook shows it: counted, and in one output that is kept up to date.

To count what a batch has cost, each answer has to be read, which a program without a notebook should not pay for. So
this module is loaded only where a notebook's machinery is. It imports none of that by itself, and knows nothing of how
a batch works, nor of HTML.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence, Sized
from typing import Protocol, cast

import msgspec

from aiopplx._core.announcing import REMEMBERED, goes_on
from aiopplx._core.assembly import Core
from aiopplx._core.batch.results import Place, Results
from aiopplx._events import log
from aiopplx._http.clock import Clock, Timer
from aiopplx._job import Job, JobStatus
from aiopplx._submission import POLLABLE
from aiopplx.report._notebook import Concern, Standing, batch_card

OFTEN, SELDOM = 0.5, 2.0
"""Seconds between two updates of an output: while jobs end, and while nothing happens but that time passes."""
SHOWN = 5
"""Rows to look at that are named."""
FORETOLD = 3
"""Jobs that have to end before it is foretold when the rest will have ended."""


class Handle(Protocol):
    """An output of a notebook: what IPython's `display(..., display_id=True)` returns."""

    def update(self, obj: object) -> object:
        """Show this in place of what it shows."""
        ...


def _output(thing: object) -> Handle | None:
    """Show it as an output of the cell that runs now. None outside of a notebook: a terminal keeps no output."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    display = cast("Callable[..., Handle]", importlib.import_module("IPython.display").display)
    return display(thing, display_id=True)


class Tally:
    """What came of the items of a batch that were handed out.

    Attributes:
        done: with an answer.
        stored: those of them whose answer the journal had from before.
        in_doubt, unsent, failed: without one.
        cost: US dollars, of all whose cost is known, save those that the journal had.
        priced: how many these are.
        unknown: jobs that were paid for and did not say what they cost.
        concerns: what to look at first, the gravest first; at most five.
    """

    def __init__(self) -> None:
        self.done = self.stored = self.in_doubt = self.unsent = self.failed = 0
        self.cost = 0.0
        self.priced = self.unknown = 0
        self.concerns: list[Concern] = []
        self._tagged: OrderedDict[str, None] = OrderedDict()  # the latest: items of one tag end together

    def count(self, job: Job, *, is_stored: bool) -> float | None:
        """One more. Returns what it has cost this time, in US dollars, if that is known."""
        answer = job.response.answer() if job.response is not None else None
        cost = answer.usage.cost if answer is not None and answer.usage is not None else None
        why = job.error.message if job.error is not None else ""
        if job.ok:
            self.done += 1
            self.stored += is_stored
            if answer is not None and answer.finish_reason == "length":
                self._look_at(job, 2, "cut", "the answer ends where its length was used up")
            elif answer is not None and not answer.sources:
                self._look_at(job, 3, "no sources", "nothing in this answer can be checked")
        elif job.status is JobStatus.IN_DOUBT:
            self.in_doubt += 1
            self._look_at(job, 1, "in doubt", why)
        elif job.status is JobStatus.STOPPED:
            self.unsent += 1
            self._look_at(job, 4, "not sent", why)
        else:
            self.failed += 1
            self._look_at(job, 0, "failed", why)
        if is_stored or job.id in self._tagged:
            return None  # not paid this time; or under one tag with another item, which has paid
        if job.tag is not None and job.id:
            self._tagged[job.id] = None
            if len(self._tagged) > REMEMBERED:
                self._tagged.popitem(last=False)
        if cost is not None:
            self.cost += cost
            self.priced += 1
        elif job.ok or job.status is JobStatus.IN_DOUBT:
            self.unknown += 1
        return cost

    def _look_at(self, job: Job, rank: int, word: str, why: str) -> None:
        row = job.index + 1 if job.index is not None else 0
        self.concerns = sorted([*self.concerns, Concern(rank, row, str(job.tag or ""), word, why)])[:SHOWN]


class Live:
    """One output that is kept up to date, at most twice a second.

    Args:
        thing: what is shown.
        handle: the output.
        clock: the session's.
    """

    def __init__(self, thing: object, handle: Handle, clock: Clock) -> None:
        self._thing = thing
        self._handle = handle
        self._clock = clock
        self._timer: Timer | None = None
        self._due = 0.0
        self._last = clock.now()
        self._is_over = False

    def changed(self) -> None:
        """There is something new to show."""
        self._at(self._last + OFTEN)

    def _at(self, when: float) -> None:
        if self._is_over or (self._timer is not None and self._due <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._clock.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._last = self._clock.now()
        self._update()
        self._at(self._last + SELDOM)

    def _update(self) -> None:
        try:
            self._handle.update(self._thing)
        except Exception:  # the notebook may be gone; its batch goes on
            self._is_over = True
            log(logging.DEBUG, "a notebook's output could not be updated", exc_info=True)

    def end(self) -> None:
        """Show it a last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_over:
            self._update()
        self._is_over = True


class Shown:
    """What a notebook shows of one batch.

    Args:
        core: the session's parts.
        results: the batch's.
        given: its source, as the caller gave it.
        number: the batch's own.
        at_once: how many of its jobs run at once at most.
    """

    def __init__(self, core: Core, results: Results, given: object, number: int, at_once: int) -> None:
        self._core = core
        self._results = results
        self._clock = core.client.clock
        self._total = len(given) if isinstance(given, Sized) else None
        self._number = number
        self._at_once = at_once
        self._tally = Tally()
        self._live: Live | None = None
        self._began: float | None = None
        self._ended: float | None = None

    def began(self) -> None:
        """The batch was entered."""
        self._began = self._clock.now()
        self._changed()

    def count(self, place: Place, job: Job) -> None:
        """A job was handed out."""
        cost = self._tally.count(job, is_stored=place.sub.is_told)
        if cost is not None and self._core.asked is not None:
            self._core.asked.cost(self._number, cost)
        self._changed()

    def ended(self) -> None:
        """The batch was left."""
        self._ended = self._clock.now()
        if self._live is not None:
            self._live.end()

    def display(self, batch: object) -> None:
        """Show the batch below the cell that runs now, and keep that up to date; nothing outside of a notebook."""
        handle = _output(batch)
        if handle is None:
            return
        if self._live is not None:
            self._live.end()
        self._live = Live(batch, handle, self._clock)
        if self._began is not None and self._ended is None:
            self._changed()

    @staticmethod
    def card(standing: Standing) -> str:
        """This, as HTML."""
        return batch_card(standing)

    def _changed(self) -> None:
        if self._live is not None:
            self._live.changed()

    def standing(self, items: int, left: Sequence[Job], *, is_read: bool, is_over: bool) -> Standing:
        """How far the batch has come.

        Args:
            items: how many were read from its source.
            left: jobs that it left behind.
            is_read: the source was read to its end.
            is_over: nothing more will be handed out.
        """
        tally, out = self._tally, self._results.out
        running = [place.sub for place in out if place.sub.phase in POLLABLE]
        standing = Standing(
            total=items if is_read else self._total,
            done=tally.done,
            failed=tally.failed,
            in_doubt=tally.in_doubt,
            unsent=tally.unsent,
            stored=tally.stored,
            unread=items - self._results.handed_out - len(out) if not is_over else 0,
            running=len(running),
            left=sum(map(goes_on, left)),
            is_over=is_over,
            cost=tally.cost,
            priced=tally.priced,
            unknown=tally.unknown,
            elapsed=(self._ended or self._clock.now()) - self._began if self._began is not None else None,
            journal=self._core.settings.journal_name,
            concerns=tally.concerns,
        )
        if is_over:
            return standing
        waiting = max(0, standing.rest - standing.running - standing.unread)
        last = None
        if (running or waiting) and (not waiting or standing.ended - standing.stored >= FORETOLD):
            last = self._core.forecast(running, waiting=waiting, places=self._at_once).last
        more = max(0.0, last - self._clock.wall()) if last is not None else None
        return msgspec.structs.replace(standing, more=more)
