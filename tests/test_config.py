"""The settings model: defaults, limits, errors, assignment, the core's keys."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ValidationError

from agent_brain_postgres import config as config_module
from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.errors import SettingsError, StorageError


def refusal(**settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        PostgresConfig(**settings)
    return str(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    config = PostgresConfig()
    assert config.model_dump() == {
        "host": "localhost",
        "port": 5432,
        "database": "agent_brain",
        "user": "agent_brain",
        "password": None,
        "db_schema": "agent_brain",
        "pool_size": 10,
        "pool_max": 20,
        "pool_max_overflow": 10,
        "pool_timeout": 30.0,
        "connect_attempts": 5,
        "connect_backoff": 1.0,
        "ssl_mode": None,
        "ssl_root_cert": None,
        "ssl_cert": None,
        "ssl_key": None,
        "language": "english",
        "metric": "cosine",
        "embedding_type": "vector",
        "hnsw_m": 16,
        "hnsw_ef_construction": 64,
        "hnsw_ef_search": None,
        "embedding_dimensions": None,
        "statement_timeout": 60.0,
        "pgbouncer": False,
        "embedded": False,
        "debug": False,
        "connection_strategy": "direct",
        "cloud_sql_instance": None,
    }


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("host", "", "a host name"),
        ("host", "a\0b", "a host name"),
        ("host", 7, "a host name"),
        ("port", 70000, "1 to 65535"),
        ("port", 0, "1 to 65535"),
        ("port", "http", "1 to 65535"),
        ("port", True, "1 to 65535"),
        ("database", 12, "name of a database, as text"),
        ("user", "\ud800", "name of a role"),
        ("db_schema", "pg_mine", "does not begin with pg_"),
        ("db_schema", "information_schema", "does not begin with pg_"),
        ("db_schema", "ä" * 32, "at most 63 bytes"),
        ("pool_size", -1, "1 to 10000"),
        ("pool_size", 0, "1 to 10000"),
        ("pool_size", 1.5, "1 to 10000"),
        ("pool_max", 0, "from pool_size"),
        ("pool_max_overflow", -1, "from 0 to 10000"),
        ("pool_timeout", 0, "seconds above 0"),
        ("pool_timeout", float("nan"), "seconds above 0"),
        ("connect_attempts", 0, "1 to 100"),
        ("connect_backoff", -0.1, "seconds from 0"),
        ("connect_backoff", float("inf"), "seconds from 0"),
        ("ssl_mode", "on", "verify-full"),
        ("language", "", "text search configuration"),
        ("metric", "euclid", "cosine, l2 or inner_product"),
        ("hnsw_m", 1, "2 to 100"),
        ("hnsw_m", 101, "2 to 100"),
        ("hnsw_ef_construction", 3, "4 to 1000"),
        ("hnsw_ef_construction", 1001, "4 to 1000"),
        ("hnsw_ef_search", 0, "1 to 1000"),
        ("hnsw_ef_search", 1001, "1 to 1000"),
        ("embedding_dimensions", 0, "1 to 16000"),
        ("embedding_dimensions", 16001, "1 to 16000"),
        ("statement_timeout", -1, "seconds from 0"),
        ("pgbouncer", "maybe", "true or false"),
        ("embedded", 7, "a directory"),
        ("embedded", "", "a directory"),
        ("debug", [], "true or false"),
        ("connection_strategy", "carrier pigeon", "cloud_sql_proxy"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(key: str, value: Any, allowed: str) -> None:
    message = refusal(**{key: value})
    assert message.startswith(f"{key} is {value!r} (argument); allowed: ")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize("field", sorted(PostgresConfig.model_fields))
def test_every_setting_says_what_it_is_and_what_it_allows(field: str) -> None:
    info = PostgresConfig.model_fields[field]
    assert info.description
    assert isinstance(info.json_schema_extra, dict)
    assert info.json_schema_extra["allowed"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hnsw_ef_construction", 1000),
        ("hnsw_ef_search", 1000),
        ("hnsw_m", 2),
        ("embedding_dimensions", 1),
        ("embedding_dimensions", 16_000),
        ("port", 65_535),
        ("pool_size", 1),
        ("statement_timeout", 0.0),
        ("connect_backoff", 0.0),
        ("db_schema", "Größe 'n' \"quotes\""),
        ("metric", "inner_product"),
        ("ssl_mode", "verify-ca"),
    ],
)
def test_values_at_the_limits_are_accepted(key: str, value: Any) -> None:
    assert getattr(PostgresConfig(**{key: value}), key) == value


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("pasword", "password"),
        ("hots", "host"),
        ("sslmode", "ssl_mode"),
        ("username", "user"),
        ("dbname", "database"),
        ("schema", "db_schema"),
        ("POOL-SIZE", "pool_size"),
        ("ef_search", "hnsw_ef_search"),
        ("pool_maximum", "pool_max"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(wrong: str, meant: str) -> None:
    message = refusal(**{wrong: "hidden value"})
    assert message == f"unknown setting {wrong!r} (argument); did you mean {meant!r}?"


def test_a_key_like_no_other_is_refused_with_all_known_ones() -> None:
    message = refusal(qqqqqqqq=1)
    assert all(name in message for name in PostgresConfig.model_fields)


def test_every_problem_is_told_at_once() -> None:
    lines = refusal(port=70000, pool_size=-1, hots="x").splitlines()
    assert [line.split()[0] for line in lines] == ["port", "pool_size", "unknown"]


def test_errors_are_settings_errors_without_a_chain() -> None:
    with pytest.raises(StorageError) as caught:
        PostgresConfig(port=70000)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_password_of_digits_is_not_guessed_at() -> None:
    message = refusal(password=123456)
    assert "quotes" in message
    assert "123456" not in message


@pytest.mark.parametrize(
    ("given", "size", "most"),
    [
        ({}, 10, 20),
        ({"pool_size": 5}, 5, 20),
        ({"pool_size": 30}, 30, 30),
        ({"pool_max": 12}, 10, 12),
        ({"pool_size": 4, "pool_max": 4}, 4, 4),
        ({"pool_max_overflow": 5}, 10, 15),
        ({"pool_size": 3, "pool_max_overflow": 0}, 3, 3),
        ({"pool_size": 3, "pool_max": 7, "pool_max_overflow": 4}, 3, 7),
    ],
)
def test_the_pool_grows_to(given: dict[str, int], size: int, most: int) -> None:
    config = PostgresConfig(**given)
    assert (config.pool_size, config.pool_max) == (size, most)
    assert config.pool_max_overflow == most - size


def test_pool_max_below_pool_size_is_refused() -> None:
    message = refusal(pool_size=10, pool_max=5)
    assert message == (
        "pool_max is 5, below pool_size, which is 10; "
        "allowed: pool_max of pool_size or more (argument)"
    )


def test_contradicting_pool_limits_are_refused() -> None:
    message = refusal(pool_size=5, pool_max=20, pool_max_overflow=5)
    assert "pool_max is 20, but pool_size + pool_max_overflow is 10" in message


def test_the_core_may_assign_pool_settings_in_turn() -> None:
    config = PostgresConfig.from_database_url("postgresql://h/d")
    config.pool_size = 40
    config.pool_max_overflow = 2
    config.pool_timeout = 7
    assert (config.pool_size, config.pool_max, config.pool_timeout) == (40, 42, 7.0)


def test_a_refused_assignment_changes_nothing() -> None:
    config = PostgresConfig(pool_size=5, pool_max=8)
    before = config.model_dump()
    for key, value in (("pool_size", 9), ("pool_size", -1), ("port", 0), ("hnsw_m", 101)):
        with pytest.raises(SettingsError):
            setattr(config, key, value)
    assert config.model_dump() == before
    assert config.sources["pool_size"] == "argument"


def test_an_unknown_attribute_cannot_be_assigned() -> None:
    with pytest.raises(ValueError, match="no field"):
        PostgresConfig().__setattr__("hots", "x")


def test_ef_construction_follows_hnsw_m_unless_it_is_given() -> None:
    assert PostgresConfig(hnsw_m=100).hnsw_ef_construction == 200
    assert "allowed: 80 or more" in refusal(hnsw_m=40, hnsw_ef_construction=79)
    config = PostgresConfig()
    config.hnsw_m = 50
    assert config.hnsw_ef_construction == 100
    config.hnsw_m = 16
    assert config.hnsw_ef_construction == 64


@pytest.mark.parametrize("word", ["", "auto", "automatic", None])
def test_ef_search_may_be_automatic(word: str | None) -> None:
    assert PostgresConfig(hnsw_ef_search=word).hnsw_ef_search is None


def test_a_language_is_folded_as_the_server_folds_it() -> None:
    assert PostgresConfig(language="English ").language == "english"
    assert PostgresConfig(language='public."Mine"').language == 'public."Mine"'


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), ("yes", True), ("1", True), ("off", False), (" False ", False)],
)
def test_embedded_is_a_switch(value: Any, expected: bool) -> None:
    assert PostgresConfig(embedded=value).embedded is expected


def test_embedded_may_be_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PostgresConfig(embedded="~/pg data").embedded_directory == tmp_path / "pg data"
    assert PostgresConfig(embedded=tmp_path).embedded_directory == tmp_path
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    expected = tmp_path / "data" / "agent-brain" / "postgres"
    assert PostgresConfig(embedded=True).embedded_directory == expected
    assert PostgresConfig().embedded_directory is None


CORE_KEYS: dict[str, Any] = {
    "host": "db",
    "port": 5433,
    "database": "d",
    "user": "u",
    "password": "p",
    "pool_size": 10,
    "pool_max_overflow": 10,
    "pool_timeout": 30,
    "language": "english",
    "hnsw_m": 16,
    "hnsw_ef_construction": 64,
    "debug": False,
    "ssl_mode": "disable",
    "ssl_root_cert": None,
    "ssl_cert": None,
    "ssl_key": None,
    "connection_strategy": "cloud_sql_proxy",
    "cloud_sql_instance": "project:region:instance",
}


def test_every_key_of_the_core_is_accepted_and_the_meaningless_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "_warned", set())
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        PostgresConfig(**CORE_KEYS)
    said = sorted(record.getMessage().split(":")[0] for record in caplog.records)
    assert said == [
        "the setting cloud_sql_instance has no effect here",
        "the setting connection_strategy has no effect here",
    ]


def test_a_direct_connection_warns_of_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "_warned", set())
    PostgresConfig(connection_strategy="direct", cloud_sql_instance=None)
    assert not caplog.records


def test_tls_settings_reach_libpq() -> None:
    config = PostgresConfig(
        ssl_mode="verify-full", ssl_root_cert="/ca.pem", ssl_cert="/c.pem", ssl_key="/k y.pem"
    )
    given = conninfo_to_dict(config.conninfo())
    assert [given[key] for key in ("sslmode", "sslrootcert", "sslcert", "sslkey")] == [
        "verify-full", "/ca.pem", "/c.pem", "/k y.pem",
    ]


def test_without_a_password_the_connection_string_has_none() -> None:
    for nothing in (None, ""):
        config = PostgresConfig(password=nothing)
        assert config.password is None
        assert "password" not in conninfo_to_dict(config.conninfo())


def test_the_application_is_named_and_waits_for_a_while_only() -> None:
    given = conninfo_to_dict(PostgresConfig().conninfo())
    assert given["application_name"] == "agent-brain-postgres"
    assert given["connect_timeout"] == "10"
    assert "sslmode" not in given


def test_copies_and_dumps_are_equal_to_the_original() -> None:
    original = PostgresConfig(hnsw_m=50, pool_size=30, password="x y", embedded="/pg")
    again = PostgresConfig(**original.model_dump())
    for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original)), again):
        assert copied.model_dump() == original.model_dump()
        assert copied.conninfo() == original.conninfo()


def test_a_host_may_nest_and_describe_the_model() -> None:
    class Host(BaseModel):
        postgres: PostgresConfig

    host = Host.model_validate({"postgres": {"port": 6000}})
    assert host.postgres.port == 6000
    with pytest.raises((ValidationError, SettingsError), match="65535"):
        Host.model_validate({"postgres": {"port": 70000}})
    assert set(PostgresConfig.model_json_schema()["properties"]) == set(PostgresConfig.model_fields)


def test_importing_the_settings_loads_no_parser_and_no_web_framework() -> None:
    heavy = "{'yaml', 'dotenv', 'fastapi', 'chromadb', 'rich', 'click'}"
    code = f"import sys, agent_brain_postgres.config; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
