"""What a `where` filter means, evaluated in plain Python: the model that the SQL is held to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

_MISSING = object()
_RANGES: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def stored(value: Any) -> Any:
    """Give what the database holds for a JSON value: no NUL, no lone surrogate."""
    if isinstance(value, str):
        clean = value.replace("\x00", "")
        return "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in clean)
    if isinstance(value, dict):
        return {stored(key): stored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stored(item) for item in value]
    return value


def evaluate(where: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> bool:
    """Say whether stored metadata satisfies a well-formed filter."""
    return all(_entry(key, operand, metadata) for key, operand in (where or {}).items())


def _entry(key: str, operand: Any, metadata: Mapping[str, Any]) -> bool:
    if key == "$and":
        return all(evaluate(part, metadata) for part in operand)
    if key == "$or":
        return any(evaluate(part, metadata) for part in operand)
    if key == "$not":
        return not evaluate(operand, metadata)
    name = stored(key[1:] if key.startswith("$$") else key)
    return _field(_look_up(name, metadata), operand)


def _field(value: Any, operand: Any) -> bool:
    operators = operand if isinstance(operand, dict) else {"$eq": operand}
    return all(_operator(name, value, wanted) for name, wanted in operators.items())


def _operator(name: str, value: Any, wanted: Any) -> bool:
    if name == "$not":
        return not _field(value, wanted)
    wanted = stored(wanted)
    if name == "$exists":
        return (value is not _MISSING) is wanted
    if name in ("$ne", "$nin"):
        return not _operator({"$ne": "$eq", "$nin": "$in"}[name], value, wanted)
    if value is _MISSING:
        return False
    if name == "$eq":
        return _same(value, wanted)
    if name == "$in":
        return any(_same(value, one) for one in wanted)
    if name == "$contains":
        return _contains(value, wanted)
    return _kind(value) == _kind(wanted) and _RANGES[name](_comparable(value), _comparable(wanted))


def _look_up(key: str, metadata: Mapping[str, Any]) -> Any:
    if key in metadata or "." not in key:
        return metadata.get(key, _MISSING)
    value: Any = metadata
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, list) and any(_same(member, wanted) for member in value)


def _same(one: Any, other: Any) -> bool:
    if _kind(one) != _kind(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(_comparable(one) == _comparable(other))


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def _comparable(value: Any) -> Any:
    """Give numbers as the decimals that JSON writes, which is what the database compares."""
    return Decimal(repr(value)) if _kind(value) == "number" else value
