"""Whatever is given to a public argument is taken or refused in our own words: no other exception, and nothing sent."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import inspect
import io
import math
import os
import time
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from _frames import where_shown
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from yarl import URL

from aiopplx import (
    AgentRequest,
    AiopplxError,
    APIError,
    ConfigError,
    InvalidRequest,
    Job,
    JobError,
    JobStatus,
    JournalOptions,
    NetworkOptions,
    PollPolicy,
    ResearchRequest,
    RetryPolicy,
    Session,
)
from aiopplx._checks.builtin import as_builtin, as_builtins
from aiopplx.emulator import Emulator
from aiopplx.journal import JournalError, SqliteJournal, open_reader

KEY = "hostile-test-key-0123456789"
REFUSED = (ConfigError, InvalidRequest)


class Text(str):
    """As NumPy's `str_` is."""


class Whole(int):
    pass


class Real(float):
    pass


class Words(enum.StrEnum):
    EFFORT = "high"
    QUESTION = "Why did the Vasa sink?"


class OldWords(str, enum.Enum):  # noqa: UP042 - unlike a StrEnum, its `str` is its name
    QUESTION = "Why did the Vasa sink?"


class Numbers(enum.IntEnum):
    SEVEN = 7


class Scalar:
    """As NumPy's `int64` and `bool_` are: no subclass of a built-in type, with `dtype` and `tolist`."""

    dtype = "int64"
    ndim = 0

    def __init__(self, value: Any) -> None:
        self._value = value

    def tolist(self) -> Any:
        return self._value

    def __repr__(self) -> str:
        return f"np.scalar({self._value!r})"


class Array:
    """As NumPy's `ndarray` is."""

    dtype = "object"

    def __init__(self, *values: Any, ndim: int = 1) -> None:
        self._values = values
        self.ndim = ndim

    def tolist(self) -> list[Any]:
        return list(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)


class Frame:
    """As a pandas `DataFrame` is: iterating it gives the names of its columns."""

    columns = ("question", "company")
    shape = (2, 2)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class PolarsFrame:
    """Known by the interchange protocol alone."""

    def __dataframe__(self) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter([Array("Why?")])


class Broken:
    """Refuses whatever is asked of it but its own name."""

    def __eq__(self, other: object) -> bool:
        raise OSError

    def __bool__(self) -> bool:
        raise OSError

    def __repr__(self) -> str:
        raise OSError

    __hash__ = object.__hash__


class Odd:
    def __fspath__(self) -> bytes:
        return b"run.db"


HOSTILE: list[Any] = [
    "", " ", "x", "\0", "a\0b", "\ud800", "é" * 1000, "x" * 100_000, "nan", "0", "None", "../..", "a\nb",
    b"", b"x", bytearray(b"x"), memoryview(b"x"),
    0, 1, -1, 10**400, -(10**400), 2**63, True, False,
    0.0, -0.0, 0.5, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324,
    1j, decimal.Decimal("1"), decimal.Decimal("NaN"), fractions.Fraction(1, 3),
    [], [1], ["x"], (), ("x",), {}, {"a": 1}, {1: 2}, {None: None}, set(), {"x"}, frozenset(),
    object(), object, int, len, lambda: None, ..., NotImplemented, Exception("x"), ConfigError,
    datetime.date(2026, 1, 1), datetime.timedelta(seconds=5), Path("x"), Odd(),
    URL("https://example.org"), io.StringIO("x"),
    Text("x"), Text(""), Whole(7), Whole(-1), Real(0.5), Real("nan"), Words.EFFORT, OldWords.QUESTION, Numbers.SEVEN,
    Scalar(7), Scalar(0.5), Scalar("x"), Scalar(True), Scalar(None), Scalar(object()), Array("x"), Array(Scalar(1)),
    Frame(), PolarsFrame(), Broken(), list[int], int | str, typing.Any,
    Session, PollPolicy(), RetryPolicy(), NetworkOptions(), JournalOptions("x"), JournalOptions(7),
    ResearchRequest("x"),
    Job(status=JobStatus.FAILED), Job(status=JobStatus.IN_PROGRESS, id="x"), Job(status=JobStatus.IN_DOUBT, id="a/b"),
]  # fmt: skip


HOSTILE_CASES = [pytest.param(value, id=f"{number}-{type(value).__name__}") for number, value in enumerate(HOSTILE)]


def tried(make: Callable[[], object]) -> Any:
    """What `make` returns; None if it was refused in a sentence. Anything else that it raises is the finding."""
    try:
        return make()
    except REFUSED as refused:
        check_sentence(refused)
        return None


