"""Who gets the next departure, where submissions and polls share one limit: a stated rule, in departures.

A departure that one request gets another does not, so an order has to be chosen, and it is (docs/polling.md says so to
users):

1. Somebody waits for a single call (`ask`, `submit`, `wait`, `get`): these are *interactive*, and go before a batch.
   But every fifth departure that both want goes to the batch, or a busy web backend would hold a batch up for ever.
2. Of interactive requests submissions go before polls, and again every fifth that both want goes to the other: a job
   that has not begun cannot finish, and one more poll tells little.
3. Of a batch's requests submissions go before polls as well. But one departure in ten goes to a poll that has been due
   for a minute, or the first result of a large batch would come after its last submission. Where results are wanted
   first (`prefer="results"`), one in two goes to a poll that probably finds a finished job.

This module knows nothing of rates, jobs or tasks: what waits is an argument.
"""

from __future__ import annotations

import enum

import msgspec

CONTESTED = 5
"""Of so many departures that both sides want, one goes to the side that is otherwise served later."""
FLOOR = 10
"""Of so many departures that a batch's submissions want, one goes to a poll that is overdue."""
OVERDUE = 60.0
"""Seconds after which a poll that is due is overdue."""


class Turn(enum.Enum):
    """Whose turn it is."""

    SUBMIT_NOW = "an interactive submission"
    POLL_NOW = "an interactive poll"
    SUBMIT = "a submission of a batch"
    POLL = "a poll of a batch's job"


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """What waits for a departure.

    Attributes:
        submit_now, poll_now, submit, poll: whether something of this kind does.
        poll_overdue: seconds for which the first poll of a batch's job has been due.
        poll_is_likely: whether it probably finds a finished job.
    """

    submit_now: bool = False
    poll_now: bool = False
    submit: bool = False
    poll: bool = False
    poll_overdue: float = 0.0
    poll_is_likely: bool = False


class Turns:
    """Counts departures, and says whose the next one is.

    Attributes:
        prefers_results: how many open batches want results before further submissions.
    """

    __slots__ = ("_contested", "_contested_now", "_since_floor", "_since_result", "prefers_results")

    def __init__(self) -> None:
        self.prefers_results: int = 0
        self._contested = 0
        self._contested_now = 0
        self._since_floor = 0
        self._since_result = 0

    def take(self, waiting: Waiting) -> Turn | None:
        """Whose departure the next one is, which is then taken; None if nothing waits."""
        now, later = waiting.submit_now or waiting.poll_now, waiting.submit or waiting.poll
        if now and later:
            self._contested += 1
            if self._contested % CONTESTED == 0:
                now = False
        return self._of_calls(waiting) if now else self._of_batches(waiting) if later else None

    def _of_calls(self, waiting: Waiting) -> Turn:
        if not (waiting.submit_now and waiting.poll_now):
            return Turn.SUBMIT_NOW if waiting.submit_now else Turn.POLL_NOW
        self._contested_now += 1
        return Turn.SUBMIT_NOW if self._contested_now % CONTESTED else Turn.POLL_NOW

    def _of_batches(self, waiting: Waiting) -> Turn:
        if not waiting.submit:
            return Turn.POLL
        self._since_floor += 1
        self._since_result += 1
        if waiting.poll and (
            (waiting.poll_overdue >= OVERDUE and self._since_floor >= FLOOR)
            or (self.prefers_results and waiting.poll_is_likely and self._since_result >= 2)
        ):
            self._since_floor = self._since_result = 0
            return Turn.POLL
        return Turn.SUBMIT
