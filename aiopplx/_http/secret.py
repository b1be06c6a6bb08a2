"""The API key, and the address that it may be sent to.

This module knows nothing of how requests are made.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import yarl

from aiopplx._errors import ConfigError

_KEY = re.compile(r"[\x21-\x7e]+")

SECRET_FROM: Final = 8
"""Characters. A shorter key is a placeholder for an emulator and not a secret; cut out of messages it would only garble
them."""
ECHO_LIMIT: Final = 16 * 1024
"""Bytes. Answers up to this size are errors, and jobs without a result: the ones in which a server may echo the key."""


class Secret:
    """An API key, kept where no repr, pickle or traceback with local variables shows it.

    It is made of whatever the caller gave, before anything else looks at that: a frame that raises may hold a `Secret`
    among its local variables, and no plain key. `problem` says whether it can be used.
    """

    __slots__ = ("_bearer", "_bytes", "_kind", "_value")

    def __init__(self, given: object) -> None:
        # Without the newline that a file or a shell leaves at its end.
        self._value = str(given).strip() if isinstance(given, str) else ""
        self._kind = "" if isinstance(given, str) else type(given).__name__
        self._bytes = self._value.encode(errors="replace")
        self._bearer = f"Bearer {self._value}"

    def problem(self) -> str:
        """Why this cannot be a key, as a sentence without the key; `""` if it can. Raises nothing."""
        if self._kind:
            return f"the API key must be a str, not {self._kind}"
        if not _KEY.fullmatch(self._value):
            return "the API key is empty or has a space, a control or a non-ASCII character in it"
        return ""

    def is_same(self, other: Secret) -> bool:
        """Whether both are one key."""
        return self._value == other._value

    def reveal(self) -> str:
        """The key itself, for a digest of it. The caller must not keep it in a variable of a frame that may raise."""
        return self._value

    def header(self) -> dict[str, str]:
        """The one header that carries it. Made anew for each request, so that no object holds it between two."""
        return {"Authorization": self._bearer}

    def scrub(self, text: str) -> str:
        """`text` without the key, in case the server echoed it."""
        return text.replace(self._value, "[API key]") if len(self._value) >= SECRET_FROM else text

    def scrub_body(self, body: bytes) -> bytes:
        """The same for the bytes of a short answer."""
        if len(body) > ECHO_LIMIT or len(self._bytes) < SECRET_FROM:
            return body
        return body.replace(self._bytes, b"[API key]")

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an API key is not pickled")


def check_key(key: Secret) -> Secret:
    """The same key. Raises `ConfigError` if it cannot be one, as `Secret.problem` says."""
    if problem := key.problem():
        raise ConfigError(problem)
    return key


def check_base_url(base_url: str, *, allow_insecure: bool = False) -> str:
    """The base URL without a trailing slash.

    Raises:
        ConfigError: it is not an absolute http(s) URL, has a user or a query, or would send the key in the clear to
            another machine.
    """
    # Read by the library that aiohttp reads it with: where two parsers differ about which part is the host, one of them
    # would allow this machine, and the other send the key to another.
    try:
        url = yarl.URL(base_url.strip())
    except (ValueError, TypeError, AttributeError):
        url = yarl.URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string or url.fragment:
        raise ConfigError(
            "base_url must look like https://host or https://host/prefix, without user, query or fragment"
        )
    if url.scheme == "http" and not allow_insecure and not _is_loopback(url.host):
        raise ConfigError(
            f"base_url is http:// to {url.host}: the API key would travel in the clear. Use https://, or pass"
            " network=NetworkOptions(allow_insecure=True) if that network is yours"
        )
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
