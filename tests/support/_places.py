"""The places of a batch without a batch: outcomes come and go as a test says."""

from __future__ import annotations

from typing import cast

import msgspec

from aiopplx import Job, JobStatus
from aiopplx._core.batch.results import Results
from aiopplx._job import Answer
from aiopplx._submission import Phase, Submission
from aiopplx._wire.api import API
from aiopplx.journal._records import Claim
from aiopplx.sonar import SONAR

CLAIM = cast("Claim", object())


class Held:
    """The results of a batch, with the submissions that were asked to be polled again."""

    def __init__(self, count: int, *, ordered: bool = False, is_stored: bool = False) -> None:
        self.unparked: list[Submission] = []
        self.results = Results(ordered=ordered, is_stored=is_stored, unpark=self.unparked.append, now=lambda: 0.0)
        self.places = [self.results.place(running(n, is_stored=is_stored), n) for n in range(count)]

    def finish(self, index: int) -> None:
        """A poll of this job leaves and brings its outcome, if there is room for that."""
        place = self.places[index]
        if place.has_room():
            place.deliver(outcome(index))

    def take(self) -> int | None:
        """The index of the next one for the consumer, if there is one."""
        place = self.results.next()
        if place is None:
            return None
        self.results.count_handed_out()
        return place.index


class Nothing(msgspec.Struct):
    """A response that says nothing."""

    def answer(self) -> Answer:
        return Answer()


def running(index: int, *, is_stored: bool = False) -> Submission:
    sub = Submission(cast("API", SONAR), f"key {index}", tag=index, phase=Phase.RUNNING, job_id=f"job-{index}")
    sub.claim = CLAIM if is_stored else None
    return sub


def outcome(index: int) -> Job:
    return Job(id=f"job-{index}", status=JobStatus.COMPLETED, response=Nothing())
