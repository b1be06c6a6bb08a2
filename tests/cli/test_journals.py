"""Interrupted runs that continue, and the commands for their journals, on real files, sockets and signals."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
from _shell import FAST, ending, lines, rows, run, run_at, started, until

from aiopplx import PollPolicy, Session
from aiopplx.__main__ import main
from aiopplx.cli._journals import every
from aiopplx.emulator import Emulator, JobRecord, WireServer, faults
from aiopplx.emulator.wire import Say
from aiopplx.journal import State, open_reader


def asked_of(job: JobRecord) -> str:
    body = json.loads(job.body)
    return str(body["request"]["messages"][-1]["content"] if "request" in body else body["input"])


def write_questions(folder: Path, *questions: str) -> Path:
    file = folder / "q.txt"
    file.write_text("".join(f"{question}\n" for question in questions))
    return file


def by_question(file: Path) -> dict[str, dict[str, Any]]:
    """Exported rows by what was asked."""
    return {row["question"]: row for row in rows(file.read_text())}


def assert_none_was_paid_twice(server: Emulator) -> None:
    asked = [asked_of(job) for job in server.ledger.jobs]
    assert sorted(asked) == sorted(set(asked))


# --- broken off, and gone on with ------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_run_interrupted_three_times_finishes_and_pays_once(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, *(f"Question {number}?" for number in range(30)))
    answers = tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), *FAST)
    async with Emulator(duration=lambda question: 3600.0 if "7" in question else 0.0, answer_chars=300) as server:
        server.faults.add("submit", faults.Drop(after_accept=True), rate=0.2)
        for signum, created in ((signal.SIGKILL, 5), (signal.SIGINT, 20), (signal.SIGKILL, 30)):
            async with started(server, *words, "--rpm", "1200") as process:
                await until(lambda enough=created: server.ledger.created >= enough)
                process.send_signal(signum)
                await ending(process)
        server.advance(3600.0)
        last = await run_at(server, *words)
        again = await run_at(server, *words)
        assert server.ledger.created == 30
        assert_none_was_paid_twice(server)
    assert " finished, " in last.stderr
    assert (last.returncode, again.returncode) == (0, 0)
    assert f"30 finished in {questions}.journal.db; nothing to pay for\n" in again.stderr
    found = rows(answers.read_text())
    assert sorted(lines(found)) == list(range(1, 31))
    assert all(row["ok"] and row["text"] for row in found)


async def test_finished_jobs_come_from_the_journal_without_a_request(tmp_path: Path) -> None:
    questions, answers = write_questions(tmp_path, "One?", "Two?"), tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        await run_at(server, *words)
        first = timeless(answers)
        before = server.ledger.requests.total()
        answers.unlink()
        done = await run_at(server, *words)
        assert server.ledger.requests.total() == before
    assert done.returncode == 0
    assert timeless(answers) == first


def timeless(answers: Path) -> list[dict[str, object]]:
    """The rows without their seconds: a journal's are between two steps, a session's between two answers."""
    found: list[dict[str, object]] = [{**row, "seconds": None} for row in rows(answers.read_text())]
    return sorted(found, key=lambda row: str(row["id"]))


async def test_questions_may_be_added_removed_and_reordered_between_runs(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    async with Emulator(duration=0.0, answer_chars=300) as server:
        questions = write_questions(tmp_path, "One?", "Two?", "Three?")
        await run_at(server, "run", str(questions), "-o", str(answers), *FAST)
        ids = {row["line"]: row["id"] for row in rows(answers.read_text())}
        write_questions(tmp_path, "Four?", "Three?", "# a remark", "One?")
        done = await run_at(server, "run", str(questions), "-o", str(answers), *FAST)
        assert sorted(map(asked_of, server.ledger.jobs)) == ["Four?", "One?", "Three?", "Two?"]
    assert done.returncode == 0
    found = {row["line"]: row["id"] for row in rows(answers.read_text())}
    assert (found[2], found[4]) == (ids[3], ids[1])
    assert sorted(found) == [1, 2, 4]


async def test_job_of_a_removed_question_is_named_and_collected(tmp_path: Path) -> None:
    async with Emulator(duration=lambda question: 3600.0 if "long" in question else 0.0) as server:
        questions = write_questions(tmp_path, "One?", "A long one?")
        await run_at(server, "run", str(questions), "--timeout", "0.5", *FAST)
        (long,) = (job.id for job in server.ledger.jobs if "long" in asked_of(job))
        write_questions(tmp_path, "One?")
        second = await run_at(server, "run", str(questions), *FAST)
        journal = f"{questions}.journal.db"
        assert second.returncode == 0
        assert f"aiopplx adopt {journal} {long} --wait" in second.stderr
        server.advance(3600.0)
        adopted = await run_at(server, "adopt", journal, long, "--wait", *FAST)
        assert (adopted.returncode, adopted.stdout.split()[:2]) == (0, [long, "completed,"])
        assert (await run_at(server, "export", journal, "--all", "-o", str(tmp_path / "all.jsonl"))).returncode == 0
        assert_none_was_paid_twice(server)
    assert by_question(tmp_path / "all.jsonl")["A long one?"]["ok"]


async def test_run_without_credit_continues_after_a_top_up(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, *(f"Question {number}?" for number in range(12)))
    answers = tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), "--max-in-flight", "2", *FAST)
    async with Emulator(duration=0.0, answer_chars=300, credits=2.0) as server:
        broke = await run_at(server, *words)
        created = server.ledger.created
        server.credits = None
        done = await run_at(server, *words)
        assert 0 < created < server.ledger.created == 12
        assert_none_was_paid_twice(server)
    assert broke.returncode == 3
    assert "credit" in broke.stderr
    assert f"12 questions: {created} done, 0 failed, {12 - created} not sent, 0 in doubt" in broke.stderr
    assert f"{created} finished in {questions}.journal.db; the other {12 - created}: about $" in done.stderr
    assert done.returncode == 0
    assert len(rows(answers.read_text())) == 12


async def test_budget_stops_the_run_and_a_higher_one_continues(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, *(f"Question {number}?" for number in range(6)))
    answers = tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        low = await run_at(server, *words, "--max-cost", "2.7")
        created, billed = server.ledger.created, server.ledger.billed
        high = await run_at(server, *words, "--max-cost", "50")
        assert 0 < created < 6
        assert billed <= 2.7
        assert server.ledger.created == 6
        assert_none_was_paid_twice(server)
    assert low.returncode == 75
    assert f"{created} done, 0 failed, {6 - created} not sent, 0 in doubt" in low.stderr
    (why,) = [line for line in low.stderr.splitlines() if line.startswith("aiopplx: ")]
    assert why.startswith("aiopplx: not sent: $")
    assert why.endswith(". --max-cost sets the limit")
    assert high.returncode == 0
    assert all(row["ok"] for row in rows(answers.read_text()))


async def test_cost_of_an_empty_answer_is_in_all_sums(tmp_path: Path) -> None:
    answers, journal = tmp_path / "answers.jsonl", tmp_path / "run.db"
    async with Emulator(duration=0.0, answer_chars=300) as server:
        server.faults.add("get", faults.NAMED["empty_choices"])
        words = ("run", str(write_questions(tmp_path, "One?")), "-o", str(answers), "--journal", str(journal))
        # The poll at the time limit is the last: nobody waits half a minute for a text to come after all.
        done = await run_at(server, *words, "--timeout", "0.5", *FAST)
        billed = server.ledger.billed
    (row,) = rows(answers.read_text())
    assert done.returncode == 1
    assert f"0 done, 1 failed (1 without an answer), 0 in doubt, ${billed:.2f}" in done.stderr
    assert (row["ok"], row["error"]["type"], row["cost"]) == (False, "ResultMissing", pytest.approx(billed))
    (cost,) = rows(run("cost", str(journal), "--by", "state", "--json").stdout)
    assert cost == {"state": "FAILED", "submissions": 1, "dollars": pytest.approx(billed), "unknown": 0}
    (exported,) = rows(run("export", str(journal)).stdout)
    assert (exported["ok"], exported["cost"]) == (False, row["cost"])


async def test_failed_jobs_are_asked_again_only_on_request(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, "One?", "Two?")
    failing = True
    async with Emulator(
        duration=0.0, answer_chars=300, failing=lambda question: failing and "Two" in question
    ) as server:
        words = ("run", str(questions), "-o", str(tmp_path / "answers.jsonl"), *FAST)
        first = await run_at(server, *words)
        failing = False
        second = await run_at(server, *words)
        assert server.ledger.created == 2
        third = await run_at(server, *words, "--retry-failed")
        assert server.ledger.created == 3
    assert [first.returncode, second.returncode, third.returncode] == [1, 1, 0]


async def test_second_run_on_one_journal_names_the_first(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, "A long one?")
    words = ("run", str(questions), *FAST)
    async with Emulator(duration=3600.0) as server:
        async with started(server, *words) as first:
            await until(lambda: server.ledger.created == 1)
            second = await run_at(server, *words)
            status = await run_at(server, "status", f"{questions}.journal.db", "--json")
            first.send_signal(signal.SIGINT)
            assert (await ending(first))[0] == 130
        assert server.ledger.created == 1
    assert second.returncode == 75
    assert f"is open in process {first.pid} on " in second.stderr
    assert "finished" not in second.stderr
    assert rows(status.stdout)[0]["writer"]["pid"] == first.pid
    assert rows(status.stdout)[0]["states"]["running"] == 1


async def test_journal_of_another_key_or_server_is_refused(tmp_path: Path) -> None:
    questions, answers = write_questions(tmp_path, "One?"), tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server, Emulator() as other:
        await run_at(server, *words)
        before = answers.read_bytes()
        wrong_key = await run_at(server, *words, key="the-key-of-somebody-else")
        wrong_server = await run_at(other, *words)
        assert (server.ledger.created, other.ledger.created) == (1, 0)
    assert (wrong_key.returncode, wrong_server.returncode) == (3, 2)
    assert "another API key" in wrong_key.stderr
    assert f"belongs to {server.url}" in wrong_server.stderr
    assert "--journal FILE names another" in wrong_server.stderr
    assert answers.read_bytes() == before


async def test_answers_of_another_journal_are_not_overwritten(tmp_path: Path) -> None:
    questions, answers = write_questions(tmp_path, "One?"), tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        await run_at(server, *words)
        before, wanted = answers.read_bytes(), timeless(answers)
        other = await run_at(server, *words, "--journal", str(tmp_path / "other.db"))
        assert server.ledger.created == 1
        answers.write_bytes(before[: len(before) // 2])  # as a run leaves it that is killed while it writes
        torn = await run_at(server, *words)
    assert (other.returncode, torn.returncode) == (2, 0)
    assert "--force" in other.stderr
    assert timeless(answers) == wanted


async def test_answers_missing_from_the_journal_are_not_overwritten(tmp_path: Path) -> None:
    questions, answers = write_questions(tmp_path, "One?"), tmp_path / "answers.jsonl"
    words = ("run", str(questions), "-o", str(answers), "--results", "until-delivered", *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        first = await run_at(server, *words)
        before = answers.read_bytes()
        second = await run_at(server, *words)
    assert (first.returncode, second.returncode) == (0, 2)
    assert answers.read_bytes() == before


@pytest.mark.parametrize("kept", [True, False])
async def test_ctrl_c_says_where_to_find_running_jobs(tmp_path: Path, kept: bool) -> None:
    questions = write_questions(tmp_path, *(f"Question {number}?" for number in range(30)))
    words = ("run", str(questions), "--max-in-flight", "24", *FAST, *(() if kept else ("--no-journal",)))
    async with Emulator(duration=3600.0) as server:
        async with started(server, *words) as process:
            await until(lambda: server.ledger.created == 24)
            process.send_signal(signal.SIGINT)
            code, said = await ending(process)
        ids = [job.id for job in server.ledger.jobs]
        listed = await run_at(server, "status", f"{questions}.journal.db", "--running")
    assert code == 130
    assert "24 jobs still running; they continue at the service" in said
    assert "30 questions: 0 done, 0 failed, 24 still running, 6 not sent, 0 in doubt" in said
    assert sum(job_id in said for job_id in ids) == (10 if kept else 24)
    assert (f"aiopplx status {questions}.journal.db --running lists all" in said) is kept
    assert {line.split()[0] for line in listed.stdout.splitlines()} == (set(ids) if kept else set())


async def test_ctrl_c_tells_how_far_all_starts_have_come(tmp_path: Path) -> None:
    answers = tmp_path / "a.csv"
    questions = write_questions(tmp_path, *(f"short {number}?" for number in range(4)), "A?", "B?", "C?", "D?")
    words = ("run", str(questions), "-o", str(answers), "--max-in-flight", "2", *FAST)
    async with Emulator(duration=lambda question: 0.0 if "short" in question else 3600.0, answer_chars=300) as server:
        assert (await run_at(server, *words, "--limit", "3")).returncode == 0
        async with started(server, *words) as process:
            await until(lambda: server.ledger.created == 6 and b"short 3" in answers.read_bytes())
            process.send_signal(signal.SIGINT)
            _, said = await ending(process)
        asked = server.ledger.requests.total()
        async with started(server, *words[:-4], "--max-in-flight", "1", *FAST) as process:
            await until(lambda: server.ledger.requests.total() > asked)  # it has come to the first that runs
            process.send_signal(signal.SIGINT)
            _, again = await ending(process)
        cost = sum(job.cost for job in server.ledger.jobs[:4])
    *_, counts, last = said.splitlines()
    told = "4 of 8 questions finished (1 in this start), 2 still running at the service, 2 not sent"
    assert counts.startswith(f"{told}; ${cost:.2f} spent by all runs of the journal, ")
    assert counts.endswith(f" Answers in {answers}.")
    assert last == f"Run the same command again to resume from {questions}.journal.db; nothing is paid twice."
    assert "2 jobs still running; they continue at the service and are billed:" in again
    assert f"aiopplx status {questions}.journal.db --running lists all" in again
    assert "4 of 8 questions finished (0 in this start), 2 still running at the service, 2 not sent;" in again


async def test_ctrl_c_before_the_first_question_says_so(tmp_path: Path) -> None:
    os.mkfifo(source := tmp_path / "q.csv")
    async with Emulator() as server, started(server, "run", str(source), "-o", str(tmp_path / "a.xlsx")) as process:
        writer = await anyio.to_thread.run_sync(os.open, source, os.O_WRONLY)  # returns once it is being read
        process.send_signal(signal.SIGINT)
        code, said = await ending(process)
        os.close(writer)
    assert (code, said, server.ledger.created) == (130, "Stopped by Ctrl-C. Nothing was sent.\n", 0)


async def test_run_that_is_refused_or_empty_leaves_nothing(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, "# only a remark")
    words = ("run", str(questions), "-o", str(tmp_path / "answers.jsonl"))
    async with Emulator() as server:
        empty = await run_at(server, *words)
        write_questions(tmp_path, "One?")
        refused = await run_at(server, *words, key="")
    assert (empty.returncode, refused.returncode) == (2, 2)
    assert os.listdir(tmp_path) == ["q.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--journal", "a.db", "--no-journal"], "do not go together"),
        (["--no-journal", "--retry-failed"], "--retry-failed needs a journal"),
        (["--emulate", "--results", "refetch"], "--results needs a journal"),
        (["--max-cost", "0"], "> 0"),
        (["--on-doubt", "guess"], "resend"),
    ],
)
def test_conflicting_journal_options_are_refused(
    words: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_questions(tmp_path, "One?")), *words]) == 2
    assert said in capfd.readouterr().err


def test_emulator_of_a_run_leaves_no_journal(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, "One?")
    assert run("run", str(questions), "--emulate", "-o", str(tmp_path / "a.jsonl")).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "q.txt"]


async def test_leaving_cancels_running_jobs_only_on_request(tmp_path: Path) -> None:
    words = ("run", str(write_questions(tmp_path, "One?")), "--api", "agent", "--cancel-on-exit", *FAST)
    async with Emulator(duration=3600.0) as server:
        async with started(server, *words) as process:
            await until(lambda: any(path.startswith("GET") for path in server.ledger.requests))
            process.send_signal(signal.SIGINT)
            code, said = await ending(process)
        (job,) = server.ledger.jobs
        assert job.cancelled
    assert code == 130
    assert "1 job cancelled at the service" in said
    assert "still running" not in said


# --- in doubt --------------------------------------------------------------------------------------------------------


async def doubtful_run(server: Emulator, folder: Path) -> tuple[str, str]:
    """A run of two questions of which the second is in doubt; its journal, and the key in doubt."""
    server.faults.add("submit", faults.Drop(after_accept=True), match="Two")
    words = ("run", str(write_questions(folder, "One?", "Two?")), "-o", str(folder / "a.jsonl"), "--on-doubt", "hold")
    done = await run_at(server, *words, *FAST)
    server.faults.clear()
    journal = f"{folder / 'q.txt'}.journal.db"
    assert done.returncode == 4
    assert f"aiopplx review {journal}" in done.stderr
    (key,) = (row["idempotency_key"] for row in rows((folder / "a.jsonl").read_text()) if not row["ok"])
    return journal, str(key)


async def test_jobs_in_doubt_are_listed_with_possible_actions(tmp_path: Path) -> None:
    async with Emulator(duration=0.0, answer_chars=300) as server:
        journal, key = await doubtful_run(server, tmp_path)
        listed = await run_at(server, "review", journal)
        as_json = await run_at(server, "review", journal, "--json")
        assert server.ledger.created == 2
    assert (listed.returncode, as_json.returncode) == (4, 4)
    assert listed.stdout.startswith(key)
    assert "Two?" in listed.stdout
    assert f"aiopplx review {journal} --resubmit KEY --pay-again" in listed.stderr
    assert [(row["idempotency_key"], row["question"]) for row in rows(as_json.stdout)] == [(key, "Two?")]


async def test_job_in_doubt_is_adopted_and_collected(tmp_path: Path) -> None:
    async with Emulator(duration=0.0, answer_chars=300) as server:
        journal, key = await doubtful_run(server, tmp_path)
        (job,) = (job for job in server.ledger.jobs if job.key == key)
        unknown = await run_at(server, "review", journal, "--adopt", key, "00000000-0000-0000-0000-000000000000")
        decided = await run_at(server, "review", journal, "--adopt", key, job.id)
        done = await run_at(server, "run", str(tmp_path / "q.txt"), "-o", str(tmp_path / "a.jsonl"), *FAST)
        assert server.ledger.created == 2
    assert (unknown.returncode, decided.returncode, done.returncode) == (1, 0, 0)
    assert job.id in {row["id"] for row in rows((tmp_path / "a.jsonl").read_text())}


async def test_job_in_doubt_is_paid_again_only_on_confirmation(tmp_path: Path) -> None:
    async with Emulator(duration=0.0, answer_chars=300) as server:
        journal, key = await doubtful_run(server, tmp_path)
        refused = await run_at(server, "review", journal, "--resubmit", key)
        assert server.ledger.created == 2
        decided = await run_at(server, "review", journal, "--resubmit", key[:8], "--pay-again")
        assert server.ledger.created == 3
        done = await run_at(server, "run", str(tmp_path / "q.txt"), "-o", str(tmp_path / "a.jsonl"), *FAST)
        assert server.ledger.created == 3
    assert (refused.returncode, decided.returncode, done.returncode) == (2, 0, 0)
    assert "--pay-again" in refused.stderr


async def test_job_in_doubt_is_dropped_and_stays_so(tmp_path: Path) -> None:
    async with Emulator(duration=0.0, answer_chars=300) as server:
        journal, key = await doubtful_run(server, tmp_path)
        both = await run_at(server, "review", journal, "--drop", key, "--resubmit", key)
        wrong = await run_at(server, "review", journal, "--drop", "no-such-key")
        decided = await run_at(server, "review", journal, "--drop", key)
        done = await run_at(server, "run", str(tmp_path / "q.txt"), "-o", str(tmp_path / "a.jsonl"), *FAST)
        assert server.ledger.created == 2
    assert [both.returncode, wrong.returncode, decided.returncode, done.returncode] == [2, 2, 0, 1]


# --- what a journal says ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a run with two answers and a failure, with tags; made once for all of these tests."""
    asked = [
        {"question": "One, comma?", "tag": "a"},
        {"question": "=Two()", "tag": "../b"},
        {"question": "Three?", "tag": "a3", "model": "sonar-pro"},
    ]
    file = tmp_path_factory.mktemp("finished") / "q.jsonl"
    file.write_text("".join(json.dumps(fields) + "\n" for fields in asked))

    async def make() -> None:
        async with Emulator(duration=0.0, answer_chars=300, failing=lambda question: "Three" in question) as server:
            done = await run_at(server, "run", str(file), "--fields", "model", "--in-order", *FAST)
        assert done.returncode == 1

    anyio.run(make)
    return Path(f"{file}.journal.db")


