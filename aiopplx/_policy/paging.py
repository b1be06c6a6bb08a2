"""When a page of the list of jobs is worth a request, and how far what a page says can be believed.

Why pages
---------
A GET tells of one job. A page of the list tells of a hundred, so that many jobs can be seen often for few requests:
one page each few seconds, and one GET for each job that has ended, since a page has no answers.

A page is read when the expected unseen waiting of the jobs on it (`durations`), added up, reaches a price. The price of
a page is the price of a poll times the square root of the number of jobs: a few jobs gain a little in delay and in
requests over a GET of each, and a hundred gain most in requests. While pages tell of a job, it is polled by itself
only if it was on none for long.

What a page covers
------------------
No document says in which order a list comes, what its tokens mean, or how fresh its statuses are. So nothing is taken
for granted but this: the page after a page is where its token leads at this moment.

Each token that is in use is a *page*, with the jobs that were on it when it was last read. New jobs are expected at the
front (no token). A job that was on a page and is there no more is expected on the page after it. If tokens are
positions in time (the page of a token always has the same jobs), every page can be read by itself, however many there
are in front of it. New jobs push older ones off the front; the page that is to take them keeps the newest token of the
front, as long as all that were pushed off fit on it, and so pages hardly overlap. If tokens are numbers (the second
hundred), jobs wander from page to page and are found again on the one after. If tokens are of no use, only the front
is read. Where less than half of the jobs can be read so, nothing is.

What is believed
----------------
A list that was never seen to tell of an end in time (`FRESH`) is on trial: every job is polled by itself as well, only
a few GETs follow what a page says, and reads are counted against a credit that grows with the number of jobs. Two
statements that were false end the belief: a job that a GET says had ended before a page said that it ran, or that runs
although a page said that it had ended. So does a list that fails, is empty, or has two pages in a row with none of our
jobs. Then the list is left alone for a minute, for two the next time, and so on, and has to prove itself anew. If pages
go on to say that nothing ends although some jobs should have, one job is polled to check.

This module knows nothing of requests, tasks or clocks: `now` is an argument, in monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from aiopplx._job import CLOCKS_DIFFER
from aiopplx._policy.durations import LONGEST_GAPS, SHORTEST_GAP
from aiopplx._policy.polling import Polls, Schedule

K = TypeVar("K")

SIZE = 100
"""Rows that a page is asked to have."""
EACH, MOST = 0.8, 11.0
"""The price of a page in prices of a poll: so much for each job on it, and no more than this. At less, a hundred jobs
are seen a little earlier for many more requests; at more, few jobs are seen later than by a GET of each."""
FEWEST, MANY = 4, 30
"""Jobs on a page that are worth a read on trial: when one of them has just ended, and at any time. Two are worth one
once the list has proved itself."""
FRESH = 20.0
"""Seconds: an end that a page tells of so soon speaks for the list."""
LIES = 2.0
"""False statements that end the belief; each true one makes up for a quarter of a false one."""
TRIALS = 2
"""GETs at a time that follow the word of a list on trial."""
CREDIT = 0.25
"""Reads that a list on trial may cost for each job. It has to be worth this much at least once."""
MOST_CREDIT = 100.0
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 3600.0
CHECKED = 10
SILENT, SILENT_ON_TRIAL = 10.0, 1.0
SILENT_SHARE = 0.08
"""So many jobs should have ended since a page last told of an end in time: then jobs are polled by themselves."""
LONE = 25.0
"""Jobs that a page must have had for longer gaps of its last one; of four times as many they are twice as long."""
BEYOND = 3.5
"""A job that pages tell of is polled by itself after so many of its own gaps without a word of it."""
_SAMPLE = 16
_FURTHEST = LONGEST_GAPS[1]
_KNOWN_ENDS = 256
_NEVER = -math.inf


class _Row(Generic[K]):
    """A job that runs, and what pages have said of it.

    Attributes:
        page: where it is expected; None if no page is known to have it.
        is_placed: it was on that page when the page was last read.
        seen_at: when a page last said that it runs.
        called_at: when a page said that it had ended; a GET that decides is due, or out.
        moves: pages on which it was expected in vain since it was last seen.
    """

    __slots__ = ("called_at", "is_covered", "is_placed", "job_id", "key", "moves", "page", "polls", "seen_at")

    def __init__(self, job_id: str, key: K, polls: Polls) -> None:
        self.job_id = job_id
        self.key = key
        self.polls = polls
        self.page: _Page[K] | None = None
        self.is_placed = False
        self.is_covered = False
        self.seen_at = _NEVER
        self.called_at = _NEVER
        self.moves = 0

    def unseen(self, at: float) -> float:
        """Seconds for which it is expected to have been finished unseen at this moment."""
        polls = self.polls
        law = polls.law
        if law is None or self.called_at > _NEVER:
            return 0.0
        return law.unseen(max(polls.seen, self.seen_at - polls.since, 0.0), at - polls.since)

    def has_ended(self, at: float) -> float:
        """The probability that it has ended by this moment, as far as pages have told."""
        polls = self.polls
        law = polls.law
        if law is None or self.called_at > _NEVER:
            return 0.0
        return law.has_ended(max(self.seen_at - polls.since, 0.0), at - polls.since)


class _Page(Generic[K]):
    """A token, and the jobs that are expected where it leads."""

    __slots__ = ("gap", "in_vain", "is_asked", "most", "patience", "planned_for", "read_at", "rows", "token", "used")

    def __init__(self, token: str, in_vain: int = 0) -> None:
        self.token = token
        self.rows: dict[str, _Row[K]] = {}
        self.in_vain = in_vain
        self.read_at = _NEVER
        self.planned_for = 0
        self.gap = SHORTEST_GAP
        self.is_asked = False
        self.patience = 0.5
        self.most = 0
        self.used = 0  # of the page after the front: rows that jobs which were pushed off may take


class Reading(NamedTuple):
    """A page that is worth a request now: it begins at `token`, with `""` at the front. So many ends are expected."""

    token: str
    left_at: float
    expected: float


class Found(NamedTuple, Generic[K]):
    """What follows from a page.

    Attributes:
        ended: jobs that it says have ended: a GET of each is due at once.
        alone: jobs of which no page tells any more.
    """

    ended: list[K]
    alone: list[K]


class Paging(Generic[K]):
    """The list of one account, as far as its pages are read for the jobs that run here.

    Args:
        price: seconds of a result's delay that one poll is worth.

    Attributes:
        is_proven: the list has told of ends in time, and of no more than one falsely.
    """

    def __init__(self, price: float) -> None:
        self.is_proven = False
        self._price = price
        self._rows: dict[str, _Row[K]] = {}
        self._front: _Page[K] = _Page("")
        self._pages: dict[str, _Page[K]] = {"": self._front}
        self._after_front: _Page[K] | None = None
        self._first_row = ""
        self._size = SIZE
        self._plan: Schedule[_Page[K]] = Schedule()
        self._out: set[str] = set()
        self._are_tokens_useful = True
        self._credit = 0.0
        self._proofs, self._proofs_needed = 0, 1
        self._lies = 0.0
        self._trials = 0
        self._expected = 0.0
        self._failures = 0
        self._closed_until = _NEVER
        self._pause = FIRST_PAUSE
        self._ends: dict[str, float] = {}

    # --- which jobs run ----------------------------------------------------------------------------------------------

    def watch(self, job_id: str, key: K, polls: Polls, now: float) -> None:
        """A job runs from now on, or again."""
        row = self._rows.get(job_id)
        if row is not None:
            row.key = key
            return
        self._rows[job_id] = row = _Row(job_id, key, polls)
        self._credit = min(self._credit + CREDIT, MOST_CREDIT)
        self._expect(row, self._front)
        self._plan_if_grown(self._front, now)

    def forget(self, job_id: str, now: float) -> list[K]:
        """It is polled here no more. Returns jobs of which no page tells any more, since too few are left on theirs."""
        row = self._rows.pop(job_id, None)
        if row is None:
            return []
        if row.called_at > _NEVER:
            self._trials = max(0, self._trials - 1)
        page = row.page
        self._leave(row)
        return self._uncover_last(page) if page is not None else []

    def keys(self) -> list[K]:
        """The jobs that run."""
        return [row.key for row in self._rows.values()]

    def seen_at(self, job_id: str) -> float | None:
        """When a page that can be believed last said that it runs; None: it is polled by itself."""
        row = self._rows.get(job_id)
        return row.seen_at if row is not None and row.is_covered else None

    def spacing(self, job_id: str) -> float:
        """The factor by which the gaps of a job that is polled by itself are longer.

        The last job of a page that had many: its delay is one of many, and its polls would be a tenth of all requests.
        """
        row = self._rows.get(job_id)
        page = row.page if row is not None else None
        if page is None or not self.is_proven or len(page.rows) > 1:
            return 1.0
        return min(max(1.0, math.sqrt(page.most / LONE)), 2.0)

    # --- what GETs say -----------------------------------------------------------------------------------------------

    def runs(self, job_id: str, now: float) -> list[K]:
        """A GET says that it runs. Returns jobs of which no page tells any more."""
        row = self._rows.get(job_id)
        if row is None:
            return []
        if row.called_at == _NEVER:
            return []
        row.called_at = _NEVER
        self._trials = max(0, self._trials - 1)
        return self._lied(now)

    def ended(self, job_id: str, now: float, ended_at: float | None) -> list[K]:
        """A GET says that it has ended. Returns jobs of which no page tells any more.

        Args:
            job_id: which.
            now: monotonic seconds.
            ended_at: the same, when it ended; None if the server does not say.
        """
        row = self._rows.get(job_id)
        if row is None or self._is_closed(now):
            return []
        self._ends[job_id] = now if ended_at is None else ended_at
        if len(self._ends) > _KNOWN_ENDS:
            del self._ends[next(iter(self._ends))]
        if ended_at is not None and row.seen_at > ended_at + CLOCKS_DIFFER:
            self._ends.pop(job_id)
            return self._lied(now)
        if not self.is_proven:  # what the list says of it tells much
            for page in self._pages.values():
                page.patience = 0.5
            if row.page is not None and row.called_at == _NEVER and row.page.token not in self._out:
                row.page.is_asked = True
                self._plan.put(row.page, now)
        if row.called_at > _NEVER and (ended_at is None or row.called_at - ended_at <= FRESH):
            self._told_in_time(now)
        return []

    # --- when a page is read -----------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When the next page may be worth a request; None if none will be."""
        return self._plan.next_due()

    def take(self, now: float) -> Reading | None:
        """The page that is worth a request now, if any. Its answer is told to `read`, or its failure to `failed`."""
        while (page := self._plan.pop(now)) is not None:
            if self._is_closed(now):
                self._plan_all(self._closed_until)
                return None
            if not self._may_read(page):
                continue
            if not page.is_asked and self._worth(page, now) < 0.95 * self._price_of(page):
                self._plan_page(page, now)
                continue
            page.is_asked = False
            self._out.add(page.token)
            return Reading(page.token, now, self._sum(page, now, of_ends=True))
        return None

    def _may_read(self, page: _Page[K]) -> bool:
        rows = len(page.rows)
        if page.token in self._out or rows < 2:
            return False
        if self.is_proven:
            return True
        return self._credit >= 1.0 and rows >= (FEWEST if page.is_asked else MANY)

    def _is_closed(self, now: float) -> bool:
        return now < self._closed_until

    def _price_of(self, page: _Page[K]) -> float:
        if not self.is_proven:
            return page.patience
        return self._price * min(EACH * len(page.rows), MOST)

    def _worth(self, page: _Page[K], at: float) -> float:
        """What a read of it is worth at a moment: the expected unseen waiting, or, on trial, the expected ends."""
        return self._sum(page, at, of_ends=not self.is_proven)

    def _sum(self, page: _Page[K], at: float, *, of_ends: bool) -> float:
        """Over the jobs on a page, as many as fit on it, by an even sample: expected ends, or unseen waiting."""
        step = max(1, len(page.rows) // _SAMPLE)
        asked = list(page.rows.values())[step // 2 :: step]
        total = sum(row.has_ended(at) if of_ends else row.unseen(at) for row in asked)
        return total / len(asked) * min(len(page.rows), self._size)

    def _plan_all(self, moment: float) -> None:
        for page in self._pages.values():
            if page.rows:
                self._plan.put(page, moment)

    def _plan_again(self, now: float) -> None:
        for page in self._pages.values():
            self._plan_page(page, now)

    def _plan_if_grown(self, page: _Page[K], now: float) -> None:
        """Plan it again after each quarter more jobs: they are worth an earlier read."""
        if len(page.rows) >= FEWEST and len(page.rows) > 1.25 * page.planned_for:
            self._plan_page(page, now)

    def _plan_page(self, page: _Page[K], now: float) -> None:
        """Find when it will be worth a request."""
        page.planned_for = len(page.rows)
        if page.token in self._out:
            return
        if not self._may_read(page):
            self._plan.remove(page)
            return
        for law in {id(row.polls.law): row.polls.law for row in page.rows.values()}.values():
            if law is not None:
                law.refresh()
        price = self._price_of(page)
        low, worth_low = 0.0, self._worth(page, now)
        if worth_low >= price:
            self._plan.put(page, max(now, page.read_at + SHORTEST_GAP))
            return
        high = max(SHORTEST_GAP, min(page.gap, _FURTHEST))
        while (worth := self._worth(page, now + high)) < price and high < _FURTHEST:
            low, worth_low, high = high, worth, min(2.0 * high, _FURTHEST)
        if worth > price:
            # It grows like a square at first: a chord through the roots.
            a, b = math.sqrt(max(worth_low, 0.0)), math.sqrt(worth)
            high = low + (high - low) * (math.sqrt(price) - a) / (b - a)
        page.gap = max(SHORTEST_GAP, high)
        self._plan.put(page, now + page.gap)

    # --- what a page said --------------------------------------------------------------------------------------------

    def read(self, reading: Reading, rows: Iterable[tuple[str, bool]], next_token: str, now: float) -> Found[K]:
        """A page came.

        Args:
            reading: what `take` gave.
            rows: its jobs: the id, and whether the page says that it has ended.
            next_token: the token of the page after it; `""` if it has none.
            now: monotonic seconds.
        """
        self._out.discard(reading.token)
        page = self._pages.get(reading.token)
        found: Found[K] = Found([], [])
        if page is None or self._is_closed(now):
            return found
        self._failures = 0
        listed = dict(rows)
        if not self.is_proven:
            self._credit -= 1.0
            page.patience *= 2.0
        self._expected += reading.expected
        ours = self._see(page, reading, listed, found, now)
        page.read_at = now
        page.most = max(page.most, min(len(page.rows), self._size))
        if next_token and len(listed) != self._size:
            self._size = max(1, len(listed))
        if page is self._front:
            self._front_moved(list(listed), next_token)
        elif self._is_front_again(listed):
            found.alone.extend(self._without_tokens(now))
            return found
        self._move_missing(page, listed, next_token, found, ours=ours, now=now)
        if self._is_closed(now):
            return found
        if not self._is_trusted():
            covered = [row for row in page.rows.values() if row.is_covered]
            found.alone.extend(self._uncover(covered[:CHECKED] if self.is_proven else self._rows.values()))
        if not self.is_proven and self._credit < 1.0:
            found.alone.extend(self._uncover(self._rows.values()))
        self._plan_page(page, now)
        return found

    def _see(self, page: _Page[K], reading: Reading, listed: dict[str, bool], found: Found[K], now: float) -> int:
        """What it says of jobs. Returns how many of ours were on it, or had been ours."""
        ours = 0
        known, left_at = self._rows, reading.left_at
        is_trusted = self._is_trusted()
        for job_id, is_final in listed.items():
            row = known.get(job_id)
            if row is None:
                if job_id in self._ends:
                    ours += 1
                    self._compare(job_id, left_at, found, now, is_final=is_final)
                continue
            ours += 1
            self._place(row, page, now)
            if not is_final:
                row.seen_at = left_at
                if row.called_at == _NEVER and is_trusted:
                    row.is_covered = len(page.rows) >= 2
                if self.is_proven and row.called_at == _NEVER:
                    polls = row.polls
                    age = left_at - polls.since
                    if age - polls.seen > 0.1 * age:
                        polls.saw_running(left_at)
            elif row.called_at == _NEVER and (self.is_proven or self._trials < TRIALS):
                row.called_at = left_at
                row.is_covered = False
                self._trials += 1
                found.ended.append(row.key)
        return ours

    def _compare(self, job_id: str, left_at: float, found: Found[K], now: float, *, is_final: bool) -> None:
        """Of a job whose end is known: what does the page say?"""
        ended_at = self._ends[job_id]
        if is_final:
            del self._ends[job_id]
            if now - ended_at <= FRESH:
                self._told_in_time(now)
        elif left_at > ended_at + CLOCKS_DIFFER:
            del self._ends[job_id]
            found.alone.extend(self._lied(now))

    def _place(self, row: _Row[K], page: _Page[K], now: float) -> None:
        """It is on this page. If it was on another one when that was read, it is read there: pages overlap."""
        row.moves = 0
        if row.page is page:
            row.is_placed = True
        elif row.page is None or not row.is_placed or len(row.page.rows) < 2:
            self._leave(row)
            self._expect(row, page)
            row.is_placed = True

    def _front_moved(self, ids: list[str], next_token: str) -> None:
        """Jobs may have been pushed off the front: which page takes them?"""
        first, self._first_row = self._first_row, ids[0] if ids else ""
        if not next_token or not self._are_tokens_useful:
            self._after_front = None
            return
        pushed = ids.index(first) if first in ids else self._size
        after = self._after_front
        if after is None or after.used + pushed > self._size:
            after = self._page_of(next_token, 0)
            after.used = 0
        elif after.token != next_token and next_token not in self._pages and after.token not in self._out:
            del self._pages[after.token]
            after.token = next_token
            self._pages[next_token] = after
        after.used += pushed
        self._after_front = after

    def _is_front_again(self, listed: dict[str, bool]) -> bool:
        """Whether the token was ignored."""
        return bool(listed) and next(iter(listed)) == self._first_row

    def _move_missing(
        self, page: _Page[K], listed: dict[str, bool], next_token: str, found: Found[K], *, ours: int, now: float
    ) -> None:
        """Jobs that were expected here and are not: they are expected on the next page, if there is one."""
        if page is self._after_front:
            places = [n for n, job_id in enumerate(listed) if job_id in page.rows]
            page.used = max(page.used, places[-1] + 1 if places else 0)
        missing = [row for row in page.rows.values() if row.job_id not in listed and row.called_at == _NEVER]
        in_vain = 0 if ours else page.in_vain + 1
        if not listed or in_vain >= 2:
            if page is self._front or not self.is_proven:
                found.alone.extend(self._lose(now))
                return
            next_token = ""
        if not missing:
            self._drop_if_empty(page)
            return
        following: _Page[K] | None = None
        if next_token and next_token != page.token and self._are_tokens_useful:
            following = self._after_front if page is self._front else self._page_of(next_token, in_vain)
        most = 3 + 2 * len(self._rows) // self._size
        for row in missing:
            self._leave(row)
            row.is_placed = False
            row.moves += 1
            if row.is_covered:
                row.is_covered = False
                found.alone.append(row.key)
            if following is not None and row.moves <= most:
                self._expect(row, following)
        if following is not None:
            following.planned_for = 0
            self._plan_page(following, now)
        self._drop_if_empty(page)
        placed = sum(row.page is not None for row in self._rows.values())
        if 2 * placed < len(self._rows):
            found.alone.extend(self._lose(now))

    def failed(self, reading: Reading, now: float, *, is_for_good: bool) -> Found[K]:
        """A page could not be had.

        Args:
            reading: what `take` gave.
            now: monotonic seconds.
            is_for_good: it will hardly be better the next time.
        """
        self._out.discard(reading.token)
        page = self._pages.get(reading.token)
        found: Found[K] = Found([], [])
        if page is None or self._is_closed(now):
            return found
        self._failures += 1
        self._credit -= 1.0
        if page is not self._front and is_for_good:
            # Its token is no good any more; the front may be.
            found.alone.extend(self._drop(page))
        elif is_for_good or self._failures >= 2:
            found.alone.extend(self._lose(now))
        else:
            page.planned_for = len(page.rows)
            self._plan.put(page, now + 5.0)
        return found

    # --- belief ------------------------------------------------------------------------------------------------------

    def _is_trusted(self) -> bool:
        """Whether jobs need not be polled by themselves. Not where pages are silent although some should have ended."""
        return self._expected < (SILENT if self.is_proven else SILENT_ON_TRIAL) + SILENT_SHARE * len(self._rows)

    def _told_in_time(self, now: float) -> None:
        """The list has told of an end in time."""
        self._lies = max(0.0, self._lies - 0.25)
        self._expected = 0.0
        if self.is_proven:
            return
        self._proofs += 1
        if self._proofs >= self._proofs_needed:
            self.is_proven = True
            self._credit = max(self._credit, min(CREDIT * len(self._rows), MOST_CREDIT))
            self._plan_again(now)

    def _lied(self, now: float) -> list[K]:
        """The list has said something that was false."""
        self._lies += 1.0
        return self._lose(now) if self._lies >= LIES else []

    def _lose(self, now: float) -> list[K]:
        """Leave the list alone for a while. Returns jobs of which no page tells any more."""
        alone = self._uncover(self._rows.values())
        self._closed_until = now + self._pause
        self._pause = min(2.0 * self._pause, LONGEST_PAUSE)
        self.is_proven = False
        self._proofs, self._proofs_needed = 0, min(2 * self._proofs_needed, 8)
        self._lies = self._expected = 0.0
        self._failures = 0
        self._are_tokens_useful = True
        self._start_over()
        return alone

    def _start_over(self) -> None:
        """Every job is expected at the front again."""
        for page in self._pages.values():
            self._plan.remove(page)
            page.rows = {}
        self._front.planned_for = 0
        self._pages = {"": self._front}
        self._after_front = None
        self._first_row = ""
        for row in self._rows.values():
            row.page, row.is_placed, row.moves = None, False, 0
            self._expect(row, self._front)
        if self._rows:
            self._plan.put(self._front, self._closed_until)

    def _without_tokens(self, now: float) -> list[K]:
        """Tokens lead to the front again: only the front can be read."""
        self._are_tokens_useful = False
        self._after_front = None
        alone: list[K] = []
        for page in [page for page in self._pages.values() if page is not self._front]:
            alone += self._drop(page)
        if 2 * len(self._front.rows) < len(self._rows):
            alone += self._lose(now)
        return alone

    # --- where jobs are expected -------------------------------------------------------------------------------------

    def _page_of(self, token: str, in_vain: int) -> _Page[K]:
        page = self._pages.get(token)
        if page is None:
            page = self._pages[token] = _Page(token, in_vain)
        return page

    def _expect(self, row: _Row[K], page: _Page[K]) -> None:
        row.page, row.is_placed = page, False
        page.rows[row.job_id] = row

    def _leave(self, row: _Row[K]) -> None:
        page = row.page
        row.page = None
        if page is not None:
            page.rows.pop(row.job_id, None)
            self._drop_if_empty(page)

    def _drop_if_empty(self, page: _Page[K]) -> None:
        if not page.rows and page is not self._front and page is not self._after_front:
            self._plan.remove(page)
            if self._pages.get(page.token) is page:
                del self._pages[page.token]

    def _drop(self, page: _Page[K]) -> list[K]:
        """It is not read any more. Returns its jobs of which no page tells any more."""
        rows = list(page.rows.values())
        alone = self._uncover(rows)
        if page is self._after_front:
            self._after_front = None
        for row in rows:
            self._leave(row)
        self._drop_if_empty(page)
        return alone

    def _uncover(self, rows: Iterable[_Row[K]]) -> list[K]:
        alone: list[K] = []
        for row in rows:
            if row.is_covered:
                row.is_covered = False
                alone.append(row.key)
        return alone

    def _uncover_last(self, page: _Page[K]) -> list[K]:
        """One job is better polled by itself."""
        return self._uncover(page.rows.values()) if len(page.rows) == 1 else []
