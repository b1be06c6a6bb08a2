"""The store of a session without a journal: it accepts every step, and remembers very little.

With it a session always has a store, and no code has to ask whether there is one. It is part of every submission, so
each of its calls costs next to nothing. For the latest few thousand jobs it remembers the key and tag of their
submission: for a caller who waits for a job by its id, and to notice that the server gave one id to two submissions.
This module knows nothing of files, of the claims of other sessions, or of time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import cast

from aiopplx.journal._errors import duplicate
from aiopplx.journal._names import job_name
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Origin, Record, Results, State
from aiopplx.journal._steps import Step

REMEMBERED = 10_000
"""Jobs whose key and tag are remembered."""


class _Ticket(Claim, gc=False):
    """A claim with the data that a row would have. It lives as long as its submission, so nothing stays behind here."""

    key: str = ""
    tag: str | int | None = None
    api: str = ""


class ForgetfulJournal:
    """A `Journal` that keeps no rows."""

    results: Results = "refetch"
    remembers = False
    shares = False

    def __init__(self) -> None:
        self._last = 0
        self._known: OrderedDict[str, _Ticket] = OrderedDict()

    async def find_or_queue(
        self,
        item: str,
        *,
        tag: str | int | None,
        key: str,
        body: bytes,
        sha: bytes,
        api: str,
        origin: Origin | None = None,
    ) -> Record:
        """A new submission, whatever its name: `item` and `sha` are ignored, and may be empty; so is `origin`."""
        self._last += 1
        return Record(
            pk=self._last,
            item=item,
            tag=tag,
            key=key,
            body=body,
            sha=sha,
            api=api,
            state=State.QUEUED,
            claim=_Ticket(self._last, 0, key, tag, api),
        )

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """A job from elsewhere, or the remembered one with this id."""
        known = self._known.get(job_id)
        if known is None:
            self._last += 1
            known = _Ticket(self._last, 0, "", tag, api)
            self._remember(job_id, known)
        return _record(job_id, known, known)

    async def claim(self, pk: int) -> Record | None:
        """None: there are no rows."""
        return None

    async def free(self, limit: int, *, but: Collection[int] = ()) -> list[Record]:
        """Nothing: there are no rows."""
        return []

    async def held(self, but: Collection[int]) -> list[Claim]:
        """Nothing: there are no rows."""
        return []

    async def alike(self, sha: bytes, *, api: str, item: str, beginning: str) -> list[Record]:
        """Nothing: there are no rows."""
        return []

    async def release(self, claim: Claim) -> None:
        """Nothing is held."""

    async def apply(self, claim: Claim, step: Step) -> None:
        """Accept the step.

        Raises:
            DuplicateJob: the id belongs to a submission with another key.
        """
        job_id = step.job_id
        if job_id:
            known = self._known.get(job_id)
            if known is None:
                self._remember(job_id, cast("_Ticket", claim))
            elif known.key != step.key:
                raise duplicate(job_id, known.key, path="")
        elif step.api:
            cast("_Ticket", claim).api = step.api

    def _remember(self, job_id: str, ticket: _Ticket) -> None:
        self._known[job_id] = ticket
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def forget(self, seconds: float, *, limit: int = 500) -> int:
        """See `Journal`."""
        return 0

    def may_intend(self) -> bool:
        """See `Journal`. Nobody else can take a row that is held."""
        return True

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """Returns at once: no other session holds anything."""

    def delivered(self, claim: Claim, key: str, state: State) -> None:
        """Nothing is written."""

    def exhausted(self, is_exhausted: bool) -> None:
        """Nothing is written."""

    async def result(self, pk: int) -> bytes | None:
        """None: no result is stored."""
        return None

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """A job that was submitted here, by its id: as ACCEPTED, with key, tag and API. None for anything else."""
        known = self._known.get(job_id)
        return _record(job_id, known) if known is not None else None

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """Nothing."""
        return []

    async def counts(self) -> dict[State, int]:
        """Zero in every state."""
        return dict.fromkeys(State, 0)

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """Nothing."""
        return []

    async def ledger(self, samples: int = 200) -> Ledger:
        """Nothing spent."""
        return Ledger()

    async def recall(self, name: str) -> bytes | None:
        """None: nothing is remembered."""
        return None

    async def remember(self, name: str, value: bytes) -> None:
        """Nothing is remembered."""

    async def close(self) -> None:
        """Nothing is left to write."""

    def abandon(self) -> list[tuple[str, str, str]]:
        """Nobody waits for it, and nothing is unwritten."""
        return []


def _record(job_id: str, known: _Ticket, claim: Claim | None = None) -> Record:
    return Record(
        pk=known.pk,
        item=job_name(job_id),
        tag=known.tag,
        key=known.key,
        body=b"",
        sha=b"",
        api=known.api,
        state=State.ACCEPTED,
        job_id=job_id,
        claim=claim,
    )