def test_status_counts_and_adds_up(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished), "--json"]) == 0
    (found,) = rows(capfd.readouterr().out)
    assert {word: count for word, count in found["states"].items() if count} == {"done": 2, "failed": 1}
    assert found["cost"] > 0
    assert found["writer"] is None
    assert main(["status", str(finished)]) == 0
    said = capfd.readouterr().out
    assert "done" in said
    assert "no process is running it" in said


def test_costs_are_listed_by_tag_api_and_state(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = {}
    for by in ("tag", "api", "state"):
        assert main(["cost", str(finished), "--by", by, "--json"]) == 0
        names[by] = {row[by] for row in rows(capfd.readouterr().out)}
    assert names == {"tag": {"a", "../b", "a3"}, "api": {"sonar"}, "state": {"DONE", "FAILED"}}
    assert main(["cost", str(finished)]) == 0
    assert capfd.readouterr().out.startswith("TAG ")


def test_export_as_jsonl_is_what_the_run_wrote(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(finished)]) == 0
    found = rows(capfd.readouterr().out)
    assert [(row["question"], row["ok"]) for row in found] == [
        ("One, comma?", True),
        ("=Two()", True),
        ("Three?", False),
    ]
    assert all(bool(row["text"]) is row["ok"] for row in found)


def test_export_does_not_overwrite_a_file(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    assert main(["export", str(finished), "-o", str(file)]) == 2
    assert main(["export", str(finished), "-o", str(finished), "--force"]) == 2
    assert main(["export", str(finished), "-o", str(finished).removesuffix(".journal.db"), "--force"]) == 2
    assert file.read_text() == "mine"


async def test_export_leaves_out_what_has_no_outcome_yet(tmp_path: Path) -> None:
    questions, answers = write_questions(tmp_path, "A long one?", "One?"), tmp_path / "a.csv"
    journal = f"{questions}.journal.db"
    async with Emulator(duration=lambda question: 3600.0 if "long" in question else 0.0, answer_chars=300) as server:
        await run_at(server, "run", str(questions), "--timeout", "0.5", *FAST)
        part = await run_at(server, "export", journal, "-o", str(answers))
        everything = await run_at(server, "export", journal, "--all")
        server.advance(3600.0)
        await run_at(server, "run", str(questions), *FAST)
        whole = await run_at(server, "export", journal, "-o", str(answers))
    assert part.returncode == 75
    assert "2 questions: 1 done, 0 failed, 1 still running, 0 in doubt, $" in part.stderr
    assert "1 row without an outcome left out; --all writes" in part.stderr
    assert everything.returncode == 0
    assert [(row["question"], row["status"]) for row in rows(everything.stdout)] == [
        ("A long one?", "IN_PROGRESS"),
        ("One?", "COMPLETED"),
    ]
    assert whole.returncode == 0, whole.stderr
    with answers.open(newline="", encoding="utf-8-sig") as opened:
        assert [row["question"] for row in csv.DictReader(opened)] == ["A long one?", "One?"]


@pytest.mark.parametrize("name", ["status", "watch", "review", "export", "cost"])
def test_file_that_is_not_a_journal_is_refused_untouched(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing, foreign = tmp_path / "missing.db", tmp_path / "mine.txt"
    foreign.write_text("mine" * 100)
    assert main([name, str(missing)]) == 2
    assert main([name, str(foreign)]) == 2
    err = capfd.readouterr().err
    assert err.count("aiopplx: ") == err.count("\n") == 2
    assert not missing.exists()
    assert foreign.read_text() == "mine" * 100


async def test_run_is_watched_until_it_ends(tmp_path: Path) -> None:
    questions = write_questions(tmp_path, "One?", "A long one?")
    journal = f"{questions}.journal.db"
    async with (
        Emulator(duration=lambda question: 3600.0 if "long" in question else 0.0, answer_chars=300) as server,
        started(server, "run", str(questions), *FAST) as process,
    ):
        await until(lambda: os.path.exists(journal) and states(journal)[State.DONE] == 1)
        async with started(server, "watch", journal, "--interval", "0.05") as watching:
            assert watching.stdout is not None
            first = await watching.stdout.receive()
            server.advance(3600.0)
            code, said = await ending(process)
            rest = b"".join([part async for part in watching.stdout])
            assert await watching.wait() == 0
    assert (code, b"running 1, done 1" in first) == (0, True), said
    assert rest.decode().rstrip().endswith("; no process is running it")
    assert b"done 2" in rest


def states(journal: str) -> dict[State, int]:
    with open_reader(journal) as reader:
        return reader.counts()


async def test_adopted_jobs_come_with_their_results_and_tags(tmp_path: Path) -> None:
    async with Emulator(duration=0.0, answer_chars=300) as server:
        (asked,) = rows((await run_at(server, "ask", "From elsewhere?", "--json", *FAST)).stdout)
        journal = tmp_path / "j.db"
        adopted = await run_at(server, "adopt", str(journal), asked["id"], "--tag", "mine", *FAST)
        unknown = await run_at(server, "adopt", str(journal), "00000000-0000-0000-0000-000000000000", *FAST)
        file = tmp_path / "q.jsonl"
        file.write_text('{"question": "Whatever?", "tag": "mine"}\n')
        done = await run_at(server, "run", str(file), "--journal", str(journal), *FAST)
        assert server.ledger.created == 1
    assert (adopted.returncode, unknown.returncode, done.returncode) == (0, 1, 0)
    assert [(row["id"], row["text"]) for row in rows(done.stdout)] == [(asked["id"], asked["text"])]
    with open_reader(journal) as reader:
        assert [record.has_result for record in every(reader)] == [True]


async def test_agent_job_can_be_cancelled_and_sonar_job_cannot() -> None:
    async with Emulator(duration=3600.0, cancel_delay=0.0) as server:
        for api in ("agent", "sonar"):
            await run_at(server, "ask", "Why?", "--api", api, "--timeout", "0.3", *FAST)
        agent, sonar = (job.id for job in server.ledger.jobs)
        cancelled = await run_at(server, "cancel", agent, *FAST)
        refused = await run_at(server, "cancel", sonar, *FAST)
    assert cancelled.returncode == 0
    assert cancelled.stdout.startswith(f"{agent}  cancelled")
    assert refused.returncode == 2


# --- doctor ----------------------------------------------------------------------------------------------------------


async def test_doctor_reports_settings_and_what_answers_for_free(finished: Path) -> None:
    async with Emulator(retired="chat_completions_not_available") as server:
        done = await run_at(server, "doctor", "--journal", str(finished), key="a-long-key-that-ends-in-wxyz")
        assert server.ledger.created == 0
    said = dict(line.split(None, 1) for line in reversed(done.stdout.splitlines()))
    assert done.returncode == 0
    assert said["key"] == "PERPLEXITY_API_KEY, ends in wxyz"
    assert "a-long-key" not in done.stdout + done.stderr
    assert "retired for this key (chat_completions_not_available)" in said["sonar"]
    assert said["agent"] == "answers"
    assert done.stdout.count("a run     asked for auto, would use agent\n") == 1
    assert "done 2, failed 1" in said["journal"]
    assert "3 results kept, 0 damaged" in done.stdout


async def test_doctor_names_the_fault_and_exits_with_its_code() -> None:
    async with Emulator(keys={"the-right-key"}) as server:
        wrong = await run_at(server, "doctor", key="the-wrong-key")
    async with Emulator(retired="chat_completions_not_available") as server:
        pinned = await run_at(server, "doctor", "--api", "sonar")
    no_key = await run_at(server, "doctor", key="")
    assert pinned.returncode == 3
    assert "asked for sonar, would fail" in pinned.stdout
    assert wrong.returncode == 3
    assert "agent     " in wrong.stdout
    assert no_key.returncode == 2
    assert "none: set PERPLEXITY_API_KEY" in no_key.stdout


async def test_doctor_compares_clocks_and_sends_no_wrong_key() -> None:
    headers = (("Date", "Thu, 01 Jan 2015 00:00:00 GMT"),)
    async with WireServer([Say(status=404, headers=headers, body=b"{}")]) as server:
        done = await run_at(server, "doctor")
        sent = len(server.requests)
        quoted = await run_at(server, "doctor", key="'a-long-key-that-ends-in-wxyz'")
        assert sent > 0
        assert len(server.requests) == sent
    assert " ahead of the server's: set it" in done.stdout
    assert "key       PERPLEXITY_API_KEY has a quotation mark in it" in quoted.stdout
    assert quoted.stdout.count("quotation mark in it") == 1  # and not once for each API
    assert "would fail" in quoted.stdout
    assert quoted.returncode == 2


@pytest.mark.parametrize(
    ("mode", "told", "created"),
    [("replay", "the same job back", 1), ("ignore", "makes another job", 2), ("reject", "refused", 1)],
)
async def test_probe_tells_what_a_repeated_key_gets_back(mode: Any, told: str, created: int) -> None:
    async with Emulator(duration=0.0, answer_chars=300, idempotency=mode) as server:
        unasked = await run_at(server, "doctor", "--probe")
        assert server.ledger.created == 0
        done = await run_at(server, "doctor", "--probe", "--yes")
        assert server.ledger.created == created
    assert unasked.returncode == 2
    assert "may be billed" in unasked.stdout
    assert told in done.stdout
    assert done.returncode == 0


def test_doctor_of_the_built_in_emulator_needs_no_key() -> None:
    assert run("doctor", "--emulate").returncode == 0


async def test_journal_with_unread_questions_is_a_partial_run(tmp_path: Path) -> None:
    """Questions that nobody read are in no journal: that there are more must be known without them."""
    path = tmp_path / "run.db"
    questions = [f"Question {number}?" for number in range(20)]
    async with Emulator(duration=0.0, answer_chars=300) as server:

        def opened() -> Session:
            return Session("any", base_url=server.url, journal=path, poll=PollPolicy.fixed(0.01))

        async with opened() as session:
            async with session.batch(questions, max_in_flight=1) as jobs:
                await anext(jobs)
            for job in jobs.pending:
                await session.wait(job.id)
        part, told = run("export", str(path)), run("status", str(path))
        async with opened() as session, session.batch(questions) as jobs:
            assert len([job async for job in jobs]) == len(questions)
        whole = run("export", str(path))
    assert "Not all questions have been read" in part.stderr
    assert "not all questions have been read" in told.stdout
    assert (part.returncode, whole.returncode) == (75, 0)
    assert 0 < len(rows(part.stdout)) < len(rows(whole.stdout)) == len(questions)
