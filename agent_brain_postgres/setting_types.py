"""The kinds of value that settings have, and how a setting declares what it accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from agent_brain_postgres.secret import UnresolvedSecret, resolve_secret

_FALSE = frozenset({"false", "no", "off", "0", "f", "n"})
_TRUE = frozenset({"true", "yes", "on", "1", "t", "y"})
_LONGEST_IDENTIFIER = 63  # bytes; PostgreSQL cuts longer names without a word


def setting(
    default: Any, description: str, allowed: str, *, shown: str = "none", **limits: Any
) -> Any:
    """Declare a setting.

    `allowed` ends the sentence "allowed: ..." of its errors, and `shown` stands for a default of
    None in the settings table.
    """
    extra: dict[str, Any] = {"allowed": allowed, "shown": shown}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def refuse(reason: str, *keys: str) -> PydanticCustomError:
    """Return the error whose message is `reason`; `keys` are the settings it is about."""
    return PydanticCustomError("setting", "{reason}", {"reason": reason, "keys": keys})


def switch(text: str) -> bool | None:
    """Return what a word for true or false means, None for any other text."""
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _not_allowed() -> PydanticCustomError:
    return PydanticCustomError("not_allowed", "not allowed")


def _no_switch(value: Any) -> Any:
    # pydantic would take `true` for the number 1.
    if isinstance(value, bool):
        raise _not_allowed()
    return value


def _unfit_for_libpq(text: str) -> bool:
    # libpq reads UTF-8 up to the first NUL: a longer string would be cut without a word.
    return "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)


def _plain(value: Any) -> Any:
    if isinstance(value, str) and _unfit_for_libpq(value):
        raise _not_allowed()
    return value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _automatic_is_none(value: Any) -> Any:
    return None if value in ("", "auto", "automatic") else value


def _resolved(value: Any) -> Any:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    try:
        text = resolve_secret(text)
    except UnresolvedSecret as error:
        raise refuse(str(error)) from None
    if _unfit_for_libpq(text):
        raise refuse("it must not contain NUL characters or lone surrogates")
    return SecretStr(text) if text else None


def _usable_schema(value: str) -> str:
    reserved = value.startswith("pg_") or value == "information_schema"
    if reserved or len(value.encode()) > _LONGEST_IDENTIFIER:
        raise _not_allowed()
    return value


def _folded(value: str) -> str:
    # The server folds an unquoted name too, but the meta table compares it as text.
    return value if '"' in value else value.strip().lower()


def _switch_or_directory(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    text = str(value).strip() if isinstance(value, str | Path) else ""
    if not text or _unfit_for_libpq(text):
        raise _not_allowed()
    meaning = switch(text)
    return Path(text).expanduser() if meaning is None else meaning


SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
ConnectionStrategy = Literal["direct", "cloud_sql_proxy", "cloud_sql_connector"]

Whole = Annotated[int, BeforeValidator(_no_switch)]
Seconds = Annotated[float, BeforeValidator(_no_switch), Field(allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(_plain), Field(min_length=1)]
SchemaName = Annotated[Text, AfterValidator(_usable_schema)]
Language = Annotated[Text, AfterValidator(_folded)]
OptionalText = Annotated[str | None, BeforeValidator(_plain), BeforeValidator(_empty_is_none)]
OptionalSslMode = Annotated[SslMode | None, BeforeValidator(_empty_is_none)]
Automatic = Annotated[Whole | None, BeforeValidator(_automatic_is_none)]
Password = Annotated[SecretStr | None, BeforeValidator(_resolved)]
SwitchOrDirectory = Annotated[bool | Path, BeforeValidator(_switch_or_directory)]