def check_sentence(error: AiopplxError) -> None:
    said = str(error)
    assert 10 < len(said) < 1_200
    assert said.isprintable()
    assert "object at 0x" not in said


# --- values at once --------------------------------------------------------------------------------------------------

SESSION = [name for name in inspect.signature(Session).parameters if name != "api_key"]


def fields_of(kind: type[msgspec.Struct]) -> list[str]:
    return list(kind.__struct_fields__)


@pytest.mark.parametrize("value", HOSTILE_CASES)
def test_session_argument_of_any_value_is_taken_or_refused(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITY_BASE_URL", "AIOPPLX_API"):
        monkeypatch.delenv(name, raising=False)
    tried(lambda: Session(value))
    for name in SESSION:
        session = tried(lambda name=name: Session(KEY, **{name: value}))
        assert session is None or KEY not in repr(session)


@pytest.mark.parametrize("value", HOSTILE_CASES)
@pytest.mark.parametrize(
    ("kind", "argument"), [(RetryPolicy, "retry"), (PollPolicy, "poll"), (NetworkOptions, "network")]
)
def test_option_of_any_value_is_taken_or_refused(kind: type[Any], argument: str, value: Any) -> None:
    for field in fields_of(kind):
        options = tried(lambda field=field: kind(**{field: value}))
        if options is not None:
            tried(lambda options=options: Session(KEY, **{argument: options}))


@pytest.mark.parametrize("value", HOSTILE_CASES)
def test_journal_option_of_any_value_is_taken_or_refused(value: Any) -> None:
    for field in fields_of(JournalOptions):
        options = JournalOptions(**{"path": "run.db", field: value})
        tried(lambda options=options: Session(KEY, journal=options))
    tried(lambda: PollPolicy.fixed(value))
    tried(lambda: PollPolicy.by(value))
    with pytest.raises((*REFUSED, JournalError)):
        open_reader(value)


@pytest.mark.parametrize("kind", [ResearchRequest, AgentRequest])
@pytest.mark.parametrize("value", HOSTILE_CASES)
def test_request_field_of_any_value_is_taken_or_refused(kind: type[Any], value: Any) -> None:
    first = fields_of(kind)[fields_of(kind).index("question" if kind is ResearchRequest else "input")]
    tried(lambda: kind.of(value))
    for field in fields_of(kind):
        tried(lambda field=field: kind(**{first: "Why?", field: value}).check())
        tried(lambda field=field: kind.of({first: "Why?", field: value}).check())


# --- calls -----------------------------------------------------------------------------------------------------------


async def called(call: Callable[[], Any]) -> None:
    """An awaited call that ends at once, or is refused. What the server says of an id is the server's."""
    try:
        result = call()
        if inspect.isawaitable(result):
            await result
        elif hasattr(result, "__aenter__"):
            async with result as jobs:
                async for job in jobs:
                    assert isinstance(job, Job)
    except (*REFUSED, JournalError) as refused:
        check_sentence(refused)
    except (APIError, JobError):  # the server's own word
        pass


@pytest.mark.parametrize("value", HOSTILE_CASES)
async def test_call_with_any_value_ends_or_is_refused(value: Any) -> None:
    async with (
        Emulator(duration=0.0, answer_chars=100) as server,
        Session(KEY, base_url=server.url, poll=PollPolicy.fixed(0.01), retry=RetryPolicy(call_tries=1)) as session,
    ):
        calls: list[Callable[[], Any]] = [
            lambda: session.ask(value, timeout=20),
            lambda: session.ask("Why?", tag=value),
            lambda: session.ask("Why?", idempotency_key=value),
            lambda: session.ask("Why?", timeout=value),
            lambda: session.ask(ResearchRequest("Why?"), tag=value),
            lambda: session.ask("Why?", model=value),
            lambda: session.submit(value),
            lambda: session.submit("Why?", tag=value),
            lambda: session.get(value),
            lambda: session.cancel(value),
            lambda: session.list(limit=value),
            lambda: session.batch(value),
            lambda: session.batch([value]),
            lambda: session.batch(["Why?"], timeout=value),
            lambda: session.batch(["Why?"], max_in_flight=value),
            lambda: session.batch(["Why?"], ordered=value),
            lambda: session.batch(["Why?"], cancel_on_exit=value),
            lambda: session.wait("an id", timeout=value),
        ]
        for call in calls:
            await called(call)


@pytest.mark.parametrize("value", HOSTILE_CASES)
async def test_decision_about_any_value_is_refused(value: Any, tmp_path: Path) -> None:
    async with (
        Emulator(duration=0.0) as server,
        Session(KEY, base_url=server.url, journal=tmp_path / "run.db") as session,
    ):
        calls: list[Callable[[], Any]] = [
            lambda: session.resubmit(value, pay_again=True),
            lambda: session.drop(value),
            lambda: session.adopt(value),
            lambda: session.adopt("job", instead_of=value),
            lambda: session.adopt("another", tag=value),
        ]
        for call in calls:
            await called(call)
        if as_builtin(value) is not True:
            with pytest.raises(InvalidRequest, match="pay_again=True"):
                await session.resubmit(Job(status=JobStatus.IN_DOUBT, id="x"), pay_again=value)
        assert server.ledger.created == 0


# --- what stands for a built-in value --------------------------------------------------------------------------------

SAME: list[tuple[Any, Any]] = [
    (Text("x"), "x"),
    (Words.EFFORT, "high"),
    (OldWords.QUESTION, "Why did the Vasa sink?"),
    (Whole(7), 7),
    (Numbers.SEVEN, 7),
    (Real(0.5), 0.5),
    (Scalar(7), 7),
    (Scalar(True), True),
    (Array("a", "b"), ["a", "b"]),
    (None, None),
    (True, True),
]


@pytest.mark.parametrize(("given", "meant"), SAME)
def test_value_is_taken_as_the_built_in_one(given: Any, meant: Any) -> None:
    found = as_builtin(given)
    assert type(found) is type(meant)
    assert found == meant
    nested = {Text("k"): [given, ("x", {"deep": given})]}
    assert msgspec.json.encode(as_builtins(nested)) == msgspec.json.encode({"k": [meant, ["x", {"deep": meant}]]})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_built_in_values_are_the_same_objects(value: Any) -> None:
    assert as_builtins(value) is value


def test_value_within_itself_is_left_to_the_checks() -> None:
    loop: list[Any] = [Text("x")]
    loop.append(loop)
    assert as_builtins(loop) is loop
    with pytest.raises(InvalidRequest):
        ResearchRequest("Why?", extra={"loop": loop}).check()


async def test_scalars_of_other_libraries_reach_the_server_as_values() -> None:
    async with (
        Emulator(duration=0.0, answer_chars=100) as server,
        Session(
            Text(KEY),
            base_url=Text(server.url),
            api=Text("sonar"),
            timeout=Scalar(20),  # type: ignore[arg-type]  # that it is taken all the same is what is tested
            max_in_flight=Scalar(5),  # type: ignore[arg-type]  # the same
            poll=PollPolicy.fixed(Real(0.01)),
        ) as session,
    ):
        items: list[Any] = [
            Text("Why?"),
            Words.QUESTION,
            {"question": Text("Why?"), "tag": Scalar(3), "reasoning_effort": Words.EFFORT, "max_tokens": Scalar(500)},
            {Text("question"): OldWords.QUESTION, "search_domain_filter": Array(Text("a.org"), Text("b.org"))},
            ResearchRequest(Text("Why?"), tag=Numbers.SEVEN, temperature=Real(0.5), max_tokens=Whole(9)),
        ]
        async with session.batch(Array(*items), ordered=Scalar(True)) as jobs:  # type: ignore[arg-type]  # the same
            found = [job async for job in jobs]
        assert [job.ok for job in found] == [True] * 5
        assert [(job.tag, type(job.tag)) for job in found[2:]] == [(3, int), (None, type(None)), (7, int)]
        job = await session.ask(Words.QUESTION, tag=Text("t"), idempotency_key=Text("k"))
        assert job.ok
        assert type(job.tag) is type(job.idempotency_key) is str
        assert (await session.wait(Text(job.id))).ok
        assert (await session.get(Text(job.id))).ok
    assert [msgspec.json.decode(made.body)["request"]["messages"][0]["content"] for made in server.ledger.jobs[:2]] == [
        "Why?",
        "Why did the Vasa sink?",
    ]


# --- sources that are not lists of questions -------------------------------------------------------------------------

SOURCES: list[tuple[Any, str]] = [
    (Frame(), 'batch(table["question"])'),
    (PolarsFrame(), 'batch(table["question"])'),
    (pd.DataFrame({"prompt": ["Why?"], "n": [1]}), 'batch(aiopplx.questions(table, question="COLUMN"))'),
    (pl.DataFrame({"prompt": ["Why?"]}), 'batch(aiopplx.questions(table, question="COLUMN"))'),
    (pa.table({"prompt": ["Why?"]}), 'batch(aiopplx.questions(table, question="COLUMN"))'),
    (pd.DataFrame({"question": []}), "has no rows"),
    (pl.LazyFrame({"question": ["Why?"]}), "frame.collect()"),
    ({"question": "Why?"}, "batch([mapping])"),
    ("Why?", "session.ask(question)"),
    (Text("Why?"), "session.ask(question)"),
    (b"Why?", "splitlines"),
    (bytearray(b"Why?"), "splitlines"),
    (memoryview(b"Why?"), "splitlines"),
    (io.StringIO("Why?\nHow?\n"), "line.strip() for line in"),
    (io.BytesIO(b"Why?\n"), "line.strip() for line in"),
    (Path("questions.txt"), "batch(aiopplx.questions(path))"),
    (Array(Array("Why?"), ndim=2), "batch(array[:, 0])"),
    (lambda: ["Why?"], "batch(questions())"),
    (ResearchRequest("Why?"), "session.ask(question)"),
    (7, "not int"),
]


@pytest.mark.parametrize(("source", "said"), [pytest.param(*case, id=type(case[0]).__name__) for case in SOURCES])
async def test_source_that_holds_no_questions_names_the_right_call(source: Any, said: str) -> None:
    async with Emulator(duration=0.0) as server, Session(KEY, base_url=server.url) as session:
        with pytest.raises(InvalidRequest) as refused:
            await session.batch(source).__aenter__()
        assert said in str(refused.value)
        check_sentence(refused.value)
        assert server.ledger.created == 0


@pytest.mark.parametrize(
    "source", [{"Why?"}, frozenset({"Why?"}), ("Why?",), {"Why?": 1}.keys(), Array("Why?"), iter(["Why?"])]
)
async def test_any_collection_of_questions_is_taken(source: Any) -> None:
    async with (
        Emulator(duration=0.0, answer_chars=100) as server,
        Session(KEY, base_url=server.url, poll=PollPolicy.fixed(0.01)) as session,
        session.batch(source) as jobs,
    ):
        assert [job.ok async for job in jobs] == [True]


def test_row_with_columns_of_its_own_gets_one_complaint() -> None:
    with pytest.raises(InvalidRequest) as refused:
        ResearchRequest.of({"question": "Why?", "company": "Acme", "id": 7, "tag": "a"})
    said = str(refused.value)
    assert "has no fields `company`, `id`; a value of your own goes into `tag`" in said
    assert refused.value.tag == "a"
    with pytest.raises(InvalidRequest, match="did you mean `model`"):
        ResearchRequest.of({"question": "Why?", "company": "Acme", "modl": "sonar"})


# --- the caller's own connections ------------------------------------------------------------------------------------


async def test_connections_that_cannot_carry_requests_are_refused() -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        with pytest.raises(ConfigError, match="auto_decompress"):
            Session(KEY, http=http)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BasicAuth is deprecated, and still used
        http = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with http:
        with pytest.raises(ConfigError, match="auth"):
            Session(KEY, http=http)


REFUSED_HEADERS = {
    **dict.fromkeys(("Content-Length", "Content-Encoding", "Content-Range", "content-MD5", "Content-Digest"), "5"),
    **dict.fromkeys(("Transfer-Encoding", "TE", "Trailer", "Expect", "Upgrade", "Keep-Alive", "HTTP2-Settings"), "x"),
    **dict.fromkeys(("Host", "AUTHORIZATION", "Idempotency-Key", "X-Idempotency-Key"), "a-secret-0123456789"),
    **dict.fromkeys(("Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Range", "A-IM"), "5"),
    "X-HTTP-Method-Override": "GET",
    "Content-Type": "text/plain",
    "Accept": "text/event-stream",
    "Accept-Encoding": "gzip, zstd",
    "Connection": "Upgrade",
}


HEADERS = {
    **dict.fromkeys(
        ("X-Trace", "X-API-Key", "Via", "From", "Forwarded", "Origin", "User-Agent", "Accept-Language"), "5"
    ),
    **dict.fromkeys(("Cache-Control", "Pragma", "Prefer", "Cookie", "Referer", "DNT", "Max-Forwards", "Date"), "5"),
    "Content-Type": "application/json; charset=utf-8",
    "Accept": "text/html, application/json;q=0.9",
    "Accept-Encoding": "gzip, deflate;q=0.5",
    "Connection": "keep-alive",
}


@pytest.mark.parametrize("name", REFUSED_HEADERS)
async def test_default_header_that_would_change_requests_is_refused(name: str) -> None:
    async with aiohttp.ClientSession(headers={"X-Trace": "1", name: REFUSED_HEADERS[name]}) as http:
        with pytest.raises(ConfigError, match=f"http has {name} among its default headers") as refused:
            Session(KEY, http=http)
    assert "a-secret" not in str(refused.value)


async def test_connections_with_options_of_their_own_carry_requests() -> None:
    async with Emulator(duration=0.0, answer_chars=100) as server:
        for options in (
            {"base_url": "https://elsewhere.example"},
            {"cookies": {"a": "b"}},
            {"trust_env": True},
            {"headers": HEADERS},
        ):
            async with (
                aiohttp.ClientSession(**options) as http,  # type: ignore[arg-type]  # options of many types
                Session(KEY, base_url=server.url, http=http, poll=PollPolicy.fixed(0.01)) as session,
            ):
                assert (await session.ask("Why?")).ok


@seed(8)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()), st.data())
def test_session_arguments_of_random_values_are_taken_or_refused(value: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["api_key", *SESSION]))
    tried(lambda: Session(**{"api_key": KEY, name: value}))


