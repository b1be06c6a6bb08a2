"""A PostgreSQL server of the tests' own: the machine's programs, a folder of its own, a socket, no network.

`initdb` refuses root, as which containers run tests: there the server runs as the user that Debian's package makes.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiopplx.journal._postgres.driver import AsyncpgDatabase
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._postgres.lease import Timing
from aiopplx.journal._postgres.url import address_of

USER = "postgres"
REQUIRED = "AIOPPLX_TESTS_NEED_POSTGRES"
"""Set where a machine without PostgreSQL is a mistake: these tests then fail there, and are not skipped."""
SECONDS = 60.0
SETTINGS = {"listen_addresses": "''", "max_connections": "100", "synchronous_commit": "on", "autovacuum_naptime": "1s"}
# A crash of the machine is not what is tried here; a crash of the server loses nothing without these.
FAST = {"fsync": "off", "full_page_writes": "off"}

PATIENT = Timing(beat=600.0, lease=2400.0)
"""For sessions that live as long as a test: a machine that stands still ends no lease, and no beat comes between."""


def programs() -> Path | None:
    """The folder of the newest server programs on this machine."""
    found = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    return max(found, key=lambda path: [int(part) for part in path.parts if part.isdecimal()], default=None)


def _as_user() -> dict[str, Any]:
    """How a program is started as somebody who may run a server."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Server:
    """One server. `url()` is a new, empty schema each time."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder = folder
        self._bin = bin
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = itertools.count(1)
        self._emptied = ""

    def make(self) -> None:
        command = [self._bin / "initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS, cwd=self.folder, **_as_user())

    def start(self, **settings: str) -> None:
        words = SETTINGS | FAST | {"unix_socket_directories": f"'{self.folder}'"} | settings
        options = [option for name, value in words.items() for option in ("-c", f"{name}={value.strip(chr(39))}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options],
                stderr=log,
                stdout=log,
                cwd=self.folder,
                **_as_user(),
            )
        end = time.monotonic() + SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{self.log()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        asked = [self._bin / "pg_isready", "-q", "-h", self.folder, "-U", USER]
        return subprocess.run(asked, check=False, timeout=SECONDS).returncode == 0

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is what a crash of the server is; `fast` ends its connections in good order."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            stopped = [self._bin / "pg_ctl", "stop", "-D", self._data, "-m", mode, "-w"]
            subprocess.run(stopped, check=False, capture_output=True, timeout=SECONDS, cwd=self.folder, **_as_user())
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def url(self, **words: str) -> str:
        """A `postgresql://` URL of a schema that does not exist yet."""
        words = {"schema": f"t{next(self._schemas)}"} | words
        extra = "".join(f"&{name}={value}" for name, value in words.items())
        return f"postgresql:///postgres?host={self.folder}&user={USER}{extra}"

    async def empty(self) -> str:
        """The URL of a journal without a row, like a new one: making all tables takes longer than most tests."""
        if not self._emptied:
            self._emptied = self.url()
            await (await PostgresJournal.open(self._emptied, timing=PATIENT)).close()
        address = address_of(self._emptied)
        database = AsyncpgDatabase(address)
        tables = ("result", "request", "origin", "past", "learnt", "unread", "job", "worker")
        rows = [f"DELETE FROM {address.schema}.{name}" for name in tables]
        rows.append(f"DELETE FROM {address.schema}.meta WHERE k IN ('base_url', 'account', 'results')")
        numbers = [
            f"ALTER SEQUENCE {address.schema}.{name} RESTART" for name in ("fence", "job_pk_seq", "worker_id_seq")
        ]
        await database.execute(";".join([*rows, *numbers]))
        await database.close()
        return self._emptied


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server. Where the machine has none the test is skipped, or fails if `REQUIRED` is set."""
    bin = programs()
    if bin is None:
        reason = "PostgreSQL's server programs are not on this machine"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not pytest's folder: only its owner may enter that, and the name of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="aiopplx-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        server = Server(folder, bin)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def remove(journal: PostgresJournal) -> None:
    """The session of this journal is declared dead by another one, and knows nothing of it."""
    held, wake = journal._held, journal.wake
    await held.leave()
    wake.freed()
    await wake.tell()


@contextlib.contextmanager
def pooled(server: Server) -> Iterator[Path]:
    """The folder of the socket of a pooler before a server, which gives each transaction another connection."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        reason = "PgBouncer is not on this machine"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="aiopplx-pool-"))
    try:
        (folder / "users").write_text(f'"{USER}" ""\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host={server.folder}\n[pgbouncer]\nlisten_addr =\nlisten_port = 5432\n"
            f"unix_socket_dir = {folder}\nauth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n"
            f"default_pool_size = 3\nlogfile = {folder}/log\n"
        )
        if os.geteuid() == 0:
            for path in (folder, folder / "users", folder / "ini"):
                shutil.chown(path, USER, USER)
        process = subprocess.Popen([program, "-q", folder / "ini"], cwd=folder, **_as_user())
        try:
            end = time.monotonic() + SECONDS
            while not (folder / ".s.PGSQL.5432").exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the pooler did not start")
                time.sleep(0.02)
            yield folder
        finally:
            process.terminate()
            process.wait(SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
