"""What a program sees that has set up no logging."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiopplx import Event, EventKind, JobStatus
from aiopplx._events import Emitter

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
    assert "WARNING:aiopplx:left job a-paid-job" in done.stderr
    assert "key doubtful" in done.stderr
    assert "warning: nothing of a job" in done.stderr
    assert "another" not in done.stderr
    assert done.stdout == ""


SHOWN = """
import logging, logging.config, sys
import aiopplx
from aiopplx import Event, EventKind
from aiopplx._events import Emitter
{setup}
Emitter().emit(Event(kind=EventKind.WARNING, reason="what costs money"))
logging.getLogger("aiopplx.contrib").warning("of a %s", "part")
"""
BARE = "WARNING:aiopplx:warning: what costs money\nWARNING:aiopplx.contrib:of a part\n"
MINE = "mine warning: what costs money\nmine of a part\n"


@pytest.mark.parametrize(
    ("setup", "seen"),
    [
        ("", BARE),
        ("import uvicorn.config; logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)", BARE),
        ("logging.basicConfig(format='mine %(message)s')", MINE),
        ("logging.getLogger('aiopplx').propagate = False", BARE),
        ("logging.getLogger('aiopplx').addHandler(logging.NullHandler())", ""),
        ("logging.lastResort = None", ""),
        ("logging.getLogger('aiopplx').setLevel(logging.ERROR)", ""),
    ],
    ids=["bare", "uvicorn", "set up", "alone", "silenced", "no last resort", "errors only"],
)
def test_warnings_have_level_and_logger_where_nobody_set_up(setup: str, seen: str) -> None:
    program = SHOWN.format(setup=setup)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", seen)


ROW = re.compile(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def levels_in_the_documents() -> dict[str, str]:
    """By the name of a kind, as the page on backends has them."""
    page = (Path(__file__).parents[1] / "docs" / "backends.md").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for kinds, levels in ROW.findall(page):
        names = re.findall(r"[A-Z_]+", kinds)
        said = levels.split("; ")[0].split(", ")
        found |= dict(zip(names, said if len(said) == len(names) else said * len(names), strict=True))
    return found


def test_levels_of_the_log_are_those_of_the_page(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aiopplx")
    for kind in EventKind:
        Emitter().emit(Event(kind=kind, job_id="a-job"))
    logged = dict(zip([kind.name for kind in EventKind], [line.levelname for line in caplog.records], strict=True))
    assert logged == levels_in_the_documents()
    Emitter().emit(Event(kind=EventKind.FINISHED, status=JobStatus.IN_DOUBT))
    assert caplog.records[-1].levelname == "WARNING"
