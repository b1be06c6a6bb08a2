"""Where a database is: a `postgresql://` URL, checked, in libpq's words.

`postgresql://user:password@host:5432/database?schema=aiopplx&sslmode=verify-full&sslrootcert=ca.pem`. A socket's folder
goes into `host`: `postgresql:///database?host=/run/postgresql`. What the URL leaves out is taken from libpq's
environment: `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGSSLMODE` and `PGSSLROOTCERT`; a password from `PGPASSWORD`,
or the password file that libpq reads. `PGSERVICE` is not read, and refused where it would name the host.

The questions travel on this connection. So a server that is on another machine must prove who it is (`verify-full`)
unless the URL or `PGSSLMODE` says otherwise, and `prefer` and `allow` are refused: whoever can change the traffic
decides what these come to. That is decided here, of the host that is connected to: the driver finds nothing left to
look up but the name of the process's user and the password.

This module knows nothing of connections.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from aiopplx._errors import ConfigError

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]
"""libpq's words: no TLS; TLS with whoever answers; with whoever has a signed certificate; with the host in it."""

SCHEMES = ("postgresql://", "postgres://")
SCHEMA = "aiopplx"
"""The schema, if the URL names none."""
PORT = 5432
_READ = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT", "PGSERVICE")
_WORDS = frozenset({"schema", "sslmode", "sslrootcert", "host", "port", "user", "dbname"})
# Unquoted it stands in every statement, and `aiopplx_` and it are the name of a channel, of at most 63 bytes.
_SCHEMA = r"[a-z_][a-z0-9_]{0,39}"
# A URL of whatever kind, as somebody may write who means one: with the driver's name, in quotation marks, for another
# database, or without its beginning. SQLite's addresses are of files, of which `check_path` knows what to say, and one
# letter is a drive of Windows.
_BEGINNING = r"""[\s"'<]*(?!(?i:file:|sqlite))[A-Za-z][\w+.-]+:/+"""
_LOGIN = r"[^:@/\\\s]+:[^@/\\\s]+@[\w.\[]"
# What stands between the colon after the user and the last @ before the words. If it has a "?" itself, which should be
# written %3F, to the last @ of all, unless it is a port: rather too much is hidden than too little.
_BEFORE_THE_AT = r"(?s)({beginning}[^:@/?#\[]*):([^?]*)@"
_BEFORE_AN_ODD_AT = r"(?s)({beginning}[^:@/?#\[]*):(?!\d+(?:[/?#]|$))(.*)@"
_AMONG_THE_WORDS = r"(?i)([?&][^=&]*pass[^=&]*=)[^&]*"

