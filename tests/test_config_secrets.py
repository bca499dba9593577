"""The password: where it may come from, and that nothing ever shows it."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent_brain_postgres.config import PostgresConfig, load_config
from agent_brain_postgres.errors import SettingsError
from tests.settings_project import empty_project, password, refusal, write, write_yaml


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_project(tmp_path, monkeypatch)


# --- references ---------------------------------------------------------------------------------


def test_a_password_may_be_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_SECRET", "s e+c@r/e:t")
    assert password(PostgresConfig(password="secret://env/DB_SECRET")) == "s e+c@r/e:t"


def test_a_reference_is_followed_from_every_source(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = "secret://env/DB_SECRET"
    monkeypatch.setenv("DB_SECRET", "found")
    assert password(load_config(cli={"password": reference})) == "found"
    assert password(load_config({"password": reference})) == "found"
    url = f"postgresql://u:{quote(reference, safe='')}@h/d"
    assert password(load_config(cli={"database_url": url})) == "found"
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PASSWORD", reference)
    assert password(load_config()) == "found"


def test_the_url_may_be_a_reference(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "secret://env/REAL_URL")
    monkeypatch.setenv("REAL_URL", "postgresql+asyncpg://u:p@h:7/d")
    config = load_config()
    assert (config.host, config.port, password(config)) == ("h", 7, "p")


def test_a_reference_may_lead_into_the_environment_file(project: Path) -> None:
    write(
        project / ".env.agent-brain",
        "AGENT_BRAIN_POSTGRES_PASSWORD=secret://env/POSTGRES_PASSWORD\nPOSTGRES_PASSWORD=found\n",
    )
    assert password(load_config()) == "found"


def test_a_reference_may_lead_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "secret://env/TWO")
    monkeypatch.setenv("TWO", "found")
    assert password(PostgresConfig(password="secret://env/ONE")) == "found"


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("secret://env/NOT_SET", "names an environment variable that is not set"),
        ("secret://env/", "allowed: secret://env/NAME"),
        ("secret://vault/x", "allowed: secret://env/NAME"),
        ("secret://env/CIRCLE", "go round in a circle"),
    ],
)
def test_a_reference_that_leads_nowhere_is_explained(
    reference: str, complaint: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCLE", "secret://env/CIRCLE")
    path = write_yaml(project / "config.yaml", password=reference)
    message = refusal()
    assert message.startswith(f"password cannot be used (yaml: {path}); ")
    assert complaint in message
    with pytest.raises(SettingsError, match=complaint):
        PostgresConfig(password=reference)
    monkeypatch.setenv("DATABASE_URL", reference)
    assert refusal().startswith("DATABASE_URL ")


@pytest.fixture
def core_resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | Exception]:
    """Stand in for the secrets module of a core that is running."""
    known: dict[str, str | Exception] = {}

    def resolve_secret(reference: str) -> str | None:
        found = known.get(reference)
        if isinstance(found, Exception):
            raise found
        return found

    module = ModuleType("agent_brain_server.config.secrets")
    vars(module)["resolve_secret"] = resolve_secret
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return known


def test_other_references_go_to_the_running_core(
    core_resolver: dict[str, str | Exception], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = "secret://gcp/projects/p/secrets/s/versions/latest"
    core_resolver[reference] = "from the cloud"
    assert password(PostgresConfig(password=reference)) == "from the cloud"
    monkeypatch.setenv("DATABASE_URL", "secret://gcp/url")
    core_resolver["secret://gcp/url"] = "postgresql://u:p@cloud/d"
    assert load_config().host == "cloud"


@pytest.mark.parametrize("outcome", [None, RuntimeError("hidden token in a cloud client's error")])
def test_a_failure_of_the_core_is_explained_without_its_words(
    outcome: Exception | None, core_resolver: dict[str, str | Exception]
) -> None:
    if outcome:
        core_resolver["secret://gcp/x"] = outcome
    with pytest.raises(SettingsError, match=r"secret://gcp/x: ") as caught:
        PostgresConfig(password="secret://gcp/x")
    assert "hidden" not in everything_about(caught.value)


# --- nothing shows it ---------------------------------------------------------------------------

# Pieces that no message, path or line of code contains, wherever a parser may cut.
MARK = "".join(("Zq", "7x"))
AROUND = st.text(
    st.sampled_from("@/:?#%&=+ '\"\\{}[]$,;.-_ä\n\t0a!*|>") | st.characters(codec="utf-8"),
    max_size=12,
).map(lambda text: text.replace("\0", ""))
PASSWORDS = st.tuples(AROUND, AROUND).map(lambda pair: f"{pair[0]}{MARK}{pair[1]}{MARK}").filter(
    lambda text: not text.startswith("secret://")
)
quickly = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def everything_about(error: BaseException) -> str:
    """Return all that a log, a terminal or an error tracker would print of an exception."""
    stream = io.StringIO()
    logger = logging.Logger("leaks")
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("%s %r", error, error, exc_info=error)
    seen: list[str] = [stream.getvalue(), *traceback.format_exception(error)]
    current: BaseException | None = error
    while current is not None:  # error trackers walk suppressed contexts as well
        seen += [str(current), repr(current), repr(current.args), repr(vars(current))]
        seen.append(str(getattr(current, "errors", str)()))
        current = current.__cause__ or current.__context__
    return "\n".join(seen)


def assert_silent(action: Callable[[], Any], log: pytest.LogCaptureFixture) -> None:
    """Check that neither a result nor an error of `action`, nor the log, shows the mark."""
    log.clear()
    try:
        result = action()
    except SettingsError as error:
        shown = everything_about(error)
    else:
        screen = io.StringIO()
        Console(file=screen, width=1000).print(result)
        data = (result.masked(), result.sources, result.model_dump(), result.addresses())
        shown = f"{result!r} {result!s} {data} {result.model_dump_json()} {screen.getvalue()}"
    assert MARK not in shown
    assert MARK not in log.text


@quickly
@given(PASSWORDS)
@example(f"@{MARK}")
@example(f"/{MARK}@x")
@example(f"?a@{MARK}")
@example(f"5/b?user={MARK}")
@example(f"%zz{MARK}")
@example(f"[{MARK}")
@example(f" {MARK}")
def test_no_url_shows_its_password_however_it_is_written(
    caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    caplog.set_level(logging.DEBUG)
    for written in (secret, quote(secret, safe="")):
        for url in (
            f"postgresql://u:{written}@h/d",
            f"postgresql+asyncpg://u:{written}@h:70000/d?sslmode=on",
            f"postgresql://u:{written}@h/d?nonsense=1",
            f"mysql://u:{written}@h/d",
            f"host=h password='{written}' port=x",
        ):
            assert_silent(partial(PostgresConfig.from_database_url, url), caplog)


@quickly
@given(PASSWORDS)
def test_no_field_shows_the_password(caplog: pytest.LogCaptureFixture, secret: str) -> None:
    caplog.set_level(logging.DEBUG)
    mistakes: list[dict[str, Any]] = [
        {}, {"port": 70000}, {"pool_size": 9, "pool_max": 3}, {"hots": "x"}, {"hnsw_m": 500},
    ]
    for mistake in mistakes:
        assert_silent(partial(PostgresConfig, password=secret, **mistake), caplog)
    for wrong in ([secret], {"value": secret}, secret.encode(), f"{secret}\0", f"{secret}\ud800"):
        assert_silent(partial(PostgresConfig, password=wrong), caplog)
    for misspelt in ("pasword", "passwd", "database_password"):
        given_settings: dict[str, Any] = {misspelt: secret, "port": -1}
        assert_silent(partial(PostgresConfig, **given_settings), caplog)


@quickly
@given(PASSWORDS)
def test_no_file_shows_the_password(
    project: Path, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    caplog.set_level(logging.DEBUG)
    line = secret.replace("\n", " ").replace("\r", " ")
    for text in (
        f"storage:\n  postgres:\n    password: {line}\n",
        f"storage:\n  postgres:\n    password: '{line}\n    port: 70000\n",
        f"storage:\n  postgres: {line}\n",
        f"storage:\n  postgres:\n    password: *{MARK}\n",
        f"storage:\n  postgres:\n    password: !{MARK} x\n",
        f"storage:\n  postgres: [host, {MARK}]\n",
        f"{line}",
    ):
        write(project / "config.yaml", text)
        assert_silent(load_config, caplog)
    (project / "config.yaml").unlink()
    for text in (
        f"AGENT_BRAIN_POSTGRES_PASSWORD={secret}\nAGENT_BRAIN_POSTGRES_PORT=x\n",
        f"AGENT_BRAIN_POSTGRES_PASWORD='{secret}'\n",
        f"DATABASE_URL=postgresql://u:{secret}@h/d\n",
        f"AGENT_BRAIN_POSTGRES_PASSWORD={secret}\nDATABASE_URL=postgresql://h:x/d\n",
    ):
        write(project / ".env.agent-brain", text)
        assert_silent(load_config, caplog)
    (project / ".env.agent-brain").unlink()


def test_a_file_that_is_not_utf8_does_not_show_what_it_holds(project: Path) -> None:
    (project / ".env").write_bytes(f"AGENT_BRAIN_POSTGRES_PASSWORD={MARK}\xff".encode("latin-1"))
    with pytest.raises(SettingsError) as caught:
        load_config()
    assert MARK not in everything_about(caught.value)


def test_a_refused_assignment_does_not_show_the_password() -> None:
    config = PostgresConfig(password=MARK)
    with pytest.raises(SettingsError) as caught:
        config.port = 70000
    assert MARK not in everything_about(caught.value)
    with pytest.raises(SettingsError) as caught:
        config.password = [MARK]  # type: ignore[assignment]
    assert MARK not in everything_about(caught.value)


def test_masked_settings_say_only_whether_there_is_a_password() -> None:
    assert PostgresConfig(password=MARK).masked()["password"] == "**********"
    assert PostgresConfig().masked()["password"] is None


def test_the_password_of_a_client_key_is_passed_on_but_not_shown() -> None:
    config = PostgresConfig.from_database_url(f"postgresql://h/d?sslpassword={MARK}")
    assert config.options == {"sslpassword": "**********"}
    assert MARK in config.conninfo()
    assert MARK not in repr(config)


# --- the passfile -------------------------------------------------------------------------------


def test_without_a_password_the_passfile_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq is asked, as only it knows whether it would use the file."""
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:from the passfile\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    for nothing in ("", None):
        config = PostgresConfig(host="127.0.0.1", port=1, password=nothing)
        connection = psycopg.pq.PGconn.connect_start(config.conninfo().encode())
        assert connection.password == b"from the passfile"
        connection.finish()
