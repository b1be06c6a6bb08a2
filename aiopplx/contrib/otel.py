"""Traces and metrics by OpenTelemetry: `Session(on_event=Telemetry())`. Needs its API only (`aiopplx[otel]`).

One span for each job, from its submission to its end, or until nobody here waits for it any more, with its states as
events and the attributes of the conventions for generative AI. Its parent is whatever span is current where the job was
asked for, such as that of a web request. If somebody waits for the job later, that is a further span, linked to the one
before. The span of a job that an earlier process submitted begins where this one first hears of it, within the span of
whoever waits for it, and has the job's age then (`aiopplx.age`, seconds). There is no span for a poll: a job has
twenty. The questions and the answers are in no span and no metric.

The conventions are in development, so their names stand here, and nowhere else in this package. Source: OpenTelemetry,
"Semantic conventions for generative client AI spans", which knows `perplexity` as a provider. This module knows nothing
of how spans and metrics leave the program.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from opentelemetry import context, metrics, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode

from aiopplx import Event, EventKind, JobStatus, __version__

__all__ = ["Telemetry"]

_SCOPE = "aiopplx"
_MODEL, _KEY, _TAG = "gen_ai.request.model", "aiopplx.idempotency_key", "aiopplx.tag"
_AGE = "aiopplx.age"
_ENDS = frozenset({EventKind.FINISHED, EventKind.LOADED})
_LAST = _ENDS | {EventKind.LEFT}
# What may be the first that is heard of a job which others, or an earlier run, have submitted. Others only tell of one.
_FIRST = frozenset({
    EventKind.RETRYING,
    EventKind.SUBMITTED,
    EventKind.POLLED,
    EventKind.POLL_FAILED,
    EventKind.STALLED,
    *_ENDS,
})
_OF_A_SUBMISSION = frozenset({EventKind.RETRYING, EventKind.SUBMITTED})
_OK = frozenset({JobStatus.COMPLETED, JobStatus.INCOMPLETE})


class _Open(msgspec.Struct):
    """A job whose end was not told yet.

    `who` is what its metrics are told apart by, `told` what its span began with; `polled` its age at the last poll that
    found it running. `name` is its id once that is known, and its key before.
    """

    span: Span
    who: dict[str, str]
    told: dict[str, str]
    name: str
    is_counted: bool = False
    polled: float | None = None


class Telemetry:
    """The handler of a session's events that makes spans and metrics of them. One may serve several sessions.

    Metrics: `aiopplx.jobs` (count, by outcome), `aiopplx.job.cost` (US dollars), `gen_ai.client.operation.duration`
    (seconds from the acceptance to the end), `gen_ai.client.token.usage` (tokens), `aiopplx.poll.gap` (seconds from the
    last poll that found a job running to the one that found its end: the end was not seen for at most so long),
    `aiopplx.retries` (count, by class of fault), `aiopplx.jobs.in_flight` (jobs that run and are waited for here).

    Args:
        limit: the most spans that are open at once; of more, the oldest is ended without an outcome. As many of those
            that ended so are remembered for a span that is linked to them. Default 10,000.
        tracer_provider, meter_provider: default the global ones.
    """

    def __init__(
        self,
        *,
        limit: int = 10_000,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._limit = limit
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
        self._jobs = meter.create_counter("aiopplx.jobs", "{job}", "Submissions that ended, by what they ended as")
        self._cost = meter.create_histogram("aiopplx.job.cost", "{USD}", "What a job was billed")
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", "s", "From acceptance to the end")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens that a job used")
        self._gap = meter.create_histogram("aiopplx.poll.gap", "s", "For how long at most an end was not seen")
        self._retries = meter.create_counter("aiopplx.retries", "{attempt}", "Attempts that are made again")
        self._in_flight = meter.create_up_down_counter("aiopplx.jobs.in_flight", "{job}", "Jobs that are polled")
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._before: OrderedDict[str, tuple[SpanContext, dict[str, str]]] = OrderedDict()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event.kind is EventKind.RETRYING:
            self._retries.add(1, {"aiopplx.fault": event.fault, **_who(event)})
        name = event.idempotency_key or event.job_id
        if not name:
            return  # about the session
        job = self._open.get(name)
        if job is None:
            if event.kind not in _FIRST:
                return
            job = self._begun(event, name)
        if event.kind in (EventKind.SUBMITTED, EventKind.POLLED) and event.awaited and not job.is_counted:
            job.is_counted = True
            self._in_flight.add(1, job.who)
        if event.kind is EventKind.POLLED:
            job.polled = event.seconds
            return
        if event.job_id:
            job.name = event.job_id
            job.span.set_attribute("gen_ai.response.id", event.job_id)
        job.span.add_event(f"aiopplx.{event.kind.value}", _facts(event))
        if event.kind in _LAST or not event.awaited:  # nobody here waits for it any more: its end will not be told
            del self._open[name]
            self._end(event, job)

    def close(self) -> None:
        """End the spans of jobs whose end was not told, such as those that other processes made."""
        while self._open:
            self._drop()

    def _begun(self, event: Event, name: str) -> _Open:
        if len(self._open) >= self._limit:
            self._drop()
        known = event.job_id or name
        before = self._before.pop(known, None)
        names = {_KEY: event.idempotency_key, _TAG: str(event.tag or "")}
        told: dict[str, str] = dict(before[1]) if before is not None else {}
        told |= _who(event) | {each: value for each, value in names.items() if value or each not in told}
        is_older = event.seconds is not None and event.kind not in _OF_A_SUBMISSION
        span = self._tracer.start_span(
            f"research {told.get(_MODEL, '')}".strip(),
            context.get_current(),
            SpanKind.CLIENT,
            {**told, _AGE: event.seconds} if is_older and event.seconds is not None else told,
            [Link(before[0])] if before is not None else None,
        )
        who = {each: value for each, value in told.items() if each not in names}
        job = self._open[name] = _Open(span, who, told, known)
        return job

    def _drop(self) -> None:
        _, job = self._open.popitem(last=False)
        if job.is_counted:
            self._in_flight.add(-1, job.who)
        self._end_without_outcome(job)

    def _end_without_outcome(self, job: _Open) -> None:
        job.span.end()
        self._before[job.name] = (job.span.get_span_context(), job.told)
        if len(self._before) > self._limit:
            self._before.popitem(last=False)

    def _end(self, event: Event, job: _Open) -> None:
        who = job.who
        if job.is_counted:
            self._in_flight.add(-1, who)
        span, status = job.span, event.status
        if event.kind not in _ENDS or status is None:
            self._end_without_outcome(job)
            return
        outcome = status.value.lower()
        span.set_attribute("aiopplx.outcome", outcome)
        if status not in _OK:
            span.set_attribute("error.type", outcome)
            span.set_status(StatusCode.ERROR, event.reason)
        if event.model:
            span.set_attribute("gen_ai.response.model", event.model)
        if event.kind is EventKind.FINISHED:  # else another run, or process, has counted it
            self._count(event, job, outcome)
        span.end()

    def _count(self, event: Event, job: _Open, outcome: str) -> None:
        span, who = job.span, job.who
        self._jobs.add(1, {"aiopplx.outcome": outcome, **who})
        self._used(event, span, who)
        if event.seconds is not None:
            self._duration.record(event.seconds, who)
            if job.polled is not None:
                self._gap.record(event.seconds - job.polled, who)

    def _used(self, event: Event, span: Span, who: dict[str, str]) -> None:
        if event.cost is not None:
            span.set_attribute("aiopplx.cost", event.cost)
            self._cost.record(event.cost, who)
        usage = event.usage
        if usage is None:
            return
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is not None:
                span.set_attribute(f"gen_ai.usage.{kind}_tokens", tokens)
                self._tokens.record(tokens, {"gen_ai.token.type": kind, **who})


def _who(event: Event) -> dict[str, str]:
    """What spans and metrics are told apart by. No more: each further value multiplies the series of a metric."""
    # Whatever the API: a research job searches and reads by itself, and is billed for it.
    said = {"gen_ai.provider.name": "perplexity", "gen_ai.operation.name": "invoke_agent"}
    return {**said, _MODEL: event.model} if event.model else said


def _facts(event: Event) -> dict[str, str | int | float]:
    facts: dict[str, str | int | float | None] = {
        "aiopplx.status": event.status.value.lower() if event.status is not None else None,
        "aiopplx.attempt": event.attempt or None,
        "aiopplx.delay": event.delay or None,
        "aiopplx.fault": event.fault or None,
        "aiopplx.reason": event.reason or None,
    }
    return {name: value for name, value in facts.items() if value is not None}
