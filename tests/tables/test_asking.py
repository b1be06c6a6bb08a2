"""Which cell is asked, which is sent, and what comes back; and what is refused before anything is sent."""

import datetime
import decimal
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aiopplx
from aiopplx import AgentRequest, ResearchRequest
from aiopplx.cli._exits import told
from aiopplx.tables import AskOptions, Look, TableError, look, questions, read_file, read_memory
from aiopplx.tables._template import EmptyHole, Template

COLUMNS = ["company", "year", "model", "Frage"]
FRAME = pd.DataFrame({"company": ["ACME", "B & Söhne"], "year": [2025, 2024], "model": ["Civic", "Jazz"]})


def seen(source: object, **options: Any) -> Look:
    return look(read_memory(source), AskOptions(**options))


# --- which column is the question


@pytest.mark.parametrize("name", ["question", "Question", "prompt", "QUERY", "input", "text"])
def test_a_known_name_is_the_question(name: str) -> None:
    found = seen(pd.DataFrame({"id": [1], name: ["Why?"]}))
    assert found.first == ["Why?"]


def test_an_unknown_or_ambiguous_question_is_refused() -> None:
    for columns in ({"id": [1]}, {"prompt": ["a"], "Query": ["b"]}, {"text": ["a"], "input": ["b"]}):
        with pytest.raises(TableError, match="which column"):
            seen(pd.DataFrame(columns))


def test_a_better_name_wins_over_a_weaker_one() -> None:
    assert seen(pd.DataFrame({"text": ["a"], "prompt": ["b"]})).first == ["b"]


def test_a_column_is_named_or_guessed_at() -> None:
    assert seen(FRAME, question="company").first == ["ACME", "B & Söhne"]
    with pytest.raises(TableError, match='did you mean "company"'):
        seen(FRAME, question="compny")


# --- what is sent and what is kept


def test_column_of_a_table_is_kept_unsent() -> None:
    found = seen(FRAME, template="What did {company} do?")
    request = next(found.requests())
    assert isinstance(request, ResearchRequest)
    assert request.model == "sonar-deep-research"
    assert request.meta == {"company": "ACME", "year": 2025, "model": "Civic"}
    assert any('"model" is kept, not sent' in note for note in found.notes)
    assert b"Civic" not in request.canonical()


def test_a_named_column_is_sent_as_its_field() -> None:
    frame = pd.DataFrame({"question": ["a", "b"], "temperature": ["0.5", ""], "search_mode": ["sec", None]})
    first, second = seen(frame, fields=["temperature", "search_mode"]).requests()
    assert isinstance(first, ResearchRequest)
    assert isinstance(second, ResearchRequest)
    assert (first.temperature, first.search_mode) == (0.5, "sec")
    assert (second.temperature, second.search_mode) == (None, None)


def test_a_field_of_one_api_chooses_its_request() -> None:
    request = next(seen(pd.DataFrame({"question": ["a"], "max_steps": ["3"]}), fields="all").requests())
    assert isinstance(request, AgentRequest)
    assert (request.input, request.max_steps) == ("a", 3)


OBJECTS = [
    {"question": "a", "reasoning_effort": "high", "stop": "Central", "company": "ACME"},
    {"question": "b", "stop": None, "company": "B"},
    {"input": "c"},
]


def test_objects_with_names_of_fields_are_refused() -> None:
    with pytest.raises(TableError) as caught:
        seen(OBJECTS)
    assert str(caught.value) == (
        "the list: the columns reasoning_effort, stop have names of request fields, and nobody has said whether to send"
        " them; fields=['reasoning_effort', 'stop'] sends them, fields=\"none\" keeps them unsent"
    )
    with pytest.raises(TableError, match="the column stop has the name of a request field"):
        seen(OBJECTS, keep=["reasoning_effort"])
    assert seen(OBJECTS[1:]).count == 2, "a name without a value is no wish"


