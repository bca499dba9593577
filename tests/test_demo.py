"""The demo, end to end as a user runs it, and the parts that decide what is indexed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from agent_brain_postgres import embedded
from agent_brain_postgres.cli import main
from agent_brain_postgres.demo.chunks import CODE, PROSE, Chunk, chunk_file
from agent_brain_postgres.demo.embedding import DIMENSIONS, Embedder
from agent_brain_postgres.demo.files import SkippedFileError, find_files, read_file
from agent_brain_postgres.demo.render import best_lines
from agent_brain_postgres.demo.state import state_directory

Demo = Callable[..., Result]

# The core's keys that each chunk carries.
CORE_KEYS = set(
    "chunk_id source file_name chunk_index total_chunks source_type created_at file_path "  # noqa: SIM905
    "file_type file_size creation_date last_modified_date doc_id".split()
)

SERVER_PY = '''"""Where requests come in."""

import hashlib


def check_password(user, password):
    """Compare the hash of a password with the stored one."""
    return hashlib.scrypt(password, salt=user.salt, n=16384, r=8, p=1) == user.hash


class RateLimiter:
    def allowRequest(self, client):
        return self.bucket[client] > 0
'''
GUIDE_MD = """# Guide

## Growing tomatoes

Water the tomatoes in the morning and remove the side shoots.

## Backups

The nightly job copies the database to another building.
"""


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty server's directory to copy: initdb is slow."""
    directory = tmp_path_factory.mktemp("initialised") / "postgres"
    embedded.start(directory, "agent_brain").close()
    return directory


@pytest.fixture
def state(initialised: Path, tmp_path: Path) -> Path:
    target = tmp_path / "state"
    target.mkdir()
    subprocess.run(["cp", "-a", initialised, target / "postgres"], check=True)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "src").mkdir(parents=True)
    (root / "src" / "server.py").write_text(SERVER_PY)
    (root / "guide.md").write_text(GUIDE_MD)
    return root


@pytest.fixture
def demo(folder: Path, state: Path) -> Demo:
    def run(*arguments: str, fails: bool = False) -> Result:
        done = CliRunner().invoke(
            main, ["demo", str(folder), "--state-dir", str(state), *arguments]
        )
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


def chunks_of(path: Path) -> list[Chunk]:
    return chunk_file(read_file(path), str(path.parent))


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


def test_a_removed_file_and_the_end_of_a_shortened_one_leave_the_store(
    demo: Demo, folder: Path
) -> None:
    long = folder / "long.py"
    long.write_text("\n".join(f"def function_{n}():\n    return {n}\n" for n in range(100)))
    before = counts(demo().output)
    long.write_text("def function_0():\n    return 0\n")
    (folder / "guide.md").unlink()
    after = counts(demo().output)
    assert (after["stored"], after["total"]) == (1, 2)
    assert after["removed"] == before["total"] - 2


def test_two_folders_in_one_state_directory_leave_each_other_alone(
    demo: Demo, tmp_path: Path, state: Path
) -> None:
    first = counts(demo().output)
    other = tmp_path / "other"
    other.mkdir()
    (other / "tale.txt").write_text("Once upon a time a dragon lived here.")
    done = CliRunner().invoke(main, ["demo", str(other), "--state-dir", str(state), "-q", "hash"])
    assert counts(done.output)["total"] == first["total"] + 1
    assert "server.py" not in done.output


def test_a_folder_that_lost_all_its_files_ends_with_an_empty_store(
    demo: Demo, folder: Path
) -> None:
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


def test_unreadable_files_and_directories_are_skipped_and_counted() -> None:
    with reachable_directory() as outside:
        folder = outside / "folder"
        folder.mkdir()
        (folder / "open.txt").write_text("yes")
        (folder / "secret.txt").write_text("no")
        (folder / "secret.txt").chmod(0)
        (folder / "closed").mkdir(mode=0)
        options: dict[str, Any] = {}
        if os.geteuid() == 0:  # who reads everything
            options = {"user": "nobody", "extra_groups": []}
            subprocess.run(["chown", "-R", "nobody", outside], check=True)
        trial = [sys.executable, "-c", "import agent_brain_postgres"]
        if subprocess.run(trial, cwd="/", check=False, **options).returncode:
            pytest.skip("this Python is not readable for other users")
        with start_process(folder, outside / "state", cwd="/", **options) as process:
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert "2 unreadable" in " ".join(output.split())


