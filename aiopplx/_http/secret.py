"""The API key, and the address that it may be sent to.

This module knows nothing of how requests are made.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import yarl

from aiopplx._checks.builtin import as_builtin
from aiopplx._errors import ConfigError

_KEY = r"[\x21-\x7e]+"
_HOST = r"[\w.-]+(:[0-9]+)?(/\S*)?"
_LIKE_A_KEY = r"[\w-]{16,}"
_BLANK = r"""[\s"'<>\\]"""
_QUOTED = r"""(?s)["'`\u2018-\u201f].*|.*["'`\u2018-\u201f]"""

SERVICE: Final = "https://api.perplexity.ai"
"""The service itself."""

# What people paste instead of the key alone, and what a shell or a settings file makes of it. Matched from the start.
_NOT_A_KEY = (
    (r""".*["'`\u2018-\u201f]""", "has a quotation mark in it: leave the quotation marks out"),
    (r"(authorization:? *)?bearer\b", "begins with the word Bearer: give the key alone"),
    (r"(export )?[a-z]+_[a-z_]+ *=", "begins with the name of a variable: give the key alone"),
    (r".*[$%{}\\]", "has a variable in it that nothing has replaced"),
    (
        r"[<\[(]|.*(your[-_ ]?(api[-_ ]?)?key|x{4}|\.\.\.|…|\*{3})|(none|null|undefined|changeme)\Z",
        "is a placeholder: put the key from the provider's settings page in its place",
    ),
    (r".*[\s,;]", "has a blank, a comma or a line end in it: give one key, on one line"),
)

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

    __slots__ = ("_bearer", "_echo", "_kind", "_value")

    def __init__(self, given: object) -> None:
        # Without the newline that a file or a shell leaves at its end.
        self._value = str(as_builtin(given)).strip() if isinstance(given, str) else ""
        self._kind = "" if isinstance(given, str) else type(given).__name__
        # What is looked for in answers: nothing, if it is no secret.
        self._echo = self._value.encode(errors="replace") if len(self._value) >= SECRET_FROM else b""
        self._bearer = f"Bearer {self._value}"

    def problem(self) -> str:
        """Why this cannot be a key, as a predicate without the key; `""` if it can. Raises nothing."""
        if self._kind:
            return f"must be text, not {self._kind}"
        if not self._value:
            return "is empty: it must be the API key"
        for pattern, said in _NOT_A_KEY:
            if re.match(pattern, self._value, re.IGNORECASE | re.DOTALL):
                return said
        return (
            "" if re.fullmatch(_KEY, self._value) else "has a control or a non-ASCII character in it: copy the key anew"
        )

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
        return text.replace(self._value, "[API key]") if self._echo else text

    def scrub_body(self, body: bytes) -> bytes:
        """The same for the bytes of a short answer."""
        echo = self._echo
        return body.replace(echo, b"[API key]") if echo and len(body) <= ECHO_LIMIT else body

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an API key is not pickled")


def check_key(key: Secret, *, argument: str = "api_key") -> Secret:
    """The same key. Raises `ConfigError` if it cannot be one, as `Secret.problem` says of `argument`."""
    if problem := key.problem():
        raise ConfigError(problem, argument=argument)
    return key


# The ends of addresses that people copy from examples of requests, of this provider or in the form of another. The
# library adds the paths of the API itself.
_ENDPOINTS = (
    "chat/completions|completions|sonar|responses|agent|search|models|batches|files|messages|embeddings"
    "|contextualizedembeddings|generate_auth_token|revoke_auth_token"
)
_ID = r"(resp_|chatcmpl-|batch_|file-)?[\w-]*\d[\w-]*|\{[^/]*\}|(%7B|<|%3C)[^/]*"
_PATHS = rf"(?i)(/v1)?(/async)?/({_ENDPOINTS})(/({_ID})(/(cancel|files|content|{_ID}))*)?\Z|(/v1)?(/async|/chat)?\Z"
_WEBSITES = frozenset({"perplexity.ai", "www.perplexity.ai", "docs.perplexity.ai", "console.perplexity.ai"})


def check_base_url(base_url: object, *, allow_insecure: bool = False, argument: str = "base_url") -> str:
    """The base URL without a trailing slash.

    Args:
        base_url: as given.
        allow_insecure: allow `http` to another machine.
        argument: what it comes from, for the error.

    Raises:
        ConfigError: it is not an absolute http(s) URL, has a user, a query or a path of the API, or would send the key
            in the clear to another machine.
    """
    if not isinstance(base_url, str):
        raise ConfigError(f"must be text, not {type(base_url).__name__}", argument=argument)
    given = as_builtin(base_url).strip()
    # Read by the library that aiohttp reads it with: where two parsers differ about which part is the host, one of them
    # would allow this machine, and the other send the key to another.
    try:
        url = yarl.URL(given)
        host = url.host
    except (ValueError, TypeError):
        url, host = yarl.URL(), None
    if problem := _problem_of(given, url):
        raise ConfigError(problem, argument=argument)
    if url.scheme == "http" and not allow_insecure and not _is_loopback(host or ""):
        raise ConfigError(
            f"is http:// to {host}: the API key would travel in the clear. Use https://",
            argument=argument,
            remedy="If that network is yours, pass network=NetworkOptions(allow_insecure=True)",
        )
    return str(url).rstrip("/")


def _problem_of(given: str, url: yarl.URL) -> str:
    """What is wrong with an address, in the form of a predicate that says what to write; `""` if nothing is."""
    said = ""
    if re.fullmatch(_QUOTED, given):
        return "has a quotation mark in it: leave the quotation marks out"
    if given and "://" not in given and re.fullmatch(_HOST, given) and not re.fullmatch(_LIKE_A_KEY, given):
        said = "has no scheme"
        url = _with_scheme(given)
    if url.scheme not in ("http", "https") or not url.host or re.search(_BLANK, given):
        return f"must look like https://host or https://host/prefix, without user, query or fragment: write {SERVICE}"
    if url.port == 0:
        return "has the port 0, at which nothing can listen: leave it out, or give the server's"
    if url.host in _WEBSITES:
        return f"is the address of the website; the API is at {SERVICE}"
    path = url.raw_path.rstrip("/")
    found = re.search(_PATHS, path)
    if found is not None and found[0]:
        said = said or f"ends in {found[0][:100]}, a path of the API, which the library adds itself"
        path = path[: found.start()].rstrip("/")
    for is_there, name in (
        (url.user or url.password, "a user"),
        ("?" in given, "a query"),
        ("#" in given, "a fragment"),
    ):
        if is_there:
            said = f"has {name} in it"
    if not said:
        return ""
    right = url.with_user(None).with_path(path, encoded=True)
    return f"{said}: write {str(right).rstrip('/')[:300]}"


def _with_scheme(given: str) -> yarl.URL:
    try:
        url = yarl.URL(f"https://{given}")
        return url.with_scheme("http") if _is_loopback(url.host or "") else url
    except ValueError:
        return yarl.URL()


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
