"""Server messages made safe to print.

Text from a server may be long, contain control characters, or be written to mislead the reader of a log. Every message
and error quotes it through `plain` and `excerpt`.

This module knows nothing of jobs, of either API, or of HTTP.
"""

from __future__ import annotations

MESSAGE_KEPT = 500
"""Characters quoted of a server's message."""

BODY_KEPT = 4096
"""Bytes of an unusable body kept on the error."""


def plain(text: str, limit: int = MESSAGE_KEPT) -> str:
    """Server text made safe for a terminal and a log: one line without control or direction characters.

    Args:
        text: the server's text.
        limit: characters to keep; if there were more, the last one is an ellipsis.
    """
    # Blanks are collapsed, so more than `limit` is read; but not all of it, since the text may be megabytes long.
    cleaned = "".join(" " if ch.isspace() else ch for ch in text[: limit * 4] if ch.isprintable() or ch.isspace())
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def excerpt(body: bytes, limit: int = BODY_KEPT) -> str:
    """The first `limit` bytes of a body as text; bytes that are not UTF-8 are replaced."""
    return body[:limit].decode("utf-8", "replace")