@pytest.mark.parametrize(
    ("said", "sends"),
    [
        ({"fields": "all"}, ("reasoning_effort", "stop")),
        ({"fields": ["reasoning_effort"]}, ("reasoning_effort",)),
        ({"fields": "none"}, ()),
        ({"fields": []}, ()),
        ({"keep": ["reasoning_effort", "stop", "company"]}, ()),
    ],
)
def test_only_named_fields_of_objects_are_sent(said: Any, sends: tuple[str, ...]) -> None:
    found = seen(OBJECTS, **said)
    first, _, third = found.requests()
    assert isinstance(first, ResearchRequest)
    assert found.sends == sends
    assert (first.reasoning_effort, first.stop) == (
        "high" if "reasoning_effort" in sends else None,
        "Central" if "stop" in sends else None,
    )
    assert first.meta == {"reasoning_effort": "high", "stop": "Central", "company": "ACME"}
    assert isinstance(third, AgentRequest)


def test_what_is_kept_can_be_chosen_of_objects() -> None:
    sent = next(seen(OBJECTS, fields="all", keep=["company"]).requests())
    assert isinstance(sent, ResearchRequest)
    assert (sent.stop, sent.meta) == ("Central", {"company": "ACME"})
    assert [request.meta for request in seen(OBJECTS, fields="none", keep="none").requests()] == [{}, {}, {}]


def test_a_question_beside_an_input_is_the_question() -> None:
    alpaca = [{"prompt": "P?", "input": "context"}]
    with pytest.raises(TableError, match="the column input has the name"):
        seen(alpaca)
    request = next(seen(alpaca, fields="none").requests())
    assert (request.asked, request.meta) == ("P?", {"prompt": "P?", "input": "context"})


def test_bodies_of_batch_lines_are_requests(tmp_path: Path) -> None:
    body = {"model": "sonar-pro", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0.5}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/async/sonar", "body": body}
    path = tmp_path / "batch.jsonl"
    path.write_text(json.dumps(line) + "\n")
    request = next(questions(path))
    assert isinstance(request, ResearchRequest)
    assert (request.model, request.temperature, request.meta) == ("sonar-pro", 0.5, {})
    bare = next(questions(path, fields="none"))
    assert isinstance(bare, ResearchRequest)
    assert (bare.model, bare.temperature) == ("sonar-deep-research", None)
    assert bare.meta == {"model": "sonar-pro", "temperature": 0.5}


_CHAT = {"messages": [{"role": "user", "content": "Why?"}]}


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/responses", {"input": "Why?", "model": "gpt-4o"}),
        ("/v1/responses", {"input": "Why?", "model": "sonar-deep-research"}),
        ("/v1/agent", {"input": "Why?", "models": ["openai/gpt-5", "gpt-4o"]}),
        ("/chat/completions", {**_CHAT, "model": "gpt-4o"}),
    ],
)
def test_batch_line_with_a_foreign_model_is_refused(url: str, body: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body}) + "\n")
    with pytest.raises(TableError, match=f'no model of that name at {url}; fields="none" asks without it'):
        look(read_file(path), AskOptions())
    (request,) = look(read_file(path), AskOptions(fields="none")).requests()
    assert request.asked == "Why?"
    assert request.asked_model in (None, "sonar-deep-research")


def test_chat_lines_of_another_provider_say_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": _CHAT}) + "\n"
    )
    with pytest.raises(TableError, match=re.escape("jq -c '{tag: .custom_id, messages: .body.messages}' FILE")):
        look(read_file(path), AskOptions())
    path.write_text(json.dumps({"tag": "a", **_CHAT}) + "\n")  # what that prints
    (request,) = look(read_file(path), AskOptions()).requests()
    assert (request.tag, request.asked) == ("a", "Why?")


@pytest.mark.parametrize("orient", ["columns", "list", "split"])
def test_json_by_columns_is_a_table(orient: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"question": ["a", "b"], "stop": ["Central", "North"]})
    path = tmp_path / "q.json"
    path.write_text(
        json.dumps(frame.to_dict("list")) if orient == "list" else frame.to_json(orient=cast("Any", orient))
    )
    found = look(read_file(path), AskOptions())
    assert any('"stop" is kept, not sent' in note for note in found.notes)
    assert [request.meta for request in found.requests()] == [{"stop": "Central"}, {"stop": "North"}]
    assert found.sends == ()
    assert look(read_file(path), AskOptions(fields=["stop"])).sends == ("stop",)


