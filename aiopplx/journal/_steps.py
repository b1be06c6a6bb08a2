"""The steps of a submission: one table for every store, and the values that request them.

A rule of the table says from which states a step may be taken, to which state it leads and which columns it changes. A
store turns that into its own kind of change. For a step that could not be taken it asks `may_take` (in `store`) what
that means.

An *intent* is something that a session is about to do: send these bytes, send other bytes, pay again. Two sessions with
one intent would pay twice, so it needs a live claim. A *fact* is something that the server, or the user, has said about
a key. It is true whoever learned it: a session that was paused for longer than its lease and comes back with an id has
the only thing that can resolve the doubt that it left behind. So a fact is accepted without a live claim, if the row
still has the key that the fact is about; also if the row stands as never sent, since a fail-over to a replica of the
store that lags behind takes the latest steps back. A *denial* is a weaker kind of fact: that no job is known to have
come of what this session sent (it was refused, taken back, not answered) does not say what a later holder has sent
under the same key, even if that one is dead by now. So it is accepted only while no other session has claimed the row
since.

Every step names its key, and the mark before an attempt also its number. A store whose answer was lost (the commit
succeeded, the connection did not) can therefore be asked for the same step again, which then finds itself done.

This module knows nothing of how rows are stored, nor of who holds one.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from aiopplx.journal._records import State

__all__ = [
    "ENDINGS",
    "RULES",
    "Kind",
    "Put",
    "Rule",
    "Step",
    "accepted",
    "back_to_queued",
    "billed",
    "doubtful",
    "dropped",
    "ended",
    "refreeze",
    "requeue",
    "sending",
    "storable",
]

DROPPED = "DROPPED"
DROPPED_ERROR = "given up by the user while in doubt; a job may exist and be billed"


# --- the table -------------------------------------------------------------------------------------------------------


class Kind(enum.Enum):
    """What a step needs in order to be accepted."""

    INTENT = "intent"
    """A live claim."""
    FACT = "fact"
    """The row's key."""
    DENIAL = "denial"
    """The row's key, and a claim after which no other session has claimed the row."""


class Put(enum.Enum):
    """What a step writes into a column, if not a constant."""

    GIVEN = "given"
    """The step's value."""
    GIVEN_OR_KEPT = "given or kept"
    """The step's value; the column is unchanged if the step has none."""
    NEW_KEY = "new key"
    """The step's `new_key`."""
    KIND = "kind"
    """The kind of job that the step's bytes ask for."""
    NOW = "now"
    """The store's clock."""
    ONCE = "once"
    """The store's clock, if the column is empty."""
    ONCE_WITH_ID = "once with id"
    """The same, if the step brings an id."""


