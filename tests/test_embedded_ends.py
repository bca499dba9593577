"""How the embedded PostgreSQL ends and recovers: exits, kills, crashes, removed directories."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_brain_postgres import PostgresBackend, PostgresConfig, embedded
from tests.embedded_servers import HOLD, holder, keepers_of, one, pid_of, release, run, wait_until_stopped


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
def test_the_server_stops_when_its_only_user_is_killed(directory: Path, how: signal.Signals) -> None:
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
    done = subprocess.run([sys.executable, "-c", script, str(directory)], capture_output=True, text=True, check=False)
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


def test_the_server_stops_when_its_directory_is_removed(directory: Path) -> None:
    with embedded.start(directory, "agent_brain"):
        pid = pid_of(directory)
        assert pid is not None
        subprocess.run(["rm", "-rf", directory], check=False)
        assert wait_until_stopped(directory, pid)


async def test_a_cancelled_start_of_a_backend_leaves_no_server_behind(place: Path) -> None:
    backend = PostgresBackend(
        PostgresConfig(embedded=place / "postgres", pool_size=1, pool_max=2),
        embedding_dimensions=4,
    )
    starting = asyncio.create_task(backend.initialize())
    await asyncio.sleep(0.05)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    for _ in range(300):  # initdb takes its time before the handle is there to be closed
        await asyncio.sleep(0.1)
        stopped = not (place / "postgres" / "data" / "postmaster.pid").exists()
        if stopped and (place / "postgres" / "data" / "PG_VERSION").exists():
            break
    assert stopped
    await backend.initialize()
    assert await backend.get_count() == 0
    await backend.close()