def test_no_column_of_a_table_is_named_none() -> None:
    found = seen(FRAME, question="company", fields="none", keep="none")
    assert (found.notes, next(found.requests()).meta) == ([], {})
    named_so = pd.DataFrame({"question": ["a"], "none": ["x"]})
    assert next(seen(named_so, keep="none").requests()).meta == {"none": "x"}
    for said in ({"fields": "model"}, {"keep": "model"}):
        with pytest.raises(TableError, match="is a list of columns: give"):
            questions(FRAME, question="company", **cast("Any", said))


def test_a_slip_in_a_field_of_objects_is_refused() -> None:
    found = seen([{"question": "a"}, {"question": "b", "reasoning_efort": "high"}])
    assert [row.place for row in found.bad] == ["item 2"]
    assert '"reasoning_efort" is nearly "reasoning_effort"' in found.bad[0].reason
    assert found.bad[0].said.endswith('; fields="none" keeps it as a column of yours')
    assert seen([{"question": "a"}, {"question": "b", "modle": "x"}]).bad
    mine = seen([{"question": "a", "score": 0.5, "reasoning_efort": "mine"}], keep=["score", "reasoning_efort"])
    assert next(mine.requests()).meta == {"score": 0.5, "reasoning_efort": "mine"}


def test_words_of_their_own_are_no_slips() -> None:
    """`score` is one letter from `store`: a file with scores was refused."""
    columns = ["score", "stage", "source", "topic", "category", "language", "region", "answer", "rating", "notes"]
    found = seen([{"question": "a", **dict.fromkeys(columns, "x")}])
    assert found.bad == []
    assert list(next(found.requests()).meta) == columns


def test_rows_of_a_public_benchmark_are_taken() -> None:
    rows = [{"id": n, "topic": "t", "language": "en", "prompt": f"q{n}"} for n in range(3)]
    found = seen(rows)
    assert (found.count, found.bad) == (3, [])
    assert next(found.requests()).meta == {"id": 0, "topic": "t", "language": "en", "prompt": "q0"}


def test_fields_for_all_rows_do_not_overrule() -> None:
    rows = [{"question": "a"}, {"question": "b", "model": "sonar-pro"}]
    first, second = seen(rows, set={"model": "sonar"}, fields="all").requests()
    assert [first.asked_model, second.asked_model] == ["sonar", "sonar-pro"]
    with pytest.raises(TableError, match="did you mean 'model'"):
        seen(rows, set={"modle": "sonar"})


def test_kept_columns_can_be_chosen() -> None:
    assert next(seen(FRAME, question="company", keep=["year"]).requests()).meta == {"year": 2025}


# --- tags and equal rows


def test_tags_come_from_their_column_and_are_distinct() -> None:
    frame = pd.DataFrame({"id": ["r1", "r2"], "question": ["a", "b"]})
    assert [request.tag for request in seen(frame, tag="id").requests()] == ["r1", "r2"]
    assert [request.tag for request in seen(frame).requests()] == [None, None]
    with pytest.raises(TableError, match="stands on item 1 and on item 2"):
        seen(pd.DataFrame({"tag": ["x", "x"], "question": ["a", "b"]}))


def test_equal_rows_are_counted_and_told() -> None:
    found = seen(["a", "b", "a", "a"])
    assert found.repeats == 2
    assert "2 rows ask what an earlier row asks" in found.notes[0]


# --- rows that cannot be used


def test_bad_rows_are_found_before_anything_is_asked() -> None:
    frame = pd.DataFrame({
        "question": ["a", "", None, "b", "c", "d", "e", "f"],
        "temperature": ["9", "1", "1", "x", "1", "1", "1", ""],
    })
    found = seen(frame, fields=["temperature"])
    assert [row.place for row in found.bad] == ["item 1", "item 2", "item 3", "item 4"]
    assert found.count == 4
    with pytest.raises(TableError, match="rows cannot be used"):
        questions(pd.DataFrame({"question": ["a", "b", ""]}))
    assert [request.asked for request in questions(pd.DataFrame({"question": ["a", "b", ""]}), skip_bad=True)] == [
        "a",
        "b",
    ]


