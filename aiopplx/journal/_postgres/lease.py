"""How long a session may act on what it holds, and when it may declare others dead.

What is leased is the session, not its jobs: a beat is one small statement, however many thousand jobs wait. The server
compares a lease with its own clock alone. Beside that each session asks its own monotonic clock how long ago its last
good beat was *sent*: it sends nothing more well before the server lets others take over.

Only a session that has itself beaten without a gap for two leases removes others. After an outage of the server all
leases have run out, and the first session that is back would otherwise take the jobs of all those that live. An outage
that was too short to be a gap to one session may have been a lease to another, which beat longer before it and is back
later: after a beat that came late a session waits for half a lease. All leases run out as well when the server's clock
is set on, which a session sees by its own: then the two leases begin anew.

Every method has the time as an argument, in seconds of a monotonic clock. This module knows nothing of statements,
tasks or connections.
"""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Real seconds of everything that takes time.

    Attributes:
        lease: after so long without a beat a session's jobs may be taken by others, by the server's clock.
        beat: between two beats: a few of them may fail.
        look: at the latest after so long, rows that are followed are looked at, whatever was or was not heard.
        told: after so long a change is told, with all others of that time: the server tells one at a time.
        close: so long `close` tries to hand over what the session holds.
    """

    lease: float = 30.0
    beat: float = 7.5
    look: float = 2.0
    told: float = 0.05
    close: float = 2.0


class Lease:
    """The lease of one session, by its own clock.

    Args:
        seconds: how long it lasts at the server.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._trusted = seconds * 2.0 / 3.0
        self._late = seconds / 3.0
        self._beaten: float | None = None
        self._said: float | None = None
        self._since = self._on_time_since = 0.0

    def beaten(self, sent: float, said: float | None = None) -> None:
        """A beat has been confirmed.

        Args:
            sent: the moment at which it was sent.
            said: what the server's clock said at that moment; None if it was not asked.
        """
        if self._beaten is None or sent - self._beaten >= self._trusted or self._has_jumped(sent, said):
            self._since = sent
        if self._beaten is None or sent - self._beaten >= self._late:
            self._on_time_since = sent
        self._beaten, self._said = sent, said

    def _has_jumped(self, sent: float, said: float | None) -> bool:
        """Whether the server's clock was set on since the last beat: every lease may have run out at that moment."""
        if self._beaten is None or self._said is None or said is None:
            return False
        return (said - self._said) - (sent - self._beaten) >= self._late

    def lost(self) -> None:
        """The server does not know this session any more."""
        self._beaten = None

    def may_intend(self, now: float) -> bool:
        """Whether something may be sent: nobody else can have taken over what this session holds."""
        return self._beaten is not None and now - self._beaten < self._trusted

    def may_reap(self, now: float) -> bool:
        """Whether this session may declare others dead."""
        return (
            self._beaten is not None
            and self.may_intend(now)
            and self._beaten - self._since >= 2.0 * self.seconds
            and self._beaten - self._on_time_since >= self.seconds / 2.0
        )
