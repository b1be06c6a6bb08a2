"""Which API a question goes to."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aiopplx import AgentRequest, InvalidRequest, ResearchRequest
from aiopplx._wire.request import Request, tag_of
from aiopplx.agent import AGENT, AGENT_ALIAS
from aiopplx.apis._registry import APIS, Routing, api_named, request_of
from aiopplx.sonar import SONAR, SONAR_V1

QUESTION = ResearchRequest("Why?", tag="t")
NATIVE = AgentRequest("Why?", effort="low")
UNTRANSLATABLE = ResearchRequest("Why?", stop=["x"])
RUN, JOB = "resp_d60f3e03-57e0-4048-994f-69b29a6d2ce7", "d60f3e03-57e0-4048-994f-69b29a6d2ce7"


def went_over(**words: Any) -> Routing:
    routing = Routing(SONAR, AGENT, **words)
    assert routing.go_over()
    return routing


# --- the registry ----------------------------------------------------------------------------------------------------


def test_every_name_stands_for_an_api_and_its_successor():
    assert dict(APIS) == {
        "auto": (SONAR, AGENT),
        "sonar": (SONAR, None),
        "sonar-v1": (SONAR_V1, None),
        "agent": (AGENT, None),
        "agent-v1": (AGENT_ALIAS, None),
    }


def test_api_of_a_record_is_found_by_its_name():
    assert [api_named(name) for name in ("sonar", "agent", "", "one of next year")] == [SONAR, AGENT, SONAR, SONAR]


@pytest.mark.parametrize(("api", "_"), APIS.values())
def test_api_has_request_classes_of_its_own(api: Any, _: Any):
    request = api.request_type.of("Why?")
    assert api.takes(request)
    assert api.freeze(request, "k")


# --- from an item to a request ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "request_"),
    [
        ("Why?", ResearchRequest("Why?")),
        ({"question": "Why?"}, ResearchRequest("Why?")),
        ({"input": "Why?"}, AgentRequest("Why?")),
        (QUESTION, QUESTION),
        (NATIVE, NATIVE),
    ],
)
def test_item_is_read_by_the_class_its_fields_fit(item: Any, request_: Request):
    assert request_of(item) == request_
    assert type(request_of(item)) is type(request_)


@pytest.mark.parametrize(
    ("item", "field"),
    [({"input": "a", "question": "b"}, "input"), ({"input": "a", "messages": []}, "input"), ({"q": "a"}, "q")],
)
def test_mapping_of_mixed_fields_is_refused_by_a_field(item: Any, field: str):
    with pytest.raises(InvalidRequest, match="did you mean `question`") as caught:
        request_of(item)
    assert caught.value.field == field


@pytest.mark.parametrize("item", [5, None, b"Why?", ["Why?"]])
def test_item_of_another_type_is_refused_by_its_type(item: Any):
    with pytest.raises(InvalidRequest, match=f"not {type(item).__name__}"):
        request_of(item)


@pytest.mark.parametrize(
    ("item", "tag"),
    [(QUESTION, "t"), ({"tag": 7, "no": "field"}, 7), ({"tag": 1.5}, None), ("Why?", None), (None, None)],
)
def test_tag_is_read_from_any_item(item: Any, tag: object):
    assert tag_of(item) == tag


# --- routing ---------------------------------------------------------------------------------------------------------


def test_question_goes_to_the_first_api_until_retirement():
    routing = Routing(SONAR, AGENT)
    assert routing.freeze(QUESTION, "k") == (SONAR, SONAR.freeze(QUESTION, "k"))
    assert routing.go_over()
    assert routing.freeze(QUESTION, "k") == (AGENT, AGENT.freeze(QUESTION, "k"))
    assert (routing.first, routing.successor, routing.api) == (SONAR, AGENT, AGENT)


def test_move_to_the_successor_is_news_once():
    routing = went_over()
    assert not routing.go_over()
    assert not Routing(SONAR).go_over()
    assert not Routing(AGENT).go_over()


def test_request_for_the_successor_only_goes_there_at_once():
    assert Routing(SONAR, AGENT).freeze(NATIVE, "k") == (AGENT, AGENT.freeze(NATIVE, "k"))
    assert went_over().freeze(NATIVE, "k")[0] is AGENT


def test_request_that_no_api_takes_is_refused():
    with pytest.raises(InvalidRequest, match="AgentRequest is for the Agent API"):
        Routing(SONAR).freeze(NATIVE, "k")


def test_request_without_counterpart_is_frozen_for_the_journals_api():
    with pytest.raises(InvalidRequest, match="stop"):
        went_over().freeze(UNTRANSLATABLE, "k")
    assert went_over(remembers=True).freeze(UNTRANSLATABLE, "k") == (SONAR, SONAR.freeze(UNTRANSLATABLE, "k"))
    with pytest.raises(InvalidRequest, match="question"):
        went_over(remembers=True).freeze(ResearchRequest(" "), "k")


def test_submission_must_move_once_its_api_is_retired():
    assert not Routing(SONAR, AGENT).must_move(SONAR, QUESTION)
    assert not Routing(SONAR).must_move(SONAR, QUESTION)
    assert went_over().must_move(SONAR, QUESTION)
    assert not went_over().must_move(AGENT, QUESTION)
    assert not went_over().must_move(SONAR, None)


def test_moving_is_the_same_question_for_the_successor():
    api, body = went_over().move(QUESTION, "k")
    assert (api, json.loads(body)["input"]) == (AGENT, "Why?")
    with pytest.raises(InvalidRequest, match="stop"):
        went_over().move(UNTRANSLATABLE, "k")


@pytest.mark.parametrize(
    ("routing", "name", "is_only"),
    [
        (Routing(SONAR), "sonar", True),
        (Routing(SONAR_V1), "sonar", True),
        (Routing(AGENT), "agent", True),
        (Routing(SONAR), "agent", False),
        (Routing(SONAR), "", False),
        (Routing(SONAR, AGENT), "sonar", False),
        (Routing(SONAR, AGENT), "agent", False),
    ],
)
def test_only_api_is_one_without_a_successor(routing: Routing, name: str, is_only: bool):
    assert routing.is_only(name) is is_only


def test_api_without_a_successor_is_the_last():
    routing = Routing(SONAR, AGENT)
    assert (routing.is_last(SONAR), routing.is_last(AGENT), Routing(SONAR).is_last(SONAR)) == (False, True, True)


@pytest.mark.parametrize(
    ("routing", "job_id", "name", "api"),
    [
        (Routing(SONAR, AGENT), JOB, "", SONAR),
        (Routing(SONAR, AGENT), RUN, "", AGENT),
        (Routing(SONAR, AGENT), RUN, "sonar", SONAR),
        (Routing(SONAR_V1), RUN, "", SONAR_V1),
        (Routing(SONAR_V1), JOB, "sonar", SONAR_V1),
        (Routing(AGENT_ALIAS), JOB, "sonar", SONAR),
        (Routing(AGENT_ALIAS), RUN, "agent", AGENT_ALIAS),
        (Routing(SONAR), JOB, "one of next year", SONAR),
        (went_over(), JOB, "", SONAR),
        (went_over(), JOB, "one of next year", SONAR),
        (Routing(SONAR, AGENT), "of-no-known-form", "", SONAR),
        (went_over(), "of-no-known-form", "", SONAR),
        (Routing(AGENT), "of-no-known-form", "", AGENT),
    ],
)
def test_job_belongs_to_the_api_of_name_or_id(routing: Routing, job_id: str, name: str, api: object):
    assert routing.api_of(job_id, name) == api


def test_api_owns_only_ids_of_its_own_form():
    ids = (JOB, JOB.upper(), RUN, "third_1", f"{JOB}0", "")
    assert [job_id for job_id in ids if SONAR.owns(job_id)] == [JOB, JOB.upper()]
    assert [job_id for job_id in ids if AGENT.owns(job_id)] == [RUN]


def test_what_is_not_a_job_id_has_no_api():
    with pytest.raises(InvalidRequest, match="not a job id"):
        Routing(SONAR).api_of("..")


def test_record_of_an_unknown_api_is_at_the_first():
    assert Routing(SONAR_V1, AGENT).named("sonar") is SONAR_V1
    assert Routing(SONAR_V1, AGENT).named("one of next year") is SONAR_V1
    assert Routing(AGENT).named("sonar") is SONAR


# --- a third API -----------------------------------------------------------------------------------------------------


class _Asked(Request, frozen=True):
    prompt: str = ""


class ThirdRequest(_Asked, frozen=True, kw_only=True):
    """What the folder of a third API would have."""

    depth: int | None = None


class Third(msgspec.Struct, frozen=True):
    """As much of an API's value as routing asks for."""

    name = "third"

    def takes(self, request: Request) -> bool:
        return isinstance(request, ThirdRequest)

    def freeze(self, request: Request, idempotency_key: str) -> bytes:
        if not isinstance(request, ThirdRequest):
            raise request.not_taken(ThirdRequest)
        return request.canonical()

    def owns(self, job_id: str) -> bool:
        return job_id.startswith("third_")