@pytest.mark.parametrize("path", ["/tmp/", ".", "..", "runs/", "runs/.."])
async def test_path_that_names_a_directory_is_refused_at_once(path: str) -> None:
    for make in (
        lambda: Session("a-test-key", journal=path),
        lambda: Session("a-test-key", journal=JournalOptions(path)),
        lambda: open_reader(path),
    ):
        with pytest.raises(ConfigError, match="is a directory: name a file in it"):
            make()


@pytest.mark.parametrize(
    "path", [":memory:", " :memory:", "file::memory:?cache=shared", "file:run.db", "FILE:run.db", "sqlite:///run.db"]
)
async def test_address_of_sqlite_is_not_taken_for_a_file(path: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (
        lambda: Session("a-test-key", journal=path),
        lambda: Session("a-test-key", journal=JournalOptions(path)),
        lambda: open_reader(path),
    ):
        with pytest.raises(ConfigError, match="MemoryJournal"):
            make()
    with pytest.raises(ConfigError, match="MemoryJournal"):
        await SqliteJournal.open(path, now=time.time)
    assert os.listdir(tmp_path) == []


ADDRESSES = ["postgresql+asyncpg", "mysql", "mysql+aiomysql", "redis", "mongodb+srv", "https", "s3"]


@pytest.mark.parametrize("scheme", ADDRESSES)
async def test_address_of_another_database_is_refused_unseen(scheme: str, tmp_path: Path, monkeypatch: Any) -> None:
    """No file of that name is made, and what stands before its @ is not shown."""
    monkeypatch.chdir(tmp_path)
    secret = "canary-word-51ab"
    address = f"{scheme}://user:{secret}@host/database"
    makers: list[Callable[[], object]] = [
        lambda: Session("a-test-key", journal=address),
        lambda: Session("a-test-key", journal=JournalOptions(address)),
        lambda: Session("a-test-key", shared=address, rpm=6),
        lambda: open_reader(address),
        lambda: Session("a-test-key", journal=Path(address.strip())),
        lambda: open_reader(Path(address.strip())),
    ]
    for make in makers:
        with pytest.raises(ConfigError, match="postgresql://user@host") as caught:
            make()
        assert secret not in str(caught.value) + repr(caught.value)
    for make in makers[:4]:
        with pytest.raises(ConfigError) as caught:
            make()
        assert where_shown(secret, caught.value, but=__file__) == []
    assert secret not in repr(JournalOptions(address))
    with pytest.raises(ConfigError, match="postgresql://user@host"):
        await SqliteJournal.open(address, now=time.time)
    assert os.listdir(tmp_path) == []


class Odd(os.PathLike[str]):
    def __init__(self, path: object) -> None:
        self._path = path

    def __fspath__(self) -> str:
        if isinstance(self._path, Exception):
            raise self._path
        return self._path  # type: ignore[return-value]  # that is what is tried


@pytest.mark.parametrize("path", [LookupError("no"), 7, None, b"run.db"])
def test_path_that_is_none_is_refused(path: object) -> None:
    for journal in (Odd(path), JournalOptions(Odd(path))):
        with pytest.raises(ConfigError, match="must be a path"):
            Session("a-test-key", journal=journal)
    with pytest.raises(ConfigError, match="must be a path"):
        open_reader(Odd(path))


def test_port_at_which_nothing_listens_is_refused() -> None:
    with pytest.raises(ConfigError, match="port 0"):
        Session("a-test-key", base_url="https://host:0/prefix")
