"""Which default headers the caller's own HTTP session may have.

Whatever stands among them goes out with each request. Some would break the request itself: a length that is not its own
lets the server wait for a body that never comes. Some would take the place of what the library says: the key, the host,
the form of the body. And some would change what an answer means: a range of it, or none if it did not change. All of
these are refused before anything is sent. What says who asks (`User-Agent`, cookies, a gateway's own headers) is the
caller's to say.

This module knows nothing of aiohttp, or of how requests are made.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiopplx._text.safe import plain

_FRAMING = frozenset({
    "transfer-encoding",
    "te",
    "trailer",
    "expect",
    "upgrade",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
})
_OURS = frozenset({"authorization", "host", "idempotency-key", "x-idempotency-key"})
_MEANING = frozenset({"range", "a-im", "x-http-method-override", "x-http-method", "x-method-override"})

_DECODED = frozenset({"gzip", "deflate", "identity", "*"})
"""What aiohttp decompresses whatever else is installed. It asks by itself for all that it can."""
_JSON = frozenset({"application/json", "application/*", "*/*"})


def problem_of(headers: Mapping[str, str]) -> str:
    """Why requests with these default headers would not be the library's own, as a predicate; `""` if they are.

    The value of a header is not told: it may be a secret.
    """
    for name, value in headers.items():
        if why := _problem(name.strip().lower(), value.strip().lower()):
            return f"has {plain(name, 60)} among its default headers, {why}: make it without that header"
    return ""


def _problem(name: str, value: str) -> str:
    words = [part.partition(";")[0].strip() for part in value.split(",")]
    match name:
        case "content-type":
            is_wrong, why = words != ["application/json"], "and bodies are JSON"
        case "accept":
            is_wrong, why = not _JSON.intersection(words), "and answers are JSON"
        case "accept-encoding":
            is_wrong = not _DECODED.issuperset(filter(None, words))
            why = "and an answer that cannot be decompressed would be lost"
        case "connection":
            is_wrong, why = not {"close", "keep-alive"}.issuperset(words), "which changes how each request is read"
        case _ if name in _OURS:
            is_wrong, why = True, "which the library sets for each request itself"
        case _ if name in _FRAMING or name.startswith("content-"):
            is_wrong, why = True, "which would change how each request is read"
        case _ if name in _MEANING or name.startswith("if-"):
            is_wrong, why = True, "which would change what each answer means"
        case _:
            return ""
    return why if is_wrong else ""
