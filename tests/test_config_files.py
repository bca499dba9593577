"""The files that settings come from: where they are looked for, and when they are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_brain_postgres.config import PostgresConfig, load_config
from tests.settings_project import empty_project, password, refusal, write, write_yaml


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_project(tmp_path, monkeypatch)


def test_yaml_is_looked_for_where_the_core_looks(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENT_BRAIN_CONFIG", str(tmp_path / "named.yaml"))
    monkeypatch.setenv("AGENT_BRAIN_STATE_DIR", str(tmp_path / "state"))
    home = tmp_path / "home"
    places = [
        tmp_path / "named.yaml",
        tmp_path / "state" / "config.yaml",
        project / "config.yaml",
        project / ".agent-brain" / "config.yaml",
        project / ".claude" / "agent-brain" / "config.yaml",
        home / ".config" / "agent-brain" / "config.yaml",
        home / ".config" / "agent-brain" / "agent-brain.yaml",
        home / ".agent-brain" / "agent-brain.yaml",
    ]
    for place in places:
        write_yaml(place, host=str(place))
    for place in places:
        assert load_config().host == str(place)
        place.unlink()
    assert load_config().host == "localhost"


def test_yaml_is_found_above_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(project / ".claude" / "agent-brain" / "config.yaml", host="above")
    deep = project / "src" / "deep"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert load_config().host == "above"


def test_xdg_and_the_old_state_variable_count(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    write_yaml(tmp_path / "xdg" / "agent-brain" / "config.yaml", host="xdg")
    assert load_config().host == "xdg"
    monkeypatch.setenv("DOC_SERVE_STATE_DIR", str(tmp_path / "old"))
    write_yaml(tmp_path / "old" / "config.yaml", host="old")
    assert load_config().host == "old"


def test_a_named_file_that_is_missing_is_mentioned(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AGENT_BRAIN_CONFIG", "nowhere.yaml")
    write_yaml(project / "config.yaml", host="y")
    assert load_config().host == "y"
    assert "nowhere.yaml" in caplog.text


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "storage:\n", "storage:\n  postgres:\n", "embedding: {provider: ollama}\n"],
)
def test_a_file_without_our_section_leaves_the_defaults(project: Path, text: str) -> None:
    write(project / "config.yaml", text)
    assert load_config().model_dump() == PostgresConfig().model_dump()


def test_windows_line_ends_and_a_byte_order_mark_are_read(project: Path) -> None:
    write(
        project / "config.yaml",
        "\ufeffstorage:\r\n  postgres:\r\n    host: übung\r\n    port: 6\r\n",
    )
    write(
        project / ".env", "\ufeffAGENT_BRAIN_POSTGRES_USER=me\r\nAGENT_BRAIN_POSTGRES_PORT=7\r\n"
    )
    config = load_config()
    assert (config.host, config.user, config.port) == ("übung", "me", 7)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a\n- b\n", "the file is a list (yaml: {}); allowed: a mapping"),
        ("just words\n", "the file is text (yaml: {}); allowed: a mapping"),
        ("storage: postgres\n", "storage is text (yaml: {}); allowed: a mapping"),
        ("storage:\n  postgres: 5\n", "storage.postgres is a single value of type int (yaml: {})"),
        ("storage:\n  postgres:\n    5: x\n", "unknown setting 5 (yaml: {})"),
        ("storage:\n  postgres: {port: 70000}\n", "port is 70000 (yaml: {}); allowed: "),
        ("storage:\n  postgres: {hots: x}\n", "'hots' (yaml: {}); did you mean 'host'?"),
        ("storage:\n  postgres:\n\thost: x\n", "{} is not valid YAML at line 3, column 1"),
        ("storage:\n  postgres:\n    password: @x\n", "{} is not valid YAML at line 3, column 15"),
        ("a: !!python/object:os.system {}\n".replace("{}", "x"), "{} is not valid YAML at line 1"),
        ("a: \0\n", "{} is not valid YAML"),
        ("a: 2026-99-99\n", "{} is not valid YAML"),
    ],
)
def test_a_wrong_file_is_explained(project: Path, text: str, complaint: str) -> None:
    path = write(project / "config.yaml", text)
    assert complaint.format(path) in refusal()


def test_a_file_that_is_not_text_is_explained(project: Path) -> None:
    path = project / "config.yaml"
    path.write_bytes(b"password: \xff\xfe")
    assert refusal() == f"{path} cannot be read: byte 10 is not UTF-8"


def test_a_file_that_cannot_be_read_is_explained(project: Path) -> None:
    path = project / "config.yaml"
    path.mkdir()
    assert refusal() == f"{path} cannot be read: Is a directory"


def test_settings_that_are_no_mapping_are_refused(project: Path) -> None:
    assert "storage.postgres is a list (host settings)" in refusal(settings=["host"])


def test_an_embedded_directory_in_yaml_is_relative_to_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(project / ".agent-brain" / "config.yaml", embedded="pg data")
    deep = project / "src"
    deep.mkdir()
    monkeypatch.chdir(deep)
    assert load_config().embedded_directory == project / ".agent-brain" / "pg data"


def test_the_embedded_server_lives_in_the_state_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_yaml(project / ".agent-brain" / "config.yaml", embedded=True)
    assert load_config().embedded_directory == project / ".agent-brain" / "postgres"
    monkeypatch.setenv("AGENT_BRAIN_STATE_DIR", str(tmp_path / "state"))
    assert load_config({"embedded": True}).embedded_directory == tmp_path / "state" / "postgres"


def test_the_environment_file_is_looked_for_in_order(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    beside = tmp_path / "etc"
    monkeypatch.setenv("AGENT_BRAIN_STATE_DIR", str(state))
    monkeypatch.setenv("AGENT_BRAIN_CONFIG", str(write_yaml(beside / "config.yaml", host="yaml")))
    places = [
        directory / name
        for directory in (project, state, beside)
        for name in (".env.agent-brain", ".env")
    ]
    for number, place in enumerate(places):
        write(place, f"AGENT_BRAIN_POSTGRES_HOST=file{number}\n")
    for number, place in enumerate(places):
        assert load_config().host == f"file{number}"
        place.unlink()
    assert load_config().host == "yaml"


def test_an_env_file_of_something_else_is_passed_over(project: Path) -> None:
    write(project / ".env", "DJANGO_KEY=x\n")
    write(project / ".agent-brain" / ".env.agent-brain", "AGENT_BRAIN_POSTGRES_HOST=ours\n")
    assert load_config().host == "ours"
    # The application's own database is not the store, where the store has a file of its own.
    write(project / ".env", "DATABASE_URL=postgresql://app/app\n")
    assert load_config().host == "ours"
    (project / ".agent-brain" / ".env.agent-brain").unlink()
    assert load_config().host == "app"


def test_the_environment_file_is_not_exported(project: Path) -> None:
    write(project / ".env", "AGENT_BRAIN_POSTGRES_HOST=h\nOTHER=x\n")
    before = dict(os.environ)
    load_config()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain", "plain"),
        ('"double # quoted"', "double # quoted"),
        ("'single ${HOME} $x \"q\"'", 'single ${HOME} $x "q"'),
        ('"with ${PART}"', "with part"),
        ("unquoted # comment", "unquoted"),
        ("'a+b=c@d:e/f'", "a+b=c@d:e/f"),
    ],
)
def test_values_are_quoted_as_in_a_shell(project: Path, line: str, expected: str) -> None:
    write(project / ".env", f"PART=part\nexport AGENT_BRAIN_POSTGRES_PASSWORD={line}\n")
    assert password(load_config()) == expected


def test_a_broken_environment_file_is_explained(project: Path) -> None:
    path = project / ".env.agent-brain"
    path.write_bytes(b"AGENT_BRAIN_POSTGRES_PASSWORD=\xff\n")
    assert refusal() == f"{path} cannot be read: byte 30 is not UTF-8"
    path.unlink()
    write(path, "AGENT_BRAIN_POSTGRES_PORT=x\n")
    assert f"port is 'x' (.env file {path})" in refusal()


def test_a_url_of_the_environment_file_is_named_by_it(project: Path) -> None:
    path = write(project / ".env", "DATABASE_URL=postgresql://u:a/b@h/d\n")
    assert refusal().startswith(f"DATABASE_URL in .env file {path} has an @")
