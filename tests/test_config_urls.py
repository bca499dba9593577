"""``DATABASE_URL``: libpq parses it, anything survives the round trip, and nothing else changes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.errors import SettingsError

# Whatever PostgreSQL can hold: no NUL, no lone surrogates.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
)
PASSWORDS = TEXT.filter(lambda text: not text.startswith("secret://"))
PORTS = st.integers(1, 65_535)


def encoded(text: str) -> str:
    return quote(text, safe="")


@given(TEXT, PORTS, TEXT, TEXT, PASSWORDS)
def test_any_connection_survives_a_url(
    host: str, port: int, database: str, user: str, password: str
) -> None:
    url = (
        f"postgresql://{encoded(user)}:{encoded(password)}@{encoded(host)}:{port}"
        f"/{encoded(database)}"
    )
    config = PostgresConfig.from_database_url(url)
    assert config.password is not None
    assert (config.host, config.port, config.database, config.user) == (host, port, database, user)
    assert config.password.get_secret_value() == password
    assert_conninfo(config, host, port, database, user, password)


@given(TEXT, PORTS, TEXT, TEXT, PASSWORDS)
def test_any_connection_survives_the_fields(
    host: str, port: int, database: str, user: str, password: str
) -> None:
    config = PostgresConfig(
        host=host, port=port, database=database, user=user, password=password
    )
    assert_conninfo(config, host, port, database, user, password)


def assert_conninfo(
    config: PostgresConfig, host: str, port: int, database: str, user: str, password: str
) -> None:
    given = conninfo_to_dict(config.conninfo())
    assert given["host"] == host
    assert int(str(given["port"])) == port
    assert given["dbname"] == database
    assert given["user"] == user
    assert given["password"] == password


@given(TEXT)
def test_any_value_of_a_query_parameter_survives(value: str) -> None:
    url = f"postgresql://h/d?application_name={encoded(value)}&sslrootcert={encoded(value)}"
    config = PostgresConfig.from_database_url(url)
    assert config.ssl_root_cert == value
    assert conninfo_to_dict(config.conninfo())["application_name"] == value


@pytest.mark.parametrize(
    "scheme",
    [
        "postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg",
        "postgresql+psycopg2", "postgres+asyncpg", "PostgreSQL+asyncpg",
    ],
)
def test_schemes_with_a_driver_are_understood(scheme: str) -> None:
    config = PostgresConfig.from_database_url(f"  {scheme}://u:p+w@h:6543/d\n")
    assert (config.host, config.port, config.database, config.user) == ("h", 6543, "d", "u")
    assert config.password is not None
    assert config.password.get_secret_value() == "p+w"


def test_a_space_in_a_password_may_stay_a_space() -> None:
    config = PostgresConfig.from_database_url("postgresql://u:a b@h/d")
    assert config.password is not None
    assert config.password.get_secret_value() == "a b"


def test_a_keyword_string_is_understood_too() -> None:
    config = PostgresConfig.from_database_url("host=h port=1 user='my user' password='a\\'b'")
    assert (config.host, config.port, config.user) == ("h", 1, "my user")
    assert conninfo_to_dict(config.conninfo())["password"] == "a'b"


def test_query_parameters_become_settings_or_are_passed_through() -> None:
    config = PostgresConfig.from_database_url(
        "postgresql://h/d?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=3"
        "&application_name=mine&target_session_attrs=read-write&options=-c%20geqo%3Doff"
    )
    assert config.ssl_mode == "verify-full"
    assert config.ssl_root_cert == "/ca.pem"
    given = conninfo_to_dict(config.conninfo())
    assert given["sslmode"] == "verify-full"
    assert given["connect_timeout"] == "3"
    assert given["application_name"] == "mine"
    assert given["target_session_attrs"] == "read-write"
    assert given["options"] == "-c geqo=off"


def test_several_hosts_keep_their_ports() -> None:
    config = PostgresConfig.from_database_url("postgresql+asyncpg://u@a:1,b,[::1]:3/d")
    assert config.addresses() == [("a", 1), ("b", 5432), ("::1", 3)]
    given = conninfo_to_dict(config.conninfo())
    assert (given["host"], given["port"]) == ("a,b,::1", "1,5432,3")
    assert config.port == 1


def test_several_hosts_on_one_port() -> None:
    config = PostgresConfig.from_database_url("postgresql://a:7,b:7/d")
    assert config.addresses() == [("a", 7), ("b", 7)]
    assert PostgresConfig(host="a,b", port=8).addresses() == [("a", 8), ("b", 8)]


@pytest.mark.parametrize(("key", "value"), [("host", "c"), ("port", 9)])
def test_an_assigned_address_replaces_the_list_of_ports(key: str, value: Any) -> None:
    config = PostgresConfig.from_database_url("postgresql://a:1,b:2/d")
    setattr(config, key, value)
    assert conninfo_to_dict(config.conninfo())["port"] == str(config.port)


def test_a_unix_socket_is_a_host() -> None:
    for url in ("postgresql:///d?host=/var/run/pg", "postgresql://%2Fvar%2Frun%2Fpg/d"):
        assert PostgresConfig.from_database_url(url).host == "/var/run/pg"


def test_what_a_url_leaves_out_takes_the_default() -> None:
    config = PostgresConfig.from_database_url("postgresql://h")
    assert config.model_dump() == PostgresConfig(host="h").model_dump()
    assert "password" not in conninfo_to_dict(config.conninfo())


def test_a_service_is_not_overridden_by_our_defaults() -> None:
    config = PostgresConfig.from_database_url("postgresql:///d?service=mine")
    given = conninfo_to_dict(config.conninfo())
    assert given["service"] == "mine"
    assert given["dbname"] == "d"
    assert not {"host", "port", "user", "password"} & given.keys()


def test_other_settings_stand_beside_a_url() -> None:
    config = PostgresConfig.from_database_url("postgresql://h/d", pool_size=3, metric="l2")
    assert (config.host, config.pool_size, config.metric) == ("h", 3, "l2")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://u:hidden@h/d", "must begin with postgresql://"),
        ("postgresql://u:hid/den@h/d", "percent-encoded"),
        ("postgresql://u:hid@den@h/d", "percent-encoded"),
        ("postgresql://u:hid%zzden@h/d", "percent-encoded"),
        ("postgresql://u:hidden%00@h/d", "percent-encoded"),
        ("postgresql://u:hidden@[::1/d", "percent-encoded"),
        ("postgresql://h:hidden/d", "port cannot be used (DATABASE_URL)"),
        ("postgresql://u:hidden@h:70000/d", "1 to 65535"),
        ("postgresql://u:hidden@h:70000,i:2/d", "1 to 65535"),
        ("postgresql://u:hidden@h/d?colour=red", "'colour'"),
        ("postgresql://u:hidden@h/d?ssl=require", "use sslmode"),
        ("postgresql://u:hidden@h/d?sslmode=on", "verify-full"),
        ("password=hidden host", "percent-encoded"),
        ("hidden", "percent-encoded"),
    ],
)
def test_a_malformed_url_is_explained_without_quoting_it(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PostgresConfig.from_database_url(url)
    message = str(caught.value)
    assert "DATABASE_URL" in message
    assert complaint in message
    assert not any(piece in message for piece in ("hidden", "hid", "den@"))


def test_another_connection_keeps_every_other_setting() -> None:
    config = PostgresConfig(
        host="old", password="old", embedded="/pg", pool_size=30, hnsw_m=50, ssl_mode="require"
    )
    moved = config.with_connection("host=/tmp/socket user=postgres dbname=postgres sslmode=disable")
    assert moved.password is None
    expected = {
        **config.model_dump(),
        "host": "/tmp/socket", "user": "postgres", "database": "postgres", "password": None,
        "ssl_mode": "disable",
    }
    assert moved.model_dump() == expected
    assert moved.sources["host"] == "embedded server"
    assert moved.sources["pool_size"] == "argument"
