"""One translation of the driver's errors, by SQLSTATE."""

from __future__ import annotations

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from agent_brain_postgres import StorageError
from agent_brain_postgres.errors import ConnectionFailed, connection_failed, translate, translated


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT 1/0", "22012"),
        ("SELECT * FROM absent", "a table is missing"),
        ("BEGIN READ ONLY; CREATE TABLE t ()", "read-only"),
        ("SET statement_timeout = 1; SELECT pg_sleep(1)", "statement_timeout"),
    ],
)
def test_the_sqlstate_chooses_the_advice(dsn: str, statement: str, says: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(statement)
        error = translate(caught.value, "doing")
    assert isinstance(error, StorageError)
    assert error.message.startswith("doing: ")
    assert says in error.message


def test_rows_are_not_quoted(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (secret text PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES ('hunter2')")
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("INSERT INTO t VALUES ('hunter2')")
    assert "hunter2" in str(caught.value)
    assert "hunter2" not in str(translate(caught.value, "doing"))


def test_an_exhausted_pool_says_what_to_raise() -> None:
    error = translate(PoolTimeout("no connection after 30 s"), "vector_search")
    assert isinstance(error, ConnectionFailed)
    assert error.waiting_helps
    assert "pool_max" in error.message


@pytest.mark.parametrize(
    ("text", "waiting_helps", "says"),
    [
        ("connection failed: Connection refused", True, "running"),
        ("FATAL:  the database system is starting up", True, "starting"),
        ("FATAL:  sorry, too many clients already", True, "max_connections"),
        ('FATAL:  password authentication failed for user "u"', False, "password"),
        ('FATAL:  role "u" does not exist', False, "role"),
        ('FATAL:  database "d" does not exist', False, "database"),
        ("SSL error: certificate verify failed", False, "ssl_root_cert"),
        ("server does not support SSL, but SSL was required", False, "ssl_mode"),
        ('FATAL:  no pg_hba.conf entry for host "h", no encryption', False, "pg_hba"),
    ],
)
def test_a_failed_connection_is_retried_only_where_waiting_helps(
    text: str, waiting_helps: bool, says: str
) -> None:
    failure = connection_failed(psycopg.OperationalError(text), "h:5432/d as u")
    assert failure.waiting_helps is waiting_helps
    assert says in failure.message


async def test_translation_keeps_the_cause_and_lets_our_own_errors_through() -> None:
    @translated
    async def fail(error: Exception) -> None:
        raise error

    driver = psycopg.OperationalError("gone")
    with pytest.raises(StorageError, match="fail: ") as caught:
        await fail(driver)
    assert caught.value.__cause__ is driver
    own = StorageError("mine", "postgres")
    with pytest.raises(StorageError) as caught:
        await fail(own)
    assert caught.value is own
    with pytest.raises(KeyError):
        await fail(KeyError("a bug is not a storage error"))
