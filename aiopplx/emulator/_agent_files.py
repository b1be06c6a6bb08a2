"""The files that a run of the Agent API shares: which ones it has, their list, and one file's content.

The names are the caller's, sent as they are, so that a client can be shown bad ones. This module knows nothing of
routes, or of when a run has ended.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from hashlib import blake2b
from urllib.parse import quote

import msgspec

from aiopplx.emulator._agent_request import Asking
from aiopplx.emulator._exchange import Reply, as_json, error
from aiopplx.emulator._ledger import JobRecord

USUAL: Mapping[str, bytes] = {"results.csv": b"year,ship,meters\n1628,Vasa,69\n1676,Kronan,53\n"}
"""What a run with the tool `sandbox` shares unless the emulator is given other files."""

_TYPES = {".csv": "text/csv", ".json": "application/json", ".txt": "text/plain", ".md": "text/markdown"}
_OCTETS = "application/octet-stream"


class _File(msgspec.Struct):
    """One row of the list, members in the order of the service's types."""

    bytes: int
    created_at: int
    filename: str
    id: str
    object: str = "file"


class Files:
    """The files of every run that lists the tool `sandbox`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(files)

    def items(self, job: JobRecord, asking: Asking) -> list[bytes]:
        """The run's `share_file` items, as JSON."""
        return [
            msgspec.json.encode({
                "call_id": f"call_{id.removeprefix('file_')}",
                "file_id": id,
                "filename": name,
                "size_bytes": len(content),
                "type": "share_file",
                "url": f"/v1/responses/{job.id}/files/{id}/content",
            })
            for id, (name, content) in self._of(job, asking).items()
        ]

    def listed(self, job: JobRecord, asking: Asking) -> Reply:
        """The answer to a request for the list."""
        rows = [
            _File(len(content), int(job.finished_at), name, id) for id, (name, content) in self._of(job, asking).items()
        ]
        return as_json(200, {"data": rows, "object": "list"})

    def content(self, job: JobRecord, asking: Asking, id: str) -> Reply:
        """The answer to a request for one file."""
        found = self._of(job, asking).get(id)
        if found is None:
            return error(404, "not_found", "resource not found")
        name, content = found
        kind = next((kind for ending, kind in _TYPES.items() if name.lower().endswith(ending)), _OCTETS)
        # Percent-encoded (RFC 8187): as it is, a name could break the header.
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Reply(200, content, kind, headers)

    def _of(self, job: JobRecord, asking: Asking) -> dict[str, tuple[str, bytes]]:
        if not asking.has_tool("sandbox"):
            return {}
        return {_id(job.id, at): each for at, each in enumerate(self._files.items())}


def _id(job_id: str, at: int) -> str:
    return f"file_{uuid.UUID(bytes=blake2b(b'%s/%d' % (job_id.encode(), at), digest_size=16).digest(), version=4)}"
