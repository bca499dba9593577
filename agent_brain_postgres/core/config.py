"""The settings model as the core constructs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import PrivateAttr

from agent_brain_postgres import config as native
from agent_brain_postgres.sources import URL_VARIABLE, Layers, gather

# The attributes that make up a pydantic object.
_STATE = (
    "__dict__",
    "__pydantic_fields_set__",
    "__pydantic_extra__",
    "__pydantic_private__",
)


class PostgresConfig(native.PostgresConfig):
    """Settings from every source, for a host that knows only its YAML.

    The core calls `PostgresConfig(**yaml)` or, with `DATABASE_URL`, `from_database_url(url)`.
    Either way the environment and its file are weighed as everywhere else.
    """

    _yaml: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, **yaml: Any) -> None:
        gathered = type(self)._from(gather(yaml, {}, type(self).model_fields))
        for attribute in _STATE:
            object.__setattr__(self, attribute, getattr(gathered, attribute))

    @classmethod
    def from_database_url(cls, url: str, **others: Any) -> PostgresConfig:
        """Take the connection from a URL and all other settings from where they always are.

        The core drops its YAML on this path, but for three pool settings that it assigns
        afterwards: they are read again here.
        """
        yaml = {**_core_yaml(), **others}
        config = cls._from(_layers(yaml, url, cls))
        config._yaml = yaml
        return config

    def __setattr__(self, name: str, value: Any) -> None:
        """Check an assignment, but let pass what only repeats the YAML.

        The YAML was weighed against the environment already, which is stronger.
        """
        private = self.__pydantic_private__ or {}
        repeated = private.get("_yaml", {}).get(name)
        if repeated is not None and str(repeated) == str(value):
            return
        super().__setattr__(name, value)


def _layers(yaml: Mapping[str, Any], url: str, model: type[native.PostgresConfig]) -> Layers:
    # The variable is read where the other variables are, so that a password beside it is seen.
    arguments = {} if os.environ.get(URL_VARIABLE) else {"database_url": url}
    return gather(yaml, arguments, model.model_fields)


def _core_yaml() -> Mapping[str, Any]:
    """Give `storage.postgres` as the core has read it."""
    from agent_brain_server.config.provider_config import load_provider_settings

    return dict(load_provider_settings().storage.postgres)
