"""Files of a job: listed, and brought whole to their place or not at all, whatever the server and the disk do."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from _faulty import KEY, emulator, session_at

from aiopplx import (
    AgentRequest,
    AuthenticationError,
    ConfigError,
    InvalidRequest,
    Job,
    NotFound,
    ProtocolError,
    ResponseTooLarge,
    Session,
    TransportError,
)
from aiopplx._core.job.files import download
from aiopplx.agent import JobFile
from aiopplx.emulator import AfterPolls, Emulator, WireServer, faults, wire

WRITES = AgentRequest("Which ships?", effort="low", tools=[{"type": "sandbox"}])
ID = "resp_00000000-0000-4000-8000-000000000001"
CONTENT = bytes(range(256)) * 5_000
NAMES = {"a b.csv": b"1,2\n", "../../etc/passwd": b"\x00\xff", "CON.txt": b"", "big.bin": CONTENT}
WATCHED = b"what stood there before"


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    async with emulator(duration=AfterPolls(1), files=NAMES) as started:
        yield started


async def finished(session: Session) -> Job:
    job = await session.ask(WRITES)
    assert job.ok
    return job


def left_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


async def test_files_are_listed_and_downloaded_whole(server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        found = await session.files(job.id)
        assert [(file.filename, file.size) for file in found] == [(name, len(NAMES[name])) for name in NAMES]
        assert all(file.created_at for file in found)
        for file in found:
            path = await session.download(job, file, tmp_path)
            assert path == tmp_path / file.name
            assert path.read_bytes() == NAMES[file.filename]
        assert left_in(tmp_path) == ["_CON.txt", "a b.csv", "big.bin", "passwd"]
        by_id = await session.download(job.id, found[3].id, str(tmp_path / "copy"))
        assert by_id.read_bytes() == CONTENT


async def test_new_file_has_the_permissions_of_any_other(server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        path = await session.download(job, (await session.files(job))[0], tmp_path / "a")
    (tmp_path / "b").touch()
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode


async def test_existing_file_is_replaced_only_by_its_path(server: Emulator, tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_bytes(WATCHED)
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        file = (await session.files(job))[0]
        with pytest.raises(FileExistsError, match="path of the file itself"):
            await session.download(job, file, tmp_path)
        assert (tmp_path / "a b.csv").read_bytes() == WATCHED
        await session.download(job, file, tmp_path / "a b.csv")
        assert (tmp_path / "a b.csv").read_bytes() == b"1,2\n"


async def test_link_in_the_place_is_replaced_and_not_followed(server: Emulator, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(WATCHED)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        await session.download(job, (await session.files(job))[0], tmp_path / "link")
    assert (tmp_path / "elsewhere").read_bytes() == WATCHED
    assert not (tmp_path / "link").is_symlink()


async def test_sonar_has_no_files_and_nothing_is_asked(server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="sonar") as session:
        for call in (session.files("2c387cce-0000"), session.download("2c387cce-0000", "file_1", tmp_path / "a")):
            with pytest.raises(InvalidRequest, match="no files"):
                await call
    assert not server.ledger.requests
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("job_id", "file_id"), [("..", "file_1"), (ID, ""), (ID, ".."), (ID, "x" * 100_000)])
async def test_text_that_can_be_no_id_is_refused(job_id: str, file_id: str, server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="agent") as session:
        with pytest.raises(InvalidRequest):
            await session.download(job_id, file_id, tmp_path / "a")
    assert not server.ledger.requests


async def test_id_of_any_characters_is_one_path_part(tmp_path: Path) -> None:
    async with WireServer([wire.Say(200, CONTENT)]) as server, session_at(server.url, api="agent") as session:
        path = await session.download("resp_../x", "../../v1/keys?a", tmp_path)
        assert [request.path for request in server.requests] == [
            "/v1/responses/resp_..%2Fx/files/..%2F..%2Fv1%2Fkeys%3Fa/content"
        ]
    assert path == tmp_path / "keys_a"


async def test_unknown_job_or_file_is_not_found(server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        with pytest.raises(NotFound) as caught:
            await session.files(ID)
        assert caught.value.job_id == ID
        with pytest.raises(NotFound):
            await session.download(job, "file_unknown", tmp_path / "a")
    assert left_in(tmp_path) == []


FAULTS: list[tuple[faults.Fault, int]] = [
    (faults.Status(502, html=True), 2),
    (faults.Drop(), 2),
    (faults.RateLimited(retry_after="1"), 2),
    (faults.Hang(30.0), 1),
]


@pytest.mark.parametrize(("fault", "times"), FAULTS)
async def test_download_goes_on_after_what_passes(fault: faults.Fault, times: int, tmp_path: Path) -> None:
    async with emulator(duration=AfterPolls(1), files=NAMES) as server:
        server.faults.add("files", fault, times=times)
        server.faults.add("content", fault, times=times)
        more = {"file_seconds": 0.5, "poll_seconds": 0.5} if isinstance(fault, faults.Hang) else {}
        async with session_at(server.url, api="agent", **more) as session:
            job = await finished(session)
            path = await session.download(job, (await session.files(job))[3], tmp_path)
            assert path.read_bytes() == CONTENT
    assert left_in(tmp_path) == ["big.bin"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Status(500), None),
        (faults.Status(401), AuthenticationError),
        (faults.Status(404), NotFound),
        (faults.Redirect(to="https://elsewhere.example/file"), ProtocolError),
        (faults.Drop(reset=True), TransportError),
    ],
)
async def test_failed_download_leaves_what_was_there(
    fault: faults.Fault, error: type[Exception] | None, server: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(WATCHED)
    server.faults.add("content", fault)
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        with pytest.raises(error or Exception) as caught:
            await session.download(job, (await session.files(job))[3], tmp_path / "a")
        assert caught.value.job_id == job.id
        assert (await session.ask("Why?")).ok, "a download stops nothing else"
    assert left_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == WATCHED


@pytest.mark.parametrize(
    "body",
    [b'{"error": {"message": "expired", "code": 410}}', b'{"title": "Gone", "status": 410, "detail": "expired"}'],
)
async def test_error_in_place_of_a_file_replaces_nothing(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(WATCHED)
    async with (
        WireServer([wire.Say(200, body)]) as server,
        session_at(server.url, api="agent", poll_seconds=5.0) as session,
    ):
        for file in ("file_1", JobFile("file_1", "a")):
            with pytest.raises(ProtocolError, match=r"error in place of the file: .*expired"):
                await session.download(ID, file, tmp_path / "a")
        # What is as large as the list says is the file, whatever is in it.
        path = await session.download(ID, JobFile("file_1", "a.json", len(body)), tmp_path / "b")
        assert path.read_bytes() == body
    assert (tmp_path / "a").read_bytes() == WATCHED
    assert left_in(tmp_path) == ["a", "b"]


async def test_redirect_is_not_followed_and_the_key_stays(tmp_path: Path) -> None:
    async with WireServer([wire.Say()]) as elsewhere:
        to = (("Location", f"{elsewhere.url}/file"),)
        async with (
            WireServer([wire.Say(302, b"", headers=to)]) as server,
            session_at(server.url, api="agent") as session,
        ):
            with pytest.raises(ProtocolError, match="redirects are not followed"):
                await session.download(ID, "file_1", tmp_path / "a")
        assert KEY.encode() not in b"".join(request.data for request in elsewhere.requests)
        assert not elsewhere.requests
    assert left_in(tmp_path) == []


CUT: list[tuple[wire.Behaviour, type[Exception]]] = [
    (wire.Cut(CONTENT), TransportError),
    (wire.Cut(CONTENT, how="chunked"), TransportError),
    (wire.Cut(CONTENT, how="gzip"), ProtocolError),
    (wire.Cut(CONTENT, how="until_close"), ProtocolError),
    (wire.Cut(CONTENT, reset=True), TransportError),
    (wire.BAD_GZIP, TransportError),
    (wire.GARBAGE, ProtocolError),
    (wire.Say(206, CONTENT), ProtocolError),
    (wire.Say(204, b""), ProtocolError),
]


@pytest.mark.parametrize(("behaviour", "error"), CUT)
async def test_content_that_is_cut_short_is_no_file(
    behaviour: wire.Behaviour, error: type[Exception], tmp_path: Path
) -> None:
    async with WireServer([behaviour]) as server, session_at(server.url, api="agent") as session:
        with pytest.raises(error):
            await session.download(ID, "file_1", tmp_path / "a")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("how", ["until_close", "gzip"])
async def test_cut_that_http_hides_shows_in_the_size(how: Literal["until_close", "gzip"], tmp_path: Path) -> None:
    async with (
        WireServer([wire.Cut(CONTENT, how=how)]) as server,
        session_at(server.url, api="agent") as session,
    ):
        with pytest.raises(ProtocolError, match="in the list of files"):
            await session.download(ID, JobFile("file_1", "big.bin", len(CONTENT)), tmp_path)
    assert left_in(tmp_path) == []


async def test_attempt_after_a_cut_one_begins_the_file_anew(tmp_path: Path) -> None:
    async with (
        WireServer([wire.Cut(CONTENT, keep=0.9), wire.Say(200, CONTENT[::-1])]) as server,
        session_at(server.url, api="agent") as session,
    ):
        path = await session.download(ID, "file_1", tmp_path / "a")
        assert path.read_bytes() == CONTENT[::-1]


ANNOUNCED = wire.Say(200, b"x" * 2_000)
UNANNOUNCED = wire.Bytes(wire.OK + b"\r\n" + b"x" * 2_000)


@pytest.mark.parametrize("behaviour", [ANNOUNCED, UNANNOUNCED], ids=["announced", "unannounced"])
async def test_file_beyond_the_bound_is_given_up_at_once(behaviour: wire.Behaviour, tmp_path: Path) -> None:
    async with (
        WireServer([behaviour]) as server,
        session_at(server.url, api="agent", max_file_bytes=1_999) as session,
    ):
        with pytest.raises(ResponseTooLarge, match="max_file_bytes"):
            await session.download(ID, "file_1", tmp_path / "a")
        assert len(server.requests) == 1
    async with WireServer([behaviour]) as server, session_at(server.url, api="agent", max_file_bytes=2_000) as session:
        file = JobFile("file_1", "a", 2_000)
        assert (await session.download(ID, file, tmp_path / "a")).stat().st_size == 2_000


async def test_file_larger_than_an_answer_may_be_is_fine(server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="agent", max_response_bytes=100_000) as session:
        job = await finished(session)
        assert (await session.download(job, (await session.files(job))[3], tmp_path)).read_bytes() == CONTENT


async def test_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    async with (
        WireServer([wire.Drip(every=0.01, size=1_000_000)]) as server,
        session_at(server.url, api="agent", poll_seconds=60.0) as session,
    ):
        task = asyncio.create_task(session.download(ID, "file_1", tmp_path / "a"))
        while not left_in(tmp_path):  # noqa: ASYNC110 - a directory wakes nobody
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left_in(tmp_path) == []


async def test_session_that_is_closed_ends_its_single_calls() -> None:
    async with WireServer([wire.Silent()]) as server:
        session = session_at(server.url, api="agent")
        async with session:
            calls = [asyncio.create_task(call) for call in (session.get(ID), session.files(ID))]
            await server.until(lambda: len(server.requests) == 2)
        for call in calls:
            with pytest.raises((ConfigError, TransportError)):
                await call


async def test_session_that_is_closed_ends_its_downloads(tmp_path: Path) -> None:
    async with WireServer([wire.Drip(every=0.01, size=1_000_000)]) as server:
        session = session_at(server.url, api="agent")
        async with session:
            task = asyncio.create_task(session.download(ID, "file_1", tmp_path / "a"))
            while not left_in(tmp_path):  # noqa: ASYNC110 - a directory wakes nobody
                await asyncio.sleep(0)
        with pytest.raises((ConfigError, TransportError)):
            await task
        assert left_in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="a disk that is full, or forbidden")
async def test_disk_that_takes_nothing_is_told_as_that(server: Emulator, tmp_path: Path) -> None:
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        file = (await session.files(job))[3]
        with pytest.raises(FileNotFoundError):
            await session.download(job, file, tmp_path / "nowhere" / "a")
        with pytest.raises(OSError, match="too long"):
            await session.download(job, file, tmp_path / ("x" * 300))
    assert server.ledger.requests["GET /v1/responses/{id}/files/{file_id}/content"] <= 2, "not asked for again"
    assert left_in(tmp_path) == []


async def test_memory_does_not_grow_with_the_file(server: Emulator, tmp_path: Path) -> None:
    size = 64 * 1024 * 1024
    async with session_at(server.url, api="agent") as session:
        job = await finished(session)
        file = (await session.files(job))[0]
        await session.download(job, file, tmp_path / "warm")
        server.faults.add("content", faults.Flood("plain", size=size))
        gc.collect()
        tracemalloc.start()
        try:
            await session.download(job, file.id, tmp_path / "a")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size == size
    assert peak < size / 8


LISTS: list[tuple[Any, Callable[[list[JobFile]], bool] | None]] = [
    ({"object": "list", "data": []}, lambda found: found == []),
    ({"data": [{"id": "f"}]}, lambda found: found == [JobFile("f")]),
    (
        {"data": [{"filename": "a"}, 7, None, {"id": ""}, {"id": 5}, {"id": "f", "bytes": -1}]},
        lambda f: f == [JobFile("f")],
    ),
    ({"data": [{"id": "f", "bytes": "many", "filename": 5, "new": 1}]}, lambda found: found == [JobFile("f")]),
    ({"data": None}, None),
    ([], None),
    ({}, None),
    (b"<html>", None),
]


@pytest.mark.parametrize(("body", "is_right"), LISTS)
async def test_every_readable_row_of_a_list_is_used(
    body: Any, is_right: Callable[[list[JobFile]], bool] | None
) -> None:
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with WireServer([wire.Say(200, said)]) as server, session_at(server.url, api="agent") as session:
        if is_right is None:
            with pytest.raises(ProtocolError):
                await session.files(ID)
        else:
            assert is_right(await session.files(ID))


# --- a disk that stalls ----------------------------------------------------------------------------------------------


class Stalling(type(Path())):  # type: ignore[misc]  # the kind of path of this system
    """A path whose unfinished file is at a disk that does not answer until the test lets it."""

    is_in = threading.Event()
    back = threading.Event()

    def with_name(self, name: str) -> Stalling:
        return Stalling(super().with_name(name))

    def __fspath__(self) -> str:
        if self.name.endswith(".part") and threading.current_thread() is not threading.main_thread():
            self.is_in.set()
            self.back.wait(60)
        return super().__fspath__()


async def test_download_at_a_stalled_disk_is_left_at_once(server: Emulator, tmp_path: Path) -> None:
    Stalling.is_in.clear()
    Stalling.back.clear()
    try:
        with anyio.fail_after(20):
            async with session_at(server.url, api="agent") as session:
                job = await finished(session)
                (file, *_) = await session.files(job)
                life = session._running().life
                api = life.routing.api_of(job.id, job.api)
                task = asyncio.create_task(download(life, api, job.id, file, Stalling(tmp_path / "a")))
                await anyio.to_thread.run_sync(Stalling.is_in.wait, 20)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
    finally:
        Stalling.back.set()
    with anyio.fail_after(20):  # what the stalled step still makes goes with it
        while any(thread.name == "aiopplx-disk" for thread in threading.enumerate()):  # noqa: ASYNC110 - it wakes nobody
            await asyncio.sleep(0.01)
    assert left_in(tmp_path) == []
