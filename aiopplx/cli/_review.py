"""Decisions that only the user can make: `review` of submissions in doubt, and `adopt` of jobs from elsewhere.

This module knows nothing of files of questions.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio

from aiopplx._text.amounts import dollars, many
from aiopplx.cli._connect import Connected
from aiopplx.cli._exits import DONE, IN_DOUBT, LATER, Interrupted, UsageError, complain, exit_code, told, until_signal
from aiopplx.cli._journals import typed, where_its_password_is
from aiopplx.cli._options import Connection, ReviewOptions
from aiopplx.cli._records import question_of
from aiopplx.cli._text import one_line, print_json, print_out
from aiopplx.journal import Choice, Record, choices_of, open_reader, records_at, words_of

if TYPE_CHECKING:
    from aiopplx import Job, Session

ENOUGH_OF_A_KEY = 6
"""Characters of an idempotency key that may be given for all of it, if no other key in doubt begins with them."""


async def review(place: str, options: ReviewOptions, connection: Connection) -> int:
    """List the submissions in doubt, or decide about one; 4 while any are left in doubt, otherwise 0.

    Raises:
        UsageError: options that do not go together, or a key that the journal does not have.
        AiopplxError: the journal or the service refuses.
    """
    options.check()
    if options.key is None:
        return _list(place, as_json=options.json)
    record = _find(place, options.key)
    _check_may_be_decided(place, record, options)
    connection.check()
    try:
        said = await until_signal(lambda: _decide(place, record, options, connection))
    except Interrupted as interrupted:
        return interrupted.code
    print_out(f"{said}\n")
    return IN_DOUBT if _doubtful(place) else DONE


def _doubtful(place: str) -> list[Record]:
    with open_reader(place) as journal:
        return list(records_at(journal, "in doubt"))


def _list(place: str, *, as_json: bool) -> int:
    found = _doubtful(place)
    for record in found:
        if as_json:
            print_json(_facts(record))
        else:
            _print(record)
    print(f"{many(len(found), 'submission')} in doubt", file=sys.stderr)
    if found and not as_json:
        named, hint = typed(place), where_its_password_is(place)
        print(
            "Each may be a job that is billed. Look for it with: aiopplx list. Then, for each KEY, one of:\n"
            f"  aiopplx review {named} --adopt KEY ID               it created that job\n"
            f"  aiopplx review {named} --resubmit KEY --pay-again   submit it again, under a new key\n"
            f"  aiopplx review {named} --drop KEY                   give it up" + (f"\n{hint}" if hint else ""),
            file=sys.stderr,
        )
    return IN_DOUBT if found else DONE


def _facts(record: Record) -> dict[str, Any]:
    return {
        "idempotency_key": record.key,
        "tag": record.tag,
        "tenant": record.tenant,
        "api": record.api,
        "attempts": record.attempts,
        "first_sent": record.first_sent,
        "question": question_of(record),
        "error": record.error,
    }


def _print(record: Record) -> None:
    sent = "" if record.first_sent is None else time.strftime(" %Y-%m-%d %H:%M:%S UTC", time.gmtime(record.first_sent))
    tag = "" if record.tag is None else f"  tag {record.tag}"
    tag += f"  tenant {record.tenant}" if record.tenant else ""
    print_out(
        f"{record.key}{one_line(tag)}  {record.api}, sent{sent}, {many(record.attempts, 'attempt')}\n"
        f"    {one_line(question_of(record), 100)}\n" + (f"    {one_line(record.error)}\n" if record.error else "")
    )


def _find(place: str, key: str) -> Record:
    with open_reader(place) as journal:
        found = journal.get(key=key)
        if found is not None:
            return found
    near = [record for record in _doubtful(place) if record.key.startswith(key)]
    if len(key) >= ENOUGH_OF_A_KEY and len(near) == 1:
        return near[0]
    raise UsageError(f"{one_line(key, 80)} is not a key in {place}; aiopplx review {typed(place)} lists those in doubt")


def _check_may_be_decided(place: str, record: Record, options: ReviewOptions) -> None:
    choice: Choice = "resubmit" if options.resubmit is not None else "drop" if options.adopt is None else "adopt"
    if choice not in choices_of(record):
        why = "cannot be submitted again" if choice == "resubmit" else "is not in doubt"
        raise UsageError(f"{record.key} {why}: it is {words_of(record.state)}")
    if options.adopt is not None:
        with open_reader(place) as journal:
            other = journal.get(job_id=options.adopt[1])
        if other is not None and other.pk != record.pk:
            job_id = one_line(options.adopt[1], 80)
            raise UsageError(f"{job_id} is already in the journal: it is the job of another submission")


async def _decide(place: str, record: Record, options: ReviewOptions, connection: Connection) -> str:
    from aiopplx import Job, JobStatus

    job = Job(status=JobStatus.IN_DOUBT, idempotency_key=record.key, tag=record.tag, api=record.api)
    async with Connected(connection, journal=os.fspath(place)) as session:
        if options.resubmit is not None:
            again = await session.resubmit(job, pay_again=options.pay_again)
            return f"{again.id}  submitted again, under key {again.idempotency_key}; the next run collects it"
        if options.adopt is not None:
            job_id = options.adopt[1]
            found = await session.get(
                job_id
            )  # first: adopting an id that the service does not know would lose the submission
            await session.adopt(job_id, instead_of=job)
            return f"{job_id}  adopted, {found.status.value.lower()}; the next run collects it"
        await session.drop(job)
        return f"{record.key}  dropped; --retry-failed submits it again"


async def adopt(
    place: str, ids: tuple[str, ...], connection: Connection, *, tag: str | None, wait: bool, seconds: float
) -> int:
    """Add jobs of the service to the journal, and store the results of finished ones.

    Args:
        place: the journal.
        ids: the service's ids.
        connection: which server, and with which key.
        tag: a tag for a single job; a question with this tag then finds it.
        wait: wait until all are finished.
        seconds: how long to wait for each.

    Raises:
        UsageError: one tag for several jobs.
        AiopplxError: the journal cannot be opened.
    """
    if tag is not None and len(ids) != 1:
        raise UsageError("--tag names one job; give one ID with it")
    connection.check()
    codes: list[int] = []

    async def one(session: Session, job_id: str) -> None:
        from aiopplx import AiopplxError

        try:
            job = await _adopted(session, job_id, tag, wait, seconds)
        except AiopplxError as error:
            complain(f"{job_id}: {told(error)}")
            codes.append(exit_code(error))
            return
        billed = f", {dollars(job.cost)}" if job.cost is not None else ""
        print_out(f"{one_line(job.id)}  {job.status.value.lower().replace('_', ' ')}{billed}\n")
        codes.append(LATER if wait and job.status == "TIMED_OUT" else DONE)

    async def work() -> None:
        async with Connected(connection, journal=os.fspath(place)) as session, anyio.create_task_group() as group:
            for job_id in dict.fromkeys(ids):
                group.start_soon(one, session, job_id)

    try:
        await until_signal(work)
    except Interrupted as interrupted:
        return interrupted.code
    return max(codes, default=DONE)


async def _adopted(session: Session, job_id: str, tag: str | None, wait: bool, seconds: float) -> Job:
    found = await session.get(job_id)
    adopted = await session.adopt(job_id, tag=tag)
    # Only a poll by the session's poller stores a result. A job that is still running is left to a later run.
    return await session.wait(adopted, timeout=seconds) if found.done or wait else found
