"""A job as a value: what it shows, what it raises, what it parses, and how it travels."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any, TypedDict, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx import AgentRequest, Batch, ResearchRequest
from aiopplx._errors import AiopplxError, JobError, JobFailed, JobTimeout, OutOfCredit, ProtocolError, ResultMissing
from aiopplx._job import Answer, Job, JobStatus, Readable, Source, Usage

ANSWER = Answer(
    text="The Vasa sank [1].",
    reasoning="Let me think.",
    sources=[Source(url="https://a.example", title="A", id=1), Source(url="https://b.example")],
    citations=["https://a.example", "https://b.example"],
    usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7, search_queries=2, cost=0.25),
    finish_reason="stop",
    model="sonar-deep-research",
)


class Said(msgspec.Struct, frozen=True):
    """An API's response, as the job model sees one."""

    said: Answer

    def answer(self) -> Answer:
        return self.said

    def consumed(self) -> Usage | None:
        return self.said.usage

    def is_on_the_way(self) -> bool:
        return False


def completed(text: str | None = None, **fields: Any) -> Job:
    answer = ANSWER if text is None else Answer(text=text)
    facts: dict[str, Any] = {"id": "job-1", "idempotency_key": "key-1", "tag": "t"} | fields
    return Job(status=JobStatus.COMPLETED, server_status="COMPLETED", response=Said(answer), **facts)


RUNNING = Job(id="job-1", status=JobStatus.IN_PROGRESS, server_status="QUEUED", tag=4)
FAILED = Job(
    id="job-1", status=JobStatus.FAILED, server_status="FAILED", error=JobFailed("no reason given"), idempotency_key="k"
)


def test_response_of_an_api_is_readable():
    assert isinstance(Said(ANSWER), Readable)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_completed_job_shows_its_response():
    job = completed()
    assert (job.ok, job.done, job.error) == (True, True, None)
    assert (job.text, job.reasoning, job.finish_reason) == ("The Vasa sank [1].", "Let me think.", "stop")
    assert job.sources[0].title == "A"
    assert job.citations == ["https://a.example", "https://b.example"]
    assert (job.usage, job.cost) == (ANSWER.usage, 0.25)


@pytest.mark.parametrize("job", [RUNNING, FAILED])
def test_job_without_a_response_says_nothing(job: Job):
    assert (job.ok, job.text, job.reasoning, job.finish_reason) == (False, "", None, None)
    assert (job.sources, job.citations, job.usage, job.cost) == ([], [], None, None)


def test_jobs_without_a_response_share_no_lists():
    RUNNING.sources.append(Source(url="x"))
    RUNNING.citations.append("x")
    assert (FAILED.sources, FAILED.citations) == ([], [])


def test_cost_is_unknown_unless_the_server_says_it():
    assert completed("x").cost is None


@pytest.mark.parametrize("status", list(JobStatus))
def test_every_status_but_two_is_final(status: JobStatus):
    running = {JobStatus.CREATED, JobStatus.IN_PROGRESS}
    assert Job(status=status).done is status.is_final is (status not in running)


def test_only_completed_without_an_error_is_ok():
    assert {status for status in JobStatus if Job(status=status, response=Said(ANSWER)).ok} == {JobStatus.COMPLETED}
    assert not Job(status=JobStatus.COMPLETED).ok
    assert not completed(error=JobError("no answer in it")).ok


# --- result -----------------------------------------------------------------------------------------------------------


def test_result_of_an_ok_job_is_the_job():
    job = completed()
    assert job.result() is job


def test_result_of_a_failed_job_raises_with_its_facts():
    with pytest.raises(JobFailed, match="no reason given") as raised:
        FAILED.result()
    assert (raised.value.job_id, raised.value.idempotency_key) == ("job-1", "k")
    assert raised.value is not FAILED.error


def test_result_raised_twice_shares_no_traceback():
    found: list[AiopplxError] = []
    for _ in range(2):
        with pytest.raises(JobFailed) as raised:
            FAILED.result()
        found.append(raised.value)
    assert found[0] is not found[1]
    assert FAILED.error is not None
    assert FAILED.error.__traceback__ is None