def test_third_api_needs_no_word_in_the_routing():
    third: Any = Third()
    routing = Routing(SONAR, third)
    request = ThirdRequest.of({"prompt": "Why?", "depth": 2, "tag": "t"})
    assert routing.freeze(request, "k") == (third, b'{"depth":2,"prompt":"Why?"}')
    assert routing.freeze(QUESTION, "k")[0] is SONAR
    assert routing.api_of("third_1") is third


def test_refused_request_says_what_to_do_instead():
    third: Any = Third()
    said: list[str] = []
    for api, request in ((SONAR, NATIVE), (third, QUESTION), (AGENT, ThirdRequest("Why?")), (SONAR, ThirdRequest())):
        with pytest.raises(InvalidRequest) as caught:
            Routing(api).freeze(request, "k")
        said.append(str(caught.value))
    assert said == [
        'an AgentRequest is for the Agent API: open the session with api="agent" or "auto", or give a ResearchRequest',
        'a ResearchRequest is for an API that takes plain questions: open the session with api="auto", or give'
        " a ThirdRequest",
        "a ThirdRequest is for another API: open the session with that API's name as api=, or give an AgentRequest",
        "a ThirdRequest is for another API: open the session with that API's name as api=, or give a ResearchRequest",
    ]


def test_request_of_a_third_class_reads_and_refuses_itself():
    assert ThirdRequest.of("Why?") == ThirdRequest("Why?")
    with pytest.raises(InvalidRequest, match="did you mean `depth`") as caught:
        ThirdRequest.of({"prompt": "Why?", "dept": 2, "tag": 3})
    assert (caught.value.field, caught.value.tag) == ("dept", 3)
    with pytest.raises(InvalidRequest, match="a whole number"):
        ThirdRequest("Why?", depth="2").check()  # type: ignore[arg-type]  # the case
