"""Which URLs name a database, what they come to, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiopplx import JournalOptions, Session
from aiopplx._errors import ConfigError
from aiopplx.journal._postgres.url import Url, address_of, hidden, is_url


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ("postgresql://h/db", True),
        ("postgres://h/db", True),
        ("research.db", False),
        ("PostgreSQL://h/db", True),
        ("postgresql+asyncpg://h/db", True),
        ("mysql://h/db", True),
        (" redis://h", True),
        ("sqlite:///x", False),
        ("file://x", False),
        ("c://x", False),
        ("a/postgresql://x", False),
        ("POSTGRESQL://h/db", True),
        ('"postgresql://h/db"', True),
        ("postgresql:/h/db", True),
        ("redis://:secret@h/0", True),
        ("u:secret@db.example/x", True),
        ("u:sec:ret@[::1]:5432/x", True),
        ("C:/research.db", False),
        ("./run:2026/a@b.db", False),
        ("answers 12:30.db", False),
        ("me@home.db", False),
        (None, False),
    ],
)
def test_address_is_told_from_a_file(given: object, is_one: bool) -> None:
    assert is_url(given) is is_one


@pytest.mark.parametrize(
    ("url", "name", "sslmode"),
    [
        ("postgresql://u@db.example/x", "postgresql://u@db.example/x?schema=aiopplx", "verify-full"),
        ("postgresql://u:secret@db:5433/x", "postgresql://u@db:5433/x?schema=aiopplx", "verify-full"),
        ("postgresql://db/x?sslmode=require&schema=s_1", "postgresql://db/x?schema=s_1", "require"),
        ("postgresql://127.0.0.1/x", "postgresql://127.0.0.1/x?schema=aiopplx", "disable"),
        ("postgresql://[::1]/x", "postgresql://[::1]/x?schema=aiopplx", "disable"),
        ("postgresql:///x?host=/run/pg", "postgresql:///x?host=/run/pg&schema=aiopplx", "disable"),
        ("postgres://localhost", "postgresql://localhost/?schema=aiopplx", "disable"),
        (
            "postgresql://127.0.0.1.evil.example/x",
            "postgresql://127.0.0.1.evil.example/x?schema=aiopplx",
            "verify-full",
        ),
    ],
)
def test_url_names_server_schema_and_encryption(url: str, name: str, sslmode: str) -> None:
    address = address_of(url, environment={})
    assert (address.name, address.sslmode) == (name, sslmode)


@pytest.mark.parametrize(
    ("url", "environment", "name", "sslmode"),
    [
        ("postgresql:///x", {"PGHOST": "db.example"}, "postgresql://db.example/x?schema=aiopplx", "verify-full"),
        ("postgresql://u@/x", {"PGHOST": "db.example"}, "postgresql://u@db.example/x?schema=aiopplx", "verify-full"),
        ("postgresql:///x", {"PGHOST": "/run/pg"}, "postgresql:///x?host=/run/pg&schema=aiopplx", "disable"),
        ("postgresql://one/x", {"PGHOST": "db.example"}, "postgresql://one/x?schema=aiopplx", "verify-full"),
        ("postgresql://db", {"PGPORT": "6432"}, "postgresql://db:6432/?schema=aiopplx", "verify-full"),
        ("postgresql://db:5433", {"PGPORT": "6432"}, "postgresql://db:5433/?schema=aiopplx", "verify-full"),
        (
            "postgresql://db",
            {"PGUSER": "u", "PGDATABASE": "x", "PGSSLMODE": "require"},
            "postgresql://u@db/x?schema=aiopplx",
            "require",
        ),
        ("postgresql://db?sslmode=verify-ca", {"PGSSLMODE": "disable"}, "postgresql://db/?schema=aiopplx", "verify-ca"),
        ("postgresql:///x", {"PGSSLMODE": "prefer"}, "postgresql:///x?schema=aiopplx", "disable"),
    ],
)
def test_what_a_url_leaves_out_is_in_the_environment(
    url: str, environment: dict[str, str], name: str, sslmode: str
) -> None:
    address = address_of(url, environment=environment)
    assert (address.name, address.sslmode) == (name, sslmode)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PGSERVICE": "prod"}, "PGSERVICE"),
        ({"PGHOST": "one,two"}, "one host"),
        ({"PGHOST": "db.example", "PGSSLMODE": "prefer"}, "prefer leaves it to the network"),
        ({"PGPORT": "some"}, "from 1 to 65535"),
    ],
)
def test_environment_that_leaves_the_server_open_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        address_of("postgresql:///x", environment=environment)


def test_certificates_may_be_named_by_the_environment() -> None:
    environment = {"PGSSLROOTCERT": "ca.pem"}
    assert address_of("postgresql://db", environment=environment).sslrootcert == "ca.pem"
    assert address_of("postgresql://db?sslrootcert=other", environment=environment).sslrootcert == "other"
    assert address_of("postgresql://db", environment={"PGSSLROOTCERT": "system"}).sslrootcert == ""


def test_password_is_given_and_never_shown() -> None:
    address = address_of("postgresql://u:p%40ss@db/x")
    assert address.password is not None
    assert address.password() == "p@ss"
    assert "p@ss" not in repr(address) + address.name
    assert "p%40ss" not in repr(address) + address.name


@pytest.mark.parametrize(
    ("given", "shown", "password"),
    [
        ("postgresql://u:hunter2@db/x", "postgresql://u@db/x", "hunter2"),
        ("postgresql://u:hun/ter@2@db/x?user=a@b", "postgresql://u@db/x?user=a@b", "hun/ter@2"),
        ("postgresql://u:h?unter@db/x", "postgresql://u@db/x", "h?unter"),
        ("postgresql://u:123@db/x", "postgresql://u@db/x", "123"),
        ("postgresql://u:@db/x", "postgresql://u@db/x", None),
        ("postgresql://db:5432/x?user=a@b", "postgresql://db:5432/x?user=a@b", None),
        ("postgresql://[::1]:5432/x", "postgresql://[::1]:5432/x", None),
        ("postgresql://db/x?password=hunter2&schema=a", "postgresql://db/x?password=&schema=a", None),
        ("postgresql+asyncpg://u:hunter2@db/x", "postgresql+asyncpg://u@db/x", "hunter2"),
        ("POSTGRESQL://u:hunter2@db/x", "POSTGRESQL://u@db/x", "hunter2"),
        (' "postgresql://u:hunter2@db/x"', ' "postgresql://u@db/x"', "hunter2"),
        ("postgresql:/u:hunter2@db/x", "postgresql:/u@db/x", "hunter2"),
        ("redis://:hunter2@h/0", "redis://@h/0", "hunter2"),
        ("u:hunter2@db.example/x", "u@db.example/x", "hunter2"),
        ("postgresql://u@db/x", "postgresql://u@db/x", None),
    ],
)
def test_password_is_hidden_before_the_url_is_looked_at(given: str, shown: str, password: str | None) -> None:
    url = hidden(given)
    assert isinstance(url, Url)
    assert str(url) == shown
    assert (url.password() if url.password is not None else None) == password
    assert hidden(url) is url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://db/x?sslmode=prefer", "prefer leaves it to the network"),
        ("postgresql://db/x?sslmode=allow", "allow leaves it to the network"),
        ("postgresql://db/x?sslmode=on", "disable, require, verify-ca, verify-full"),
        ("postgresql://db/x?schema=Drop Table", "small letters"),
        ("postgresql://db/x?schema=", "small letters"),
        ("postgresql://db/x?shema=a", "'shema'"),
        ("postgresql://db/x?password=hunter2", "PGPASSWORD"),
        ("postgresql://db:port/x", "is no postgresql:// URL"),
        ("postgresql://db/x?port=0", "from 1 to 65535"),
    ],
)
def test_wrong_url_is_refused_without_its_secrets(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        address_of(url)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def variables_in(error: BaseException) -> Iterator[dict[str, Any]]:
    """Those of each frame that an error passed, the outermost first."""
    step = error.__traceback__
    while step is not None:
        yield dict(step.tb_frame.f_locals)
        step = step.tb_next


@pytest.mark.parametrize(
    "given",
    [
        "postgresql+asyncpg://u:hunter2@db.example/x",
        "postgres+psycopg://u:hunter2@db/x",
        "mysql://u:hunter2@db/x",
        " postgresql://u:hunter2@127.0.0.1:1/x",
        "'postgresql://u:hunter2@127.0.0.1:1/x'",
        "postgresql:/u:hunter2@db/x",
        "redis://:hunter2@h/0",
        "https://u:hunter2@h/j.db",
        "u:hunter2@db.example:5432/x",
    ],
)
def test_url_of_another_kind_is_refused_and_not_shown(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ways: list[dict[str, Any]] = [{"journal": given}, {"journal": JournalOptions(given)}, {"shared": given, "rpm": 60}]
    for options in ways:
        with pytest.raises(ConfigError, match="no postgresql:// URL") as caught:
            Session("any-key", **options)
        ours = list(variables_in(caught.value))[1:]
        assert "hunter2" not in f"{caught.value} {caught.value!r} {ours}"
    assert list(tmp_path.iterdir()) == []


def test_scheme_may_have_capital_letters() -> None:
    assert address_of("PostgreSQL://u@db/x", environment={}).name == "postgresql://u@db/x?schema=aiopplx"
