"""What a row of the journal means for a submission that is asked for again: send it, poll it, load it, or leave it.

Recovery after a crash
----------------------
A crash leaves each row in the state of its last step, and a step is on disk before what it announces is done. So a row
says what may have happened, never less. QUEUED: nothing was sent, so it is sent. ACCEPTED: the server has it, so it is
polled. SENDING: bytes may have been sent and the answer is lost with the process; this is the only row that needs a
rule. The same bytes under the same key are safe where the API honours keys, for as long as the server can be trusted to
remember them; everywhere else the row is held for the user to decide, because a second job is a second bill. A final
row is an outcome: its result is read back, or fetched from the server again if it was not kept.

The same table serves a submission that an earlier batch of this very session has left. This module knows nothing of
stores, requests or time: a key's age is an argument.
"""

from __future__ import annotations

import enum

from aiopplx.journal._records import Record, State

KEY_LIFE = 24 * 3600.0
"""Seconds for which a server is trusted to remember a key. Nobody says for how long Perplexity does; 24 hours is the
least that comparable services promise."""
RESENDS = 16
"""Attempts, over all runs, after which a submission whose outcome is unknown is sent again only if the user asks."""

WITHOUT_RESULT = frozenset({State.FAILED, State.EXPIRED, State.REJECTED})
"""Final states that a user may want to pay for again."""


class Decision(enum.IntEnum):
    """What is done about a row."""

    SEND = 0
    """Nothing was paid: send it."""
    RESEND = 1
    """Its outcome is unknown: send the same bytes under the same key again."""
    HOLD = 2
    """Its outcome is unknown, and sending it again may cost a second job: the user decides."""
    POLL = 3
    """The server has it."""
    REFETCH = 4
    """It ended with a result that was not kept: ask the server for it, and write nothing."""
    LOAD = 5
    """Its result is in the store."""
    REQUEUE = 6
    """It ended without a result, and is wanted again under a new key."""
    DONE = 7
    """It ended without a result, and that is its outcome."""


def decide(record: Record, *, may_resend: bool, retry_failed: bool) -> Decision:
    """What to do about a row that was asked for.

    Args:
        record: the row; `record.age` is its key's age by the store's clock.
        may_resend: the API that the row went to may be sent the same bytes again (`RetryPolicy.resends`).
        retry_failed: a row that failed, expired or was refused is submitted again.
    """
    state = record.state
    if state is State.QUEUED:
        return Decision.SEND
    if state is State.ACCEPTED:
        return Decision.POLL
    if state is State.SENDING or state is State.IN_DOUBT:
        young = record.age is None or record.age < KEY_LIFE
        return Decision.RESEND if may_resend and young and record.attempts < RESENDS else Decision.HOLD
    # Before `has_result`: a failed job has a body too, and it is not what the user wants now.
    if retry_failed and state in WITHOUT_RESULT:
        return Decision.REQUEUE
    if record.has_result:
        return Decision.LOAD
    return Decision.REFETCH if state is State.DONE else Decision.DONE
