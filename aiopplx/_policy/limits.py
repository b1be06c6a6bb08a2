"""Which limits an account meets: one for submissions, one for polls, one for lists, until two prove to be the same.

Whether polls count towards the limit of submissions is not documented for every API and every gateway, and asking would
cost requests. So they have a limit each until it shows:

- by headers: a poll is told the limit that submissions were told, and as many remain for it as for them;
- by a refusal: a poll is refused while a rate of submissions is known, or a submission while a rate of polls is. Polls
  alone are far below every published limit of polls, so where limits are separate none is refused, and nothing is
  joined. Some servers refuse at random, though. So what was accepted of both, since the one that is known was last
  empty, must have fitted into it.

Until a rate of either is known, nothing shows it, and polls may use up what submissions would have had. So polls of a
batch give way to its submissions as long as that may be (`may_be_shared`), for a minute each at most. Once submissions
have met a limit, these polls all wait to leave, and if the limit is theirs too, each that is on its way is refused. So
they begin as carefully as submissions did; accepted ones soon free the others.

Once it shows, it is one limit. It becomes two again only where refusals prove to come at any rate (`noise`): then the
one that joined them said nothing. If it was wrong without that, polls wait longer than they must, and nothing else.
Lists have a limit of their own throughout.

A limit that the user gives may be that of several processes together. Departures then come from where these share it
(`departures`), and the limiter beside it obeys refusals.

This module knows nothing of tasks and clocks: `now` is an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from aiopplx._policy.departures import Fetched
from aiopplx._policy.limiter import Departures, Learnt, Limiter
from aiopplx._wire.call import Lane

AT_ONCE = 128.0
"""Polls that may be in flight while no limit of them is known, so that one without an answer delays no other.
Submissions start more carefully, because their limits are small."""
NEAR, NEAR_SHARE = 5.0, 0.2
"""A poll's count belongs to the submissions' if it is this near to theirs: requests, or a share of the limit."""
USED = 0.8
"""Of a limit no more than this may remain, or two separate limits that are nearly unused would look like one."""

FITS, FITS_FEW = 1.5, 4.0
"""Submissions and polls that were accepted fit into one limit if they are no more than so many times what came in at
its rate, and a few."""

_SUBMIT, _LIST = Lane.SUBMIT, Lane.LIST


class Kept(msgspec.Struct, frozen=True):
    """What a later run may start from, as it is stored."""

    submit: Learnt
    poll: Learnt
    list: Learnt
    is_shared: bool
    at: float


class _Found:
    """The limits as they are found out, whatever the user says of them meanwhile."""

    __slots__ = ("list", "poll", "submit")

    def __init__(self) -> None:
        self.submit = Limiter()
        self.poll = Limiter(first_window=AT_ONCE, published=(), finds_window=False)
        self.list = Limiter(first_window=AT_ONCE, published=(), finds_window=False)


class _Both:
    """The departures of requests that meet two limits, of which the other one may have to be fetched."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Departures, other: Departures) -> None:
        self._one = one
        self._other = other

    def delay(self, now: float) -> float:
        return max(self._one.delay(now), self._other.delay(now))

    def waits_for_answer(self) -> bool:
        return self._one.waits_for_answer() or self._other.waits_for_answer()

    def want(self, now: float) -> None:
        if self._one.delay(now) <= 0.0:
            self._other.want(now)

    def leave(self, now: float) -> None:
        self._one.leave(now)
        self._other.leave(now)

    def back(self, sent_at: float) -> None:
        self._one.back(sent_at)
        self._other.back(sent_at)

    def accepted(self, now: float, sent_at: float) -> None:
        self._one.accepted(now, sent_at)
        self._other.accepted(now, sent_at)


class _Empty(msgspec.Struct, frozen=True, gc=False):
    """A moment at which a limit was known to hold no more than `left`, and what had been accepted until then."""

    at: float
    accepted: int
    left: float = 0.0


