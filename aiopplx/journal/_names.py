"""The name by which a submission is found again.

It is its tag. Without one, a question of a batch is found by the request itself plus a counter for repeats within the
batch: the same source given again is the same questions, in this session or in another. It never depends on the
position in the source, so questions may be added, removed and reordered between two runs. A single call without a tag
is like no other, and has the name of its key. This module does not know where names are stored, nor any API.
"""

from __future__ import annotations

import hashlib
import json


def sha_of(canonical: bytes) -> bytes:
    """SHA-256 of a canonical request, 32 bytes: equal for equal requests only."""
    return hashlib.sha256(canonical).digest()


def item_name(tag: str | int | None, sha: bytes, occurrence: int = 1) -> str:
    """The name of a submission in a journal.

    Args:
        tag: the caller's tag; `1` and `"1"` are different tags. None if there is none.
        sha: `sha_of` the canonical request: everything that the server is asked, without key, tag and time limit, in
            an order of fields that is the same in all versions of the library.
        occurrence: counts this same request within its batch, from 1; see `Occurrences`. Two equal questions in one
            file are two submissions.

    Returns:
        `tag:<JSON of the tag>`, or `req:<hex>#<occurrence>` without one. ASCII in either case.
    """
    return f"req:{sha.hex()}#{occurrence}" if tag is None else f"tag:{json.dumps(tag)}"


def key_name(key: str) -> str:
    """The name of a submission without a tag that is like no other: only the same key is the same submission."""
    return f"key:{json.dumps(key)}"


def job_name(job_id: str) -> str:
    """The name of a job whose request is unknown because it was submitted elsewhere."""
    return f"job:{json.dumps(job_id)}"


class Occurrences:
    """Counts equal requests within one batch.

    Attributes:
        run: the batch's own id, under which the store keeps the order of its items.

    It keeps eight bytes of each digest, about 80 bytes of memory for each distinct request. If two digests begin with
    the same bytes, the second counts as a repeat; since it does so each time, it is still found again.
    """

    __slots__ = ("_repeated", "_seen", "run")

    def __init__(self, run: str = "") -> None:
        self.run: str = run
        self._seen: set[int] = set()
        self._repeated: dict[int, int] = {}

    def name(self, tag: str | int | None, sha: bytes) -> str:
        """The name of the batch's next item."""
        return item_name(tag, sha) if tag is not None else item_name(None, sha, self.count(sha))

    def count(self, sha: bytes) -> int:
        """The number of this occurrence of the request, from 1."""
        short = int.from_bytes(sha[:8], "big")
        if short not in self._seen:
            self._seen.add(short)
            return 1
        self._repeated[short] = self._repeated.get(short, 1) + 1
        return self._repeated[short]


def fingerprint(api_key: str, salt: bytes) -> str:
    """Eight hex digits that distinguish API keys, and from which the key cannot be recovered.

    32 bits: a search over all possible keys finds far too many with the same fingerprint.
    """
    return hashlib.sha256(salt + api_key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
