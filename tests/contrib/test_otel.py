"""Spans and metrics, read back from OpenTelemetry's own exporters in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from aiopplx import Event, EventKind, JobStatus, JournalOptions, PollPolicy, Session
from aiopplx.contrib.otel import Telemetry
from aiopplx.emulator import Emulator, faults
from aiopplx.testing import JumpingClock

KEY = "otel-test-key-0123456789"
QUESTION = "A question that no trace may have?"


class Heard:
    """A `Telemetry`, and what it exported."""

    def __init__(self, limit: int = 100) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader])
        self.handler = Telemetry(limit=limit, tracer_provider=self.traces, meter_provider=meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def metrics(self) -> dict[str, list[Any]]:
        """The points of each metric by its name."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def test_job_has_one_span_under_the_span_that_asked(heard: Heard) -> None:
    clock = JumpingClock()
    tracer = heard.traces.get_tracer("a web framework")
    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        Session(
            KEY,
            base_url=server.url,
            clock=clock,
            api="agent",
            poll=PollPolicy.fixed(10.0),
            on_event=heard.handler,
        ) as session,
    ):
        with tracer.start_as_current_span("GET /ask"):
            job = await session.ask(QUESTION, tag="vasa")
        with tracer.start_as_current_span("GET /batch"):
            async with session.batch(["Why?", "How?"]) as jobs:
                assert [done.ok async for done in jobs] == [True, True]
    spans = {span.name: span for span in heard.spans}
    ours = [span for span in heard.spans if span.name.startswith("research")]
    assert len(ours) == 3
    parents = [span.parent.span_id for span in ours if span.parent is not None]
    asked, batch = spans["GET /ask"].context, spans["GET /batch"].context
    assert asked is not None
    assert batch is not None
    assert parents == [asked.span_id, batch.span_id, batch.span_id]
    said = dict(ours[0].attributes or {})
    assert said["gen_ai.provider.name"] == "perplexity"
    assert said["gen_ai.response.id"] == job.id
    assert said["aiopplx.tag"] == "vasa"
    assert said["aiopplx.outcome"] == "completed"
    assert said["aiopplx.cost"] == job.cost
    assert job.usage is not None
    assert said["gen_ai.usage.output_tokens"] == job.usage.output_tokens
    assert [event.name for event in ours[0].events] == ["aiopplx.submitted", "aiopplx.finished"]


async def test_metrics_count_jobs_costs_and_retries(heard: Heard) -> None:
    clock = JumpingClock()
    async with Emulator(duration=60.0, answer_chars=200, clock=clock, failing=lambda asked: "fail" in asked) as server:
        server.faults.add("submit", faults.Status(503), times=2)
        async with (
            Session(KEY, base_url=server.url, clock=clock, api="sonar", on_event=heard.handler) as session,
            session.batch(["Why?", "How?", "Will it fail?"]) as jobs,
        ):
            ended = [job async for job in jobs]
    metrics = heard.metrics()
    assert {point.attributes["aiopplx.outcome"]: point.value for point in metrics["aiopplx.jobs"]} == {
        "completed": 2,
        "failed": 1,
    }
    assert sum(point.value for point in metrics["aiopplx.retries"]) == 2
    assert sum(point.value for point in metrics["aiopplx.jobs.in_flight"]) == 0
    (cost,) = metrics["aiopplx.job.cost"]
    assert cost.sum == pytest.approx(sum(job.cost or 0.0 for job in ended))
    (duration,) = metrics["gen_ai.client.operation.duration"]
    assert duration.sum == pytest.approx(sum(job.seconds or 0.0 for job in ended))
    (gap,) = metrics["aiopplx.poll.gap"]
    assert 0.0 < gap.max <= max(job.seconds or 0.0 for job in ended)
    failed = [span for span in heard.spans if span.status.status_code is StatusCode.ERROR]
    assert [dict(span.attributes or {})["error.type"] for span in failed] == ["failed"]


async def test_no_trace_has_question_answer_or_key(heard: Heard) -> None:
    clock = JumpingClock()
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server:
        server.faults.add("submit", faults.NAMED["accept_then_500"], times=1)
        async with Session(KEY, base_url=server.url, clock=clock, on_event=heard.handler) as session:
            job = await session.ask(QUESTION)
    said = " ".join(span.to_json() for span in heard.spans) + repr(heard.metrics())
    assert heard.spans
    for secret in (QUESTION, KEY, job.text[:40]):
        assert secret not in said


async def test_left_jobs_and_those_of_others_end_their_spans() -> None:
    heard = Heard(limit=2)
    clock = JumpingClock()
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server:
        async with Session(KEY, base_url=server.url, clock=clock, on_event=heard.handler) as session:
            jobs = [await session.submit(f"{QUESTION} {n}") for n in range(4)]
            asked = asyncio.create_task(session.ask(QUESTION))
            while session.stats().running == 0:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
            assert (await session.wait(jobs[0], timeout=10.0)).id == jobs[0].id
        heard.handler.close()
    names = [dict(span.attributes or {})["aiopplx.idempotency_key"] for span in heard.spans]
    assert {job.idempotency_key for job in jobs} <= set(names)
    left = [span for span in heard.spans if any(event.name == "aiopplx.left" for event in span.events)]
    assert len(left) == 1
    assert sum(point.value for point in heard.metrics()["aiopplx.jobs.in_flight"]) == 0


