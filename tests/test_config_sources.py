"""Which source of a setting wins over which, and how messages name them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from agent_brain_postgres import sources as sources_module
from agent_brain_postgres.config import PostgresConfig, load_config
from tests.settings_project import empty_project, password, refusal, write, write_yaml


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_project(tmp_path, monkeypatch)


URL = "postgresql://urluser:urlpw@{}:{}/urldb"


def given_yaml(project: Path, _: pytest.MonkeyPatch) -> None:
    write_yaml(project / ".agent-brain" / "config.yaml", host="yaml", port=1, user="yaml")


def given_env_file(project: Path, _: pytest.MonkeyPatch) -> None:
    path = project / ".agent-brain" / ".env.agent-brain"
    text = path.read_text() if path.exists() else ""
    write(path, f"{text}AGENT_BRAIN_POSTGRES_HOST=envfile\nAGENT_BRAIN_POSTGRES_PORT=2\n")


def given_url_in_the_env_file(project: Path, _: pytest.MonkeyPatch) -> None:
    path = project / ".agent-brain" / ".env.agent-brain"
    text = path.read_text() if path.exists() else ""
    write(path, f"{text}DATABASE_URL={URL.format('fileurl', 3)}\n")


def given_environment(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_HOST", "env")
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", "4")


def given_url(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL.format("url", 5))


Given = Callable[[Path, pytest.MonkeyPatch], None]
# Weakest first, with what each makes of host and port, and what `sources` calls it.
LADDER: list[tuple[Given, str, int, str]] = [
    (given_yaml, "yaml", 1, "yaml: "),
    (given_env_file, "envfile", 2, ".env file "),
    (given_url_in_the_env_file, "fileurl", 3, "DATABASE_URL in .env file "),
    (given_environment, "env", 4, "env: AGENT_BRAIN_POSTGRES_"),
    (given_url, "url", 5, "DATABASE_URL"),
]
PAIRS = [(low, high) for high in range(len(LADDER)) for low in range(high)]


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_the_stronger_of_two_sources_wins(
    low: int, high: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in (low, high):
        LADDER[index][0](project, monkeypatch)
    _, host, port, source = LADDER[high]
    config = load_config()
    assert (config.host, config.port) == (host, port)
    assert config.sources["host"].startswith(source)


def test_an_argument_wins_over_all_sources(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for prepare, *_ in LADDER:
        prepare(project, monkeypatch)
    config = load_config(cli={"host": "argument", "port": None})
    assert (config.host, config.port, config.database) == ("argument", 5, "urldb")
    assert config.sources["host"] == "argument"
    assert config.sources["port"] == "DATABASE_URL"


def test_a_url_may_be_an_argument(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_url(project, monkeypatch)
    config = load_config(cli={"database_url": "postgresql://a/b", "port": 77})
    assert (config.host, config.port, config.database) == ("a", 77, "b")
    assert password(config) is None


def test_the_environment_overrides_what_a_host_hands_over(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_environment(project, monkeypatch)
    config = load_config({"host": "from the host", "user": "me"})
    assert (config.host, config.user) == ("env", "me")
    assert config.sources["user"] == "host settings"


def test_what_a_host_hands_over_is_named_by_its_file(project: Path) -> None:
    path = write_yaml(project / "config.yaml", port=70000)
    message = refusal(settings={"port": 70000})
    assert message == (
        f"port is 70000 (yaml: {path}); allowed: a whole number from 1 to 65535"
    )


def test_a_config_built_in_code_ignores_every_source(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prepare, *_ in LADDER:
        prepare(project, monkeypatch)
    assert PostgresConfig().model_dump()["host"] == "localhost"


def test_the_url_overrides_the_connection_and_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(
        project / "config.yaml", host="y", port=1, database="y", user="y", password="yamlpw",
        pool_size=3, ssl_mode="verify-full", language="simple", hnsw_m=20,
    )
    monkeypatch.setenv("DATABASE_URL", "postgresql://h")
    config = load_config()
    assert (config.host, config.port, config.database, config.user) == (
        "h", 5432, "agent_brain", "agent_brain",
    )
    assert password(config) is None, "another server's password must not be sent to this one"
    assert (config.pool_size, config.language, config.hnsw_m) == (3, "simple", 20)
    assert config.ssl_mode == "verify-full"
    monkeypatch.setenv("DATABASE_URL", "postgresql://h?sslmode=disable")
    assert load_config().ssl_mode == "disable"


def test_a_password_beside_the_url_completes_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PASSWORD", "beside")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@h/d")
    assert password(load_config()) == "beside"
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:within@h/d")
    assert password(load_config()) == "within"


def test_a_url_means_its_server_not_the_embedded_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(project / "config.yaml", embedded=True)
    given_url(project, monkeypatch)
    assert load_config().embedded is False
    assert load_config(cli={"embedded": True}).embedded is True


def test_an_empty_variable_is_one_that_is_not_set(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(project / "config.yaml", host="y")
    for name in ("DATABASE_URL", "AGENT_BRAIN_POSTGRES_HOST", "AGENT_BRAIN_POSTGRES_PORT"):
        monkeypatch.setenv(name, "")
    assert load_config().host == "y"


def test_every_setting_can_come_from_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {
        "host": "h", "port": 1, "database": "d", "user": "u", "password": "p", "db_schema": "s",
        "pool_size": 2, "pool_max": 7, "pool_max_overflow": 5, "pool_timeout": 1.5,
        "connect_attempts": 2, "connect_backoff": 0.5, "ssl_mode": "require",
        "ssl_root_cert": "/a", "ssl_cert": "/b", "ssl_key": "/c", "language": "simple",
        "metric": "l2", "embedding_type": "halfvec", "hnsw_m": 8, "hnsw_ef_construction": 70, "hnsw_ef_search": 99,
        "embedding_dimensions": 3, "statement_timeout": 5.0, "pgbouncer": True,
        "embedded": "/pg", "debug": True, "connection_strategy": "cloud_sql_proxy",
        "cloud_sql_instance": "i",
    }
    assert values.keys() == PostgresConfig.model_fields.keys()
    for key, value in values.items():
        monkeypatch.setenv(f"AGENT_BRAIN_POSTGRES_{key.upper()}", str(value))
    config = load_config()
    assert password(config) == "p"
    assert config.model_dump(exclude={"password", "embedded"}) == {
        key: value for key, value in values.items() if key not in ("password", "embedded")
    }
    assert config.embedded == Path("/pg")


def test_the_stronger_source_decides_between_pool_max_and_overflow(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(project / "config.yaml", pool_size=4, pool_max_overflow=6)
    assert load_config().pool_max == 10
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_POOL_MAX", "5")
    assert load_config().pool_max == 5


def test_an_error_in_the_environment_names_the_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", "70000")
    assert "port is '70000' (env: AGENT_BRAIN_POSTGRES_PORT); allowed: " in refusal()


def test_a_misspelt_variable_is_mentioned_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources_module, "_warned", set())
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PASWORD", "hidden")
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_QQQQQQQQ", "somebody else's")
    caplog.set_level(logging.DEBUG)
    load_config()
    load_config()
    assert [record.getMessage() for record in caplog.records] == [
        "AGENT_BRAIN_POSTGRES_PASWORD is no setting and is ignored; "
        "did you mean AGENT_BRAIN_POSTGRES_PASSWORD?"
    ]


def test_a_null_in_yaml_is_a_setting_not_given(project: Path) -> None:
    write(project / "config.yaml", "storage:\n  postgres:\n    host:\n    port: null\n")
    config = load_config()
    assert (config.host, config.port) == ("localhost", 5432)
    assert "did you mean 'host'" in refusal(settings={"hots": None})


def test_query_parameters_of_the_url_reach_libpq(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://a:1,b:2/d?target_session_attrs=any")
    given = conninfo_to_dict(load_config().conninfo())
    assert (given["port"], given["target_session_attrs"]) == ("1,2", "any")
    given = conninfo_to_dict(load_config(cli={"port": 9}).conninfo())
    assert (given["host"], given["port"]) == ("a,b", "9")
