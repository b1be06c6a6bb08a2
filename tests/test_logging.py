"""What a program sees that has set up no logging."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import aiopplx
from aiopplx import Event, EventKind, JobStatus, Session
from aiopplx._events import Emitter
Session("any-key")
Emitter().emit(Event(kind=EventKind.LEFT, job_id="a-paid-job"))
Emitter().emit(Event(kind=EventKind.FINISHED, job_id="another"))
Emitter().emit(Event(kind=EventKind.WARNING, reason="nothing of a job"))
Emitter().emit(Event(kind=EventKind.FINISHED, idempotency_key="doubtful", status=JobStatus.IN_DOUBT))
"""


def test_left_job_is_seen_without_any_logging_setup() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "left job a-paid-job" in done.stderr
    assert "key doubtful" in done.stderr
    assert "warning: nothing of a job" in done.stderr
    assert "another" not in done.stderr
    assert done.stdout == ""