def test_result_of_a_running_job_says_how_to_wait():
    with pytest.raises(JobError, match=r"the server says QUEUED.*session\.wait\(job\)") as raised:
        RUNNING.result()
    assert (raised.value.job_id, raised.value.tag) == ("job-1", 4)


# --- parse ------------------------------------------------------------------------------------------------------------


class Finding(msgspec.Struct):
    name: str
    years: list[int] = []


@dataclasses.dataclass
class DataFinding:
    name: str
    years: list[int] = dataclasses.field(default_factory=list[int])


class DictFinding(TypedDict):
    name: str
    years: list[int]


FINDING = '{"name": "Vasa", "years": [1628, 1961]}'
VASA: dict[str, Any] = {"name": "Vasa", "years": [1628, 1961]}


def test_parse_reads_a_struct():
    assert completed(FINDING).parse(Finding) == Finding("Vasa", [1628, 1961])


def test_parse_reads_a_dataclass():
    assert completed(FINDING).parse(DataFinding) == DataFinding("Vasa", [1628, 1961])


def test_parse_reads_a_typed_dict():
    assert completed(FINDING).parse(DictFinding) == VASA


def test_parse_reads_a_list():
    assert completed(f"[{FINDING}]").parse(list[Finding]) == [Finding("Vasa", [1628, 1961])]


def test_parse_reads_a_pydantic_model():
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("Model", name=(str, ...), years=(list[int], ...))
    assert completed(f"Here:\n```json\n{FINDING}\n```").parse(model).model_dump() == VASA


def test_parse_of_a_wrong_pydantic_shape_is_refused():
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("Model", name=(int, ...))
    with pytest.raises(ProtocolError, match="the answer is not a Model: 1 validation error"):
        completed(FINDING).parse(model)


@pytest.mark.parametrize(
    "text",
    [
        FINDING,
        f"\n\n  {FINDING}  \n",
        f"```json\n{FINDING}\n```",
        f"```\n{FINDING}\n```\n",
        f"Here is what I found:\n\n```json\n{FINDING}\n```\nI hope that it helps.",
        f"As said in [1] and [2][3]:\n```json\n{FINDING}\n```\nSee also [4].",
        f"[1] {FINDING} [2]",
        f"By [web:11], {FINDING}",
        f"Sure! {FINDING}",
    ],
)
def test_parse_skips_fences_words_and_citations_round_the_json(text: str):
    assert completed(text).parse(Finding) == Finding("Vasa", [1628, 1961])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1]", [1]),
        ("```json\n[3]\n```", [3]),
        ("[]", []),
        ("[[1], [2]]", [[1], [2]]),
        ("As in [1]: [[1], [2]] [3]", [[1], [2]]),
        ("[1, 2]", [1, 2]),
        ('{"a": [1], "b": "see [2]"}', {"a": [1], "b": "see [2]"}),
        ("7", 7),
        ("null", None),
    ],
)
def test_parse_does_not_take_json_for_a_citation(text: str, value: object):
    assert completed(text).parse(object) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)
CONTAINERS = st.lists(JSON, max_size=5) | st.dictionaries(st.text(max_size=5), JSON, max_size=5)


@given(value=CONTAINERS, indent=st.none() | st.just(2), around=st.sampled_from(["{}", "```json\n{}\n```", "Here: {}."]))
def test_parse_reads_back_any_json_that_was_written(value: object, indent: int | None, around: str):
    text = around.replace("{}", json.dumps(value, indent=indent))
    assert completed(text).parse(object) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I could not find anything [1].",
        '{"name": "Vasa", "years": [1628',
        '{"name": "Vasa", "more": {"name": "inner"}, "years": [16',
        '{"name": 5}',
        '{"years": []}',
        "[1, 2]",
        "}{",
        "{" * 100_000,
        '{"name": "\\ud800"}',
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_parse_of_a_wrong_shape_is_refused(text: str):
    with pytest.raises(ProtocolError, match="the answer is not a Finding: ") as raised:
        completed(text).parse(Finding)
    error = raised.value
    assert (error.job_id, error.idempotency_key, error.tag) == ("job-1", "key-1", "t")
    assert len(error.body) <= 4_096
    assert len(error.message) < 400
    assert error.__context__ is None


def test_parse_of_deep_nesting_is_refused():
    with pytest.raises(ProtocolError):
        completed("[" * 100_000 + "]" * 100_000).parse(object)  # how deep is too deep differs by version


