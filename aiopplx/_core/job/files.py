"""The files that a job shared: their list, and one of them brought to a place on this machine.

A download is written beside its place under a name of its own, in pieces, and takes the place only when it is whole and
on the disk. So a reader of that place never sees half a file, and memory does not depend on the size. Whatever ends a
download early (an error, a cancellation) takes the unfinished file with it.

This module knows nothing of HTTP, of batches, or of what is in a file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from aiopplx._core.lifecycle import Lifecycle
from aiopplx._errors import AiopplxError, ProtocolError
from aiopplx._http.apart import SWALLOWED, closed, in_thread
from aiopplx._job import JobFile
from aiopplx._text.safe import safe_filename
from aiopplx._wire.api import API
from aiopplx._wire.call import Reply, error_said

SMALL = 64 * 1024
"""Bytes of a content that may be the words of an error in place of a file."""
PIECE = 1024 * 1024
"""Bytes that are collected before they are written: each write is a visit to another thread."""


async def files(life: Lifecycle, api: API, job_id: str) -> list[JobFile]:
    """The files that a job shared, none while it runs.

    Raises:
        InvalidRequest: the API has no files, or this is not a job id.
        NotFound: the server knows no such job.
        AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
    """
    try:
        return list(await life.client.call(api.files(job_id), api.read_files))
    except AiopplxError as error:
        raise error.about(job_id=job_id) from None


async def download(life: Lifecycle, api: API, job_id: str, file: JobFile | str, path: Path) -> Path:
    """One file, whole, at `path`; in a directory, under its own name made safe.

    Raises:
        InvalidRequest: the API has no files, or one of the ids is none.
        NotFound: the server knows no such job or file.
        FileExistsError: the directory has a file of that name.
        OSError: it could not be written.
        AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
    """
    file_id, size = (file.id, file.size) if isinstance(file, JobFile) else (file, None)
    call = api.file(job_id, file_id)
    if await in_thread(path.is_dir):
        path /= file.name if isinstance(file, JobFile) else safe_filename(file_id)
        if await in_thread(partial(os.path.lexists, path)):
            raise FileExistsError(f"{path} exists: give the path of the file itself to have it replaced")
    part = _Part(path)

    def whole(reply: Reply) -> None:
        if reply.status != 200:
            raise ProtocolError("the server answered with something other than a file", status=reply.status)
        if size is None and not _says_its_end(reply):
            raise ProtocolError(
                "the answer does not show whether the file is whole",
                status=200,
                remedy="Give one of session.files(), whose size is known",
            )
        if size == part.size:
            return  # whatever is in it
        if said := error_said(Reply(reply.status, reply.headers, part.beginning())):
            raise ProtocolError(
                f"the server answered with an error in place of the file: {said}",
                status=200,
                remedy="If that is what the file says, give one of session.files(), whose size is known",
            )
        if size is not None:
            raise ProtocolError(f"the file has {part.size:,} bytes, and {size:,} in the list of files", status=200)

    try:
        await life.client.call(call, whole, part)
        await part.finish()
    except AiopplxError as error:
        if part.problem is not None:
            raise part.problem from None
        raise error.about(job_id=job_id) from None
    finally:
        await part.discard()
    return path


def _says_its_end(reply: Reply) -> bool:
    """Whether a content that was cut short would have been noticed: its compressed form may end anywhere."""
    headers = reply.headers
    is_framed = "content-length" in headers or "chunked" in (headers.get("transfer-encoding") or "").lower()
    return is_framed and (headers.get("content-encoding") or "identity").strip().lower() == "identity"


class _Part:
    """The unfinished file: the sink of one download.

    Its steps run in another thread, and one may still run when its download is cancelled, for as long as the disk
    takes: whoever comes last of it and `discard` removes the file.

    Attributes:
        size: bytes received in this attempt.
        problem: why it could not be written.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self.problem: OSError | None = None
        self._path = path
        self._place = path.with_name(f".{path.name[:40]}.{os.urandom(6).hex()}.part")
        self._number = -1
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._is_over = False
        self._is_in_place = False

    async def begin(self) -> bool:
        """An attempt brings the file from its beginning. Returns False if it cannot be written."""
        self.size = 0
        self._waiting.clear()
        return await self._tried(self._emptied)

    async def take(self, piece: bytes) -> bool:
        """The next bytes. Returns False if they cannot be written."""
        self.size += len(piece)
        self._waiting += piece
        return len(self._waiting) < PIECE or await self._tried(self._written)

    def beginning(self) -> bytes:
        """All of it, if it is small; else nothing."""
        return bytes(self._waiting) if self.size == len(self._waiting) <= SMALL else b""

    async def _tried(self, step: Callable[[], None]) -> bool:
        try:
            await in_thread(partial(self._alone, step))
        except OSError as problem:
            self.problem = problem
            return False
        return True

    def _alone(self, step: Callable[[], None]) -> None:
        try:
            with self._lock:
                if not self._is_over:
                    step()
        finally:
            if self._is_over:
                self._remove()

    def _emptied(self) -> None:
        if self._number < 0:
            # The permissions of any new file of this process; never a file, or a link, that is there already.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._number = os.open(self._place, flags, 0o666)
        os.ftruncate(self._number, 0)
        os.lseek(self._number, 0, os.SEEK_SET)

    def _written(self) -> None:
        unwritten = memoryview(bytes(self._waiting))
        self._waiting.clear()
        while unwritten:
            unwritten = unwritten[os.write(self._number, unwritten) :]

    async def finish(self) -> None:
        """Put it in its place, once it is on the disk. Raises `OSError`."""
        await in_thread(partial(self._alone, self._finished))

    def _finished(self) -> None:
        self._written()
        os.fsync(self._number)
        self._close()
        os.replace(self._place, self._path)
        self._is_in_place = True
        _sync_directory(self._path.parent)

    async def discard(self) -> None:
        """Remove what is unfinished; after `finish`, nothing is. Returns soon, also if the disk stalls."""
        self._is_over = True
        if self._is_in_place:
            return
        with anyio.CancelScope(shield=True), contextlib.suppress(TimeoutError, OSError):
            await closed(in_thread(self._remove), SWALLOWED)

    def _remove(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # a step runs: it does so at its end
        try:
            self._close()
            if not self._is_in_place:
                with contextlib.suppress(OSError):
                    self._place.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


def _sync_directory(path: Path) -> None:
    """That the name is on the disk too, where the platform can say so of a directory."""
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
