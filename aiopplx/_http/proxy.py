"""The way out of the machine: which proxy requests go through, and whose certificates are believed.

Looked up once, when a session is opened, and not for each request: that would take two turns of a thread each time. The
address of a proxy may hold a password, so it is kept where no repr and no traceback with local variables shows it. This
module knows nothing of requests.
"""

from __future__ import annotations

import os
import ssl
from typing import Final
from urllib.request import proxy_bypass

import yarl

from aiopplx._errors import ConfigError
from aiopplx._policy.network import NetworkOptions

BUNDLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables that name certificates. OpenSSL reads the first two itself, and they precede the third."""


class Proxy:
    """The address of a proxy. `problem` says as a predicate why it cannot be used; `""` if it can.

    Made of whatever was given before anything else looks at that, as a `Secret` is.
    """

    __slots__ = ("problem", "url")

    def __init__(self, given: str) -> None:
        text = given.strip()
        url, problem = _read(text if "://" in text else f"http://{text}")
        self.url: yarl.URL = url
        self.problem: str = problem

    @property
    def shown(self) -> str:
        """The address without a user and a password."""
        return str(self.url.with_user(None)).rstrip("/") if self.url.host else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        # Also of one that is being made, as a traceback with variables shows it.
        return f"Proxy({self.shown if hasattr(self, 'url') else ''!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("the address of a proxy may hold a password and is not pickled")


def _read(text: str) -> tuple[yarl.URL, str]:
    try:
        url = yarl.URL(text)
        is_whole = bool(url.host and url.port) and url.path in ("", "/") and not url.query_string and not url.fragment
    except ValueError:
        return yarl.URL(), "cannot be read as an address: it must look like http://host:port"
    if url.scheme.startswith("socks"):
        return yarl.URL(), (
            "is a SOCKS proxy: give http=aiohttp.ClientSession(connector=...) with the connector of aiohttp-socks"
        )
    if url.scheme not in ("http", "https") or not is_whole:
        return yarl.URL(), "must look like http://host:port"
    return url, ""


def check_proxy(proxy: Proxy, *, argument: str) -> Proxy:
    """The same proxy. Raises `ConfigError` that names `argument`, and never the address."""
    if proxy.problem:
        raise ConfigError(proxy.problem, argument=argument)
    return proxy


def proxy_for(network: NetworkOptions, base_url: str) -> Proxy | None:
    """The proxy through which this server is reached: the one given, else, with `trust_env`, the environment's.

    Raises:
        ConfigError: it cannot be used.
    """
    if network.proxy is not None:
        return check_proxy(Proxy(network.proxy), argument="network.proxy")
    name = variable_for(network, yarl.URL(base_url)) if network.trust_env else ""
    return check_proxy(Proxy(os.environ[name]), argument=name) if name else None


def variable_for(network: NetworkOptions, base: yarl.URL) -> str:
    """The variable of the environment that names a proxy for this server, unless `NO_PROXY` excepts it; `""` if none.

    Plain `http` is for this machine alone, unless `allow_insecure` says otherwise: through a proxy the API key would
    travel in the clear.
    """
    if base.scheme == "http" and not network.allow_insecure:
        return ""
    names = [name for kind in (f"{base.scheme}_proxy", "all_proxy") for name in (kind, kind.upper())]
    # A web server that runs CGI programs sets HTTP_PROXY from a header of whoever asks.
    untrue = {"HTTP_PROXY"} if "REQUEST_METHOD" in os.environ else set[str]()
    found = next((name for name in names if os.environ.get(name) and name not in untrue), "")
    host = base.host or ""
    is_excepted = found and (proxy_bypass(host) or proxy_bypass(f"{host}:{base.port}"))
    return "" if is_excepted else found


def certificates(network: NetworkOptions) -> ssl.SSLContext | None:
    """With `trust_env`, whom the environment has us believe; None if it says nothing of that.

    Raises:
        ConfigError: what it names cannot be read.
    """
    name = next((name for name in BUNDLES if os.environ.get(name)), "") if network.trust_env else ""
    if not name:
        return None
    place = os.environ[name]
    try:
        if name == "SSL_CERT_FILE":
            os.stat(place)  # OpenSSL does not say if it is missing
        if name != "REQUESTS_CA_BUNDLE":
            context = ssl.create_default_context()
        elif os.path.isdir(place):
            context = ssl.create_default_context(capath=place)
        else:
            context = ssl.create_default_context(cafile=place)
    except OSError as error:
        problem = f"names certificates that cannot be read: {error.strerror or type(error).__name__}"
    else:
        context.set_alpn_protocols(["http/1.1"])
        return context
    raise ConfigError(problem, argument=name)