T = TypeVar("T")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A database and how to reach it.

    Attributes:
        host: a name, an address, or the folder of a socket; `""` for the sockets and the loopback address of this
            machine.
        port: of the server.
        user: `""` for the driver's default, the name of the process's user.
        database: `""` for the driver's default, the user's name.
        schema: where the tables are.
        sslmode: how TLS is used.
        sslrootcert: a file of certificates; `""` for those of the system.
        password: gives the password; None if the URL has none. A function, so that no repr shows it.
    """

    host: str
    port: int
    user: str
    database: str
    schema: str
    sslmode: SslMode
    sslrootcert: str
    password: Callable[[], str] | None

    @property
    def name(self) -> str:
        """The URL without its password, for people."""
        user = f"{self.user}@" if self.user else ""
        is_socket = self.host.startswith("/")
        host = "" if is_socket else f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORT or is_socket else f":{self.port}"
        socket = f"host={self.host}&" if is_socket else ""
        return f"postgresql://{user}{host}{port}/{self.database}?{socket}schema={self.schema}"


class Url(str):
    """A URL as text without its password, which is kept apart: no repr and no traceback with variables shows it.

    Attributes:
        password: gives it; None if the URL has none.
    """

    password: Callable[[], str] | None


def is_url(given: object) -> bool:
    """Whether this is meant to name a database, or anything else that is no file."""
    if not isinstance(given, str):
        return False
    return isinstance(given, Url) or re.match(f"{_BEGINNING}|{_LOGIN}", given) is not None


def hidden(given: T) -> T | Url:
    """A URL with its password hidden, whatever it is the URL of; anything else as it is. Raises nothing.

    To be called with what a caller gave before anything looks at that: what looks at it may raise.
    """
    if not isinstance(given, str) or isinstance(given, Url) or not is_url(given):
        return given
    beginning = _BEGINNING if re.match(_BEGINNING, given) else ""
    found = next(
        filter(
            None, (re.match(form.format(beginning=beginning), given) for form in (_BEFORE_THE_AT, _BEFORE_AN_ODD_AT))
        ),
        None,
    )
    secret = found[2] if found is not None else ""
    rest = f"{found[1]}@{given[found.end() :]}" if found is not None else str(given)
    url = Url(re.sub(_AMONG_THE_WORDS, r"\1", rest))
    url.password = (lambda: unquote(secret)) if secret else None
    return url


def address_of(given: str, *, argument: str = "journal", environment: Mapping[str, str] | None = None) -> Address:
    """The database of a URL.

    Args:
        given: the URL.
        argument: what it was given for, for the message.
        environment: has what the URL leaves out; None for the process's.

    Raises:
        ConfigError: it cannot be used. The message shows nothing of the URL but the word that is wrong.
    """
    wrong = ConfigError(
        "is no postgresql:// URL: postgresql://user@host:5432/database?schema=aiopplx is one, without the name of a"
        " driver. Any other journal is the path of a file",
        argument=argument,
    )
    given = hidden(given)
    if not isinstance(given, Url) or not given.lower().startswith(SCHEMES):
        raise wrong
    try:
        parts = urlsplit(given)
        host, port, user = parts.hostname or "", parts.port, unquote(parts.username or "")
        words = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise wrong from None
    if unknown := sorted(words.keys() - _WORDS):
        secret = " (a password goes before the @, or into PGPASSWORD)" if "password" in unknown else ""
        raise ConfigError(
            f"has a word that is not known: {unknown[0]!r}{secret}; known are {', '.join(sorted(_WORDS))}",
            argument=argument,
        )
    said = _of_libpq(os.environ if environment is None else environment)
    host = _host(words.get("host") or unquote(host), said, argument)
    schema = words.get("schema", SCHEMA)
    if not re.fullmatch(_SCHEMA, schema):
        raise ConfigError(
            "must name a schema of small letters, digits and _, of at most 40 characters", argument=f"{argument} schema"
        )
    named = words.get("port") or (None if port else said.get("PGPORT"))
    certificates = words.get("sslrootcert") or said.get("PGSSLROOTCERT", "")
    return Address(
        host=host,
        port=_port(named, argument) if named else port or PORT,
        user=words.get("user") or user or said.get("PGUSER", ""),
        database=words.get("dbname") or unquote(parts.path.lstrip("/")) or said.get("PGDATABASE", ""),
        schema=schema,
        sslmode=_sslmode(words.get("sslmode"), said.get("PGSSLMODE"), host, argument),
        sslrootcert="" if certificates == "system" else certificates,
        password=given.password,
    )


def _of_libpq(environment: Mapping[str, str]) -> dict[str, str]:
    """What is read of an environment. What else is in it, such as libpq's password, stays out of tracebacks."""
    return {name: environment[name] for name in _READ if name in environment}


def _host(given: str, environment: Mapping[str, str], argument: str) -> str:
    if not given and environment.get("PGSERVICE"):
        raise ConfigError(
            "names no host, and PGSERVICE, which may name one, is not read: say the host in the URL", argument=argument
        )
    host = given or environment.get("PGHOST", "")
    if "," in host:
        raise ConfigError("must name one host, and not several", argument=f"{argument} host")
    return host


def _port(given: str, argument: str) -> int:
    if not given.isascii() or not given.isdecimal() or not 0 < int(given) < 65_536:
        raise ConfigError("must be a whole number from 1 to 65535", argument=f"{argument} port")
    return int(given)


def _sslmode(given: str | None, from_environment: str | None, host: str, argument: str) -> SslMode:
    if given is None and not (is_local(host) and from_environment in ("prefer", "allow")):
        given = from_environment or None
    if given is None:
        return "disable" if is_local(host) else "verify-full"
    if given in ("prefer", "allow"):
        raise ConfigError(
            f"{given} leaves it to the network whether the questions are encrypted: say sslmode=verify-full,"
            " or sslmode=disable on a network of your own",
            argument=f"{argument} sslmode",
        )
    if given not in get_args(SslMode):
        raise ConfigError(f"must be one of {', '.join(get_args(SslMode))}", argument=f"{argument} sslmode")
    return cast("SslMode", given)


def is_local(host: str) -> bool:
    """Whether nothing leaves this machine on the way to this host: a socket, or a loopback address."""
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
