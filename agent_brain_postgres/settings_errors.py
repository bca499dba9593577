"""What is wrong with a setting, in one sentence: source, key, value, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

ARGUMENT = "argument"
# Never shown, wherever they come from.
SECRET_KEYS = frozenset({"password"})
# What people write for a setting that difflib would not find.
_OTHER_NAMES = {
    "db": "database",
    "dbname": "database",
    "dimensions": "embedding_dimensions",
    "ef_search": "hnsw_ef_search",
    "hostname": "host",
    "max_overflow": "pool_max_overflow",
    "pass": "password",
    "pwd": "password",
    "schema": "db_schema",
    "server": "host",
    "sslrootcert": "ssl_root_cert",
    "username": "user",
}
_LONGEST_VALUE = 80


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known name that `key` was probably meant to be."""
    names = sorted(known)
    wanted = key.strip().lower().replace("-", "_")
    if wanted in _OTHER_NAMES and _OTHER_NAMES[wanted] in names:
        return _OTHER_NAMES[wanted]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    return close[0] if close else None


def unknown_key(key: str, origin: str, known: Iterable[str]) -> str:
    """Say that there is no setting of that name, and which one comes nearest."""
    names = sorted(known)
    suggestion = nearest(key, names)
    ending = f"did you mean {suggestion!r}?" if suggestion else f"known are {', '.join(names)}"
    return f"unknown setting {key[:_LONGEST_VALUE]!r} ({origin}); {ending}"


def describe(
    errors: Iterable[ErrorDetails],
    fields: Mapping[str, FieldInfo],
    where: Mapping[str, str],
) -> str:
    """Turn pydantic's findings into sentences, one a line; `where` says where a key came from."""
    return "\n".join(dict.fromkeys(_sentence(error, fields, where) for error in errors))


def _sentence(
    error: ErrorDetails, fields: Mapping[str, FieldInfo], where: Mapping[str, str]
) -> str:
    key = str(error["loc"][0]) if error["loc"] else ""
    origin = where.get(key, ARGUMENT)
    if error["type"] == "extra_forbidden":
        return unknown_key(key, origin, fields)
    reason = str(error.get("ctx", {}).get("reason", ""))
    if not key:  # a rule about several settings names them itself
        return f"{reason or error['msg']} ({_origins(error, where)})"
    seen = f"is {_shorten(error['input'])}" if _shown(key, origin) else "cannot be used"
    return f"{key} {seen} ({origin}); {reason or 'allowed: ' + allowed(fields[key])}"


def allowed(field: FieldInfo) -> str:
    """Return the words that a setting declares for what it accepts."""
    return declared(field, "allowed")


def declared(field: FieldInfo, what: str) -> str:
    """Return what `setting_types.setting` was told of a field; empty for another's field."""
    extra = field.json_schema_extra
    return str(extra.get(what, "")) if isinstance(extra, dict) else ""


def _shown(key: str, origin: str) -> bool:
    # In a malformed URL any part may be a piece of the password.
    return key not in SECRET_KEYS and not origin.startswith("DATABASE_URL")


def _origins(error: ErrorDetails, where: Mapping[str, str]) -> str:
    keys = error.get("ctx", {}).get("keys", ())
    return ", ".join(dict.fromkeys(where.get(key, "default") for key in keys)) or ARGUMENT


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
