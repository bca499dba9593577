"""The settings as the core constructs them: from its YAML, or from `DATABASE_URL`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent_brain_server.config import provider_config, secrets
from agent_brain_server.storage import factory

from agent_brain_postgres import core

URL = "postgresql+asyncpg://someone:s%20e%2Bcret@db.example:6543/brain?sslmode=require"


@pytest.fixture(autouse=True)
def _fresh_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A core that has read nothing yet, in an empty directory, with the finder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    _forget()
    yield
    _forget()


def _forget() -> None:
    core.uninstall()
    provider_config.clear_settings_cache()
    secrets.clear_secrets_resolver_cache()
    factory.reset_storage_backend_cache()


def backend_for(section: dict[str, Any]) -> Any:
    """Have the core's factory make the backend for a `storage.postgres` section."""
    storage = {"storage": {"backend": "postgres", "postgres": section}}
    Path("config.yaml").write_text(yaml.safe_dump(storage))
    core.install()
    return factory.get_storage_backend()


def password(backend: Any) -> str:
    return str(backend.config.password.get_secret_value())


def test_the_factory_makes_this_backend() -> None:
    backend = backend_for({"host": "db.example", "port": 6000, "hnsw_m": 24})
    assert type(backend).__module__ == "agent_brain_postgres.core.shim"
    assert (backend.config.host, backend.config.port, backend.config.hnsw_m) == (
        "db.example",
        6000,
        24,
    )


def test_every_key_of_the_built_in_model_is_accepted() -> None:
    from agent_brain_server.storage.postgres.config import PostgresConfig

    keys = set(PostgresConfig.model_fields)
    values = PostgresConfig(password="x").model_dump()
    assert PostgresConfig.__module__ == "agent_brain_server.storage.postgres.config"
    config = backend_for(values).config
    assert keys <= set(type(config).model_fields)
    assert config.pool_max == values["pool_size"] + values["pool_max_overflow"]


def test_with_database_url_the_other_yaml_keys_still_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    section = {"host": "elsewhere", "language": "german", "pool_size": 3, "hnsw_m": 24}
    config = backend_for(section).config
    assert (config.host, config.port, config.database) == ("db.example", 6543, "brain")
    assert (config.language, config.pool_size, config.hnsw_m) == ("german", 3, 24)
    assert config.ssl_mode == "require"
    assert config.password.get_secret_value() == "s e+cret"


def test_the_cores_assignments_do_not_outrank_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_POOL_SIZE", "7")
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_POOL_MAX", "9")
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_POOL_TIMEOUT", "4")
    config = backend_for({"pool_size": 3, "pool_max_overflow": 50, "pool_timeout": 60}).config
    assert (config.pool_size, config.pool_max, config.pool_timeout) == (7, 9, 4.0)


def test_an_application_may_still_assign_a_pool_setting() -> None:
    core.install()
    from agent_brain_server.storage.postgres import PostgresConfig

    config = PostgresConfig.from_database_url(URL)
    config.pool_size = 2
    config.pool_max_overflow = 1
    assert (config.pool_size, config.pool_max) == (2, 3)


def test_the_environment_outranks_the_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_HOST", "from.environment")
    assert backend_for({"host": "from.yaml"}).config.host == "from.environment"


def test_a_password_may_name_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_PASSWORD", "hidden")
    assert password(backend_for({"password": "secret://env/THE_PASSWORD"})) == "hidden"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> str:
    """A reference into Google's Secret Manager, which the core's resolver follows."""
    monkeypatch.setenv("AGENT_BRAIN_SECRETS_BACKEND", "gcp-secret-manager")
    monkeypatch.setattr(
        secrets.GcpSecretManagerResolver,
        "_fetch_secret",
        lambda self, ref: {"password": "from the cloud", "url": URL}[ref.secret_id],
    )
    secrets.clear_secrets_resolver_cache()
    return "secret://gcp/projects/p/secrets/{}/versions/latest"


def test_a_password_may_be_in_the_cloud(cloud: str) -> None:
    backend = backend_for({"password": cloud.format("password")})
    assert password(backend) == "from the cloud"
    assert "from the cloud" not in repr(backend.config)


def test_so_may_the_database_url(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", cloud.format("url"))
    backend = backend_for({"language": "german"})
    assert backend.config.host == "db.example"
    assert backend.config.language == "german"
    assert password(backend) == "s e+cret"


def test_a_wrong_setting_is_one_clear_sentence() -> None:
    from agent_brain_server.storage.protocol import StorageError

    with pytest.raises(StorageError, match=r"hots.*host"):
        backend_for({"hots": "db.example"})


def test_without_the_finder_the_core_has_its_own() -> None:
    from agent_brain_server.storage.postgres import PostgresConfig

    assert PostgresConfig.__module__ == "agent_brain_server.storage.postgres.config"
