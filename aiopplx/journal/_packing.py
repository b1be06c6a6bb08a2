"""The stored form of values that no database has a type for: tags, the user's own columns, and results.

This module knows nothing of databases.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

SHORT = 512
"""Bytes of a row's columns up to which they are not worth compressing."""


def tag_text(tag: str | int | None) -> str | None:
    """A tag in its stored form, in which 1 and "1" differ."""
    return None if tag is None else json.dumps(tag)


def tag_of(text: str | None) -> str | int | None:
    """The tag of a stored form."""
    return None if text is None else json.loads(text)


def pack_meta(meta: Mapping[str, Any]) -> bytes:
    """A row's own columns in their stored form: JSON, compressed if it is long; nothing if there are none."""
    if not meta:
        return b""
    raw = msgspec.json.encode(meta)
    return zlib.compress(raw, 1) if len(raw) > SHORT else raw


def meta_of(packed: bytes | None) -> dict[str, Any]:
    """The columns of a stored form. Some that cannot be read are no reason to withhold a paid result: there are none
    then.
    """
    if not packed:
        return {}
    with contextlib.suppress(zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(packed if packed.startswith(b"{") else zlib.decompress(packed), type=dict[str, Any])
    return {}


def pack(raw: bytes) -> tuple[int, int, bytes]:
    """A result in its stored form: encoding, size, bytes."""
    return 1, len(raw), zlib.compress(raw, 1)


def unpacked(encoding: int, size: int, body: bytes) -> bytes | None:
    """The result of a stored form; None if it is damaged."""
    if encoding != 1:
        return None
    raw = None
    with contextlib.suppress(zlib.error):
        raw = zlib.decompress(body, bufsize=max(1, size))
    return raw if raw is not None and len(raw) == size else None
