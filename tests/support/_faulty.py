"""What the fault tests share: a session on a fast clock, and a batch in which one question meets a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from aiopplx import Batch, Event, EventKind, Job, JournalOptions, NetworkOptions, PollPolicy, RetryPolicy, Session
from aiopplx.emulator import AfterPolls, Asked, Emulator, faults
from aiopplx.testing import Clock

KEY = "fault-test-key-0123456789"
VICTIM = "What is it that makes this one question so unlucky?"
QUESTION = "Why did the Vasa sink?"
OTHERS = (QUESTION, "Who first measured the speed of light?", "Why is the sky dark at night?")
QUESTIONS = tuple(f"Why did ship number {n} sink?" for n in range(12))
SPEED = 150.0

# A second in which the machine was busy elsewhere is SPEED seconds of the policy. Bounds in time that are not the point
# of a test lie beyond that, and whatever should succeed has all the time of the usual limits, which are real seconds.
STEADY = RetryPolicy(doubt_seconds=3000.0, call_seconds=3000.0)
STEADY_POLLS = msgspec.structs.replace(PollPolicy.fixed(2), missing_grace=1500.0)
# Real seconds after which an exchange that never ends is given up: longer than a busy machine keeps a good one waiting.
ENOUGH = 1.0


def session_at(
    url: str, *, events: list[Event] | None = None, speed: float = SPEED, timeout: float = 3600.0, **more: Any
) -> Session:
    """A session that lives `speed` seconds in each real one, and polls its jobs every other second.

    A word that lives in the value of one policy (`on_doubt`, `retry_failed`, `poll_seconds` ...) may be given flat.
    """
    retry = more.pop("retry", None) or STEADY
    if "on_doubt" in more:
        retry = msgspec.structs.replace(retry, on_doubt=more.pop("on_doubt"))
    poll = more.pop("poll", None) or STEADY_POLLS
    polling = {name: more.pop(name) for name in PollPolicy.__struct_fields__ if name in more}
    network = {name: more.pop(name) for name in NetworkOptions.__struct_fields__ if name in more}
    keeping = {name: more.pop(name) for name in JournalOptions.__struct_fields__ if name in more}
    if keeping:
        more["journal"] = JournalOptions(more.pop("journal"), **keeping)
    return Session(
        more.pop("api_key", KEY),
        api=more.pop("api", "sonar"),
        base_url=url,
        timeout=timeout,
        poll=msgspec.structs.replace(poll, **polling) if polling else poll,
        retry=retry,
        network=NetworkOptions(**network),
        on_event=more.pop("on_event", None) or (None if events is None else events.append),
        clock=Clock(speed),
        **more,
    )


def emulator(**more: Any) -> Emulator:
    """A server whose jobs are done at their second poll, with short answers."""
    return Emulator(**{"duration": AfterPolls(2), "answer_chars": 200, **more})


def recorded(server: Emulator, on: str, text: str = VICTIM) -> list[bytes]:
    """The bodies of all requests of this kind in which `text` stands, as they come from now on."""
    bodies: list[bytes] = []

    def record(asked: Asked) -> bool:
        if text.encode() in asked.body:
            bodies.append(asked.body)
        return False

    server.faults.add(on, faults.Delay(0.0), match=record)  # type: ignore[arg-type]  # `on` is one of its words
    return bodies


@dataclass
class Outcome:
    """What the user saw, and what the server saw."""

    victim: Job
    others: list[Job]
    bodies: list[bytes]
    created: int
    events: list[Event]
    server: Emulator

    def told(self, kind: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]

    @property
    def faults(self) -> set[str]:
        """The classes of fault that were told."""
        return {event.fault for event in self.events if event.fault}


async def under(
    fault: faults.Fault,
    on: str = "submit",
    *,
    times: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float = 3600.0,
    speed: float = SPEED,
    setup: Callable[[Emulator], None] | None = None,
    max_response_bytes: int = 1_000_000,
    submit_seconds: float = 60.0,
    poll_seconds: float = 60.0,
    missing_grace: float = STEADY_POLLS.missing_grace,
    **settings: Any,
) -> Outcome:
    """One batch, in which only `VICTIM` meets the fault, and has the time limit."""
    events: list[Event] = []
    async with emulator(**settings) as server:
        bodies = recorded(server, "submit")
        match: Callable[[Asked], bool] = lambda asked: _is_victim(server, asked)  # noqa: E731 - it needs the type
        server.faults.add(on, fault, times=times, match=match)  # type: ignore[arg-type]  # `on` is one of its words
        if setup is not None:
            setup(server)
        async with (
            session_at(
                server.url,
                events=events,
                retry=retry,
                speed=speed,
                max_response_bytes=max_response_bytes,
                submit_seconds=submit_seconds,
                poll_seconds=poll_seconds,
                missing_grace=missing_grace,
            ) as session,
            session.batch([{"question": VICTIM, "timeout": timeout}, *OTHERS]) as jobs,
        ):
            found = {job.index: job async for job in jobs}
        victim = found.pop(0)
        created = server.ledger.created_by_key[victim.idempotency_key]
        return Outcome(victim, list(found.values()), bodies, created, events, server)


def _is_victim(server: Emulator, asked: Asked) -> bool:
    if asked.on == "submit":
        return VICTIM.encode() in asked.body
    return any(job.id == asked.job_id and VICTIM.encode() in job.body for job in server.ledger.jobs)


def nothing_else_was_harmed(outcome: Outcome, *, in_one_attempt: bool = True) -> None:
    """Every other job of the batch finished, was submitted once and paid for once.

    Where submissions have a short limit, a busy machine may have given up a good one: `in_one_attempt=False`.
    """
    assert len(outcome.others) == len(OTHERS)
    assert all(job.ok for job in outcome.others)
    assert not in_one_attempt or [job.attempts for job in outcome.others] == [1] * len(OTHERS)
    assert all(outcome.server.ledger.created_by_key[job.idempotency_key] == 1 for job in outcome.others)


async def taken(batch: Batch, found: list[Job]) -> list[Job]:
    """All that a batch hands out, put into `found` one by one, so that it is there if an error ends it."""
    async with batch as jobs:
        async for job in jobs:
            found.append(job)
    return found