class Rule(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One line of the table.

    Attributes:
        name: what the step is called.
        kind: what it needs to be accepted.
        origins: the states from which it may be taken.
        leads_to: the state that it leads to.
        columns: what it writes besides the state and the time: a value, or a `Put`.
        proof: the columns that show, besides state and key, that it is already done.
        starts_over: the submission's history is moved to the past, and its result removed.
    """

    name: str
    kind: Kind
    origins: frozenset[State]
    leads_to: State
    columns: Mapping[str, Put | str | bool | None]
    proof: tuple[str, ...] = ()
    starts_over: bool = False


def _rule(
    name: str,
    kind: Kind,
    origins: Iterable[State],
    leads_to: State,
    /,
    *,
    proof: tuple[str, ...] = (),
    starts_over: bool = False,
    **columns: Put | str | bool | None,
) -> Rule:
    return Rule(
        name=name,
        kind=kind,
        origins=frozenset(origins),
        leads_to=leads_to,
        columns=MappingProxyType(columns),
        proof=proof,
        starts_over=starts_over,
    )


def _ending(state: State, kind: Kind, *origins: State) -> Rule:
    return _rule(
        "ended",
        kind,
        origins,
        state,
        proof=("job_id",),
        job_id=Put.GIVEN_OR_KEPT,
        accepted_at=Put.ONCE_WITH_ID,
        ended_at=Put.NOW,
        word=Put.GIVEN,
        error=Put.GIVEN,
        cost=Put.GIVEN,
    )


SENDING = _rule(
    "sending",
    Kind.INTENT,
    (State.QUEUED, State.SENDING, State.IN_DOUBT),
    State.SENDING,
    proof=("attempts",),
    attempts=Put.GIVEN,
    first_sent=Put.ONCE,
    delivered=False,
    error="",
)
BACK_TO_QUEUED = _rule("back_to_queued", Kind.DENIAL, (State.SENDING,), State.QUEUED, first_sent=None)
DOUBTFUL = _rule("doubtful", Kind.DENIAL, (State.SENDING, State.IN_DOUBT), State.IN_DOUBT, error=Put.GIVEN)
ACCEPTED = _rule(
    "accepted",
    Kind.FACT,
    (State.QUEUED, State.SENDING, State.IN_DOUBT, State.EXPIRED),
    State.ACCEPTED,
    proof=("job_id",),
    job_id=Put.GIVEN,
    accepted_at=Put.NOW,
    ended_at=None,
    delivered=False,
    error="",
    word="",
)
ENDINGS: Mapping[State, Rule] = {
    State.DONE: _ending(State.DONE, Kind.FACT, State.QUEUED, State.SENDING, State.ACCEPTED, State.IN_DOUBT),
    State.FAILED: _ending(State.FAILED, Kind.FACT, State.QUEUED, State.SENDING, State.ACCEPTED, State.IN_DOUBT),
    State.EXPIRED: _ending(State.EXPIRED, Kind.FACT, State.ACCEPTED),
    State.REJECTED: _ending(State.REJECTED, Kind.DENIAL, State.QUEUED, State.SENDING),
}
"""The steps by which a submission ends, by state."""
REFREEZE = _rule("refreeze", Kind.INTENT, (State.QUEUED,), State.QUEUED, body=Put.GIVEN, api=Put.GIVEN, kind=Put.KIND)
REQUEUE = _rule(
    "requeue",
    Kind.INTENT,
    (State.IN_DOUBT, State.FAILED, State.EXPIRED, State.REJECTED),
    State.QUEUED,
    starts_over=True,
    key=Put.NEW_KEY,
    body=Put.GIVEN,
    api=Put.GIVEN,
    kind=Put.KIND,
    job_id="",
    first_sent=None,
    accepted_at=None,
    ended_at=None,
    word="",
    error="",
    cost=None,
    delivered=False,
)
DROP = _rule(
    "dropped",
    Kind.FACT,
    (State.IN_DOUBT,),
    State.FAILED,
    proof=("word",),
    ended_at=Put.NOW,
    word=Put.GIVEN,
    error=Put.GIVEN,
)

RULES = (SENDING, BACK_TO_QUEUED, DOUBTFUL, ACCEPTED, *ENDINGS.values(), REFREEZE, REQUEUE, DROP)
"""All steps."""


# --- the steps -------------------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, eq=False, kw_only=True, gc=False):
    """One step of one row, for `Journal.apply`. Made by the functions below.

    Attributes:
        rule: its rule in the table.
        key: the key that it is about.
        attempts, job_id, word, error, cost, body, api: what it writes; see `Record`.
        new_key: the row's key afterwards, `""` if it keeps its own.
        raw: the answer's bytes as received.
    """

    rule: Rule
    key: str
    attempts: int = 0
    job_id: str = ""
    word: str = ""
    error: str = ""
    cost: float | None = None
    raw: bytes = b""
    new_key: str = ""
    body: bytes = b""
    api: str = ""

    def __repr__(self) -> str:
        # Omits the question and the answer.
        return f"Step({self.rule.name!r}, key={self.key!r}, job_id={self.job_id!r})"


def sending(*, key: str, attempt: int) -> Step:
    """QUEUED (or, to send the same bytes again, SENDING or IN_DOUBT) to SENDING. Before the first byte leaves.

    Args:
        key: the row's key.
        attempt: the number of this attempt, over all runs: `Record.attempts` + 1 for the first of a run. A mark that
            was taken back may be made again with the same number.
    """
    return Step(rule=SENDING, key=key, attempts=attempt)


def back_to_queued(*, key: str) -> Step:
    """SENDING to QUEUED: nothing that was sent under this key can have made a job.

    Only if that is true of every attempt under the key: the refusal of a second attempt says nothing about a first one
    that was not answered.
    """
    return Step(rule=BACK_TO_QUEUED, key=key)


def doubtful(*, key: str, error: str) -> Step:
    """SENDING (or IN_DOUBT) to IN_DOUBT."""
    return Step(rule=DOUBTFUL, key=key, error=storable(error))


def accepted(*, key: str, job_id: str) -> Step:
    """SENDING to ACCEPTED. Also IN_DOUBT (its id was found) and EXPIRED (it was there after all).

    `Journal.apply` raises `DuplicateJob` if another submission has this id.
    """
    return Step(rule=ACCEPTED, key=key, job_id=job_id)


def ended(
    state: State,
    *,
    key: str,
    job_id: str = "",
    word: str = "",
    raw: bytes = b"",
    error: str = "",
    cost: float | None = None,
) -> Step:
    """The outcome and its body, both written or neither.

    DONE and FAILED come after ACCEPTED, or straight after SENDING if the answer to the submission had it all (give
    `job_id` then); EXPIRED after ACCEPTED; REJECTED after QUEUED or SENDING.

    Args:
        state: DONE, FAILED, EXPIRED or REJECTED.
        key: the row's key.
        job_id: the server's id, if `accepted` was not applied before.
        word: the server's own word (`"COMPLETED"`, `"cancelled"`).
        raw: the answer's bytes as received; `b""` if there is nothing worth keeping. Not stored for EXPIRED.
        error: why there is no result.
        cost: US dollars as billed, None if not known.

    Raises:
        ValueError: a submission does not end in this state.
    """
    rule = ENDINGS.get(state)
    if rule is None:
        raise ValueError(
            f"a submission does not end in {state.name}, but in one of {', '.join(s.name for s in ENDINGS)}"
        )
    return Step(
        rule=rule,
        key=key,
        job_id=job_id,
        word=storable(word),
        raw=raw,
        error=storable(error),
        cost=billed(cost),
    )


def refreeze(*, key: str, body: bytes, api: str) -> Step:
    """Other bytes under the same key, for a row that is QUEUED: another API, or other words. Nothing was made yet."""
    return Step(rule=REFREEZE, key=key, body=body, api=api)


def requeue(*, key: str, new_key: str, body: bytes, api: str) -> Step:
    """A new submission in place of an old one, under a new key: it is paid for again. Only at the user's request.

    IN_DOUBT, FAILED, EXPIRED or REJECTED to QUEUED. Key, id and cost of the old one are kept in the journal's past, and
    count in `costs` and `ledger`. `Journal.apply` raises `ItemConflict` if `new_key` was used before.
    """
    return Step(rule=REQUEUE, key=key, new_key=new_key, body=body, api=api)


def dropped(*, key: str) -> Step:
    """IN_DOUBT to FAILED, with the word `DROPPED`: the user gave it up. It is not sent again unless asked for."""
    return Step(rule=DROP, key=key, word=DROPPED, error=DROPPED_ERROR)


# --- values that any store can hold ---------------------------------------------------------------------------------


def billed(cost: float | None) -> float | None:
    """A cost that can be added up; None for anything else (a server may send NaN)."""
    return cost if cost is not None and math.isfinite(cost) and cost >= 0.0 else None


def storable(text: str) -> str:
    """The text without half surrogate pairs, which JSON may contain and UTF-8 cannot encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