async def test_spans_end_where_nobody_waits_any_more() -> None:
    """Nothing more is heard of a job that was only submitted, is at its time limit, or was cancelled with its batch."""
    heard = Heard(limit=1000)
    clock = JumpingClock()
    async with (
        Emulator(duration=3600.0, answer_chars=200, clock=clock, cancel_delay=0.0) as server,
        Session(KEY, base_url=server.url, clock=clock, api="agent", on_event=heard.handler) as session,
    ):
        job = await session.submit("Alone?")
        assert len(heard.spans) == 1
        async with session.batch(["Why?", "How?"], timeout=600.0) as jobs:
            assert [job.status async for job in jobs] == [JobStatus.TIMED_OUT] * 2
        assert len(heard.spans) == 3
        async with session.batch(["Who?"], cancel_on_exit=True) as jobs:
            await server.until(lambda ledger: ledger.created == 4)
        assert len(heard.spans) == 4
        assert sum(point.value for point in heard.metrics()["aiopplx.jobs.in_flight"]) == 0
        both = [asyncio.create_task(session.wait(job.id, timeout=limit)) for limit in (60.0, 7200.0)]
        assert [(await waiting).status for waiting in both] == [JobStatus.TIMED_OUT, JobStatus.COMPLETED]
        assert len(heard.spans) == 5  # the first had no more time, and the second still waited
        assert sum(point.value for point in heard.metrics()["aiopplx.jobs.in_flight"]) == 0
    assert not heard.handler._open


async def test_later_wait_has_a_span_that_knows_the_first() -> None:
    """Of an id alone: what was known at the submission is told again, and the two spans are linked."""
    heard, clock = Heard(limit=3), JumpingClock()
    async with (
        Emulator(duration=600.0, answer_chars=200, clock=clock) as server,
        Session(KEY, base_url=server.url, clock=clock, api="agent", on_event=heard.handler) as session,
    ):
        jobs = [await session.submit(f"{QUESTION} {n}", tag=f"row {n}") for n in range(4)]
        assert (await session.wait(jobs[3].id, timeout=60.0)).status is JobStatus.TIMED_OUT
        waited = [await session.wait(job.id) for job in (jobs[3], jobs[0])]
        assert all(job.ok for job in waited)
    submitted, (timed_out, ended, oldest) = heard.spans[:4], heard.spans[4:]
    for before, after in ((submitted[3], timed_out), (timed_out, ended)):
        assert [link.context for link in after.links] == [before.context]
        assert after.name == before.name
        was, said = dict(before.attributes or {}), dict(after.attributes or {})
        for name in ("gen_ai.request.model", "gen_ai.response.id", "aiopplx.tag", "aiopplx.idempotency_key"):
            assert said[name] == was[name], name
    assert dict(ended.attributes or {})["aiopplx.outcome"] == "completed"
    assert not oldest.links, "no more than `limit` are remembered"
    assert dict(oldest.attributes or {})["gen_ai.response.id"] == jobs[0].id
    (finished, _) = heard.metrics()["aiopplx.jobs"]
    assert finished.attributes["gen_ai.request.model"] == dict(ended.attributes or {})["gen_ai.request.model"]


@pytest.mark.parametrize("kind", [EventKind.WARNING, EventKind.TIMED_OUT, EventKind.CANCELLING, EventKind.LEFT])
def test_remark_about_a_job_begins_no_span(heard: Heard, kind: EventKind) -> None:
    heard.handler(Event(kind=kind, job_id="a-job", idempotency_key="a-key"))
    heard.handler.close()
    assert heard.spans == ()


def test_oldest_of_too_many_open_spans_is_ended() -> None:
    heard = Heard(limit=2)
    for n in range(3):
        heard.handler(Event(kind=EventKind.SUBMITTED, job_id=f"job-{n}", idempotency_key=f"key-{n}"))
    assert [dict(span.attributes or {})["gen_ai.response.id"] for span in heard.spans] == ["job-0"]
    assert sum(point.value for point in heard.metrics()["aiopplx.jobs.in_flight"]) == 2


def test_job_that_is_left_ends_its_span_there(heard: Heard) -> None:
    heard.handler(Event(kind=EventKind.SUBMITTED, job_id="a-job", idempotency_key="a-key"))
    heard.handler(Event(kind=EventKind.LEFT, job_id="a-job", idempotency_key="a-key"))
    assert [event.name for span in heard.spans for event in span.events] == ["aiopplx.submitted", "aiopplx.left"]


