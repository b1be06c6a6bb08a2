"""The jobs of a run, kept until it ends, for files that can only be written as a whole.

A job has some 100 KB: they are kept in a file without a name, beside the file of answers, and read one at a time.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

import msgspec

from aiopplx.cli._exits import OutputLost, UsageError

if TYPE_CHECKING:
    from aiopplx import Job


class Kept(Sequence["Job"]):
    """Jobs in the order of their questions.

    Args:
        folder: where there is room for them.

    Attributes:
        ids: the names of the jobs (`name_of`).

    Raises:
        UsageError: there is no room.
    """

    def __init__(self, folder: str) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder or os.curdir)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise UsageError(f"cannot write into {folder or os.curdir}: {error.strerror}") from None
        self._spans: dict[int, tuple[int, int]] = {}
        self._order: list[int] = []
        self.ids: set[str] = set()

    def put(self, at: int, job: Job) -> None:
        """Keep a job. Raises `OutputLost`: there is no room.

        Args:
            at: its position among the questions.
            job: it.
        """
        data = zlib.compress(pickle.dumps(msgspec.structs.replace(job, raw=b"")), 1)
        try:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
        except OSError as error:
            raise OutputLost(f"cannot keep the answers: {error.strerror}") from None
        self._spans[at] = (start, len(data))
        self._order = []
        self.ids.add(name_of(job))

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        self._order = self._order or sorted(self._spans)
        if isinstance(index, slice):
            return [self._at(at) for at in self._order[index]]
        return self._at(self._order[index])

    def __iter__(self) -> Iterator[Job]:
        return (self[index] for index in range(len(self)))

    def _at(self, at: int) -> Job:
        start, size = self._spans[at]
        self._file.seek(start)
        job: Job = pickle.loads(zlib.decompress(self._file.read(size)))  # noqa: S301 - written by this process
        return job

    def close(self) -> None:
        """Forget them."""
        self._file.close()


def name_of(job: Job) -> str:
    """By what a report knows a job: its id, `?` for an answer without one, `""` for what was never accepted."""
    return job.id or ("?" if job.ok else "")
