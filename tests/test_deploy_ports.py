"""Ports: free, promised to one project each, whoever asks at the same time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from agent_brain_postgres import deploy
from agent_brain_postgres.deploy import env_file, ports
from agent_brain_postgres.errors import DeployError


@pytest.fixture(autouse=True)
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "agent-brain-postgres" / "ports.json"


@contextmanager
def listening(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        yield int(server.getsockname()[1])


def project(tmp_path: Path, name: str, port: int | None = None) -> Path:
    directory = tmp_path / name / ".agent-brain"
    directory.mkdir(parents=True)
    if port is not None:
        (directory / env_file.NAME).write_text(f"POSTGRES_PORT={port}\n")
    return directory


def test_a_port_with_a_listener_is_not_free() -> None:
    with listening() as port:
        assert not deploy.is_free(port)
    assert deploy.is_free(port)


def test_a_listener_on_all_interfaces_counts() -> None:
    with listening(host="0.0.0.0") as port:
        assert not deploy.is_free(port)


def test_a_port_whose_connections_just_ended_is_free() -> None:
    with listening() as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.close()
    assert deploy.is_free(port)


def test_the_usual_ports_come_first(tmp_path: Path) -> None:
    free = next(p for p in ports.PREFERRED if deploy.is_free(p))
    assert deploy.reserve(project(tmp_path, "one")) == free


def test_with_the_usual_ports_taken_any_other_is_chosen(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for port in ports.PREFERRED:
            if deploy.is_free(port):
                stack.enter_context(listening(port))
        chosen = deploy.reserve(project(tmp_path, "one"))
        assert chosen not in ports.PREFERRED
        assert deploy.is_free(chosen)


def test_a_port_that_another_process_takes_is_refused_by_name(tmp_path: Path) -> None:
    with listening() as port, pytest.raises(DeployError, match=f"{port} is in use by another"):
        deploy.reserve(project(tmp_path, "one"), port)


def test_two_projects_never_get_the_same_port(tmp_path: Path) -> None:
    one, two = project(tmp_path, "one"), project(tmp_path, "two")
    assert deploy.reserve(one) != deploy.reserve(two)


def test_another_projects_port_is_refused_naming_the_project(tmp_path: Path) -> None:
    one, two = project(tmp_path, "one"), project(tmp_path, "two")
    port = deploy.reserve(one)
    with pytest.raises(DeployError, match=r"one/\.agent-brain"):
        deploy.reserve(two, port)


def test_a_stopped_project_keeps_its_port(tmp_path: Path, register: Path) -> None:
    one = project(tmp_path, "one")
    port = deploy.reserve(one)
    (one / env_file.NAME).write_text(f"POSTGRES_PORT={port}\n")
    _age(register)
    assert deploy.reserve(project(tmp_path, "two")) != port


def test_a_project_that_is_gone_gives_its_port_back(tmp_path: Path, register: Path) -> None:
    one = project(tmp_path, "one")
    port = deploy.reserve(one)
    _age(register)
    assert deploy.reserve(project(tmp_path, "two"), port) == port


def _age(register: Path) -> None:
    """Make every reservation older than the time in which the files are written."""
    entries = json.loads(register.read_text())["ports"]
    aged = {p: [owner, time.time() - 2 * ports.GRACE] for p, (owner, _) in entries.items()}
    register.write_text(json.dumps({"ports": aged}))


def test_an_abandoned_reservation_is_free_again(tmp_path: Path) -> None:
    one, two = project(tmp_path, "one"), project(tmp_path, "two")
    port = deploy.reserve(one)
    deploy.release(one)
    assert deploy.reserve(two, port) == port


def test_a_project_has_one_port_at_a_time(tmp_path: Path) -> None:
    one = project(tmp_path, "one")
    first, second = deploy.reserve(one), deploy.reserve(one, _other_free_port())
    assert first != second
    assert list(deploy.reserved()) == [second]


def _other_free_port() -> int:
    with listening() as port:
        return port


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"ports": 3}', '{"ports": {"x": []}}'])
def test_a_damaged_register_is_started_anew(tmp_path: Path, register: Path, damage: str) -> None:
    register.parent.mkdir(parents=True)
    register.write_text(damage)
    assert deploy.reserve(project(tmp_path, "one")) > 0


def test_the_register_is_readable_by_its_owner_only(tmp_path: Path, register: Path) -> None:
    deploy.reserve(project(tmp_path, "one"))
    assert register.stat().st_mode & 0o777 == 0o600


def test_processes_that_reserve_at_once_all_get_ports_of_their_own(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from agent_brain_postgres import deploy
        sys.stdin.readline()
        print(deploy.reserve(Path(sys.argv[1])))
        """
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(project(tmp_path, f"p{number}"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    chosen = [process.communicate(timeout=60)[0].strip() for process in started]
    assert len(set(chosen)) == len(started)
    assert all(chosen)


def test_a_home_that_cannot_be_written_does_not_stop_a_reservation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert deploy.reserve(project(tmp_path, "one")) > 0
