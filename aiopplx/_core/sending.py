"""Sends a submission to an API that takes it.

Two things may stand between a question and its API. The API may be retired for the key, and the question goes to the
next one; or the server is an earlier release, and the question is put in its words. In both cases the server says so by
a refusal, for which nothing was made or billed, and the submission has other bytes from then on. It has them on disk
before they are sent, and never while an attempt of it is unanswered: a job of the bytes that were sent may exist.

This module decides where to and in which words; it changes nothing of a submission (`Owner` does), and knows nothing of
attempts, of rows or of money.
"""

from __future__ import annotations

from typing import Protocol

from aiopplx._core.announcing import Announcer
from aiopplx._errors import APIError, EndpointRetired
from aiopplx._http.client import Attempts, Client
from aiopplx._job import Snapshot
from aiopplx._policy.retry import Bounds
from aiopplx._submission import Phase, Submission
from aiopplx._wire.api import API
from aiopplx._wire.call import Lane
from aiopplx.apis._registry import Routing


class Owner(Attempts, Protocol):
    """Keeps the record of a submission, and has what is needed to send it."""

    @property
    def client(self) -> Client: ...
    @property
    def routing(self) -> Routing: ...
    @property
    def announcer(self) -> Announcer: ...

    async def move(self, sub: Submission, bounds: Bounds) -> None:
        """Make it a submission to the next API. Raises what refuses it there, and `JournalError`."""
        ...

    async def refreeze(self, sub: Submission, api: API, body: bytes) -> None:
        """Give it other bytes under the same key. Raises `JournalError`."""
        ...


async def send(sub: Submission, owner: Owner, bounds: Bounds) -> tuple[Snapshot, float]:
    """Send it until the server accepts it. Returns its answer, and the moment at which that came (monotonic seconds).

    Raises:
        AiopplxError: it was not accepted; `owner` knows whether that is in doubt.
    """
    routing, client = owner.routing, owner.client
    was_behind = False
    while True:
        if routing.has_changed and sub.phase is Phase.QUEUED:
            if routing.must_move(sub.api, sub.request):
                await owner.move(sub, bounds)  # it was frozen before the other API was known to be retired
            if (older := routing.older(sub.api, sub.body)) is not None:
                await owner.refreeze(sub, sub.api, older)  # it was frozen before the server was known to be behind
        try:
            answer = await client.submit(sub, owner, bounds)
        except EndpointRetired as error:
            if routing.is_last(sub.api):
                client.halt(error, Lane.SUBMIT)
                raise
            if routing.go_over():
                client.on_next_api()
                owner.announcer.went_over(routing, error)
            await owner.take_back(sub)
            if not routing.must_move(sub.api, sub.request) or sub.phase is not Phase.QUEUED:
                raise  # the question is not at hand any more, or a job of it may exist
        except APIError as error:
            if not sub.api.is_behind(error) or (older := sub.api.older(sub.body)) is None:
                raise
            await owner.take_back(sub)
            if sub.phase is not Phase.QUEUED:
                raise  # an earlier attempt was not answered, so a job of these bytes may exist
            await owner.refreeze(sub, sub.api, older)
            was_behind = True
            owner.announcer.was_rephrased(sub, error)
        else:
            if was_behind:
                routing.mark_behind(sub.api)  # not before: the word may be refused for what it says
            return answer
