"""What kind of job a submission is, by the bytes that are sent, and what is published about each kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx import AgentRequest, ResearchRequest
from aiopplx._wire.api import API
from aiopplx._wire.kinds import NOTHING, Kind, kind_named, unversioned
from aiopplx._wire.request import Request
from aiopplx.agent import AGENT
from aiopplx.apis._registry import APIS, published
from aiopplx.sonar import SONAR

DEEP = "sonar-deep-research"

KINDS: list[tuple[API, Request, Kind]] = [
    (SONAR, ResearchRequest("Why?"), Kind("sonar", DEEP, "medium")),
    (SONAR, ResearchRequest("Why?", reasoning_effort="medium"), Kind("sonar", DEEP, "medium")),
    (SONAR, ResearchRequest("Why?", reasoning_effort="low"), Kind("sonar", DEEP, "low")),
    (SONAR, ResearchRequest("Why?", reasoning_effort="high"), Kind("sonar", DEEP, "high")),
    (SONAR, ResearchRequest("Why?", model=f"{DEEP}@2026-10-16.0"), Kind("sonar", DEEP, "medium")),
    (SONAR, ResearchRequest("Why?", model="sonar"), Kind("sonar", "sonar")),
    (SONAR, ResearchRequest("Why?", model="sonar", reasoning_effort="low"), Kind("sonar", "sonar", "low")),
    (AGENT, ResearchRequest("Why?"), Kind("agent", "high")),
    (AGENT, ResearchRequest("Why?", model="medium"), Kind("agent", "medium")),
    (AGENT, ResearchRequest("Why?", reasoning_effort="low"), Kind("agent", "high", "low")),
    (AGENT, AgentRequest("Why?"), Kind("agent", "high")),
    (AGENT, AgentRequest("Why?", effort="high"), Kind("agent", "high")),
    (AGENT, AgentRequest("Why?", effort="high@2026-10-16.0"), Kind("agent", "high")),
    (AGENT, AgentRequest("Why?", preset="high@2026-10-16.0"), Kind("agent", "high")),
    (AGENT, AgentRequest("Why?", effort="low", preset="high"), Kind("agent", "low")),
    (AGENT, AgentRequest("Why?", model="openai/gpt-5.1"), Kind("agent", "openai/gpt-5.1")),
    (AGENT, AgentRequest("Why?", preset="low", model="xai/grok-4@7"), Kind("agent", "low+xai/grok-4")),
    (AGENT, AgentRequest("Why?", models=["a/b@1", "c/d"]), Kind("agent", "a/b+c/d")),
    (AGENT, AgentRequest("Why?", profile={"type": "custom", "id": "p1"}), Kind("agent", "profile:p1")),
]


@pytest.mark.parametrize(("api", "request_", "kind"), KINDS)
def test_kind_is_read_from_the_frozen_bytes(api: API, request_: Request, kind: Kind):
    assert api.kind_of(api.freeze(request_, "k")) == kind


@pytest.mark.parametrize("api", [SONAR, AGENT])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"model": 7, "request": 7}', b'{"request": {"model": []}}']
)
def test_bytes_that_say_nothing_are_of_no_known_kind(api: API, body: bytes):
    kind = api.kind_of(body)
    assert (kind.api, kind.model, kind.effort) == (api.name, "", "")
    assert published(kind) is NOTHING


@pytest.mark.parametrize("api", [SONAR, AGENT])
def test_long_and_shaped_questions_have_a_kind_too(api: API):
    request = ResearchRequest("é\U0001f600" * 10_000, response_format=None, temperature=0.1, max_tokens=10)
    assert published(api.kind_of(api.freeze(request, "k"))).high


@given(st.text(), st.text(), st.text())
def test_label_of_a_kind_reads_back_as_it(api: str, model: str, effort: str):
    kind = Kind(api, model, effort)
    label = str(kind)
    assert Kind.of(label) == kind
    assert label.isascii()
    assert label.isprintable()


@pytest.mark.parametrize("label", ["", "a", "a b", "a b c d", "  ", "\x00"])
def test_label_that_no_kind_made_is_nothing_known(label: str):
    assert published(Kind.of(label)) is NOTHING


def test_label_can_be_read_by_a_person():
    assert str(Kind("sonar", DEEP, "medium")) == "sonar sonar-deep-research medium"
    assert str(Kind("agent", "openai/gpt-5.1")) == "agent openai/gpt-5.1 -"
    assert str(Kind("agent", "-", "two words")) == "agent %2D two%20words"
    assert str(Kind("agent", "\ud800")).isascii()


@pytest.mark.parametrize(
    ("name", "without"),
    [("high@2026-10-16.0", "high"), ("high", "high"), ("a/b@x@y", "a/b"), ("", ""), ("@1", "@1"), ("fast @1", "fast")],
)
def test_pinned_version_is_no_part_of_a_kind(name: str, without: str):
    assert unversioned(name) == without


def test_equal_kinds_of_two_submissions_are_one_object():
    assert kind_named("agent", "high@1") is kind_named("agent", "high@1")


def test_published_figures_are_those_of_the_table():
    table = {str(kind): known for api, _ in APIS.values() for kind, known in api.published.items()}
    assert {label: (known.low, known.high) for label, known in table.items()} == {
        "sonar sonar-deep-research low": (0.15, 0.60),
        "sonar sonar-deep-research medium": (0.38, 1.20),
        "sonar sonar-deep-research high": (0.80, 1.60),
        "agent medium -": (0.01, 0.10),
        "agent high -": (0.40, 1.00),
    }
    assert all(30.0 <= known.seconds <= 200.0 and 0.5 <= known.sigma <= 0.9 for known in table.values())


@pytest.mark.parametrize("kind", [Kind(), Kind("sonar", "sonar"), Kind("agent", "xhigh"), Kind("toy", DEEP, "medium")])
def test_kind_that_nobody_published_has_no_cost(kind: Kind):
    known = published(kind)
    assert (known.low, known.high, known.seconds, known.sigma) == (None, None, 180.0, 0.9)
