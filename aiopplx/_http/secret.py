"""The API key and the address it may be sent to.

This module knows nothing of how requests are made.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import yarl

from aiopplx._errors import ConfigError

_KEY = re.compile(r"[\x21-\x7e]+")


# A shorter word is a placeholder for an emulator and no secret: to cut it out of messages would only garble them.
SECRET_FROM: Final = 8


# Answers of this size and below are errors and jobs without a result, where a server may echo the key it was sent.
ECHO_LIMIT: Final = 16 * 1024


class Secret:
    """The API key, kept where neither a repr, a pickle nor a traceback with locals shows it."""

    __slots__ = ("_bytes", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._bytes = value.encode()

    def reveal(self) -> str:
        """The key itself; for the one header that carries it."""
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the key, should a server echo it."""
        return text.replace(self._value, "[API key]") if len(self._value) >= SECRET_FROM else text

    def scrub_body(self, body: bytes) -> bytes:
        """The same for a short answer as it came."""
        if len(body) > ECHO_LIMIT or len(self._bytes) < SECRET_FROM:
            return body
        return body.replace(self._bytes, b"[API key]")

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an API key is not pickled")


def usable_key(key: str) -> Secret:
    """The key as a `Secret`, stripped of the newline that a file or a shell leaves on it.

    Raises:
        ConfigError: it is empty or has a character that no header may carry.
    """
    stripped = key.strip()
    if not _KEY.fullmatch(stripped):
        raise ConfigError("the API key is empty or has a space, a control or a non-ASCII character in it")
    return Secret(stripped)


def usable_base_url(base_url: str, *, allow_insecure: bool = False) -> str:
    """The base URL without a trailing slash.

    Raises:
        ConfigError: it is no absolute http(s) URL, carries a password or a query, or would send the key in the clear to
            another machine.
    """
    try:
        url = yarl.URL(base_url.strip())
    except (ValueError, TypeError):
        url = yarl.URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string or url.fragment:
        raise ConfigError(
            "base_url must look like https://host or https://host/prefix, without user, query or fragment"
        )
    if url.scheme == "http" and not allow_insecure and not _is_loopback(url.host):
        raise ConfigError(
            f"base_url is http:// to {url.host}: the API key would travel in the clear. Use https://, or pass"
            " allow_insecure=True if that network is yours"
        )
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
