"""Embedded servers for tests: directories to run them in, and processes that use them."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from agent_brain_postgres import embedded
from agent_brain_postgres.embedded.processes import read_postmaster

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Starts the server of a directory, says so, and holds it until its input ends.
HOLD = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have it ignored
from agent_brain_postgres import embedded
server = embedded.start(sys.argv[1], "agent_brain")
print(server.conninfo, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reachable_directory() -> Iterator[Path]:
    """Make a directory that every user can reach.

    Not below pytest's own: each pytest that starts closes that to others, also to the account that
    runs PostgreSQL for root, in the middle of another run.
    """
    path = Path(tempfile.mkdtemp(prefix="abp-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        subprocess.run(["rm", "-rf", path], check=False)


@pytest.fixture(scope="session")
def pristine() -> Iterator[Path]:
    """Make a stopped server's directory to copy: initdb is slow."""
    with reachable_directory() as place:
        embedded.start(place / "postgres", "agent_brain").close()
        yield place / "postgres"


@pytest.fixture
def place() -> Iterator[Path]:
    """Give an empty directory of the test's own."""
    with reachable_directory() as path:
        yield path


@pytest.fixture(name="directory")
def prepared_directory(pristine: Path, place: Path) -> Path:
    """Give the directory of a server that was initialised, and stopped."""
    return copy(pristine, place / "postgres")


def copy(pristine: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", pristine, target], check=True)
    return target


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


def keepers_of(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if any(part.endswith(b"/keeper.py") for part in command):
                found += [int(entry.name)] * (os.fsencode(directory) in command)
    return found


def passes_as(uid: int, *command: str | Path) -> bool:
    done = subprocess.run(command, user=uid, group=54321, extra_groups=[], capture_output=True, check=False)
    return done.returncode == 0


def can_run_python(user: str) -> bool:
    return passes_as(pwd.getpwnam(user).pw_uid, sys.executable, "-c", "import agent_brain_postgres.errors")
