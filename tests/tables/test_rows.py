"""A table comes back: each row once, with the columns that it brought, whoever hands the job out."""

import datetime
import decimal
import enum
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from aiopplx import AgentRequest, InvalidRequest, Job, JobStatus, PollPolicy, ResearchRequest, Session, questions, rows
from aiopplx._core.freezing import freeze
from aiopplx._job import Answer, Source, Usage
from aiopplx.apis._registry import APIS, Routing
from aiopplx.emulator import Emulator
from aiopplx.journal import open_reader
from aiopplx.journal._jobs import job_of
from aiopplx.testing import JumpingClock

TABLE = pd.DataFrame({"company": ["ACME", "Müller & Söhne", "B"], "year": [2025, 2024, None], "model": ["x", "y", "z"]})
KEY = "any-key"
TEMPLATE = "What did {company} announce?"


async def ran(source: Any, **given: Any) -> list[Job]:
    clock = JumpingClock()
    async with (
        Emulator(clock=clock) as server,
        Session(KEY, base_url=server.url, clock=clock, **given) as session,
        session.batch(source, ordered=True) as jobs,
    ):
        return [job async for job in jobs]


async def test_job_knows_its_question_row_and_time() -> None:
    jobs = await ran(questions(TABLE, template=TEMPLATE, tag="company"))
    assert [job.question for job in jobs] == [f"What did {name} announce?" for name in TABLE["company"]]
    assert [job.meta["year"] for job in jobs] == [2025, 2024, None]
    assert [job.tag for job in jobs] == list(TABLE["company"])
    assert all(job.seconds is not None and 1 < job.seconds < 3600 for job in jobs)


async def test_the_table_comes_back_with_answers() -> None:
    found = pd.DataFrame(rows(await ran(questions(TABLE, template=TEMPLATE))))
    assert list(found.columns)[:5] == ["company", "year", "model", "tag", "question"]
    assert list(found["company"]) == list(TABLE["company"])
    assert list(found["model"]) == ["x", "y", "z"]
    assert set(found["research_model"]) == {"sonar-deep-research"}
    assert (found["cost"] > 0).all()
    assert (found["n_sources"] > 0).all()


async def test_a_refused_row_comes_back_too() -> None:
    source = [{"question": "a", "meta": {"row": 1}}, {"question": "", "meta": {"row": 2}}]
    jobs = await ran(source)
    assert [job.status for job in jobs] == [JobStatus.COMPLETED, JobStatus.REJECTED]
    assert jobs[0].meta == {"row": 1}


async def test_ask_and_submit_keep_the_columns() -> None:
    clock = JumpingClock()
    async with Emulator(clock=clock) as server, Session(KEY, base_url=server.url, clock=clock) as session:
        asked = await session.ask({"question": "a", "meta": {"row": 1}})
        assert (asked.question, asked.meta) == ("a", {"row": 1})
        begun = await session.submit(ResearchRequest("b", meta={"row": 2}))
        assert (begun.question, begun.meta) == ("b", {"row": 2})


async def test_columns_are_never_sent_and_make_no_difference(tmp_path: Path) -> None:
    clock = JumpingClock()
    async with Emulator(clock=clock) as server:
        for meta in ({"row": 1}, {"row": 2}):
            async with (
                Session(KEY, base_url=server.url, clock=clock, journal=str(tmp_path / "j.db")) as session,
                session.batch([ResearchRequest("a", meta=meta)]) as jobs,
            ):
                assert [job.meta async for job in jobs] == [meta]
        (made,) = server.ledger.jobs
        assert b"row" not in made.body


async def test_a_journal_gives_the_question_back(tmp_path: Path) -> None:
    path = str(tmp_path / "j.db")
    clock = JumpingClock()
    async with Emulator(clock=clock) as server:
        async with Session(KEY, base_url=server.url, clock=clock, journal=path) as session:
            first = await session.ask(ResearchRequest("Why?", tag="t"))
        async with Session(KEY, base_url=server.url, clock=clock, journal=path) as session:
            again = await session.get(first.id)
            assert (again.question, again.tag) == ("Why?", "t")
    with open_reader(path) as reader:
        (record,) = reader.rows()
        stored = job_of(record, reader.result(record.pk))
    assert stored.question == "Why?"
    assert stored.seconds is not None
    assert stored.text == first.text


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ResearchRequest("a"), "a"),
        (
            ResearchRequest(
                messages=[
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "a"},
                ]
            ),
            "a",
        ),
        (
            ResearchRequest(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
            "a",
        ),
        (AgentRequest("a"), "a"),
        (AgentRequest([{"type": "message", "role": "user", "content": "a"}]), "a"),
        (AgentRequest([{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]), "a"),
    ],
)
def test_the_last_words_of_the_user_are_the_question(request_: ResearchRequest | AgentRequest, said: str) -> None:
    from aiopplx.apis._registry import APIS

    assert request_.asked == said
    for api, _ in APIS.values():
        if api.takes(request_):
            assert api.question_of(api.freeze(request_, "key")) == said
            assert api.question_of(b"not JSON") == ""


# --- rows


def test_a_row_is_flat_and_names_never_clash() -> None:
    meta = {"answer": 1, "research_answer": 2, "list": [1, {"a": None}], "none": None, "text": "t"}
    row = Job(status=JobStatus.STOPPED, meta=meta, question="q").to_row()
    assert row["answer"] == 1
    assert row["research_research_answer"] == ""
    assert row["list"] == '[1,{"a":null}]'
    assert list(row)[:6] == ["answer", "research_answer", "list", "none", "text", "tag"]
    assert all(value is None or isinstance(value, str | int | float) for value in row.values())