def test_mostly_bad_rows_are_another_kind_of_file() -> None:
    with pytest.raises(TableError, match="most rows cannot be used"):
        seen(pd.DataFrame({"question": ["a", "", "", ""]}))


def test_alike_complaints_are_told_once() -> None:
    with pytest.raises(TableError) as caught:
        questions(pd.DataFrame({"question": ["a"] * 9 + [""] * 8}))
    assert str(caught.value).count("is empty") == 1
    assert "and 5 more" in str(caught.value)


# --- templates


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{company} in {year}", "ACME in 2025"),
        ("{company}{note?}!", "ACME!"),
        ("{{company}} {company}", "{company} ACME"),
        ('{"q": "{company}", "n": [1, {"a": 2}]}', '{"q": "ACME", "n": [1, {"a": 2}]}'),
        ("{a.b} {price:eur} {company}", "1 2 ACME"),
        ("{ {company} }", "{ ACME }"),
        ("{company.__class__}", None),
        ("{compny}", None),
        ("{0}", None),
        ("no column", None),
        ("{note} {company}", EmptyHole),
    ],
)
def test_a_template_is_filled_or_refused(text: str, said: object) -> None:
    cells = {"company": "ACME", "year": 2025, "a.b": "1", "price:eur": "2", "note": " "}
    if said is None:
        with pytest.raises(TableError):
            Template(text, list(cells))
        return
    template = Template(text, list(cells))
    if said is EmptyHole:
        with pytest.raises(EmptyHole):
            template.fill(cells, str)
        return
    assert template.fill(cells, str) == said


@given(st.dictionaries(st.sampled_from(["a", "b c", "d"]), st.text(max_size=20), min_size=1), st.text(max_size=40))
def test_what_is_put_in_is_never_read_again(cells: dict[str, str], rest: str) -> None:
    name = next(iter(cells))
    held = {**cells, name: "{d}{a}{{x}}" + cells[name].strip()}
    text = rest.replace("{", "").replace("}", "")
    assert Template(text + "{" + name + "}", list(held)).fill(held, str) == (text + held[name]).strip()


# --- frames and lists


def frames() -> Mapping[str, Any]:
    data: dict[str, list[Any]] = {"question": ["a", "b"], "n": [1, None], "x": [1.5, float("nan")]}
    return {"pandas": pd.DataFrame(data), "polars": pl.DataFrame(data, strict=False), "pyarrow": pa.table(data)}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_of_any_library_are_the_same(library: str) -> None:
    first, second = seen(frames()[library]).requests()
    assert (first.asked, second.asked) == ("a", "b")
    assert first.meta == {"n": 1, "x": 1.5}
    assert second.meta == {"n": None, "x": None}
    json.dumps(second.meta, allow_nan=False)


@pytest.mark.parametrize("names", [["question", "question"], ["1", 1]])
def test_frame_with_one_name_twice_is_refused(names: list[Any]) -> None:
    """pandas keeps the last one, which would be asked and paid."""
    with pytest.raises(TableError, match="two columns of the name"):
        seen(pd.DataFrame([["a", "b"]], columns=names))
    if names[0] == names[1]:
        with pytest.raises(TableError, match="two columns of the name"):
            seen(pa.table([["a"], ["b"]], names=names))


def test_an_index_that_says_something_is_a_column() -> None:
    frame = FRAME.set_index("company")
    assert seen(frame, template="{company} {year}").first[0] == "ACME 2025"


@pytest.mark.parametrize("names", ["company", ["company", "year"]])
def test_index_that_is_a_column_as_well_comes_once(names: Any) -> None:
    frame = FRAME.set_index(names, drop=False)
    assert list(seen(frame, template="{company} {year}").table.columns) == list(FRAME.columns)
    half = FRAME.set_index(["company", "year"]).assign(company=list(FRAME["company"]))
    assert set(seen(half, template="{company} {year}").table.columns) == set(FRAME.columns)