@contextlib.contextmanager
def reachable_directory() -> Iterator[Path]:
    """Make a directory that every user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="abp-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        subprocess.run(["rm", "-rf", path], check=False)


def test_one_file_can_be_the_path(demo: Demo, folder: Path, state: Path) -> None:
    arguments = ["demo", str(folder / "guide.md"), "--state-dir", str(state), "-q", "tomatoes"]
    done = CliRunner().invoke(main, arguments)
    assert counts(done.output)["files"] == 1
    assert "guide.md:" in done.output


def test_the_users_own_database_settings_are_left_alone(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://nobody@127.0.0.1:1/theirs\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/theirs")
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_DB_SCHEMA", "theirs")
    demo()
    assert os.environ["AGENT_BRAIN_POSTGRES_DB_SCHEMA"] == "theirs"


def test_the_server_is_stopped_at_the_end(demo: Demo, state: Path) -> None:
    demo("--query", "x")
    assert not (state / "postgres" / "data" / "postmaster.pid").exists()


def test_ctrl_c_stops_cleanly_and_the_next_run_completes_the_store(
    folder: Path, state: Path, demo: Demo
) -> None:
    for number in range(3_000):
        (folder / f"{number}.txt").write_text(f"Note number {number} of many.")
    with embedded.start(state / "postgres", "agent_brain") as server:
        process = start_process(folder, state)
        wait_for_chunks(server.conninfo, process)
    assert interrupt(process) == (130, "Interrupted.\n")
    assert not (state / "postgres" / "data" / "postmaster.pid").exists()
    assert counts(demo("--query", "note").output)["total"] == 3_002


@pytest.mark.parametrize("seconds", [0.3, 1, 2])
def test_ctrl_c_while_the_store_is_created_stops_cleanly_too(
    folder: Path, tmp_path: Path, seconds: float
) -> None:
    process = start_process(folder, tmp_path / "new")
    time.sleep(seconds)
    code, errors = interrupt(process)
    assert "Traceback" not in errors
    # Python was still starting, it was interrupted, or the machine was faster than this test.
    assert code in (-signal.SIGINT, 130, 0)
    again = start_process(folder, tmp_path / "new")
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


def test_the_default_store_is_the_same_in_each_run_and_outside_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chosen = state_directory(folder, None, keep=False)
    assert chosen == state_directory(folder, None, keep=False)
    assert chosen != state_directory(tmp_path, None, keep=False)
    assert chosen.is_relative_to(tmp_path / "cache")


def test_keep_puts_the_store_into_the_folder_where_git_and_the_demo_ignore_it(
    folder: Path,
) -> None:
    kept = state_directory(folder, None, keep=True)
    assert kept == folder / ".agent-brain" / "demo"
    assert (kept / ".gitignore").read_text() == "*\n"
    assert not [path for path in find_files(folder, but=kept) if ".agent-brain" in path.parts]


def test_a_state_directory_inside_the_folder_is_not_indexed(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "file.txt").write_text("ours")
    assert folder / "state" / "file.txt" not in find_files(folder, but=folder / "state")


def test_gitignore_rules_are_followed(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    root = tmp_path / "project"
    names = [
        "kept.txt", "a.log", "important.log", "build/out.txt", "src/build/out.txt",
        "docs/one.tmp", "docs/deep/two.tmp", "only/here.txt", "src/only/here.txt", "sub/local.txt",
        "node_modules/m.js", "venv/lib.py", "x1.txt", "x2.txt", "from_above.txt",
    ]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    (root / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / ".gitignore").write_text("from_above.txt\n")
    rules = ["# comment", "*.log", "!important.log", "build/", "docs/**/*.tmp", "/only", "x[!2].txt"]
    (root / ".gitignore").write_text("\n".join(rules))
    (root / "sub" / ".gitignore").write_text("local.txt")
    found = {
        path.relative_to(root).as_posix()
        for path in find_files(root, but=tmp_path / "state")
        if path.name != ".gitignore"
    }
    assert found == {"kept.txt", "important.log", "src/only/here.txt", "x2.txt"}


@pytest.mark.parametrize("name", [".env", ".env.agent-brain", ".pgpass", "id_rsa", "server.key"])
def test_files_of_secrets_are_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("PASSWORD=secret")
    with pytest.raises(SkippedFileError):
        read_file(tmp_path / name)


def test_chunks_carry_the_keys_of_the_core(folder: Path) -> None:
    (code,) = chunks_of(folder / "src" / "server.py")
    assert code.metadata.keys() > CORE_KEYS | {"language", "symbol_name", "start_line", "imports"}
    assert code.metadata["source_type"] == "code"
    assert code.metadata["symbol_name"] == "check_password"
    (prose,) = chunks_of(folder / "guide.md")
    assert prose.metadata.keys() > CORE_KEYS | {"heading_path", "section_title", "content_type"}
    assert re.fullmatch(r"chunk_[0-9a-f]{16}", prose.chunk_id)


def test_chunk_ids_depend_on_path_and_position_alone(folder: Path) -> None:
    before = [chunk.chunk_id for chunk in chunks_of(folder / "guide.md")]
    (folder / "guide.md").write_text("something else")
    assert [chunk.chunk_id for chunk in chunks_of(folder / "guide.md")] == before


@pytest.mark.parametrize(("suffix", "limits"), [(".py", CODE), (".md", PROSE)])
def test_chunks_keep_to_the_limits_lose_no_text_and_know_their_lines(
    tmp_path: Path, suffix: str, limits: object
) -> None:
    assert limits in (CODE, PROSE)
    largest = CODE if limits is CODE else PROSE
    lines = [f"{'  ' * (n % 3)}line {n} " + "word " * (n % 30) for n in range(700)]
    lines[300] = "x" * 5_000
    path = tmp_path / f"file{suffix}"
    path.write_text("\r\n".join(lines))
    chunks = chunks_of(path)
    assert max(len(chunk.text) for chunk in chunks) <= largest.characters
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(
        "".join(lines).split()
    )
    for chunk in chunks:
        first, start = chunk.text.split("\n")[0], chunk.metadata["start_line"]
        assert first.strip() in lines[start - 1]
        assert chunk.metadata["total_chunks"] == len(chunks)


@pytest.mark.parametrize(
    ("name", "text", "symbol"),
    [
        ("a.go", "func (s *Server) Handle(w Writer) {\n}\n", "Handle"),
        ("a.rs", "pub async fn parse_line(s: &str) -> u8 {\n}\n", "parse_line"),
        ("a.ts", "export const fetchUser = async (id: string) => {\n}\n", "fetchUser"),
        ("a.c", "static int\nread_block(struct file *f, int n)\n{\n}\n", None),
        ("b.c", "static int read_block(struct file *f, int n)\n{\n}\n", "read_block"),
        ("a.java", "public final class Parser extends Base {\n}\n", "Parser"),
        ("a.sql", "CREATE TABLE IF NOT EXISTS users (id int);\n", "users"),
        ("c.c", "if (ready(x)) {\n}\n", None),
    ],
)
def test_definitions_of_many_languages_name_their_chunk(
    tmp_path: Path, name: str, text: str, symbol: str | None
) -> None:
    (tmp_path / name).write_text(text)
    (chunk,) = chunks_of(tmp_path / name)
    assert chunk.metadata.get("symbol_name") == symbol


def test_the_snippet_is_where_the_words_of_the_query_are() -> None:
    text = "\n".join([*["padding"] * 10, "    the needle is here", "    and here", *["tail"] * 5])
    assert best_lines(text, "Needle here") == (
        10,
        "    the needle is here\n    and here\ntail",
    )


def test_vectors_have_unit_length_and_a_text_without_words_gets_the_zero_vector() -> None:
    vectors = Embedder().embed(["some words", "", "\ud800 lone"])
    assert vectors.shape == (3, DIMENSIONS)
    assert abs(float((vectors[0] ** 2).sum()) - 1) < 1e-5
    assert (vectors == vectors).all()  # no NaN
