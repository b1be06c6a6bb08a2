"""The answers of the benchmark server: one job record, in any size, as the service writes them.

Made by the documented schema, so that every peer reads what it would read from the service. This module knows nothing
of sockets or of how often a job is asked for.
"""

from __future__ import annotations

import json
from typing import Any

CREATED_AT = 1_785_329_708
COMPLETED_AT = CREATED_AT + 225
MODEL = "sonar-deep-research"

SENTENCE = "The survey of {year} put the figure at {n} per cent{dash} a finding that later work has borne out.[{cite}] "
# A dash outside Latin-1 makes CPython keep the whole text at two bytes a character, as most real answers do.
DASH, ASCII_DASH = " \u2014", ","


def pending(status: str, *, started: bool) -> bytes:
    """A record without a result, from behind its `id` on."""
    return _tail({**_record(status), "started_at": CREATED_AT if started else None})


def completed(size: int, *, two_byte: bool) -> bytes:
    """A finished record from behind its `id` on; the record as a whole has about `size` bytes."""
    sources = _sources(max(2, min(30, size // 1_500)))
    record = {**_record("COMPLETED"), "started_at": CREATED_AT, "completed_at": COMPLETED_AT}
    frame = len(_tail({**record, "response": _response("", sources)})) + 48
    text = _text(max(40, size - frame), len(sources), DASH if two_byte else ASCII_DASH)
    return _tail({**record, "response": _response(text, sources)})


def row(job_id: str, status: str) -> dict[str, Any]:
    """A row of the list: no `response`, no `error_message`."""
    record = _record(status)
    del record["response"], record["error_message"]
    return {"id": job_id, **record}


def _tail(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()[1:]


def _record(status: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "created_at": CREATED_AT,
        "started_at": None,
        "completed_at": None,
        "response": None,
        "failed_at": None,
        "error_message": None,
        "status": status,
    }


def _response(text: str, sources: list[dict[str, Any]]) -> dict[str, Any]:
    quiet = {"reasoning_steps": None, "tool_calls": None, "tool_call_id": None}
    return {
        "id": "5f0c4c1e-6d0a-4f0e-9b57-1f3c8a2d9e10",
        "model": MODEL,
        "created": COMPLETED_AT,
        "usage": _usage(),
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **quiet},
                "delta": {"role": "assistant", "content": "", **quiet},
            }
        ],
        "citations": [source["url"] for source in sources],
        "search_results": sources,
        "type": None,
        "status": None,
    }


def _usage() -> dict[str, Any]:
    return {
        "prompt_tokens": 139,
        "completion_tokens": 12_817,
        "total_tokens": 12_956,
        "search_context_size": None,
        "citation_tokens": 2_933,
        "num_search_queries": 38,
        "reasoning_tokens": 26_112,
        "cost": {
            "input_tokens_cost": 0.00028,
            "output_tokens_cost": 0.10254,
            "reasoning_tokens_cost": 0.07834,
            "request_cost": None,
            "citation_tokens_cost": 0.00587,
            "search_queries_cost": 0.19,
            "total_cost": 0.37703,
        },
    }


def _sources(count: int) -> list[dict[str, Any]]:
    return [
        {
            "title": f"Report {n}: what was measured, and how",
            "url": f"https://www.example.com/reports/{n:03}/what-was-measured-and-how",
            "date": f"2025-{n % 12 + 1:02}-15",
            "last_updated": None,
            "snippet": f"... Report {n} finds that the figure rose in each of the years covered, by less than was"
            " feared and more than was planned; the tables at the end give the figures by region and by month ...",
            "source": "web",
            "place_metadata": None,
        }
        for n in range(1, count + 1)
    ]


def _text(size: int, sources: int, dash: str) -> str:
    """About `size` bytes of Markdown: a heading, then paragraphs of six sentences."""
    parts = ["# What is known\n\n"]
    held = len(parts[0])
    n = 0
    while held < size:
        n += 1
        sentence = SENTENCE.format(year=1900 + n % 120, n=n % 97, dash=dash, cite=n % sources + 1)
        part = sentence if n % 6 else f"{sentence}\n\n## Part {n // 6}\n\n"
        parts.append(part)
        # A newline is two bytes once it is JSON.
        held += len(part.encode()) + part.count("\n")
    return "".join(parts)
