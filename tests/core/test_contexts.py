"""Events, and lines of the log, are told in the context of whoever waits for the job that they are about."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from aiopplx import Event, Session
from aiopplx.emulator import Emulator
from aiopplx.testing import JumpingClock

REQUEST = contextvars.ContextVar("REQUEST", default="nobody")
"""As a web framework has one for its spans, and for the lines of its log."""
BY_ID, BY_TAG = ("wait", "wait a little", "follow"), ("ask", "batch")


async def request(session: Session, way: str, name: str, job_id: str) -> None:
    REQUEST.set(name)
    if way == "wait":
        await session.wait(job_id)
    elif way == "wait a little":
        await session.wait(job_id, timeout=200.0)
    elif way == "follow":
        assert [update async for update in session.follow(job_id)]
    elif way == "ask":
        await session.ask(name, tag=name)
    else:
        async with session.batch([{"question": name, "tag": name}]) as jobs:
            assert [job.tag async for job in jobs] == [name]


@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_events_are_told_where_their_job_is_awaited(api: str) -> None:
    told: list[tuple[Event, str]] = []

    def hear(event: Event) -> None:
        if event.job_id:
            told.append((event, REQUEST.get()))

    clock = JumpingClock()
    async with (
        Emulator(duration=600.0, answer_chars=200, clock=clock) as server,
        Session("key", base_url=server.url, api=api, clock=clock, on_event=hear) as session,
    ):
        waits = {(await session.submit("Why?")).id: (way, f"{way} {n}") for n in range(4) for way in BY_ID}
        told.clear()
        async with asyncio.TaskGroup() as group:
            for job_id, (way, name) in waits.items():
                group.create_task(request(session, way, name, job_id))
            for way in BY_TAG:
                for n in range(4):
                    group.create_task(request(session, way, f"{way} {n}", ""))
    names = {name for _, name in waits.values()} | {f"{way} {n}" for way in BY_TAG for n in range(4)}
    assert {where for _, where in told} == names
    astray = [
        (event.kind, where) for event, where in told if where != (event.tag or waits.get(event.job_id, ("", ""))[1])
    ]
    assert not astray
