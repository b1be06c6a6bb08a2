"""Reasoning and sources of an answer, in each place in which a server of either API puts them."""

from __future__ import annotations

from typing import Any

import pytest
from _bodies import reply

from aiopplx._job import Job, make_job
from aiopplx.agent import AGENT
from aiopplx.sonar import SONAR


def sonar(content: Any = "The answer.", *, response: dict[str, Any] | None = None, **message: Any) -> Job:
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    body = {"id": "a-1", "status": "COMPLETED", "response": {"choices": [choice], **(response or {})}}
    snapshot = SONAR.read_job(reply(body))
    return make_job("a-1", snapshot.status, None, snapshot)


def agent(*output: dict[str, Any]) -> Job:
    snapshot = AGENT.read_job(reply({"id": "resp_1", "status": "completed", "output": list(output)}))
    return make_job("resp_1", snapshot.status, None, snapshot)


def said(text: str, *annotations: dict[str, Any], kind: str = "output_text") -> dict[str, Any]:
    return {"type": "message", "content": [{"type": kind, "text": text, "annotations": list(annotations)}]}


def found(*urls: str) -> dict[str, Any]:
    return {"type": "search_results", "results": [{"id": at, "url": url} for at, url in enumerate(urls, 1)]}


def urls_and_kinds(job: Job) -> list[tuple[str, str | None]]:
    assert job.citations == [source.url for source in job.sources]
    return [(source.url, source.kind) for source in job.sources]


# --- reasoning


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "Hm, so."},
        {"reasoning": "Hm, so."},
        {"thinking": "Hm, so."},
        {"reasoning_content": "Hm, so.", "reasoning": "Hm, so."},
        {"reasoning": "Hm, so.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm, so."}]},
        {"reasoning_steps": [{"type": "web_search", "thought": "Hm, so."}]},
        {"content": [{"type": "thinking", "thinking": "Hm, so."}, {"type": "text", "text": "The answer."}]},
        {"content": [{"type": "reasoning", "text": "Hm, so."}, {"type": "text", "text": "The answer."}]},
        {"content": "<think>Hm, so.</think>The answer."},
        {"content": "Hm, so.\n</think>\nThe answer."},
        {"content": "<think>Hm, so.</think>The answer.", "reasoning_content": "Hm, so."},
    ],
    ids=str,
)
def test_sonar_reasoning_is_read_wherever_it_stands(message: dict[str, Any]):
    job = sonar(message.pop("content", "The answer."), **message)
    assert (job.reasoning, job.text) == ("Hm, so.", "The answer.")


def test_different_reasoning_of_one_answer_is_all_kept():
    job = sonar("<think>So.</think>The answer.", reasoning_content="Hm.")
    assert (job.reasoning, job.text) == ("Hm.\n\nSo.", "The answer.")


@pytest.mark.parametrize(
    "output",
    [
        [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm, so."}]}, said("The answer.")],
        [{"type": "reasoning", "content": "Hm, so."}, said("The answer.")],
        [{"type": "reasoning", "summary": "Hm, so."}, said("The answer.")],
        [{"type": "reasoning", "text": "Hm, so."}, said("The answer.")],
        [{"type": "thinking", "thinking": "Hm, so."}, said("The answer.")],
        [said("Hm, so.", kind="reasoning_text"), said("The answer.")],
        [said("<think>Hm, so.</think>The answer.")],
        [said("<think>Hm, so.</think>"), said("The answer.")],
    ],
    ids=str,
)
def test_agent_reasoning_is_read_wherever_it_stands(output: list[dict[str, Any]]):
    job = agent(*output)
    assert (job.reasoning, job.text) == ("Hm, so.", "The answer.")


# --- messages


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (["a"], "a"),
        (["a\n"], "a\n"),
        (["a", "b"], "a\n\nb"),
        (["a\n", "\n\nb\n"], "a\n\nb\n"),
        (["a", "", " \n", "b"], "a\n\nb"),
        (["", "b"], "b"),
    ],
)
def test_messages_of_a_run_have_a_blank_line_between(texts: list[str], text: str):
    assert agent(*map(said, texts)).text == text


# --- sources


FLAT = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0}
NESTED = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}


@pytest.mark.parametrize("note", [FLAT, NESTED], ids=["flat", "nested"])
def test_page_that_only_an_annotation_names_is_a_source(note: dict[str, Any]):
    for job in (agent(said("a", note, note)), sonar("a", annotations=[note, note])):
        assert urls_and_kinds(job) == [("https://a.example", "url_citation")]
        assert job.sources[0].title == "A"


def test_annotated_page_that_was_found_is_there_once():
    body = (found("https://a.example", "https://b.example"), said("b [2]", FLAT))
    assert urls_and_kinds(agent(*body)) == [("https://a.example", None), ("https://b.example", None)]
    job = sonar("a", annotations=[FLAT], response={"citations": ["https://a.example"]})
    assert urls_and_kinds(job) == [("https://a.example", None)]


def test_pages_of_unknown_items_follow_with_their_kind():
    images = {
        "type": "image_results",
        "queries": [{"url": "https://no.example"}],
        "images": [{"image_url": "https://i.example/1"}],
    }
    stocks = {
        "type": "finance_results",
        "results": [{"data": {"link": "https://f.example"}}, {"url": "ftp://no.example"}],
    }
    read = {"type": "fetch_url_results", "contents": [{"url": "https://c.example"}]}
    job = agent(images, found("https://a.example"), read, stocks, said("a [web:1]"))
    assert urls_and_kinds(job) == [
        ("https://a.example", None),
        ("https://c.example", "fetch_url_results"),
        ("https://i.example/1", "image_results"),
        ("https://f.example", "finance_results"),
    ]
    assert list(job.cited) == ["[web:1]"]


def test_pages_of_reasoning_steps_follow_the_citations():
    step = {
        "web_search": {"search_results": [{"url": "https://a.example"}, {"url": "https://b.example"}]},
        "fetch_url_content": {"contents": [{"url": "https://c.example"}]},
    }
    job = sonar("a [1]", reasoning_steps=[step], response={"citations": ["https://a.example"]})
    assert urls_and_kinds(job) == [
        ("https://a.example", None),
        ("https://b.example", None),
        ("https://c.example", "fetch_url_content"),
    ]


FIVE = [f"https://{place}.example" for place in range(1, 6)]


def test_mark_counts_in_the_longer_list_of_pages():
    response = {"citations": FIVE, "search_results": [{"url": FIVE[2], "title": "Three"}]}
    job = sonar("a [5] and [3] and [6]", response=response)
    assert {mark: source.url for mark, source in job.cited.items()} == {"[5]": FIVE[4], "[3]": FIVE[2]}
    assert (job.cited["[3]"].title, job.unresolved, job.citations) == ("Three", 1, FIVE)
    longer = sonar("a [2]", response={"citations": ["https://x.example"], "search_results": [{"url": u} for u in FIVE]})
    assert longer.cited["[2]"].url == FIVE[1]
    assert longer.citations == [*FIVE, "https://x.example"]
