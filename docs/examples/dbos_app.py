"""Research inside DBOS: one step submits, others collect, with a sleep between them that outlives the process.

    pip install 'aiopplx[postgres]' dbos
    python dbos_app.py "order 7" "Why did the Vasa sink?"

RESEARCH_JOURNAL is the journal, postgresql://user@host/database?schema=research, DBOS_SYSTEM_DATABASE_URL the database
of DBOS, and PERPLEXITY_API_KEY the key. Started again after a crash, it goes on where it was.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from anyio.from_thread import BlockingPortal, start_blocking_portal
from dbos import DBOS, SetWorkflowID

from aiopplx import JobStatus, Session

WAIT = float(os.environ.get("RESEARCH_WAIT", "25"))
"""Seconds for which a step waits, and for which the workflow sleeps before the next one."""

portal: BlockingPortal
session: Session


@DBOS.step()
def submit(number: str, question: str) -> str:
    """Returns as soon as the service has the question. Run twice, it is one job: the number is its tag."""
    return portal.call(partial(session.submit, question, tag=number)).token


@DBOS.step()
def collect(token: str) -> str | None:
    """The answer; None if the job still runs."""
    job = portal.call(partial(session.wait, token, timeout=WAIT))
    return None if job.status is JobStatus.TIMED_OUT else job.result().text


@DBOS.workflow()
def research(number: str, question: str) -> str:
    """A process that dies anywhere in this is followed by another one, which goes on."""
    token = submit(number, question)
    while (answer := collect(token)) is None:
        DBOS.sleep(WAIT)
    return answer


def main(number: str, question: str) -> None:
    """Print the answer."""
    global portal, session
    DBOS(config={"name": "research", "system_database_url": os.environ["DBOS_SYSTEM_DATABASE_URL"]})
    opened = Session(journal=os.environ["RESEARCH_JOURNAL"], rpm=60)
    # One session for the life of the process, in an event loop in a thread of its own: steps run in many threads.
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened) as session:
        DBOS.launch()  # goes on with every workflow that was left
        try:
            with SetWorkflowID(number):
                print(DBOS.start_workflow(research, number, question).get_result())
        finally:
            DBOS.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
