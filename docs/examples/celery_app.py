"""Research inside Celery: one task submits, another one collects, and neither waits as long as a job takes.

    pip install 'aiopplx[postgres]' celery
    celery --app celery_app worker

RESEARCH_JOURNAL is the journal of all workers, postgresql://user@host/database?schema=research, and PERPLEXITY_API_KEY
the key. Celery's own settings are in celeryconfig.py. The answer is that of the second task:

    from celery_app import ask
    ask("order 7", "Why did the Vasa sink?").get()
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial

from anyio.from_thread import BlockingPortal, start_blocking_portal
from celery import Celery, Task, chain
from celery.result import AsyncResult
from celery.signals import worker_process_init, worker_process_shutdown

from aiopplx import JobStatus, Session

WAIT = float(os.environ.get("RESEARCH_WAIT", "25"))
"""Seconds for which a task waits, and after which it comes back."""

app = Celery("research")
app.config_from_object("celeryconfig")
app.conf.task_acks_late = True  # a task whose worker dies is delivered again: it finds the job that it made

process = ExitStack()
portal: BlockingPortal
session: Session


@worker_process_init.connect  # after the fork: a session belongs to one process
def open_session(**_: object) -> None:
    """One session for the life of a worker process, in an event loop in a thread of its own."""
    global portal, session
    portal = process.enter_context(start_blocking_portal())
    opened = Session(journal=os.environ["RESEARCH_JOURNAL"], rpm=60)
    session = process.enter_context(portal.wrap_async_context_manager(opened))


@worker_process_shutdown.connect
def close_session(**_: object) -> None:
    """What runs is handed over to the other workers."""
    process.close()


@app.task
def submit(number: str, question: str) -> str:
    """Returns as soon as the service has the question. Delivered twice, it is one job: the number is its tag."""
    return portal.call(partial(session.submit, question, tag=number)).token


@app.task(bind=True, max_retries=None)
def collect(self: Task, token: str) -> str:
    """The answer. A job that still runs is asked for again later; it need not be in the same process."""
    job = portal.call(partial(session.wait, token, timeout=WAIT))
    if job.status is JobStatus.TIMED_OUT:
        raise self.retry(countdown=WAIT)
    return job.result().text


def ask(number: str, question: str) -> AsyncResult:
    """Both tasks, one after the other. Called twice with one number it is one job."""
    return chain(submit.s(number, question), collect.s()).apply_async()
