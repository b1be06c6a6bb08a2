"""A run as its journal shows it: `status`, `watch` and `cost`. They only read, and can do so during the run.

This module knows nothing of sessions, keys or servers.
"""

from __future__ import annotations

import sys
import time

import anyio
import msgspec
from rich.console import Console
from rich.live import Live

from aiopplx._text.amounts import dollars, many
from aiopplx.cli._exits import DONE, UsageError, code_until_signal
from aiopplx.cli._facts import TRUSTED, Facts
from aiopplx.cli._options import CostsBy, is_url
from aiopplx.cli._progress import drawn
from aiopplx.cli._records import question_of
from aiopplx.cli._text import clock, one_line, print_json, print_out, print_table
from aiopplx.journal import JournalReader, open_reader, records_at, stages_of, words_of


class Standing(msgspec.Struct, frozen=True):
    """The state of a run at one moment."""

    journal: str
    base_url: object
    states: dict[str, int]
    cost: float
    cost_unknown: int
    exhausted: bool
    writer: dict[str, object] | None

    @property
    def numbers(self) -> str:
        """All its numbers, on one line."""
        counts = [f"{word} {count:,}" for word, count in self.states.items() if count]
        unknown = f" and {many(self.cost_unknown, 'bill')} not known" if self.cost_unknown else ""
        more = [] if self.exhausted else ["more to read"]
        return ", ".join([*(counts or ["nothing asked yet"]), *more, f"cost {dollars(self.cost)}{unknown}"])

    @property
    def by_whom(self) -> str:
        """Which process runs it."""
        if self.writer is None:
            return "no process is running it"
        return f"process {self.writer['pid']} on {one_line(str(self.writer['host']))} is running it"


def standing(journal: JournalReader) -> Standing:
    """The state of this journal's run."""
    spent, writer, facts = journal.ledger(samples=0), journal.writer(), journal.facts()
    return Standing(
        journal=journal.path,
        base_url=facts["base_url"],
        states={words_of(state): count for state, count in journal.counts().items()},
        cost=spent.spent,
        cost_unknown=spent.unknown,
        exhausted=facts["exhausted"] is True,
        writer=None if writer is None else {"pid": writer[0], "host": writer[1]},
    )


def status(place: str, *, as_json: bool) -> int:
    """Print the state of a run; returns 0."""
    with open_reader(place) as journal:
        found = standing(journal)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return DONE
    print(f"{one_line(found.journal)}  {one_line(str(found.base_url))}")
    for word, count in found.states.items():
        if count:
            print(f"  {word:<10} {count:>8,}")
    unknown = f" and {many(found.cost_unknown, 'bill')} whose amount is not known" if found.cost_unknown else ""
    if not found.exhausted:
        print("  not all questions have been read: there may be more than these")
    print(f"  {'cost':<10} {dollars(found.cost):>8}{unknown}")
    print(found.by_whom)
    return DONE


def running(place: str, *, as_json: bool) -> int:
    """List the jobs that are running at the service, as far as the journal knows; returns 0."""
    with open_reader(place) as journal:
        for record in records_at(journal, "running"):
            asked = question_of(record)
            if as_json:
                print_json({"id": record.job_id, "tag": record.tag, "api": record.api, "question": asked})
            else:
                print_out(f"{one_line(record.job_id)}  {one_line(asked, 100)}\n")
    return DONE


def cost(place: str, *, by: CostsBy, as_json: bool) -> int:
    """Print what was spent, by tag, API or state; returns 0."""
    with open_reader(place) as journal:
        found = journal.costs(by)
    if as_json:
        for one in found:
            print_json({by: one.name, "submissions": one.submissions, "dollars": one.dollars, "unknown": one.unknown})
        return DONE
    rows = [
        ("-" if one.name is None else str(one.name), f"{one.submissions:,}", dollars(one.dollars), f"{one.unknown:,}")
        for one in found
    ]
    print_table([(by.upper(), "SUBMISSIONS", "COST", "UNKNOWN BILLS"), *rows])
    print(f"{dollars(sum(one.dollars for one in found))} in total", file=sys.stderr)
    return DONE


async def recount(place: str) -> None:
    """Set what is spent and held of a budget that sessions share from the rows, and say what it is.

    Raises:
        UsageError: it is a file, which keeps no such sums.
        AiopplxError: the server refuses, or cannot be reached.
    """
    from aiopplx.journal import PostgresJournal

    if not is_url(place):
        raise UsageError("only a journal on PostgreSQL has sums to set: those of a file are always made from its rows")
    journal = await PostgresJournal.open(place)
    try:
        room = await journal.recount()
    finally:
        await journal.close()
    print(f"{dollars(room.spent)} spent, {dollars(room.held)} held for what is not billed yet", file=sys.stderr)


async def migrate(place: str) -> int:
    """Migrate a journal on PostgreSQL, and say from which version to which.

    Raises:
        UsageError: it is a file, which a run migrates by itself.
        AiopplxError: the server refuses, or cannot be reached.
    """
    from aiopplx.journal import migrate as migrated

    if not is_url(place):
        raise UsageError("only a journal on PostgreSQL is migrated by a command: a file is when a run opens it")
    before, now = await migrated(place)
    what = f"migrated from version {before} to {now}" if before != now else f"has version {now} already"
    print(f"the journal {what}")
    return DONE


async def watch(place: str, *, interval: float) -> int:
    """Show the state of a run until no process is running it any more; returns 0.

    Args:
        place: the journal.
        interval: seconds between two readings of the journal.
    """
    with open_reader(place) as journal:
        return await code_until_signal(lambda: _follow(journal, interval))


async def _follow(journal: JournalReader, interval: float) -> int:
    console = Console(highlight=False, markup=False, emoji=False)
    said, found, pace = "", standing(journal), _Pace(journal)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as shown:
            while found.writer is not None:
                shown.update(drawn(pace.facts(found), console.width), refresh=True)
                await anyio.sleep(interval)
                found = standing(journal)
    while found.writer is not None:
        if found.numbers != said:
            said = found.numbers
            print(f"{clock(pace.elapsed)}  {said}", flush=True)
        await anyio.sleep(interval)
        found = standing(journal)
    print(f"{found.numbers}; {found.by_whom}", flush=True)
    return DONE


class _Pace:
    """What is seen of a run while it is watched: the time left follows from how many have ended meanwhile."""

    def __init__(self, journal: JournalReader) -> None:
        self._journal = journal
        self._began = time.monotonic()
        self._first: int | None = None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def facts(self, found: Standing) -> Facts:
        counts = stages_of(self._journal)
        done, failed, in_doubt = (counts.get(stage, 0) for stage in ("finished", "failed", "in doubt"))
        finished, total = done + failed + in_doubt, sum(counts.values()) if found.exhausted else None
        self._first = finished if self._first is None else self._first
        ended, remaining = finished - self._first, None
        if total is not None and ended >= TRUSTED:
            remaining = (total - finished) * self.elapsed / ended
        return Facts(
            finished=finished,
            total=total,
            done=done,
            failed=failed,
            in_doubt=in_doubt,
            running=counts.get("running", 0),
            cost=found.cost,
            elapsed=self.elapsed,
            remaining=remaining,
        )
