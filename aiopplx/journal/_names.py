"""The name by which a submission is found again.

It is its tag. Without one, a question of a batch is found by the request itself plus a counter for repeats within the
batch: the same source given again is the same questions, in this session or in another. It never depends on the
position in the source, so questions may be added, removed and reordered between two runs. A single call without a tag
is like no other, and has the name of its key. This module does not know where names are stored, nor any API.
"""

from __future__ import annotations

import hashlib
import json

NOTE = "note."
"""The beginning of the names under which a store is given what a program notes (`JournalOptions.notes`)."""
LONGEST = 1_000
"""Characters of a name that `short_name` leaves as it is."""
_TENANT = "tenant:"


def sha_of(canonical: bytes) -> bytes:
    """SHA-256 of a canonical request, 32 bytes: equal for equal requests only."""
    return hashlib.sha256(canonical).digest()


def item_name(tag: str | int | None, sha: bytes, occurrence: int = 1, *, run: str = "", tenant: str = "") -> str:
    """The name of a submission in a journal.

    Args:
        tag: the caller's tag; `1` and `"1"` are different tags. None if there is none.
        sha: `sha_of` the canonical request: everything that the server is asked, without key, tag and time limit, in
            an order of fields that is the same in all versions of the library.
        occurrence: counts this same request within its batch, from 1; see `Names`. Two equal questions in one
            file are two submissions.
        run: the name of the run that asks, which keeps its questions without a tag apart from those of other runs.
        tenant: whose question it is, in a journal that serves several.

    Returns:
        `tag:<JSON of the tag>`, or `req:<hex>#<occurrence>` without one; after `run:<JSON>/` and `tenant:<JSON>/`,
        where they are given. ASCII in any case.
    """
    if tag is not None:
        return f"{_of(tenant)}tag:{json.dumps(tag)}"
    of_run = f"run:{json.dumps(run)}/" if run else ""
    return f"{_of(tenant)}{of_run}req:{sha.hex()}#{occurrence}"


def alike_names(sha: bytes, *, tenant: str = "") -> str:
    """How the names begin of submissions that whoever asks the same may reuse.

    One such name ends with the row of the latest submission of this request, which is too old or has no result, 0 if
    there is none: of all who ask at once, one makes it.

    Args:
        sha: of the request.
        tenant: whose question it is.
    """
    return f"{_of(tenant)}alike:{sha.hex()}>"


def _of(tenant: str) -> str:
    return f"{_TENANT}{json.dumps(tenant)}/" if tenant else ""


def tenant_of(item: str) -> str:
    """Whose submission this name is; `""` if it is nobody's in particular."""
    if not item.startswith(_TENANT):
        return ""
    tenant: str = json.JSONDecoder().raw_decode(item, len(_TENANT))[0]
    return tenant


def key_name(key: str, *, tenant: str = "") -> str:
    """The name of a submission without a tag that is like no other: only the same key is the same submission."""
    return f"{_of(tenant)}key:{json.dumps(key)}"


def job_name(job_id: str) -> str:
    """The name of a job whose request is unknown because it was submitted elsewhere."""
    return f"job:{json.dumps(job_id)}"


def short_name(item: str) -> str:
    """The name by which a store finds a submission whose index has no room for long ones: a digest instead of these.

    Whose submission it is can still be read in it.
    """
    whose = _of(tenant_of(item))
    if len(item) <= LONGEST or item.startswith("long:", len(whose)):
        return item
    return f"{whose}long:{hashlib.sha256(item.encode('utf-8', 'surrogatepass')).hexdigest()}"


class Names:
    """Names the submissions of one batch, or of one call.

    Args:
        run: the batch's own id, under which the store keeps the order of its items; `""` of a call.
        run_name: the name that the user gave to the run.
        tenant: whose questions they are.
        reuse: seconds for which an equal question may be answered by an earlier submission; None: never.
        is_call: a question without a tag is like no other.

    It keeps eight bytes of each digest, about 80 bytes of memory for each distinct request. If two digests begin with
    the same bytes, the second counts as a repeat; since it does so each time, it is still found again.
    """

    __slots__ = ("_repeated", "_seen", "is_call", "reuse", "run", "run_name", "tenant")

    def __init__(
        self,
        run: str = "",
        *,
        run_name: str = "",
        tenant: str = "",
        reuse: float | None = None,
        is_call: bool = False,
    ) -> None:
        self.run: str = run
        self.run_name: str = run_name
        self.tenant: str = tenant
        self.reuse: float | None = reuse
        self.is_call: bool = is_call
        self._seen: set[int] = set()
        self._repeated: dict[int, int] = {}

    def sha(self, canonical: bytes) -> bytes:
        """The digest of a request: of equal requests of two tenants it is not the same."""
        return sha_of(self.tenant.encode("utf-8", "surrogatepass") + b"\0" + canonical if self.tenant else canonical)

    def name(self, tag: str | int | None, sha: bytes, key: str = "") -> str:
        """The name of the next item."""
        if tag is None and self.is_call:
            return key_name(key, tenant=self.tenant)
        count = self.count(sha) if tag is None else 1
        return item_name(tag, sha, count, run=self.run_name, tenant=self.tenant)

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
