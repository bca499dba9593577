"""The demo, end to end, as a user runs it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from agent_brain_postgres import embedded
from agent_brain_postgres.cli import main
from tests.demo_folder import GUIDE_MD
from tests.embedded_servers import copy

Demo = Callable[..., Result]


@pytest.fixture
def state(pristine: Path, place: Path) -> Path:
    (place / "state").mkdir()
    copy(pristine, place / "state" / "postgres")
    return place / "state"


@pytest.fixture
def demo(folder: Path, state: Path) -> Demo:
    def run(*arguments: str, fails: bool = False) -> Result:
        done = CliRunner().invoke(main, ["demo", str(folder), "--state-dir", str(state), *arguments])
        assert (done.exit_code != 0) == fails, done.output
        return done

    return run


def counts(output: str) -> dict[str, int]:
    """Read the line that sums a run up."""
    flat = " ".join(output.split())
    match = re.search(
        r"(?P<files>\d+) files, (?P<unchanged>\d+) of them unchanged: (?P<stored>\d+) chunks "
        r"stored, (?P<removed>\d+) removed, (?P<total>\d+) in the store",
        flat,
    )
    assert match, output
    return {key: int(value) for key, value in match.groupdict().items()}


def test_each_kind_of_search_finds_the_place_with_file_and_line(demo: Demo) -> None:
    output = demo("--query", "hash of a password").output
    for kind in ("Vector", "Keyword", "Hybrid"):
        table = output.split(f"{kind} · ")[1]
        first_row = table.split("server.py:")[1]
        assert first_row[0].isdigit()
    assert "src/server.py:6" in output or "src/server.py:7" in output


def test_a_word_of_an_identifier_finds_it(demo: Demo) -> None:
    output = demo("--query", "limiter").output
    assert "src/server.py" in output.split("Keyword · ")[1].split("Hybrid · ")[0]


def test_at_a_terminal_it_asks_until_an_empty_line(folder: Path, state: Path) -> None:
    keyboard, terminal = os.openpty()
    os.write(keyboard, b"tomatoes\nbackups\n\n")
    with start_process(folder, state, stdin=terminal) as process:
        output, errors = process.communicate(timeout=60)
    os.close(keyboard)
    os.close(terminal)
    assert (process.returncode, errors) == (0, "")
    assert output.count("Keyword · ") == 2


def test_several_queries_are_all_answered(demo: Demo) -> None:
    output = demo("--query", "tomatoes", "--query", "backup job").output
    assert output.count("Vector · ") == 2
    assert output.count("guide.md:") >= 2


def test_it_closes_with_the_health_document_and_timings(demo: Demo) -> None:
    output = demo("--query", "x").output
    health, timings = output.split("Health")[1].split("Timings")
    assert '"status": "healthy"' in health
    assert "embed" in timings
    assert "store" in timings


def test_without_a_query_or_a_terminal_it_says_how_to_ask(demo: Demo) -> None:
    assert "--query" in demo().output


@pytest.mark.parametrize(
    "query", ["", " ", "\0", "\ud800", "[bold]", '"unclosed', "a" * 10_000, "-- '; DROP", "ünï 中文"]
)
def test_any_query_is_answered(demo: Demo, query: str) -> None:
    assert "Hybrid · " in demo("--query", query).output


def test_a_second_run_stores_only_what_changed(demo: Demo, folder: Path) -> None:
    first = counts(demo().output)
    assert first == {
        "files": 2, "unchanged": 0, "stored": first["total"], "removed": 0, "total": first["total"]
    }  # fmt: skip
    assert counts(demo().output) == {**first, "unchanged": 2, "stored": 0}
    (folder / "guide.md").write_text(GUIDE_MD.replace("tomatoes", "cucumbers"))
    third = demo("--query", "cucumbers")
    assert counts(third.output) == {**first, "unchanged": 1, "stored": 1}
    assert "guide.md" in third.output.split("Keyword · ")[1]


def test_a_removed_file_and_the_end_of_a_shortened_one_leave_the_store(demo: Demo, folder: Path) -> None:
    long = folder / "long.py"
    long.write_text("\n".join(f"def function_{n}():\n    return {n}\n" for n in range(100)))
    before = counts(demo().output)
    long.write_text("def function_0():\n    return 0\n")
    (folder / "guide.md").unlink()
    after = counts(demo().output)
    assert (after["stored"], after["total"]) == (1, 2)
    assert after["removed"] == before["total"] - 2


def test_two_folders_in_one_state_directory_leave_each_other_alone(demo: Demo, place: Path, state: Path) -> None:
    first = counts(demo().output)
    other = place / "other"
    other.mkdir()
    (other / "tale.txt").write_text("Once upon a time a dragon lived here.")
    done = CliRunner().invoke(main, ["demo", str(other), "--state-dir", str(state), "-q", "hash"])
    assert counts(done.output)["total"] == first["total"] + 1
    assert "server.py" not in done.output


def test_a_folder_that_lost_all_its_files_ends_with_an_empty_store(demo: Demo, folder: Path) -> None:
    demo()
    shutil.rmtree(folder)
    folder.mkdir()
    assert counts(demo("--query", "hash").output)["total"] == 0


def test_odd_files_are_skipped_and_counted_never_fatal(demo: Demo, folder: Path) -> None:
    (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (folder / "latin1.txt").write_bytes("Größe".encode("latin-1"))
    (folder / "utf16.txt").write_text("wide", encoding="utf-16")
    (folder / "empty.py").write_text("\n")
    (folder / "huge.txt").write_text("word " * 300_000)
    (folder / "data.json").write_text("{}")
    (folder / "link.py").symlink_to(folder / "src" / "server.py")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    flat = " ".join(demo().output.split())
    assert "skipped 9 files" in flat
    for count in ("2 binary", "1 not UTF-8", "1 empty", "1 over 1 MB", "1 data", "3 links"):
        assert count in flat


def test_files_with_odd_contents_and_names_are_indexed(demo: Demo, folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.md")).write_text("The espresso machine needs descaling.")
    (folder / "[red]bracket.txt").write_text("A bracket is no markup.")
    (folder / "late-nul.txt").write_text("word " * 2_000 + "\0 behind a zero byte")
    (folder / "one-line.js").write_text("var a=1;" * 2_000)
    (folder / "bom.py").write_bytes(b"\xef\xbb\xbfdef after_the_mark(): pass\n")
    output = demo("--query", "espresso descaling", "--query", "bracket markup").output
    assert counts(output)["files"] == 7
    assert ".md:1" in output
    assert "[red]bracket.txt:1" in output


def test_unreadable_files_and_directories_are_skipped_and_counted(folder: Path, place: Path) -> None:
    (folder / "secret.txt").write_text("no")
    (folder / "secret.txt").chmod(0)
    (folder / "closed").mkdir(mode=0)
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # who reads everything
        options = {"user": "nobody", "extra_groups": []}
        subprocess.run(["chown", "-R", "nobody", place], check=True)
    trial = [sys.executable, "-c", "import agent_brain_postgres"]
    if subprocess.run(trial, cwd="/", check=False, **options).returncode:
        pytest.skip("this Python is not readable for other users")
    with start_process(folder, place / "state", cwd="/", **options) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "2 unreadable" in " ".join(output.split())


def test_one_file_can_be_the_path(demo: Demo, folder: Path, state: Path) -> None:
    arguments = ["demo", str(folder / "guide.md"), "--state-dir", str(state), "-q", "tomatoes"]
    done = CliRunner().invoke(main, arguments)
    assert counts(done.output)["files"] == 1
    assert "guide.md:" in done.output


def test_the_users_own_database_settings_are_left_alone(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.chdir(place)
    (place / ".env").write_text("DATABASE_URL=postgresql://nobody@127.0.0.1:1/theirs\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/theirs")
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_DB_SCHEMA", "theirs")
    demo()
    assert os.environ["AGENT_BRAIN_POSTGRES_DB_SCHEMA"] == "theirs"


def test_the_server_is_stopped_at_the_end(demo: Demo, state: Path) -> None:
    demo("--query", "x")
    assert not (state / "postgres" / "data" / "postmaster.pid").exists()


def test_ctrl_c_stops_cleanly_and_the_next_run_completes_the_store(folder: Path, state: Path, demo: Demo) -> None:
    for number in range(3_000):
        (folder / f"{number}.txt").write_text(f"Note number {number} of many.")
    with embedded.start(state / "postgres", "agent_brain") as server:
        process = start_process(folder, state)
        wait_for_chunks(server.conninfo, process)
    assert interrupt(process) == (130, "Interrupted.\n")
    assert not (state / "postgres" / "data" / "postmaster.pid").exists()
    assert counts(demo("--query", "note").output)["total"] == 3_002


@pytest.mark.parametrize("seconds", [0.3, 1, 2])
def test_ctrl_c_while_the_store_is_created_stops_cleanly_too(folder: Path, place: Path, seconds: float) -> None:
    process = start_process(folder, place / "new")
    time.sleep(seconds)
    code, errors = interrupt(process)
    assert "Traceback" not in errors
    # Python was still starting, it was interrupted, or the machine was faster than this test.
    assert code in (-signal.SIGINT, 130, 0)
    again = start_process(folder, place / "new")
    assert again.communicate(timeout=60)[1] == ""
    assert again.returncode == 0


def start_process(folder: Path, state: Path, **options: Any) -> subprocess.Popen[str]:
    arguments = ["demo", str(folder), "--state-dir", str(state)]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-m", "agent_brain_postgres", *arguments],
        **{"stdin": subprocess.DEVNULL, **pipes, "start_new_session": True, **options},
        text=True,
    )


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def wait_for_chunks(conninfo: str, process: subprocess.Popen[str]) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while process.poll() is None:
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = connection.execute("SELECT count(*) FROM agent_brain.chunks").fetchone()
                if row and row[0]:
                    return
            time.sleep(0.05)
    raise AssertionError(process.communicate()[1])
