"""The command line as a process of its own, on real files, sockets and signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio.to_thread
import pytest
from _shell import (
    ENDS_WITHIN,
    FAST,
    KEY,
    QUESTIONS,
    command,
    ending,
    environment,
    lines,
    rows,
    run,
    run_at,
    started,
    until,
)
from _terminal import on_a_terminal_at
from anyio.abc import Process

import aiopplx
from aiopplx.__main__ import main
from aiopplx.emulator import Emulator, faults

# --- help and installation -------------------------------------------------------------------------------------------


def test_help_does_not_import_the_http_library() -> None:
    code = "import sys; from aiopplx.__main__ import main; main(['run', '--help']); print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.endswith("False\n")
    assert "--emulate" in done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "ask",
        "get",
        "list",
        "cancel",
        "status",
        "watch",
        "review",
        "export",
        "adopt",
        "cost",
        "doctor",
        "emulator",
    ],
)
def test_each_command_has_help_and_no_key_option(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capfd.readouterr()
    assert f"aiopplx {name}" in said.out
    assert "--api-key " not in said.out
    assert said.err == ""


def test_version_is_the_version_of_the_package(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"{aiopplx.__version__}\n"


def test_missing_libraries_are_named_with_their_install_command() -> None:
    code = "import sys; sys.modules['cyclopts'] = None; from aiopplx.__main__ import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2
    assert done.stderr == 'aiopplx: the command line needs two more libraries: pip install "aiopplx[cli]"\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "QUESTIONS"),
        (["run", "q.txt", "--limt", "3"], "--limit"),
        (["get"], "(see aiopplx get --help)"),
        (["rnu"], "(see aiopplx --help)"),
        (["run", str(QUESTIONS.parent), "--emulate"], f"cannot read {QUESTIONS.parent.name}: Is a directory"),
        (["run", "q.txt", "--limit", "0"], "> 0"),
        (["run", "missing.txt"], "cannot read missing.txt"),
        (
            ["run", str(QUESTIONS), "--no-journal", "-o", "/no/such/dir/a.jsonl", "--emulate"],
            "cannot write /no/such/dir/a.jsonl",
        ),
        (["run", str(QUESTIONS), "--no-journal", "--emulate", "--base-url", "http://127.0.0.1:1"], "--emulate"),
        (["run", str(QUESTIONS), "--no-journal"], "PERPLEXITY_API_KEY"),
        (["ask", "Why?"], "--emulate"),
        (["ask", "Why?", "--api-key-file", "missing.key"], "missing.key"),
        (["ask", " ", "--emulate"], "empty"),
        (["ask", "Why?", "--base-url", "http://example.com", "--api-key-file", "/dev/null"], "/dev/null is empty"),
        (["emulator", "--tier", "9"], "--tier"),
        (["rnu"], "run"),
    ],
)
def test_misspelt_option_is_one_line_and_exit_code_2(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    message = err.removeprefix("Emulated: the answer is invented, nothing is billed.\n")
    if message.startswith("questions.txt: "):  # the file was looked at first
        message = message[message.index("aiopplx: ") :]
    assert message.startswith("aiopplx: ")
    assert message.count("\n") == 1
    assert said in message
    assert out == ""


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["ask", "-", "--emulate"], "QUESTION"),
        (["get", "-"], "ID"),
        (["cancel", "-"], "ID"),
        (["status", "-"], "JOURNAL"),
        (["watch", "-"], "JOURNAL"),
        (["cost", "-"], "JOURNAL"),
        (["export", "-", "-o", "-"], "JOURNAL"),
        (["review", "-"], "JOURNAL"),
        (["adopt", "-", "some-id"], "JOURNAL"),
        (["adopt", "some.db", "-"], "ID"),
        (["journal", "migrate", "-"], "JOURNAL"),
        (["doctor", "--journal", "-"], "--journal"),
        (["ask", "Why?", "--model", "-"], "--model"),
        (["run", "questions.txt", "--journal", "-"], "--journal"),
        (["run", "questions.txt", "--journal=-"], "--journal"),
        (["run", "questions.txt", "--model", "-"], "--model"),
        (["run", "questions.txt", "--keep", "-"], "--keep"),
        (["run", "questions.txt", "--api-key-file", "-"], "--api-key-file"),
    ],
)
def test_dash_that_is_no_stream_is_refused_as_typed(
    words: list[str], what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert "- stands for stdin or stdout" in err
    assert what in err
    assert err.count("\n") == 1
    assert "\0" not in err
    assert out == ""


# --- run -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["-o-", "-o=-", "--output=-", "--output -"])
async def test_dash_as_output_is_stdout(word: str) -> None:
    async with Emulator(duration=0.0) as server:
        done = await run_at(server, "run", "-", "--no-journal", *FAST, *word.split(), stdin="Why?\n")
    assert done.returncode == 0
    assert [row["question"] for row in rows(done.stdout)] == ["Why?"]


def test_shipped_questions_run_on_the_emulator_without_a_key(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    done = run("run", str(QUESTIONS), "--no-journal", "--emulate", "-o", str(answers))
    assert done.returncode == 0
    assert done.stdout == ""
    assert "invented" in done.stderr
    assert "12 questions: 12 done, 0 failed, 0 in doubt, $" in done.stderr
    found = rows(answers.read_text())
    expected = [
        number
        for number, line in enumerate(QUESTIONS.read_text().splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    assert sorted(lines(found)) == expected
    assert all(row["ok"] and row["text"] and row["sources"] and row["cost"] > 0 for row in found)
    assert len({row["id"] for row in found}) == 12


async def test_one_bad_line_of_a_thousand_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    asked = [json.dumps({"question": f"Question {number}?", "tag": number}) for number in range(1000)]
    asked[499] = '{"question": "Question 499?'
    file.write_text("\n".join(asked))
    async with Emulator(duration=0.0, answer_chars=200) as server:
        refused = await run_at(server, "run", str(file), *FAST)
        assert (refused.returncode, server.ledger.created) == (2, 0)
        assert "line 500: not JSON" in refused.stderr
        assert "--skip-bad asks the other 999" in refused.stderr
        done = await run_at(server, "run", str(file), "--skip-bad", *FAST)
        assert server.ledger.created == 999
    found = rows(done.stdout)
    assert sorted(lines(found)) == list(range(1, 1001))
    assert [row["line"] for row in found if not row["ok"]] == [500]
    assert "999 done, 1 failed (1 rejected)" in done.stderr
    assert done.returncode == 1


async def test_request_fields_tags_and_the_model_reach_the_server(tmp_path: Path) -> None:
    asked = '{"question": "One?", "tag": "a", "model": "sonar-pro"}\n"Two?"\n{"question": "Three?", "tag": 3}\n'
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(
            server, "run", "-", "--model", "sonar-deep-research", "--fields", "all", "--in-order", *FAST, stdin=asked
        )
        sent = [json.loads(job.body)["request"]["model"] for job in server.ledger.jobs]
    assert [(row["line"], row["tag"]) for row in rows(done.stdout)] == [(1, "a"), (2, None), (3, 3)]
    assert sorted(sent) == ["sonar-deep-research", "sonar-deep-research", "sonar-pro"]


async def test_invalid_lines_get_rows_of_their_own_in_place() -> None:
    asked = '{"question": "One?"}\n{"qestion": "Two?"}\nno json\n{"question": "  "}\n{"question": "Five?"}\n'
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", "-", "--input-format", "jsonl", "--in-order", *FAST, stdin=asked)
        assert server.ledger.created == 2
    found = rows(done.stdout)
    assert [(row["line"], row["status"]) for row in found] == [
        (1, "COMPLETED"),
        (2, "REJECTED"),
        (3, "REJECTED"),
        (4, "REJECTED"),
        (5, "COMPLETED"),
    ]
    assert "line 2: rejected: " in done.stderr
    assert '"qestion" is nearly "question", a request field' in done.stderr
    assert "line 3: rejected: not JSON" in done.stderr
    assert 'line 4: rejected: "question" is empty' in done.stderr


@pytest.mark.parametrize("content", ["\n\n", "# only remarks\n"])
def test_file_without_questions_is_exit_code_2(content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "q.txt"
    file.write_text(content)
    assert main(["run", str(file), "--emulate", "-q"]) == 2
    assert capfd.readouterr() == ("", "aiopplx: no questions in q.txt\n")


async def test_limit_asks_the_first_questions_only() -> None:
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", str(QUESTIONS), "--no-journal", "--limit", "2", "--quiet", *FAST)
        assert server.ledger.created == 2
    assert sorted(lines(rows(done.stdout))) == [3, 4]
    assert done.stderr == ""


async def test_wrong_key_is_exit_code_3_and_not_shown(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    async with Emulator(keys={"the-right-key"}) as server:
        done = await run_at(server, "run", str(QUESTIONS), "--no-journal", "--api-key-file", str(key_file), key="")
        assert server.ledger.created == 0
    assert done.returncode == 3
    assert "PERPLEXITY_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout + done.stderr


@pytest.mark.slow
def test_no_network_is_exit_code_75_with_nothing_sent() -> None:
    done = run("run", str(QUESTIONS), "--no-journal", PERPLEXITY_BASE_URL="http://127.0.0.1:9", PERPLEXITY_API_KEY=KEY)
    assert done.returncode == 75
    assert "could not connect" in done.stderr
    assert "12 not sent" in done.stderr
    assert KEY not in done.stdout + done.stderr


async def test_failed_jobs_are_named_with_exit_code_1() -> None:
    async with Emulator(duration=0.0, failing=lambda question: "Two" in question) as server:
        done = await run_at(server, "run", "-", *FAST, stdin="One?\nTwo?\n")
    assert done.returncode == 1
    assert "line 2: failed: " in done.stderr
    assert "1 done, 1 failed (1 failed at the service)" in done.stderr


async def test_job_past_its_deadline_is_named_with_its_id() -> None:
    async with Emulator(duration=3600.0) as server:
        done = await run_at(server, "run", "-", "--timeout", "0.3", *FAST, stdin="One?\n")
        (job,) = server.ledger.jobs
    assert done.returncode == 1
    assert f"(job {job.id})" in done.stderr
    assert "still running at their deadline" in done.stderr


async def test_paid_answers_are_not_overwritten(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text("paid\n")
    async with Emulator(duration=0.0) as server:
        refused = await run_at(server, "run", "-", "-o", str(answers), *FAST, stdin="One?\n")
        assert (refused.returncode, answers.read_text()) == (2, "paid\n")
        assert server.ledger.created == 0
        forced = await run_at(server, "run", "-", "--force", "-o", str(answers), *FAST, stdin="One?\n")
    assert "--force" in refused.stderr
    assert forced.returncode == 0
    assert lines(rows(answers.read_text())) == [1]


async def test_full_disk_ends_the_run_and_names_running_jobs() -> None:
    async with Emulator(duration=0.0) as server:
        done = await run_at(server, "run", "-", "-o", "/dev/full", *FAST, stdin="One?\nTwo?\n")
    assert done.returncode == 75
    assert "aiopplx: cannot write /dev/full: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


# --- signals and terminals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
async def test_signal_stops_the_run_and_names_running_jobs(tmp_path: Path, signum: signal.Signals, name: str) -> None:
    answers = tmp_path / "answers.jsonl"
    async with (
        Emulator(duration=lambda question: 0.0 if "short" in question else 3600.0) as server,
        started(server, "run", "-", "-o", str(answers), *FAST) as process,
    ):
        # stdin stays open: a run that waits for further questions must hear the signal as well.
        assert process.stdin is not None
        await process.stdin.send(b"short\nlong one\nlong two\n")
        await until(lambda: server.ledger.created == 3 and answers.read_text().endswith("\n"))
        process.send_signal(signum)
        code, said = await ending(process)
        running = [job.id for job in server.ledger.jobs if b"long" in job.body]
    assert code == 128 + signum
    assert f"Stopped by {name}." in said
    assert "2 jobs still running; they continue at the service and are billed" in said
    assert f"Run the same command again to resume from {answers}.journal.db; nothing is paid twice." in said
    assert all(job_id in said for job_id in running)
    assert "Unclosed" not in said
    assert lines(rows(answers.read_text())) == [1]


async def test_second_signal_ends_the_run_at_once() -> None:
    async with Emulator() as server:
        server.faults.add("submit", faults.Hang())
        async with started(server, "run", str(QUESTIONS), "--no-journal") as process:
            await until(lambda: bool(server.ledger.requests))
            process.send_signal(signal.SIGINT)
            # Not by the process object, which would look whether it has ended, and so take its exit code from asyncio.
            with contextlib.suppress(ProcessLookupError):
                await until(lambda: process.returncode is not None or os.kill(process.pid, signal.SIGINT) is not None)
            code, said = await ending(process)
    assert code == 130
    assert "Stopped" not in said  # after the first it would have waited for the submissions, and said so


async def asked(server: Emulator, process: Process) -> None:
    """Three jobs run, whatever became of their answers."""
    assert process.stdin is not None
    await process.stdin.send(b"one\ntwo\nthree\n")
    await until(lambda: server.ledger.created == 3)


@pytest.mark.parametrize("other", [signal.SIGTERM, signal.SIGINT])
async def test_signals_that_come_together_are_one(other: signal.Signals) -> None:
    async with (
        Emulator(duration=3600.0) as server,
        started(server, "run", "-", "--no-journal", *FAST) as process,
    ):
        await asked(server, process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(other)
        code, said = await ending(process)
        jobs = [job.id for job in server.ledger.jobs]
    # The second may come when all is said and the handlers are gone: a shell has the same code for that.
    assert (code if code >= 0 else 128 - code) in (128 + signal.SIGTERM, 128 + other)
    assert "Stopped by" in said
    assert all(job_id in said for job_id in jobs)


async def test_second_signal_names_the_jobs_that_go_on() -> None:
    async with Emulator(duration=3600.0) as server:
        server.faults.add("submit", faults.Hang(after_accept=True), times=1)
        async with started(server, "run", "-", "--no-journal", *FAST) as process:
            await asked(server, process)
            process.send_signal(signal.SIGINT)
            # Not by the process object, which would look whether it has ended, and so take its exit code from asyncio.
            with contextlib.suppress(ProcessLookupError):
                await until(lambda: process.returncode is not None or os.kill(process.pid, signal.SIGINT) is not None)
            code, said = await ending(process)
            jobs = [job.id for job in server.ledger.jobs]
    assert code == 130
    assert "Ended at once. 2 jobs may still be running" in said
    assert sum(job_id in said for job_id in jobs) == 2


async def test_closed_pipe_ends_the_run_without_a_complaint() -> None:
    ours, theirs = os.pipe()
    words = ("run", str(QUESTIONS), "--no-journal", "--rpm", "600", *FAST)
    async with Emulator(duration=0.0) as server, started(server, *words, stdout=theirs) as process:
        os.close(theirs)
        await anyio.to_thread.run_sync(os.read, ours, 1)
        os.close(ours)
        code, said = await ending(process)
    assert code == 141
    assert "Traceback" not in said
    assert "Broken pipe" not in said


async def test_terminal_shows_the_run_live_and_is_restored(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    async with Emulator(duration=0.6) as server:
        code, seen = await on_a_terminal_at(
            server, "run", str(QUESTIONS), "--no-journal", "--limit", "3", "-o", str(answers), *FAST
        )
    assert code == 0
    for word in ("3 running", "done", "$0.00", " of 3"):
        assert word in seen
    assert "3 questions: 3 done" in " ".join(seen[seen.rindex("\x1b[?25h") :].split())
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is shown again
    assert len(rows(answers.read_text())) == 3


async def test_ctrl_c_restores_the_terminal(tmp_path: Path) -> None:
    words = ("run", str(QUESTIONS), "--no-journal", "--yes", "-o", str(tmp_path / "answers.jsonl"))
    async with Emulator() as server:
        code, seen = await on_a_terminal_at(server, *words, keys=b"\x03", press_at=b" of 12")
    assert code == 130
    assert "Stopped by Ctrl-C." in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")


async def test_typed_questions_run_and_no_color_is_obeyed() -> None:
    async with Emulator(duration=0.0) as server:
        code, seen = await on_a_terminal_at(
            server, "run", "-", *FAST, keys=b"Why?\n\x04", press_at=b"Ctrl-D ends them", NO_COLOR="1"
        )
    assert code == 0
    assert "1 question: 1 done" in seen
    assert "\x1b[3" not in seen


# --- single jobs -----------------------------------------------------------------------------------------------------


def test_answer_is_printed_with_its_sources_numbered() -> None:
    done = run("ask", "Why did the Vasa sink?", "--emulate")
    assert done.returncode == 0
    text, _, sources = done.stdout.partition("\n## Sources\n\n")
    assert "[1]" in text
    numbered = sources.splitlines()
    assert [line.split(".")[0] for line in numbered] == [str(number) for number in range(1, len(numbered) + 1)]
    assert all("https://" in line for line in numbered)
    assert "$" in done.stderr


@pytest.mark.slow
async def test_jobs_are_listed_polled_and_waited_for() -> None:
    async with Emulator(duration=lambda question: 0.0 if "short" in question else 3600.0) as server:
        asked = await run_at(server, "ask", "A short one?", "--json", *FAST)
        late = await run_at(server, "ask", "A long one?", "--timeout", "0.3", *FAST)
        short, long = (job.id for job in server.ledger.jobs)
        listed = await run_at(server, "list")
        as_json = await run_at(server, "list", "--json", "--limit", "1")
        got = await run_at(server, "get", short, "--json")
        waited = await run_at(server, "get", short, "--wait", *FAST)
        running = await run_at(server, "get", long)
        unknown = await run_at(server, "get", "no-such-job")
    assert [row["id"] for row in rows(asked.stdout)] == [short]
    assert late.returncode == 75
    assert long in late.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["ID", long, short]
    assert [row["id"] for row in rows(as_json.stdout)] == [long]
    assert rows(got.stdout)[0]["text"] == rows(asked.stdout)[0]["text"]
    assert waited.stdout.startswith(rows(got.stdout)[0]["text"][:100])
    assert (running.returncode, running.stdout) == (75, "")
    assert f"aiopplx get {long} --wait" in running.stderr
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("aiopplx: no job no-such-job: ")
    assert "7 days" in unknown.stderr


async def test_ctrl_c_while_asking_names_the_running_job() -> None:
    async with Emulator(duration=3600.0) as server, started(server, "ask", "Why?", *FAST) as process:
        await until(lambda: any(path.startswith("GET") for path in server.ledger.requests))
        process.send_signal(signal.SIGINT)
        code, said = await ending(process)
        (job,) = server.ledger.jobs
    assert code == 130
    assert said == (
        f"aiopplx: stopped by Ctrl-C; job {job.id} continues at the service and is billed:"
        f" aiopplx get {job.id} --wait\n"
    )


# --- the emulator as a command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_emulator_prints_its_address_and_serves_until_a_signal(signum: signal.Signals) -> None:
    words = command("emulator", "--port", "0", "--time-scale", "1000", "--key", "mine")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline()
        assert url.startswith("http://127.0.0.1:")
        env = {"PERPLEXITY_BASE_URL": url.strip(), "PERPLEXITY_API_KEY": "mine"}
        assert run("list", **env).stderr == "0 jobs\n"
        assert run("list", **{**env, "PERPLEXITY_API_KEY": "other"}).returncode == 3
        process.send_signal(signum)
        assert process.wait(ENDS_WITHIN) == 0
        assert "0 jobs created" in process.stderr.read()


def test_port_in_use_is_reported() -> None:
    with subprocess.Popen(
        command("emulator"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip().rpartition(":")[2]
        second = run("emulator", "--port", port)
        process.terminate()
    assert second.returncode == 2
    assert second.stderr.startswith(f"aiopplx: cannot listen on 127.0.0.1:{port}: ")
