"""The shipped compose template as the server of a test run: `pytest --docker`."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from agent_brain_postgres import deploy
from tests.servers import free_port

COMMANDS = ("docker compose", "docker-compose")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """Have pytest-docker use the shipped template."""
    return str(deploy.template())


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """Take Compose 2 where there is one, else Compose 1."""
    return next((command for command in COMMANDS if _says(f"{command} version")), COMMANDS[0])


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Wait for the template's own health check."""
    return ["up --detach --wait --wait-timeout 300"]


@pytest.fixture(scope="session")
def compose_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Conninfo of a container of the template; skips, with the reason, where no engine answers."""
    if (reason := missing_engine()) is not None:
        pytest.skip(f"--docker: no Docker engine answers: {reason}")
    variables = {"POSTGRES_PASSWORD": secrets.token_urlsafe(16), "POSTGRES_PORT": str(free_port())}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        services: Any = request.getfixturevalue("docker_services")
        yield make_conninfo(
            host="127.0.0.1",
            port=services.port_for("postgres", 5432),
            user="agent_brain",
            password=variables["POSTGRES_PASSWORD"],
            dbname="agent_brain",
        )


def missing_engine() -> str | None:
    """Say why no container can be started; None when one can."""
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"docker: {error.strerror}"
    if answer.returncode == 0:
        return None
    said = (answer.stderr or answer.stdout).strip().splitlines()
    return said[-1] if said else "docker info failed"


def _says(command: str) -> bool:
    try:
        return subprocess.run(command.split(), capture_output=True, check=False).returncode == 0
    except OSError:
        return False