def test_index_unlike_the_column_of_its_name_is_refused() -> None:
    frame = FRAME.set_index("company", drop=False)
    frame["company"] = frame["company"].str.lower()
    with pytest.raises(TableError, match='both have the name "company": rename one'):
        seen(frame)
    frame = pd.DataFrame({"question": ["a"], "index": [1], "level_0": [2]}, index=[7])
    with pytest.raises(TableError, match="rename_axis"):
        seen(frame)


def test_cells_become_what_json_can_say() -> None:
    frame = pd.DataFrame({
        "question": ["a"],
        "day": [pd.Timestamp("2026-03-01")],
        "none": [pd.NaT],
        "na": pd.array([None], dtype="Int64"),
        "price": [decimal.Decimal("1.10")],
        "day2": [datetime.date(2026, 3, 1)],
        "list": [[1, 2]],
    })
    assert next(seen(frame).requests()).meta == {
        "day": "2026-03-01",
        "none": None,
        "na": None,
        "price": "1.10",
        "day2": "2026-03-01",
        "list": [1, 2],
    }


@pytest.mark.parametrize(
    "source", ["Why?", b"a", {"a": 1}, 5, None, pl.LazyFrame({"question": ["a"]}), [], [1, 2], pd.DataFrame()]
)
def test_what_is_no_table_is_refused(source: object) -> None:
    with pytest.raises(TableError):
        seen(source)


def test_a_series_or_array_is_a_list_of_questions() -> None:
    assert seen(pd.Series(["a", "b"])).first == ["a", "b"]
    assert seen(pl.Series(["a", "b"])).first == ["a", "b"]
    assert seen(pd.Series(["a", "b"]).to_numpy()).first == ["a", "b"]


def test_a_path_is_read_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("company;year\nACME;2025\n")
    assert [request.asked for request in questions(path, template="{company} {year}")] == ["ACME 2025"]


# --- tags that nobody wished


@pytest.mark.parametrize("has_fields", [False, True])
@pytest.mark.parametrize("name", ["tag", "custom_id"])
def test_column_taken_as_tag_can_be_another_or_none(name: str, has_fields: bool) -> None:
    rows = [{"question": "a?", name: "news", "n": 1}, {"question": "b?", name: "news", "n": 2}]
    source: Any = rows if has_fields else pd.DataFrame(rows)
    with pytest.raises(TableError) as caught:
        seen(source)
    assert str(caught.value) == (
        f"the tag 'news' (column {name}) stands on item 1 and on item 2; tag=\"COLUMN\" names another column,"
        ' tag="-" uses none'
    )
    none = list(seen(source, tag="-").requests())
    assert [(request.tag, request.meta) for request in none] == [
        (None, {name: "news", "n": 1}),
        (None, {name: "news", "n": 2}),
    ]
    other = list(seen(source, tag="n").requests())
    assert [(request.tag, request.meta) for request in other] == [(n, {name: "news", "n": n}) for n in (1, 2)]


def test_column_whose_name_says_no_tag_is_one() -> None:
    found = seen(pd.DataFrame({"question": ["a?"], "-": ["x"]}), tag="-")
    assert [request.tag for request in found.requests()] == ["x"]


@pytest.mark.parametrize("named", [{"question": 0}, {"tag": 1}, {"question": "0", "keep": [1]}])
def test_column_named_by_a_number_is_refused(named: dict[str, Any]) -> None:
    frame = pd.DataFrame([["a?", 1]])
    with pytest.raises(TableError, match=r'named by text: give "(0|1)" and not (0|1)'):
        questions(frame, **named)
    assert [request.asked for request in questions(frame, question="0", tag="1")] == ["a?"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC), "2026-03-01 00:00:00+00:00"),
        (pd.Timestamp("2026-03-01", tz="Europe/Berlin"), "2026-03-01 00:00:00+01:00"),
        (datetime.datetime(2026, 3, 1), "2026-03-01"),
        ("Wäre".encode(), "Wäre"),
        (bytearray(b"\xff\x00"), "/wA="),
        (float("inf"), "inf"),
        ([float("-inf"), float("nan")], ["-inf", None]),
    ],
)
def test_what_json_has_no_word_for_is_text(value: Any, cell: Any) -> None:
    (request,) = questions([{"question": "a?", "n": value}])
    assert request.meta == {"n": cell}


