"""A job as FastAPI and pydantic see it: returned, described, refused where it is something else."""

from __future__ import annotations

import json

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError

from aiopplx import Job, JobStatus, Session
from aiopplx.emulator import Emulator
from aiopplx.testing import JumpingClock


async def test_job_is_described_as_its_dict_says() -> None:
    clock = JumpingClock()
    async with (
        Emulator(duration=30.0, answer_chars=200, clock=clock) as server,
        Session("any-key", base_url=server.url, clock=clock) as session,
    ):
        job = await session.ask("Why?", tag="vasa")
    adapter = TypeAdapter(Job)
    assert adapter.validate_python(job) is job
    assert json.loads(adapter.dump_json(job)) == json.loads(json.dumps(job.to_dict()))
    described = adapter.json_schema(mode="serialization")
    assert set(described["properties"]) == set(job.to_dict())
    assert set(described["required"]) == set(job.to_dict())
    with pytest.raises(ValidationError):
        adapter.validate_python(job.to_dict())


def test_application_that_returns_jobs_is_described() -> None:
    app = FastAPI()

    @app.get("/research/{id}")
    async def read(id: str) -> Job:
        return Job(id=id, status=JobStatus.CREATED)

    @app.get("/research")
    async def all_of_them() -> list[Job]:
        return []

    described = app.openapi()
    paths = described["paths"]
    for path in ("/research/{id}", "/research"):
        answer = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer not in ({}, {"items": {}})
    assert "sources" in json.dumps(described)