class Limits:
    """The limits of one account.

    Attributes:
        submit, poll, list: one for each kind of request. Cancellations go with the polls.
        tokens: a limit on tokens, which holds back submissions only; None while none was met.
        is_shared: submissions and polls have one limit: `submit` and `poll` are the same object.
        lanes: where the departures of each lane come from, by its number.
        fetched: the limits that processes share, by their names: `submit`, which may be that of polls as well, and
            with a tier `poll` and `list`.
        on_want: whoever fetches departures, called when some are wanted.
    """

    __slots__ = (
        "_empty",
        "_found",
        "_is_joined_by_refusal",
        "_is_parted",
        "_told_of_refusal",
        "fetched",
        "is_shared",
        "lanes",
        "list",
        "on_want",
        "poll",
        "submit",
        "tokens",
    )

    def __init__(self) -> None:
        self._told_of_refusal = False
        self._is_joined_by_refusal = False
        self._is_parted = False
        self.fetched: Mapping[str, Fetched] = {}
        self.on_want: set[Callable[[], object]] = set()
        self.tokens: Limiter | None = None
        self.forget()

    def of(self, lane: Lane) -> Limiter:
        """The limit that a request of this lane meets."""
        return self.submit if lane is _SUBMIT else self.list if lane is _LIST else self.poll

    @property
    def may_be_shared(self) -> bool:
        """Whether nothing is known that could tell if polls count towards the limit of submissions."""
        return self.submit.rate is None and self.poll.rate is None and not self.is_shared

    def _use(self, submit: Limiter, poll: Limiter, list: Limiter, *, is_shared: bool) -> None:
        self.submit: Limiter = submit
        self.poll: Limiter = poll
        self.list: Limiter = list
        self.is_shared: bool = is_shared
        self._set_lanes()

    def _set_lanes(self) -> None:
        lanes: list[Departures] = [self.of(lane) for lane in Lane]
        if self.tokens is not None:
            lanes[_SUBMIT] = _Both(self.submit, self.tokens)
        for lane in Lane if self.fetched else ():
            name = "list" if lane is _LIST else "submit" if lane is _SUBMIT or self.is_shared else "poll"
            if name in self.fetched:
                lanes[lane] = _Both(lanes[lane], self.fetched[name])
        self.lanes: Sequence[Departures] = lanes

    def _fetch(self, **allowed: tuple[float, float] | None) -> None:
        """The limits of these names are shared by processes: so many requests a minute, and so many at once."""
        before = self.fetched
        self.fetched = {name: before.get(name) or Fetched(self._wanted) for name, of in allowed.items() if of}
        for name, fetched in self.fetched.items():
            fetched.allow(*(allowed[name] or ()))
        self._set_lanes()

    def _wanted(self) -> None:
        for fetch in [*self.on_want]:
            fetch()

    # --- what came back ----------------------------------------------------------------------------------------------

    def refused(self, lane: Lane, now: float, sent_at: float, *, is_by_tokens: bool = False) -> None:
        """A request was refused, because there were too many; `is_by_tokens`: because they ask for too much."""
        if is_by_tokens and lane is _SUBMIT:
            self.of(lane).accepted(now, sent_at)  # it was not one request too many
            if self.tokens is None:
                self.tokens = Limiter()
                self._set_lanes()
            self.tokens.refused(now, sent_at)
            return
        limit = self.of(lane)
        if not limit.usual and (usual := max(self.submit.usual, self.poll.usual, self.list.usual)):
            limit.expect(usual)
        is_known = limit.rate is not None
        shows_limit = limit.refused(now, sent_at)
        if lane is _LIST:
            return
        if self.is_shared:
            if self._is_joined_by_refusal and limit.usual:
                self._part(now)
            return
        other = self.poll if lane is _SUBMIT else self.submit
        may_join = not (self._is_parted or limit.usual or other.is_given or limit.is_given)
        if may_join and self._fits(other, sent_at):
            self._join(other)
            self._is_joined_by_refusal = True
            # It was sent under its own count, and is counted here too: if nothing had been sent here for long, what
            # was accepted in that time says nothing of the rate.
            other.leave(sent_at)
            other.back(sent_at)
            other.refused(now, sent_at)
        elif shows_limit and is_known:
            self._empty[lane is _SUBMIT] = _Empty(sent_at, self.submit.count + self.poll.count)
        elif lane is _SUBMIT and limit.rate is not None and may_join:
            other.begin_carefully()

    def _fits(self, limit: Limiter, now: float) -> bool:
        """Whether this limit, whose rate is known, may hold all that was accepted of both."""
        if limit.rate is None:
            return False
        empty = self._empty[limit is self.submit]
        if empty is None:
            return True
        accepted = self.submit.count + self.poll.count - empty.accepted
        return accepted <= empty.left + FITS * limit.rate * (now - empty.at) + FITS_FEW + limit.places

    def _part(self, now: float) -> None:
        """Refusals come at any rate, so that the one that joined two limits said nothing: each goes on by itself."""
        of_both = self.submit
        poll = self._found.poll = Limiter(first_window=AT_ONCE, published=(), finds_window=False)
        poll.start_from(now, of_both.learnt, 0.0)
        of_both.in_flight = 0  # some of those that are under way are polls
        self._use(of_both, poll, self.list, is_shared=False)
        self._is_joined_by_refusal, self._is_parted = False, True

    def said(
        self,
        lane: Lane,
        now: float,
        sent_at: float,
        counts: Mapping[str, int],
        until_reset: float | None,
        *,
        accepted: bool,
    ) -> None:
        """An answer had the server's own counts; see `Limiter.said`."""
        if lane is not _SUBMIT and lane is not _LIST and not self.is_shared and self._is_same(now, counts):
            self._join(self.submit)
        self.of(lane).said(now, sent_at, counts, until_reset, accepted=accepted)

    def _is_same(self, now: float, counts: Mapping[str, int]) -> bool:
        told, limit, remaining = self.submit.told(now), counts.get("limit"), counts.get("remaining")
        if told is None or limit is None or remaining is None or limit != told[0]:
            return False
        return told[1] <= USED * limit and abs(remaining - told[1]) <= max(NEAR, NEAR_SHARE * limit)

    def _join(self, into: Limiter) -> None:
        other = self.poll if into is self.submit else self.submit
        into.join(other)
        self._found.submit = self._found.poll = into
        self._use(into, into, self.list, is_shared=True)

    def forget(self) -> None:
        """Requests go to another API, of whose limits nothing is known."""
        self._found = _Found()
        self._empty: list[_Empty | None] = [None, None]
        self._is_joined_by_refusal = self._is_parted = False
        self.tokens = None
        self._use_found()

    def _use_found(self) -> None:
        found = self._found
        self._use(found.submit, found.poll, found.list, is_shared=found.submit is found.poll)
        for limit in (found.submit, found.poll, found.list):
            limit.in_flight = 0  # what is under way was counted elsewhere

    # --- what the user says ------------------------------------------------------------------------------------------

    def allow(self, per_minute: float | None, *, with_others: bool = False) -> None:
        """The user allows so many submissions a minute from now on, evenly spaced; None: as many as the server does.

        What was found out before holds again once the user says nothing more. `with_others`: so many by all processes
        together. These are spaced where they are shared, so here as many may leave at once as come.
        """
        burst = per_minute if with_others and per_minute is not None else 1.0
        if per_minute is None:
            if self.submit.is_given:
                self._use_found()
        elif self.submit.is_given and not self.is_shared and self.submit.burst == burst:
            self.submit.rate = per_minute / 60.0
        else:
            self._use_found()
            self._use(Limiter(per_minute, burst=burst), self.poll, self.list, is_shared=False)
        self._fetch(submit=(per_minute, 1.0) if with_others and per_minute is not None else None)

    def allow_tier(self, submit: float, poll: float | None, list: float | None, *, with_others: bool = False) -> None:
        """The account's tier allows so many requests a minute, and as many at once. `poll` None: all share `submit`.

        `with_others`: to all processes together.
        """
        given = {"submit": submit, "poll": poll, "list": list}
        self._fetch(**{name: (of, of) if with_others and of is not None else None for name, of in given.items()})
        if self.submit.is_given and (self.submit.rate, self.submit.burst) == (submit / 60.0, submit):
            return
        self._use_found()
        of_submits = Limiter(submit, burst=submit)
        of_polls = of_submits if poll is None else Limiter(poll, burst=poll)
        of_lists = self.list if list is None else Limiter(list, burst=list)
        self._use(of_submits, of_polls, of_lists, is_shared=poll is None)

    def is_refused_as_given(self) -> bool:
        """Whether a request was refused although a given rate was kept; True once, so that it is told once."""
        if self._told_of_refusal or not (self.submit.refused_as_given or self.poll.refused_as_given):
            return False
        self._told_of_refusal = True
        return True

    # --- for a later run ---------------------------------------------------------------------------------------------

    def export(self, wall: float) -> bytes:
        """What was learnt, to be kept; `b""` if nothing was. `wall`: seconds since 1970."""
        found = self._found
        if found.submit.rate is None and found.poll.rate is None and found.list.rate is None:
            return b""
        is_shared = found.submit is found.poll
        kept = Kept(found.submit.learnt, found.poll.learnt, found.list.learnt, is_shared, wall)
        return msgspec.json.encode(kept)

    def start_from(self, kept: bytes, now: float, wall: float) -> None:
        """Start from what an earlier run kept. What cannot be read is passed over."""
        try:
            learnt = msgspec.json.decode(kept, type=Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        ago = wall - learnt.at
        self._empty = [_Empty(now, 0, learnt.poll.burst), _Empty(now, 0, learnt.submit.burst)]
        self.submit.start_from(now, learnt.submit, ago)
        self.list.start_from(now, learnt.list, ago)
        if learnt.is_shared and not self.is_shared and not self.submit.is_given and not self.poll.is_given:
            self._join(self.submit)
            self._is_joined_by_refusal = True
        elif not self.is_shared:
            self.poll.start_from(now, learnt.poll, ago)
