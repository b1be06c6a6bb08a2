"""The bounds of one HTTP exchange and its way to the network, as users give them.

How often an exchange is made again is the `RetryPolicy`'s matter. This module knows nothing of sockets.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

MIB = 1024 * 1024


class NetworkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one HTTP exchange, and its way: `Session(network=NetworkOptions(proxy="http://proxy.example:3128"))`.

    The three times are real seconds, whatever clock the session has: a faster clock makes no socket faster.

    Attributes:
        max_response_bytes: an answer larger than this, decompressed, is not read. Default 64 MiB.
        allow_insecure: allow `http` to another machine, where the API key travels in the clear. Default False.
        connect_seconds: for making a connection, TLS included. Default 10.
        submit_seconds: for the whole of a submission, connecting and reading included. Default 60.
        poll_seconds: the same for every other request. Default 60.
        file_seconds: for the whole of a download of a file. Default 600.
        max_file_bytes: a file larger than this is not downloaded. Default 1 GiB.
        proxy: the HTTP proxy that every request goes through, `http://user:password@host:port`; the user and the
            password are shown nowhere. Default None: directly, or as `trust_env` says. See docs/proxies.md.
        trust_env: use the environment's proxy (`HTTPS_PROXY` or `HTTP_PROXY` by the server's scheme, then `ALL_PROXY`,
            except for the hosts in `NO_PROXY`) and its certificates (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else
            `REQUESTS_CA_BUNDLE`), as they are when the session is opened. Default False: a proxy sees when and what is
            asked, so it is chosen and not inherited.
    """

    max_response_bytes: int = 64 * MIB
    allow_insecure: bool = False
    connect_seconds: float = 10.0
    submit_seconds: float = 60.0
    poll_seconds: float = 60.0
    file_seconds: float = 600.0
    max_file_bytes: int = 1024 * MIB
    proxy: str | None = None
    trust_env: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        proxy = _without_user(self.proxy) if isinstance(self.proxy, str) else None
        return [(name, proxy if name == "proxy" else getattr(self, name)) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"NetworkOptions({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def _without_user(address: str) -> str:
    return re.sub(r"(\w+://)?.*@", r"\1…@", address, flags=re.DOTALL)
