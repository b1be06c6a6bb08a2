"""The kind of job that stored bytes ask for, as a store keeps it.

Apart from the other values of the journal, because it needs every API, and listing and counting do not. This module
knows nothing of how rows are stored.
"""

from __future__ import annotations

from functools import lru_cache

from aiopplx._wire.kinds import Kind
from aiopplx.apis._registry import kind_of


def kind_label(api: str, body: bytes) -> str:
    """The label of a kind: `Kind.of` reads it back.

    Args:
        api: the name of the API that the submission goes, or went, to.
        body: its exact bytes, `b""` if unknown.
    """
    return _label(kind_of(api, body))


@lru_cache(maxsize=256)
def _label(kind: Kind) -> str:
    return str(kind)
