"""The kernel sees each intent synced before the request leaves, and each id before it is used.

Killing a process does not show this, since the kernel keeps what a dead process wrote; a power cut would.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _child import Spec, start

from aiopplx.emulator import AfterPolls, Emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="strace is for Linux"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = "trace=fdatasync,fsync,pwrite64,write,sendto,sendmsg,writev"
UNFINISHED = re.compile(r"^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>")
WHOLE = re.compile(r"^(\d+)\s+(\w+)\((.*)$")


def may_trace() -> bool:
    """Containers may forbid it."""
    tried = subprocess.run(["strace", "-f", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def events(trace: str) -> list[str]:
    """What matters, in order: `wrote` and `synced` of the log when the call ended, requests when it began, marks."""
    found: list[str] = []
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if match := UNFINISHED.match(line):
            thread, call, said = match.groups()
            begun[thread] = said
            found += sent(call, said)
        elif match := RESUMED.match(line):
            found += done(match[2], begun.pop(match[1], ""))
        elif match := WHOLE.match(line):
            found += sent(match[2], match[3])
            found += done(match[2], match[3])
    return found


def sent(call: str, said: str) -> list[str]:
    if call in ("sendto", "sendmsg", "write", "writev"):
        if "POST /async" in said:
            return ["POST"]
        if "GET /async" in said:
            return ["GET"]
        if match := re.search(r'"reached ([^"]+)"', said):
            return [match[1]]
    return []


def done(call: str, said: str) -> list[str]:
    if "run.db-wal>" not in said:
        return []
    return ["synced"] if call in ("fdatasync", "fsync") else ["wrote"] if call == "pwrite64" else []


def between(found: list[str], begin: str, end: str) -> list[list[str]]:
    """For each `end`, what happened since the last `begin` before it."""
    stretches: list[list[str]] = []
    since: list[str] = []
    for event in found:
        if event == begin:
            since = []
        elif event == end:
            stretches.append(since)
            since = []
        else:
            since.append(event)
    return stretches


def was_synced(stretch: list[str]) -> bool:
    """Something was written to the log, and a sync came after it."""
    return "wrote" in stretch and "synced" in stretch[stretch.index("wrote") :]


async def test_log_is_synced_before_sending_and_before_using_ids(tmp_path: Path) -> None:
    if not may_trace():
        pytest.skip("this machine does not let strace trace")
    trace = tmp_path / "trace"
    async with Emulator(duration=AfterPolls(1), answer_chars=200) as server:
        spec = Spec(
            server.url,
            str(tmp_path / "run.db"),
            str(tmp_path / "out.jsonl"),
            [f"Why did ship {n} sink?" for n in range(4)],
            marks=str(tmp_path / "marks"),
            max_in_flight=1,
        )
        child = start(spec, "strace", "-f", "-y", "-s", "64", "-e", CALLS, "-o", str(trace))
        _, err = await asyncio.to_thread(child.communicate)
        assert child.returncode == 0, err
        assert server.ledger.created == 4
    found = events(trace.read_text(encoding="utf-8", errors="replace"))
    before_post = between(found, "T1-T2", "POST")
    before_look = between(found, "bytes-T3", "GET")
    assert len(before_post) == 4
    assert len(before_look) == 4
    assert all(was_synced(stretch) for stretch in before_post), before_post
    assert all(was_synced(stretch) for stretch in before_look), before_look
    before_handing_out = between(found, "GET", "T4-yield")
    assert all(was_synced(stretch) for stretch in before_handing_out), before_handing_out


def test_reader_of_traces_sees_a_late_sync() -> None:
    """The test above can fail: a POST that leaves while the log is still being synced is not one that waited."""
    late = "\n".join([
        '7 write(5</m>, "reached T1-T2", 13) = 13',
        '8 pwrite64(4</x/run.db-wal>, "..", 4096, 0) = 4096',
        "8 fdatasync(4</x/run.db-wal> <unfinished ...>",
        '7 sendto(9<TCP:[1]>, "POST /async/chat", 900, 0, NULL, 0) = 900',
        "8 <... fdatasync resumed>) = 0",
    ])
    assert [was_synced(one) for one in between(events(late), "T1-T2", "POST")] == [False]
    in_time = "\n".join([*late.splitlines()[:3], late.splitlines()[4], late.splitlines()[3]])
    assert [was_synced(one) for one in between(events(in_time), "T1-T2", "POST")] == [True]