def test_rows_have_the_same_columns_each() -> None:
    jobs = [
        Job(status=JobStatus.STOPPED, meta={"a": 1}),
        Job(status=JobStatus.STOPPED, meta={"b": 2}),
        *(Job(status=JobStatus.STOPPED, meta={"a": 1}) for _ in range(150)),
        Job(status=JobStatus.STOPPED, meta={"c": 1.5}),
    ]
    found = rows(jobs)
    assert {tuple(row) for row in found} == {("a", "b", "c", *Job(status=JobStatus.STOPPED).to_row())}
    assert pl.DataFrame(found, infer_schema_length=None)["c"].to_list()[-1] == 1.5
    assert rows([]) == []


def test_a_job_with_columns_can_be_pickled_and_written() -> None:
    job = Job(status=JobStatus.STOPPED, meta={"a": [1]}, question="q")
    assert pickle.loads(pickle.dumps(job)) == job
    assert json.loads(json.dumps(job.to_dict()))["meta"] == {"a": [1]}


async def test_poll_rules_see_no_columns() -> None:
    jobs = await ran([{"question": "a", "meta": {"row": 1}}], poll=PollPolicy.fixed(10))
    assert jobs[0].meta == {"row": 1}


def test_column_of_some_rows_moves_ours_in_all() -> None:
    first, second = rows([
        Job(status=JobStatus.STOPPED, tag="ours", question="q"),
        Job(status=JobStatus.STOPPED, tag="ours", question="q", meta={"tag": "theirs", "answer": 1}),
    ])
    assert list(first) == list(second)
    assert list(first)[:4] == ["tag", "answer", "research_tag", "question"]
    assert (first["tag"], first["research_tag"], first["answer"]) == (None, "ours", None)
    assert (second["tag"], second["research_tag"], second["answer"]) == ("theirs", "ours", 1)


class Colour(enum.Enum):
    RED = "red"


CELLS: list[tuple[Any, Any]] = [
    (float("nan"), None),
    (pd.NaT, None),
    (pd.NA, None),
    (np.float64("nan"), None),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (datetime.date(2026, 3, 1), "2026-03-01"),
    (datetime.datetime(2026, 3, 1), "2026-03-01"),
    (datetime.datetime(2026, 3, 1, 8, 30), "2026-03-01 08:30:00"),
    (pd.Timestamp("2026-03-01"), "2026-03-01"),
    (decimal.Decimal("1.50"), "1.50"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Colour.RED, "red"),
    (datetime.timedelta(hours=1), "1:00:00"),
    ({"a": [np.int64(1), float("nan"), datetime.date(2026, 3, 1)]}, {"a": [1, None, "2026-03-01"]}),
]


@pytest.mark.parametrize(("given", "kept"), CELLS, ids=[f"{type(given).__name__} {given}" for given, _ in CELLS])
@pytest.mark.parametrize("remembers", [False, True], ids=["no journal", "journal"])
async def test_columns_come_back_as_values_that_json_has(
    given: Any, kept: Any, remembers: bool, tmp_path: Path
) -> None:
    async with Emulator(clock=JumpingClock(), duration=0.0, answer_chars=200) as server:
        journal = tmp_path / "run.db" if remembers else None
        for _ in range(1 + remembers):  # the second time out of the journal
            source = [{"question": "Why?", "meta": {"cell": given}}]
            async with (
                Session("key", base_url=server.url, clock=JumpingClock(), journal=journal) as session,
                session.batch(source) as jobs,
            ):
                (job,) = [job async for job in jobs]
            assert job.ok
            assert (job.meta, type(job.meta["cell"])) == ({"cell": kept}, type(kept))
            flat = job.to_row()["cell"]
            assert flat == (kept if not isinstance(kept, dict) else '{"a":[1,null,"2026-03-01"]}')


@pytest.mark.parametrize("value", [object(), print, [object()]], ids=["object", "function", "within a list"])
def test_columns_that_json_cannot_say_are_refused(value: Any) -> None:
    request = ResearchRequest("Why?", meta={"cell": value})
    with pytest.raises(InvalidRequest, match="meta"):
        freeze(request, routing=Routing(*APIS["sonar"]), new_key=lambda: "k" * 32, timeout=1.0)


def test_frames_take_rows_whatever_comes_first() -> None:
    answered = Answer(text="a", usage=Usage(cost=1.5), sources=[Source(url="https://a.example")])

    class Answered:
        def answer(self) -> Answer:
            return answered

        def consumed(self) -> Usage | None:
            return answered.usage

    def is_on_the_way(self) -> bool:
        return False

    late = Job(status=JobStatus.COMPLETED, response=Answered(), seconds=13.14434933662415, meta={"late": "x"})
    found = rows([*(Job(status=JobStatus.STOPPED) for _ in range(150)), late])
    frame, wide = pd.DataFrame(found), pl.DataFrame(found, infer_schema_length=None)
    assert frame["cost"].dtype == "float64"
    assert frame["cost"].isna().sum() == wide["cost"].null_count() == 150
    assert (frame["late"].iloc[-1], wide["late"][-1]) == ("x", "x")
    assert (frame["seconds"].iloc[-1], wide["seconds"][-1]) == (13.14, 13.14)
    assert frame["n_sources"].dtype == "int64"
    assert list(frame) == wide.columns
