"""The settings: one model for every key, and the loader that fills it from all sources."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator

from agent_brain_postgres import database_url, settings_errors
from agent_brain_postgres.errors import SettingsError
from agent_brain_postgres.setting_types import (
    Automatic,
    ConnectionStrategy,
    Language,
    OptionalSslMode,
    OptionalText,
    Password,
    SchemaName,
    Seconds,
    SslMode,
    SwitchOrDirectory,
    Text,
    Whole,
    refuse,
    setting,
)
from agent_brain_postgres.settings_files import user_data_directory
from agent_brain_postgres.sources import Layers, gather
from agent_brain_postgres.store import Column, Metric

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

__all__ = ["PostgresConfig", "SslMode", "load_config"]

MASK = "**********"
APPLICATION_NAME = "agent-brain-postgres"
_CONNECT_TIMEOUT = "10"  # seconds; libpq would wait for ever where packets are dropped
# Accepted because the core's own model has them; each is said once to have no effect.
_MEANINGLESS = {
    "cloud_sql_instance": "connect to the Cloud SQL proxy through host and port",
    "connection_strategy": "connections are always direct; start the Cloud SQL proxy yourself and "
    "set its host and port",
}
_warned: set[str] = set()


class PostgresConfig(BaseModel):
    """The settings under ``storage.postgres``, checked; the password stays masked.

    Built in code, it holds what it is given and nothing from files or the environment:
    that is `load_config`. Every error is a `SettingsError`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    host: Text = setting(
        "localhost", "server, several separated by commas, or the directory of a Unix socket",
        "a host name, an address or a directory",
    )
    port: Whole = setting(5432, "port", "a whole number from 1 to 65535", ge=1, le=65535)
    database: Text = setting("agent_brain", "database", "the name of a database, as text")
    user: Text = setting("agent_brain", "role to log in as", "the name of a role, as text")
    password: Password = setting(
        None, "password, or `secret://env/NAME`; without one libpq's passfile is used",
        "text (in YAML, a password of digits only needs quotes)",
    )
    db_schema: SchemaName = setting(
        "agent_brain", "PostgreSQL schema that holds the tables: one a project",
        "a name of at most 63 bytes that does not begin with pg_",
    )
    pool_size: Whole = setting(
        10, "connections kept open", "a whole number from 1 to 10000", ge=1, le=10_000
    )
    pool_max: Whole = setting(
        20, "most connections open at a time",
        "a whole number from pool_size to 20000", ge=1, le=20_000,
    )
    pool_max_overflow: Whole = setting(
        10, "older name: `pool_max` = `pool_size` + this",
        "a whole number from 0 to 10000", ge=0, le=10_000,
    )
    pool_timeout: Seconds = setting(
        30.0, "seconds to wait for a free connection", "seconds above 0, at most 86400",
        gt=0, le=86_400,
    )
    connect_attempts: Whole = setting(
        5, "attempts to reach a server that is still starting", "a whole number from 1 to 100",
        ge=1, le=100,
    )
    connect_backoff: Seconds = setting(
        1.0, "seconds before the second attempt, doubling with jitter", "seconds from 0 to 300",
        ge=0, le=300,
    )
    ssl_mode: OptionalSslMode = setting(
        None, "TLS, as libpq's `sslmode`",
        "disable, allow, prefer, require, verify-ca or verify-full", shown="libpq's `prefer`",
    )
    ssl_root_cert: OptionalText = setting(
        None, "file of certificate authorities, or `system`", "the path of a file"
    )
    ssl_cert: OptionalText = setting(None, "file of the client certificate", "the path of a file")
    ssl_key: OptionalText = setting(None, "file of the client key", "the path of a file")
    language: Language = setting(
        "english", "text search configuration of the server",
        "the name of a text search configuration (in psql, \\dF lists them)",
    )
    metric: Metric = setting(
        "cosine", "distance between vectors", "cosine, l2 or inner_product"
    )
    embedding_type: Column = setting(
        "vector", "how vectors are stored; `halfvec` takes half the room, at 11 bits a number",
        "vector or halfvec",
    )
    hnsw_m: Whole = setting(
        16, "links of a node in the HNSW index", "a whole number from 2 to 100", ge=2, le=100
    )
    hnsw_ef_construction: Whole = setting(
        64, "candidates while the index is built", "a whole number from 4 to 1000, and at least "
        "twice hnsw_m", ge=4, le=1000,
    )
    hnsw_ef_search: Automatic = setting(
        None, "candidates while searching", "a whole number from 1 to 1000, or automatic",
        shown="automatic", ge=1, le=1000,
    )
    embedding_dimensions: Automatic = setting(
        None, "length of the vectors, when neither the host nor the first vector should say",
        "a whole number from 1 to 16000", ge=1, le=16_000,
    )
    statement_timeout: Seconds = setting(
        60.0, "seconds a statement may take (0: no limit); index builds are exempt",
        "seconds from 0 to 2147483", ge=0, le=2_147_483,
    )
    pgbouncer: bool = setting(
        False, "behind PgBouncer: no prepared statements, no session state", "true or false"
    )
    embedded: SwitchOrDirectory = setting(
        False, "run the bundled PostgreSQL, in this directory when one is given",
        "true, false or a directory",
    )
    debug: bool = setting(False, "log each statement", "true or false")
    connection_strategy: ConnectionStrategy = setting(
        "direct", "the core's; no effect here", "direct, cloud_sql_proxy or cloud_sql_connector"
    )
    cloud_sql_instance: OptionalText = setting(
        None, "the core's; no effect here", "the name of an instance, as text"
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _options: dict[str, str] = PrivateAttr(default_factory=dict)
    _state_directory: Path | None = PrivateAttr(default=None)

    def __init__(self, **data: Any) -> None:
        self._fill(data, dict.fromkeys(data, settings_errors.ARGUMENT))

    def _fill(self, data: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        problem = ""
        try:
            super().__init__(**data)
        except ValidationError as error:
            findings = error.errors(include_url=False)
            problem = settings_errors.describe(findings, type(self).model_fields, origins)
        if problem:  # outside the handler, so that no context of ours holds the input
            raise SettingsError(problem)
        self._origins = dict(origins)
        _warn_of_the_meaningless(data)

    @classmethod
    def _from(cls, layers: Layers) -> Self:
        """Build from what the sources said, remembering which of them said it."""
        known = cls.model_fields
        given = {k: v for k, v in layers.values.items() if v is not None or k not in known}
        config = cls.__new__(cls)
        config._fill(given, layers.origins)
        config._options = dict(layers.options)
        config._state_directory = layers.state_directory
        return config

    @classmethod
    def from_database_url(cls, url: str, **others: Any) -> Self:
        """Take the connection from a URL and every other setting from `others`."""
        layers = Layers()
        layers.add(others, settings_errors.ARGUMENT)
        layers.add_url(url, "DATABASE_URL")
        return cls._from(layers)

    def __setattr__(self, name: str, value: Any) -> None:
        """Check an assignment together with all other settings; it fails without a trace."""
        if name not in type(self).model_fields:
            super().__setattr__(name, value)
            return
        given = {key: getattr(self, key) for key in self.model_fields_set}
        for twin in {"pool_max", "pool_max_overflow"} - {name} if "pool_max" in name else ():
            given.pop(twin, None)
        origins = {**self._origins, name: settings_errors.ARGUMENT}
        fresh = type(self).__new__(type(self))
        fresh._fill({**given, name: value}, origins)
        self.__dict__.update(fresh.__dict__)
        object.__setattr__(self, "__pydantic_fields_set__", fresh.model_fields_set)
        self._origins = origins
        if name in ("host", "port"):  # the URL's list of ports belonged to its list of hosts
            self._options.pop("port", None)
            self._options.pop("hostaddr", None)

    @model_validator(mode="after")
    def _pool_limits(self) -> Self:
        given = self.model_fields_set
        if "pool_max_overflow" in given:
            limit = self.pool_size + self.pool_max_overflow
            if "pool_max" in given and self.pool_max != limit:
                raise refuse(
                    f"pool_max is {self.pool_max}, but pool_size + pool_max_overflow is {limit}; "
                    "give only one of pool_max and pool_max_overflow",
                    "pool_max", "pool_max_overflow",
                )
        else:
            limit = self.pool_max if "pool_max" in given else max(self.pool_max, self.pool_size)
        if limit < self.pool_size:
            raise refuse(
                f"pool_max is {limit}, below pool_size, which is {self.pool_size}; "
                "allowed: pool_max of pool_size or more",
                "pool_max", "pool_size",
            )
        self.__dict__.update(pool_max=limit, pool_max_overflow=limit - self.pool_size)
        return self

    @model_validator(mode="after")
    def _index_parameters(self) -> Self:
        least = 2 * self.hnsw_m
        if self.hnsw_ef_construction >= least:
            return self
        if "hnsw_ef_construction" in self.model_fields_set:
            raise refuse(
                f"hnsw_ef_construction is {self.hnsw_ef_construction}, less than twice hnsw_m, "
                f"which is {self.hnsw_m}; allowed: {least} or more",
                "hnsw_ef_construction", "hnsw_m",
            )
        self.__dict__.update(hnsw_ef_construction=least)
        return self

    @property
    def sources(self) -> dict[str, str]:
        """Where the value of each setting came from."""
        return {key: self._origins.get(key, "default") for key in type(self).model_fields}

    @property
    def options(self) -> dict[str, str]:
        """libpq parameters of ``DATABASE_URL`` that are no settings, secrets masked."""
        return {
            name: MASK if name in database_url.SECRET_OPTIONS else value
            for name, value in self._options.items()
        }

    @property
    def embedded_directory(self) -> Path | None:
        """The directory of the embedded PostgreSQL; None when it is not used."""
        if self.embedded is False:
            return None
        if isinstance(self.embedded, Path):
            return self.embedded.absolute()
        return (self._state_directory or user_data_directory()) / "postgres"

    def addresses(self) -> list[tuple[str, int]]:
        """Every host with its port, in the order in which libpq tries them."""
        hosts = self.host.split(",")
        ports = self._options.get("port", str(self.port)).split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        return [(host, int(port)) for host, port in zip(hosts, ports, strict=False)]

    def conninfo(self) -> str:
        """Return libpq's connection string, **with the password**: never log it."""
        wanted = set(database_url.SETTING_OF.values())
        if "service" in self._options:  # our defaults must not override the service file
            wanted &= self.model_fields_set
        settings = {key: getattr(self, key) for key in wanted}
        settings["password"] = self.password.get_secret_value() if self.password else None
        defaults = {"application_name": APPLICATION_NAME, "connect_timeout": _CONNECT_TIMEOUT}
        return database_url.compose(settings, {**defaults, **self._options})

    def with_connection(self, conninfo: str, source: str = "embedded server") -> Self:
        """Return a copy that connects elsewhere, all other settings being equal."""
        given = {key: getattr(self, key) for key in self.model_fields_set}
        layers = Layers(given, dict(self._origins), state_directory=self._state_directory)
        layers.add_url(conninfo, source)
        layers.add({"embedded": self.embedded}, self.sources)
        return type(self)._from(layers)

    def masked(self) -> dict[str, Any]:
        """Every setting as plain data, the password as asterisks."""
        values = self.model_dump(mode="json")
        values["password"] = MASK if self.password else None
        return values

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        yield from self.masked().items()


def _warn_of_the_meaningless(data: Mapping[str, Any]) -> None:
    for key in sorted(_MEANINGLESS.keys() & data.keys() - _warned):
        if data[key] not in (None, "", "direct"):
            _warned.add(key)
            logger.warning("the setting %s has no effect here: %s", key, _MEANINGLESS[key])


def load_config(
    settings: Mapping[str, Any] | None = None, *, cli: Mapping[str, Any] | None = None
) -> PostgresConfig:
    """Gather the settings from every source, the strongest winning, and check them.

    `settings` is the mapping under ``storage.postgres`` of the host's YAML; None looks for the
    file. `cli` holds explicit arguments: None values count as not given, and ``database_url``
    stands for the environment's ``DATABASE_URL``.
    """
    return PostgresConfig._from(gather(settings, cli or {}, PostgresConfig.model_fields))