def test_span_of_an_older_job_begins_now(heard: Heard) -> None:
    heard.handler(Event(kind=EventKind.FINISHED, job_id="a-job", status=JobStatus.COMPLETED, seconds=7200.0))
    (span,) = heard.spans
    assert dict(span.attributes or {})["aiopplx.age"] == 7200.0
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 < 3600.0
    (lasted,) = heard.metrics()["gen_ai.client.operation.duration"]
    assert lasted.sum == 7200.0


@pytest.mark.parametrize("results", ["keep", "refetch"])
async def test_job_of_an_earlier_run_is_counted_once(heard: Heard, tmp_path: Path, results: Any) -> None:
    clock, runs = JumpingClock(), 3
    journal = JournalOptions(tmp_path / "run.db", results=results)
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server:
        for _ in range(runs):
            async with Session(
                KEY, base_url=server.url, clock=clock, journal=journal, on_event=heard.handler
            ) as session:
                job = await session.ask(QUESTION, tag="x")
    metrics = heard.metrics()
    assert [point.value for point in metrics["aiopplx.jobs"]] == [1]
    assert [(point.count, point.sum) for point in metrics["aiopplx.job.cost"]] == [(1, pytest.approx(job.cost))]
    assert sum(point.count for point in metrics["gen_ai.client.token.usage"]) == 2
    assert sum(point.value for point in metrics["aiopplx.jobs.in_flight"]) == 0
    outcomes = [dict(span.attributes or {}).get("aiopplx.outcome") for span in heard.spans]
    assert outcomes == ["completed"] * runs
    assert [span.events[-1].name for span in heard.spans] == ["aiopplx.finished", *["aiopplx.loaded"] * (runs - 1)]


@pytest.mark.parametrize("has_parent", [True, False])
@pytest.mark.parametrize("way", ["wait", "follow", "batch", "ask", "submit"])
async def test_span_begins_within_the_span_that_waits(heard: Heard, tmp_path: Path, way: str, has_parent: bool) -> None:
    clock = JumpingClock()
    question = "Why did the Vasa sink?"
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server:
        kept: dict[str, Any] = {"base_url": server.url, "clock": clock, "journal": tmp_path / "j.db"}
        async with Session(KEY, **kept) as session:
            job = await session.submit(question, tag="vasa")
        await clock.sleep(120.0)  # somebody else waits for it, two minutes later
        async with Session(KEY, on_event=heard.handler, **kept) as session:
            began = time.time_ns()
            tracer = heard.traces.get_tracer("a web framework")
            with tracer.start_as_current_span("GET /answer") if has_parent else contextlib.nullcontext():
                if way == "wait":
                    await session.wait(job.id)
                elif way == "ask":
                    assert (await session.ask(question, tag="vasa")).id == job.id
                elif way == "submit":
                    await session.wait(await session.submit(question, tag="vasa"))
                elif way == "follow":
                    assert [update async for update in session.follow(job.id)]
                else:
                    async with session.batch([{"question": question, "tag": "vasa"}]) as jobs:
                        assert [done.id async for done in jobs] == [job.id]
    (ours,) = [span for span in heard.spans if span.name.startswith("research")]
    assert ours.start_time is not None
    assert ours.end_time is not None
    assert began <= ours.start_time <= ours.end_time <= time.time_ns()
    outer = [span for span in heard.spans if span.name == "GET /answer"]
    assert len(outer) == has_parent
    for span in outer:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= ours.start_time <= ours.end_time <= span.end_time
        assert span.context is not None
    parents = [span.context.span_id for span in outer if span.context is not None]
    assert parents == ([ours.parent.span_id] if ours.parent is not None else [])
    age = dict(ours.attributes or {})["aiopplx.age"]
    assert isinstance(age, float)
    assert age >= 120.0
    (lasted,) = heard.metrics()["gen_ai.client.operation.duration"]
    assert lasted.sum >= 600.0


async def test_spans_of_requests_at_once_have_their_own_parents(heard: Heard) -> None:
    tracer = heard.traces.get_tracer("a web framework")
    parents: dict[str, int] = {}

    async def request(session: Session, job_id: str) -> None:
        with tracer.start_as_current_span("GET /answer") as span:
            parents[job_id] = span.get_span_context().span_id
            await session.wait(job_id)

    clock = JumpingClock()
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server:
        async with Session(KEY, base_url=server.url, clock=clock) as session:
            job_ids = [(await session.submit(f"{QUESTION} {n}")).id for n in range(5)]
        async with Session(KEY, base_url=server.url, clock=clock, on_event=heard.handler) as session:
            await asyncio.gather(*(request(session, job_id) for job_id in job_ids))
    ours = [span for span in heard.spans if span.name.startswith("research")]
    of_job = {dict(span.attributes or {})["gen_ai.response.id"]: span.parent for span in ours}
    assert {job_id: parent and parent.span_id for job_id, parent in of_job.items()} == parents
