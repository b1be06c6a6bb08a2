"""A job that has ended, of which only the bill matters."""

from __future__ import annotations

import msgspec

from aiopplx import Job, JobStatus
from aiopplx._job import Answer, Usage


class Billed(msgspec.Struct):
    """A response of which only the bill is read."""

    cost: float | None

    def answer(self) -> Answer:
        return Answer(usage=self.consumed())

    def consumed(self) -> Usage | None:
        return Usage(cost=self.cost)

    def is_on_the_way(self) -> bool:
        return False


def ended(cost: float | None) -> Job:
    return Job(id="job", status=JobStatus.COMPLETED, response=Billed(cost))
