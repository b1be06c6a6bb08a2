"""The account's jobs come page by page, each once, and no list goes on for ever."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import pytest
from _scripted import Asked, Scripted, opened

from aiopplx import ConfigError, Event, EventKind, Job, JobStatus, RetryPolicy, Session


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": f"job-{n}", "model": "m", "created_at": n, "status": "COMPLETED"} for n in numbers]


def paged(server: Scripted, pages: dict[str, tuple[list[Any], str | None]]) -> list[dict[str, str]]:
    """Lets the server answer each token with its page; returns the queries as they come."""
    seen: list[dict[str, str]] = []

    def script(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind != "list":
            return None
        seen.append(asked.query)
        requests, token = pages[asked.query.get("next_token", "")] if len(pages) > 1 else pages[""]
        return 200, {"requests": requests, "next_token": token}

    server.script = script
    return seen


async def ids_of(session: Session, **options: Any) -> list[str]:
    awaited = [job.id for job in await session.list(**options)]
    with anyio.fail_after(10):
        assert [job.id async for job in session.list(**options)] == awaited
    return awaited


async def test_list_follows_its_pages(server: Scripted):
    seen = paged(server, {"": (rows(5, 4), "a b/c"), "a b/c": (rows(3, 2), "last"), "last": (rows(1), None)})
    async with opened(server) as session:
        assert await ids_of(session) == ["job-5", "job-4", "job-3", "job-2", "job-1"]
    assert [query.get("next_token") for query in seen] == [None, "a b/c", "last"] * 2


async def test_list_ends_where_a_server_ignores_the_token(server: Scripted):
    seen = paged(server, {"": (rows(2, 1), "more")})
    async with opened(server) as session:
        assert await ids_of(session) == ["job-2", "job-1"]
    assert len(seen) == 4


async def test_list_ends_where_a_page_repeats_under_new_tokens(server: Scripted):
    tokens = itertools.count()
    server.script = lambda asked: (200, {"requests": rows(2, 1), "next_token": f"token-{next(tokens)}"})
    async with opened(server) as session:
        assert await ids_of(session) == ["job-2", "job-1"]


async def test_list_ends_where_tokens_go_round_in_a_circle(server: Scripted):
    seen = paged(server, {"": (rows(4), "a"), "a": (rows(3), "b"), "b": (rows(2), "a")})
    async with opened(server) as session:
        assert await ids_of(session) == ["job-4", "job-3", "job-2"]
    assert len(seen) == 6


@pytest.mark.parametrize("token", [None, "", "more"])
async def test_list_that_is_empty_is_empty(token: str | None, server: Scripted):
    paged(server, {"": ([], token)})
    async with opened(server) as session:
        assert await ids_of(session) == []


async def test_list_gives_a_row_that_moved_pages_once(server: Scripted):
    paged(server, {"": (rows(4, 3), "a"), "a": (rows(3, 2), None)})
    async with opened(server) as session:
        assert await ids_of(session) == ["job-4", "job-3", "job-2"]


async def test_limit_of_a_list_is_kept_and_spares_pages(server: Scripted):
    seen = paged(server, {"": (rows(4, 3), "a"), "a": (rows(2, 1), "b"), "b": (rows(0), None)})
    async with opened(server) as session:
        assert await ids_of(session, limit=3) == ["job-4", "job-3", "job-2"]
        assert await ids_of(session, limit=2) == ["job-4", "job-3"]
    assert [query.get("next_token") for query in seen] == [None, "a", None, "a", None, None]
    assert {query["limit"] for query in seen} == {"3", "2"}


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
async def test_nonsensical_limit_is_refused(limit: Any, server: Scripted):
    async with opened(server) as session:
        with pytest.raises(ConfigError, match="limit"):
            session.list(limit=limit)


async def test_unreadable_rows_of_a_list_are_skipped_and_reported(server: Scripted):
    told: list[Event] = []
    paged(server, {"": ([*rows(2), 7, {"status": "COMPLETED"}, None, *rows(1)], None)})
    async with opened(server, told) as session:
        assert [job.id for job in await session.list()] == ["job-2", "job-1"]
    assert [event.reason for event in told if event.kind is EventKind.WARNING] == [
        "3 rows of the list could not be read"
    ]


async def test_page_that_fails_is_asked_again(server: Scripted):
    answers = iter([(500, b"oops"), (200, {"requests": rows(1), "next_token": None})])
    server.script = lambda asked: next(answers)
    async with opened(server, retry=RetryPolicy(base=0.01)) as session:
        assert [job.id for job in await session.list()] == ["job-1"]


async def test_list_is_a_value_of_summaries(server: Scripted):
    async with opened(server) as session:
        await session.submit("one")
        (job,) = await session.list()
    assert isinstance(job, Job)
    assert (job.id, job.status, job.text) == ("job-0", JobStatus.CREATED, "")
