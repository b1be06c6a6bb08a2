"""The journal in a file behaves like a model of it, under any steps, closings and crashes.

The model is written here from what `Journal` promises, and shares no code with the package.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import DuplicateJob, ImpossibleStep, ItemConflict
from aiopplx.journal._names import item_name, sha_of
from aiopplx.journal._records import Claim, Record, Results, State
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.journal._steps import Step

T = TypeVar("T")
Q, S, A, D, F, I, E, R = State  # noqa: E741 - one letter each: the tables below are to be read

TAGS = st.sampled_from(["a", 1, "1"])
ASKS = st.sampled_from([b"why?", b"how?"])
IDS = st.sampled_from(["id-1", "id-2", "id-3"])
COSTS = st.none() | st.sampled_from([0.5, 0.25])
PICKS = st.integers(0, 11)


class Row:
    """One submission, as the model has it."""

    def __init__(self, tag: str | int | None, ask: bytes, key: str, state: State) -> None:
        self.tag = tag
        self.ask = ask
        self.key = key
        self.state = state
        self.job_id = ""
        self.word = ""
        self.sent = False
        self.ever_sent = False
        self.attempts = 0
        self.delivered = False
        self.body: bytes | None = None
        self.cost: float | None = None
        self.asked_for = True

    def again(self, ask: bytes, key: str) -> None:
        attempts = self.attempts
        self.__init__(self.tag, ask, key, Q)  # type: ignore[misc]  # a row that begins afresh
        self.attempts = attempts


class JournalMachine(RuleBasedStateMachine):
    """Each rule does one thing to both, and says what the journal must answer."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.model: dict[int, Row] = {}
        self.past: list[tuple[State, float | None]] = []
        self.keys = 0
        self.clock = 0.0

    def teardown(self) -> None:
        self.run(self.journal.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(doing)

    def now(self) -> float:
        self.clock += 1.0
        return self.clock

    def open(self, path: Path) -> None:
        self.path = path
        self.journal = self.run(SqliteJournal.open(path, now=self.now, results=self.results))
        for row in self.model.values():
            row.asked_for = False

    @initialize(results=st.sampled_from(["keep", "until_delivered", "refetch"]))
    def begin(self, results: Results) -> None:
        self.results: Results = results
        self.copies = 0
        self.open(self.directory / "0.db")

    # --- what is done ------------------------------------------------------------------------------------------------

    def new_key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    def row(self, pick: int) -> int:
        """A row that is there; one that is not for the last of the picks, and while there is none."""
        rows = sorted(self.model)
        return rows[pick % len(rows)] if rows and pick < 11 else 99

    def claimed(self, pk: int) -> Claim:
        record = self.run(self.journal.claim(pk))
        assert (record is not None) is (pk in self.model)
        assert record is None or record.claim is not None
        return record.claim if record is not None and record.claim is not None else Claim(pk, 1)

    def key(self, pk: int) -> str:
        return self.model[pk].key if pk in self.model else ""

    def step(self, pk: int, step: Step, allowed: set[State], *, done: bool = False, job_id: str = "") -> Row | None:
        """The model's row, if the journal had to take the step, and did. `done`: it is to find itself done."""
        row = self.model.get(pk)
        other = next((p for p, o in self.model.items() if job_id and o.job_id == job_id and p != pk), None)
        may = done or (row is not None and row.state in allowed)
        try:
            self.run(self.journal.apply(self.claimed(pk), step))
        except ImpossibleStep:
            assert not may
            return None
        except DuplicateJob as error:
            holder = error.idempotency_key
        else:
            assert may
            assert other is None
            return None if done else row
        assert other is not None
        assert holder == self.model[other].key
        return None

    @rule(tag=TAGS, ask=ASKS)
    def find_or_queue(self, tag: str | int, ask: bytes) -> None:
        key = self.new_key()
        found = next((p for p, r in self.model.items() if r.tag == tag and type(r.tag) is type(tag)), None)
        try:
            record = self.run(
                self.journal.find_or_queue(
                    item_name(tag, sha_of(ask)), tag=tag, key=key, body=ask, sha=sha_of(ask), api="sonar"
                )
            )
        except ItemConflict:
            assert found is not None
            row = self.model[found]
            assert row.ask not in (ask, b"")
            assert row.asked_for or row.state not in (Q, R)
            return
        if found is None:
            self.model[record.pk] = Row(tag, ask, key, Q)
            return
        row = self.model[found]
        if row.ask not in (ask, b""):
            assert not row.asked_for
            assert row.state in (Q, R)
            if row.attempts:
                self.past.append((row.state, row.cost))
            row.again(ask, key)
        if row.state in (Q, R):
            row.asked_for = True
        assert record.pk == found
        assert record.key == row.key

    @rule(tag=st.none() | TAGS, job_id=IDS)
    def adopt(self, tag: str | int | None, job_id: str) -> None:
        known = next((p for p, r in self.model.items() if r.job_id == job_id), None)
        named = next(
            (p for p, r in self.model.items() if tag is not None and r.tag == tag and type(r.tag) is type(tag)), None
        )
        # A job adopted without a tag and submitted again keeps the name of the id that it had: also a conflict.
        try:
            record = self.run(self.journal.adopt(job_id, api="sonar", tag=tag))
        except ItemConflict:
            assert known is None
            assert named is not None or tag is None
            return
        assert named is None or known is not None
        if known is None:
            row = self.model[record.pk] = Row(tag, b"", "", A)
            row.job_id = job_id
        else:
            assert record.pk == known

    @rule(pick=PICKS)
    def sending(self, pick: int) -> None:
        pk = self.row(pick)
        attempt = self.model[pk].attempts + 1 if pk in self.model else 1
        row = self.step(pk, steps.sending(key=self.key(pk), attempt=attempt), {Q, S, I})
        if row is not None:
            row.state, row.delivered, row.attempts = S, False, row.attempts + 1

    @rule(pick=PICKS, job_id=IDS)
    def accepted(self, pick: int, job_id: str) -> None:
        pk = self.row(pick)
        mine = self.model.get(pk)
        same = mine is not None and mine.state is A and mine.job_id == job_id
        step = steps.accepted(key=self.key(pk), job_id=job_id)
        row = self.step(pk, step, {Q, S, I, E}, done=same, job_id=job_id)
        if row is not None:
            row.state, row.job_id, row.delivered = A, job_id, False

    @rule(pick=PICKS, job_id=st.just("") | IDS, raw=st.binary(max_size=5), cost=COSTS)
    def done(self, pick: int, job_id: str, raw: bytes, cost: float | None) -> None:
        pk = self.row(pick)
        self.ended(pk, D, {Q, S, A, I}, job_id, raw, cost)

    @rule(pick=PICKS, raw=st.binary(max_size=5), cost=COSTS)
    def failed(self, pick: int, raw: bytes, cost: float | None) -> None:
        pk = self.row(pick)
        self.ended(pk, F, {Q, S, A, I}, "", raw, cost)

    @rule(pick=PICKS)
    def expired(self, pick: int) -> None:
        pk = self.row(pick)
        self.ended(pk, E, {A}, "", b"404", None)

    @rule(pick=PICKS)
    def rejected(self, pick: int) -> None:
        pk = self.row(pick)
        self.ended(pk, R, {Q, S}, "", b"422", None)

    def ended(self, pk: int, state: State, allowed: set[State], job_id: str, raw: bytes, cost: float | None) -> None:
        mine = self.model.get(pk)
        same = mine is not None and mine.state is state and mine.word != "DROPPED" and job_id in ("", mine.job_id)
        step = steps.ended(state, key=self.key(pk), job_id=job_id, raw=raw, cost=cost)
        row = self.step(pk, step, allowed, done=same, job_id=job_id)
        if row is not None:
            row.state, row.cost, row.job_id, row.word = state, cost, job_id or row.job_id, ""
            row.body = raw if raw and self.results != "refetch" and state is not E else None
            row.asked_for = True

    @rule(pick=PICKS)
    def doubtful(self, pick: int) -> None:
        pk = self.row(pick)
        row = self.step(pk, steps.doubtful(key=self.key(pk), error="no answer"), {S, I})
        if row is not None:
            row.state = I

    @rule(pick=PICKS)
    def back_to_queued(self, pick: int) -> None:
        pk = self.row(pick)
        mine = self.model.get(pk)
        row = self.step(pk, steps.back_to_queued(key=self.key(pk)), {S}, done=mine is not None and mine.state is Q)
        if row is not None:
            row.state, row.asked_for = Q, True

    @rule(pick=PICKS)
    def requeue(self, pick: int) -> None:
        pk = self.row(pick)
        key = self.new_key()
        step = steps.requeue(key=self.key(pk), new_key=key, body=b"again", api="sonar")
        row = self.step(pk, step, {I, F, E, R})
        if row is not None:
            self.past.append((row.state, row.cost))
            row.again(row.ask, key)

    @rule(pick=PICKS)
    def drop(self, pick: int) -> None:
        pk = self.row(pick)
        mine = self.model.get(pk)
        done = mine is not None and mine.state is F and mine.word == "DROPPED"
        row = self.step(pk, steps.dropped(key=self.key(pk)), {I}, done=done)
        if row is not None:
            row.state, row.word = F, "DROPPED"

    @rule(pick=PICKS, well=st.booleans())
    def go_on(self, pick: int, well: bool) -> None:
        """The next step of a usual course, good or bad: chance alone seldom gets a row to its end."""
        row = self.model.get(self.row(pick))
        free = [job_id for job_id in ("id-1", "id-2", "id-3") if all(r.job_id != job_id for r in self.model.values())]
        if row is None:
            self.find_or_queue("a", b"why?")
        elif row.state is Q:
            self.sending(pick)
        elif row.state is S and well and free:
            self.accepted(pick, free[0])
        elif row.state is S:
            self.doubtful(pick)
        elif row.state is A and well:
            self.done(pick, "", b"body", 0.5)
        elif row.state is A:
            self.failed(pick, b"", 0.25)
        elif row.state in (I, E, F, R):
            self.requeue(pick)

    @rule(pick=PICKS)
    def delivered(self, pick: int) -> None:
        pk = self.row(pick)
        row = self.model.get(pk)
        key, state = (row.key, row.state) if row is not None else ("", D)
        self.journal.delivered(self.claimed(pk), key, state)
        if row is not None:
            self.adopt(None, next((r.job_id for r in self.model.values() if r.job_id), "id-1"))  # what it rides with
        if row is not None and row.state in (D, F, I, E, R):
            row.delivered = True
            if self.results == "until_delivered":
                row.body = None

    # --- what happens ------------------------------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.run(self.journal.close())
        self.open(self.path)

    @rule()
    def crash(self) -> None:
        """Go on from what is on the disk at this moment, as after a `kill -9`."""
        self.copies += 1
        to = self.directory / f"{self.copies}.db"
        shutil.copy(self.path, to)
        shutil.copy(f"{self.path}-wal", f"{to}-wal")
        self.run(self.journal.close())
        self.open(to)

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def records_are_those_of_the_model(self) -> None:
        records: list[Record] = self.run(self.journal.rows(set(State)))
        assert [record.pk for record in records] == sorted(self.model)
        for record in records:
            row = self.model[record.pk]
            seen = (record.tag, record.key, record.state, record.job_id, record.delivered, record.cost, record.attempts)
            assert seen == (row.tag, row.key, row.state, row.job_id, row.delivered, row.cost, row.attempts)
            assert record.sha == (sha_of(row.ask) if row.ask else b"")
            assert self.run(self.journal.result(record.pk)) == row.body
            assert record.has_result is (row.body is not None)

    @invariant()
    def no_bill_is_forgotten(self) -> None:
        bills = [*self.past, *((row.state, row.cost) for row in self.model.values())]
        ledger = self.run(self.journal.ledger())
        assert ledger.spent == sum(cost or 0.0 for _, cost in bills)
        assert ledger.unknown == sum(cost is None and state in (D, F, I, E) for state, cost in bills)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
