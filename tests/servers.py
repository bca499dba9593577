"""PostgreSQL servers of a test's own: on TCP, with passwords, with TLS, stopped and restarted.

The session's server (conftest) is shared and listens on a Unix socket; what is about the network,
authentication or the server's installation gets one of these.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from agent_brain_postgres.embedded.account import Account, for_directory, open_tree
from agent_brain_postgres.embedded.binaries import find_installation

SUPERUSER = "postgres"
PASSWORD = "top secret"
START_SECONDS = 30


def free_port() -> int:
    """A port on which nothing listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A cluster in a directory of its own, on 127.0.0.1, reached with a SCRAM password."""

    directory: Path
    installation: Path
    account: Account
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def create(self, options: Sequence[str] = ("--auth-host=scram-sha-256",)) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        self.account.own(password)
        made = self.account.run(
            self.installation / "bin" / "initdb",
            *("-D", str(self.data), "-U", SUPERUSER, f"--pwfile={password}", "--no-sync"),
            *("--encoding=UTF8", "--locale=C", "--auth-local=trust", *options),
        )
        assert made.returncode == 0, made.stderr

    def start(self, *settings: str, listen: str = "127.0.0.1") -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self.installation / "bin" / "postgres"), "-D", str(self.data)),
                    *(f"--listen_addresses={listen}", f"--port={self.port}", "--fsync=off"),
                    f"--unix_socket_directories={self.directory}",
                    *(f"--{setting}" for setting in settings),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                umask=0o077,
                start_new_session=True,
                **self.account.child_options,
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            try:
                psycopg.connect(self.local_conninfo()).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"the server is not ready after {START_SECONDS} s:\n{self.log()}")

    async def stopped(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop without blocking the event loop.

        A client of this loop that is just connecting would keep the server waiting for its first
        packet, a minute long.
        """
        await asyncio.to_thread(self.stop, how)

    async def started(self, *settings: str) -> None:
        """Start without blocking the event loop."""
        await asyncio.to_thread(self.start, *settings)

    async def restarted(self, *settings: str) -> None:
        """Stop and start without blocking the event loop."""
        await self.stopped()
        await self.started(*settings)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_SECONDS)

    def pause(self) -> None:
        """Stop every process of the server, so that connections hang instead of failing."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, how: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, how)
        listed = subprocess.run(
            ["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True
        ).stdout
        children = [pid for parent, pid in map(str.split, listed.splitlines())
                    if int(parent) == self._process.pid]
        assert children
        for pid in children:
            os.kill(int(pid), how)

    def ensure_running(self) -> None:
        """Start it again if an earlier test left it stopped."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def conninfo(self, **parameters: str | int) -> str:
        """Over TCP, as an application connects."""
        given: dict[str, str | int] = {
            "host": "127.0.0.1",
            "port": self.port,
            "dbname": "postgres",
            "user": SUPERUSER,
            "password": PASSWORD,
            **parameters,
        }
        return make_conninfo("", **given)

    def url(self, **parameters: str | int) -> str:
        from urllib.parse import quote

        user = parameters.get("user", SUPERUSER)
        password = quote(str(parameters.get("password", PASSWORD)), safe="")
        database = parameters.get("dbname", "postgres")
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def local_conninfo(self) -> str:
        """Over the Unix socket, without a password."""
        directory = str(self.directory)
        return make_conninfo(host=directory, port=self.port, user=SUPERUSER, dbname="postgres")

    def execute(self, *statements: str, database: str = "postgres") -> None:
        conninfo = make_conninfo(self.local_conninfo(), dbname=database)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@contextmanager
def running(
    *settings: str,
    installation: Path | None = None,
    initdb: Sequence[str] = ("--auth-host=scram-sha-256",),
    start: bool = True,
) -> Iterator[Server]:
    """Create a server and remove it afterwards; its path is short enough for a Unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="abp-server-"))
    try:
        account = for_directory(directory)
        account.own(directory)
        home = installation or find_installation()
        open_tree(account, home)
        server = Server(directory, home, account)
        server.create(initdb)
        try:
            if start:
                server.start(*settings)
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def installation_without_pgvector() -> Iterator[Path]:
    """A copy of the installation to which pgvector was never added."""
    with _copied_installation() as copy:
        for file in _extension_files(copy):
            file.unlink()
        yield copy


@contextmanager
def installation_with_old_pgvector(version: str = "0.6.2") -> Iterator[Path]:
    """A copy of the installation whose extension says that it is an older pgvector."""
    with _copied_installation() as copy:
        extension = copy / "share" / "postgresql" / "extension"
        control = extension / "vector.control"
        current = control.read_text().split("default_version = '")[1].split("'")[0]
        script = (extension / f"vector--{current}.sql").read_bytes()
        text = control.read_text().replace(current, version)
        for file in _extension_files(copy):
            file.unlink()
        # Unlinked first: the copy shares its files with the original.
        control.write_text(text)
        (extension / f"vector--{version}.sql").write_bytes(script)
        yield copy


def _extension_files(installation: Path) -> Iterator[Path]:
    return (installation / "share" / "postgresql" / "extension").glob("vector*")


@contextmanager
def _copied_installation() -> Iterator[Path]:
    original = find_installation()
    # Beside the original where it can be written, so that hard links do instead of copies.
    parent = original.parent if os.access(original.parent, os.W_OK) else None
    copy = Path(tempfile.mkdtemp(prefix=".pginstall-", dir=parent))
    copy.chmod(0o755)
    try:
        shutil.copytree(original, copy, copy_function=_link, dirs_exist_ok=True, symlinks=True)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


@functools.cache
def tls_installation() -> Path | None:
    """An installation whose server speaks TLS (Debian's); the embedded one is built without."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return candidates[0].parent.parent if candidates and shutil.which("openssl") else None


def certify(server: Server) -> Path:
    """Give a server a certificate that it signed itself; its path."""
    certificate, key = server.directory / "server.crt", server.directory / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    server.account.own(key)
    server.account.own(certificate)
    return certificate
