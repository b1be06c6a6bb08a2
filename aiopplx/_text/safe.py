"""Text from elsewhere made safe to show.

Text from a server may be long, contain control characters, or be written to mislead the reader of a log. Every message
and error quotes it through `plain` and `excerpt`; whole answers are shown through `visible`.

This module knows nothing of jobs, of either API, or of HTTP.
"""

from __future__ import annotations

import re
import unicodedata

MESSAGE_KEPT = 500
"""Characters quoted of a server's message."""

BODY_KEPT = 4096
"""Bytes of an unusable body kept on the error."""


FILENAME_BYTES = 200
"""Bytes of a safe file name in UTF-8: file systems take 255, and a name of an unfinished file is longer."""

# Characters that no answer needs and that could hide text or turn its direction, save for joiners, which emoji need.
_HIDDEN = (
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_BAD_IN_NAMES = r'[<>:"|?*]'
_END_OF_NAME = r"[\s.]+\Z"
"""Blanks of any kind and dots: what a system drops, or what would be dropped when the name is made safe again."""
_RESERVED = r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])"


def safe_filename(name: str) -> str:
    """A file name from a server as one that any file system takes, and that means a file in this directory only.

    What is left of it is its last part, without control and direction characters; what some system does not take
    becomes `_`. It never begins with a dot, is no device of Windows, keeps its ending if it must be shortened, and is
    `file` if nothing is left.
    """
    kept = "".join(ch for ch in unicodedata.normalize("NFC", name[:4096]) if unicodedata.category(ch)[0] != "C")
    last = re.sub(_BAD_IN_NAMES, "_", re.split(r"[/\\]", kept)[-1]).lstrip()
    last = re.sub(_END_OF_NAME, "", last)
    if last.startswith("."):
        last = "_" + last[1:]
    if re.fullmatch(_RESERVED, last.partition(".")[0].rstrip()):
        last = "_" + last
    stem, dot, ending = last.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, dot, ending = last, "", ""
    room = FILENAME_BYTES - len((dot + ending).encode())
    # A character cut in two is dropped.
    stem = stem.encode()[:room].decode(errors="ignore") if len(stem.encode()) > room else stem
    if not ending:
        stem = re.sub(_END_OF_NAME, "", stem)
    return (stem + dot + ending) or "file"


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


def visible(text: str) -> str:
    """The whole text without characters that hide or turn what stands beside them."""
    return re.sub(_HIDDEN, "", text)


def excerpt(body: bytes, limit: int = BODY_KEPT) -> str:
    """The first `limit` bytes of a body as text; bytes that are not UTF-8 are replaced."""
    return body[:limit].decode("utf-8", "replace")