@pytest.mark.parametrize(("job", "error"), [(FAILED, JobFailed), (RUNNING, JobError)])
def test_parse_without_a_result_raises_as_result_does(job: Job, error: type[Exception]):
    with pytest.raises(error):
        job.parse(Finding)


# --- as a row, as a line, as bytes ------------------------------------------------------------------------------------


def test_row_of_a_completed_job_has_everything_users_need():
    row = completed(index=2, api="sonar", model="sonar-pro", created_at=1, completed_at=9).to_dict()
    assert row == {
        "id": "job-1",
        "ok": True,
        "status": "COMPLETED",
        "tag": "t",
        "index": 2,
        "question": "",
        "meta": {},
        "seconds": None,
        "api": "sonar",
        "model": "sonar-pro",
        "text": "The Vasa sank [1].",
        "reasoning": "Let me think.",
        "sources": [{"url": "https://a.example", "title": "A", "id": 1}, {"url": "https://b.example"}],
        "citations": ["https://a.example", "https://b.example"],
        "usage": {
            "input_tokens": 3,
            "output_tokens": 4,
            "total_tokens": 7,
            "reasoning_tokens": None,
            "citation_tokens": None,
            "search_queries": 2,
            "cost": 0.25,
        },
        "cost": 0.25,
        "finish_reason": "stop",
        "error": None,
        "idempotency_key": "key-1",
        "created_at": 1,
        "started_at": None,
        "completed_at": 9,
        "failed_at": None,
    }


@pytest.mark.parametrize("job", [completed(), RUNNING, FAILED, Job(status=JobStatus.STOPPED)])
def test_row_of_any_job_has_equal_columns_of_json(job: Job):
    row = job.to_dict()
    assert list(row) == list(completed().to_dict())
    assert json.loads(json.dumps(row)) == row


def test_row_of_a_failed_job_names_its_error():
    assert FAILED.to_dict()["error"] == {"type": "JobFailed", "message": "no reason given"}


def test_line_of_a_completed_job_is_always_short():
    assert repr(completed("x" * 90_000)) == "Job(id='job-1', status=COMPLETED, tag='t', text=90000 characters)"
    assert repr(completed()).endswith("text=18 characters, cost=$0.2500)")


def test_line_of_a_job_names_its_error_by_class():
    assert repr(FAILED) == "Job(id='job-1', status=FAILED, error=JobFailed)"
    assert repr(completed(error=ResultMissing("none"))).endswith("error=ResultMissing, cost=$0.2500)")
    assert repr(RUNNING) == "Job(id='job-1', status=IN_PROGRESS, tag=4)"


@pytest.mark.parametrize("name", ["status", "tag", "error", "response"])
def test_job_cannot_be_changed(name: str):
    with pytest.raises(AttributeError):
        setattr(completed(), name, None)


def test_job_equals_only_one_with_the_same_facts():
    assert completed() == completed()
    assert completed() != completed(tag="other")


def test_jobs_and_requests_take_a_tags_type():
    # In annotations that a program evaluates, such as those of an endpoint; the values are those of the plain class.
    for cls in (Job, ResearchRequest, AgentRequest, Batch):
        assert get_origin(cls[int]) is cls
    assert Job[int](status=JobStatus.CREATED, tag=5) == Job(status=JobStatus.CREATED, tag=5)
    assert pickle.loads(pickle.dumps(ResearchRequest[int]("why?", tag=5))) == ResearchRequest("why?", tag=5)


def test_completed_job_survives_a_pickle():
    job = completed(raw=b"{}", polls=3, attempts=2)
    assert pickle.loads(pickle.dumps(job)) == job


@pytest.mark.parametrize(
    "error", [JobFailed("no", job_id="j"), JobTimeout("late", tag=1), OutOfCredit("none", status=401)]
)
def test_job_with_an_error_survives_a_pickle(error: AiopplxError):
    job = completed(error=error)
    other = pickle.loads(pickle.dumps(job))
    assert type(other.error) is type(error)
    assert (other.error.args, vars(other.error)) == (error.args, vars(error))
    assert msgspec.structs.replace(other, error=None) == msgspec.structs.replace(job, error=None)
