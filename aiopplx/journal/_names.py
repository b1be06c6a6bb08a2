"""By what name a submission is found again: its tag, or what it asks and the how-manieth asking it is.

Never its position in the source: questions may be added, removed and reordered between two runs. This module knows
nothing of where names are kept, nor of any API.
"""

from __future__ import annotations

import hashlib
import json


def sha_of(canonical: bytes) -> bytes:
    """SHA-256 of a canonical request: 32 bytes by which two requests are the same or not."""
    return hashlib.sha256(canonical).digest()


def item_name(tag: str | int | None, sha: bytes, occurrence: int = 1) -> str:
    """The name under which a journal knows a submission.

    Args:
        tag: the user's own name for it; `1` and `"1"` are two tags. None if there is none.
        sha: `sha_of` the canonical request: everything the server is asked, without key, tag and time limit, in an
            order of fields that does not change from one version of the library to the next.
        occurrence: the how-manieth submission of this very request in the run, from 1; see `Occurrences`. Two equal
            questions in one file are two submissions.

    Returns:
        `tag:<JSON of the tag>`, or `req:<hex>#<occurrence>` without one. ASCII in either case.
    """
    return f"req:{sha.hex()}#{occurrence}" if tag is None else f"tag:{json.dumps(tag)}"


def job_name(job_id: str) -> str:
    """The name of a job whose request is not known here: it was submitted elsewhere."""
    return f"job:{json.dumps(job_id)}"


class Occurrences:
    """Counts equal requests within one run.

    It keeps eight bytes of each digest, about 80 bytes of memory for each distinct request. Where two digests begin
    alike, the second counts as a repetition; since it does so in every run, it is still found again.
    """

    __slots__ = ("_repeated", "_seen")

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._repeated: dict[int, int] = {}

    def count(self, sha: bytes) -> int:
        """Which occurrence of this request this one is, from 1."""
        short = int.from_bytes(sha[:8], "big")
        if short not in self._seen:
            self._seen.add(short)
            return 1
        self._repeated[short] = self._repeated.get(short, 1) + 1
        return self._repeated[short]


def fingerprint(api_key: str, salt: bytes) -> str:
    """Eight hex digits that tell one API key from another and from which no key can be found again.

    32 bits: at four thousand million keys to one, a search over keys finds a multitude that fit.
    """
    return hashlib.sha256(salt + api_key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
