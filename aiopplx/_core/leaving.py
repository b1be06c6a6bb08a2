"""Leaving: what is done with submissions that their listeners stop waiting for.

A listener may leave at any moment: a batch's block ends, a call is cancelled, the session closes. What then becomes
of a submission depends on its phase alone. Nothing was sent, or everything that was sent was refused: it is cancelled
and nothing is said, because nothing was paid. It runs at the server: it is polled no more, and its job is told as left.
An attempt is on the wire: this is the one case worth waiting for, since the answer names a job that is paid for; it
gets `leave_grace` seconds and no further attempt, and is IN_DOUBT after that. An earlier attempt is unanswered:
IN_DOUBT at once.

One function serves a batch, a cancelled call and the session's end. It fills a list instead of returning one: whoever
is cancelled a second time while it waits still has everything that is known. This module knows nothing of who leaves,
or why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiopplx._core.lifecycle import Lifecycle
from aiopplx._http.apart import cancel_and_wait
from aiopplx._job import Job, JobStatus
from aiopplx._submission import ON_WIRE, Listener, Phase, Submission


async def leave(
    life: Lifecycle, listeners: Iterable[Listener], senders: Iterable[asyncio.Task[None]], left: list[Job]
) -> None:
    """These listeners wait no more. Returns when the tasks that served only them have ended, or do not end.

    Args:
        life: the session's.
        listeners: who leaves.
        senders: tasks of theirs that send, or wait to send; all of them end here.
        left: filled with the jobs that go on, or may go on, at the service, and with those that ended just now. A job
            that a late listener asked for by its id is not among them: others know of it.
    """
    sending: list[tuple[Listener, Submission]] = []
    shared: set[Listener] = set()
    ending: list[asyncio.Task[None]] = []
    senders = list(senders)
    for listener in listeners:
        sub = listener.sub
        is_listed = listener in sub.listeners
        if not listener.is_late and sub.runner is not None:
            # Also one that another `leave` waits for: a session may close while a call of it is being cancelled.
            sending.append((listener, sub))
            if is_listed and len(sub.listeners) > 1:
                shared.add(listener)
        elif is_listed and sub.phase is Phase.RUNNING and not listener.is_late:
            left.append(listener.named(sub.as_job(JobStatus.IN_PROGRESS)))
        poll = life.unlisten(listener)
        if poll is not None:
            ending.append(poll)
        elif not sub.listeners and (sender := life.elsewhere.task_of(sub)) is not None:
            senders.append(sender)  # another session had it, and this one has begun to send it
    on_wire = {sub.runner for _, sub in sending if sub.phase in ON_WIRE and not sub.listeners}
    waited = [sender for sender in senders if sender in on_wire]
    for sender in senders:
        if sender not in on_wire:
            sender.cancel()
    try:
        if waited:
            await life.client.clock.wait_all(waited, life.client.policy.leave_grace)
    finally:
        for sender in senders:
            sender.cancel()
        try:
            await cancel_and_wait([*ending, *senders])
        finally:
            for listener, sub in sending:
                if not sub.listeners:
                    life.detach(sub)
                elif listener in shared and sub.phase is Phase.RUNNING:
                    left.append(listener.named(sub.as_job(JobStatus.IN_PROGRESS)))
                job = life.left_of(sub)
                if job is not None:
                    left.append(job)