@pytest.mark.parametrize(
    ("rows", "python", "typed"),
    [
        (
            [{"question": "Why?", "reasoning_efort": "high"}],
            'fields="none" keeps it as a column of yours',
            "--fields none keeps it as a column of yours",
        ),
        (
            [{"instruction": "Translate", "input": "Good morning"}],
            'ask only together; template="{instruction} {input?}" makes it of both',
            'ask only together; --template "{instruction} {input?}" makes it of both',
        ),
        (
            [{"company": "ACME", "reasoning_effort": "high"}],
            'is the question? It has the columns company, reasoning_effort; question="COLUMN" names it',
            "is the question? It has the columns company, reasoning_effort; --question COLUMN names it",
        ),
        (
            [{"question": True, "ask": "Why?"}],
            '"question" must be text and is true or false; question="COLUMN" names another column',
            '"question" must be text and is true or false; --question COLUMN names another column',
        ),
        ([{"question": "Why?", "n": 1}, {"n": 2}, {"n": 3}], 'item 2, item 3: has no "question"', 'has no "question"'),
        (
            [{"question": "Why \ud83d?", "id": 1}],
            '"question" has half of a character (\\ud83d), which UTF-8 has not: delete it there',
            '"question" has half of a character (\\ud83d), which UTF-8 has not: delete it there',
        ),
        (
            [{"question": "Why?", "id": {"x": ["\udca9"]}}],
            '"id" has half of a character (\\udca9)',
            '"id" has half of a character (\\udca9)',
        ),
    ],
)
def test_refusal_says_what_to_type_where_read(rows: list[dict[str, Any]], python: str, typed: str) -> None:
    with pytest.raises(TableError) as refused:
        look(read_memory(rows), AskOptions())
    assert python in str(refused.value)
    assert typed in told(refused.value)


def test_body_of_a_submission_says_how_it_is_taken(tmp_path: Path) -> None:
    asked = {"messages": [{"role": "user", "content": "Why?"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/async/sonar", "body": {"request": asked}}
    path = tmp_path / "batch.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(
        TableError, match=re.escape("jq -c '.body = .body.request' FILE prints lines whose body has it")
    ):
        list(questions(path))
    path.write_text(json.dumps({**line, "body": asked}) + "\n")
    assert [request.asked for request in questions(path)] == ["Why?"]


def test_rows_that_train_a_model_need_a_template() -> None:
    rows = [{"instruction": "Translate", "input": "Good morning"}, {"instruction": "Why?", "input": ""}]
    asked = aiopplx.questions(rows, template="{instruction} {input?}")
    assert [request.asked for request in asked] == ["Translate Good morning", "Why?"]


@pytest.mark.parametrize("kind", ["frame", "mappings", "csv", "jsonl"])
def test_each_column_comes_back_under_its_name(kind: str, tmp_path: Path) -> None:
    rows = [{"id": "7", "prompt": " Why? ", "note": "x"}, {"id": "8", "prompt": "How?", "note": "y"}]
    csv, jsonl = tmp_path / "q.csv", tmp_path / "q.jsonl"
    csv.write_text("id,prompt,note\n7, Why? ,x\n8,How?,y\n")
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"frame": pd.DataFrame(rows), "mappings": rows, "csv": csv, "jsonl": jsonl}[kind]
    requests = list(questions(source, tag="id"))
    assert [(request.tag, request.asked) for request in requests] == [("7", "Why?"), ("8", "How?")]
    ended = aiopplx.JobStatus.COMPLETED
    jobs = [aiopplx.Job(status=ended, question=each.asked, tag=each.tag, meta=each.meta) for each in requests]
    table = aiopplx.rows(jobs)
    assert [list(row)[:5] for row in table] == [["id", "prompt", "note", "tag", "question"]] * 2
    assert [{name: row[name] for name in rows[0]} for row in table] == rows
