"""The values that a `where` filter compares with, as JSON."""

from __future__ import annotations

import datetime
import enum
import json
import math
import uuid
from collections.abc import Mapping, Set
from decimal import Decimal
from pathlib import PurePath
from typing import Any, TypeAlias

from agent_brain_postgres.errors import InvalidFilter
from agent_brain_postgres.text import sanitize_text

# Deep enough for any real filter; far from Python's recursion limit and the server's stack depth.
MAX_DEPTH = 64
_MAX_DIGITS = 3_900  # Python refuses to print integers of more than 4,300
_MAX_BITS = int(_MAX_DIGITS * math.log2(10))

Json: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"


def named(value: object) -> str:
    """Show a key or an operand's type in a message: short, whatever a caller passes."""
    if isinstance(value, str):
        return json.dumps(sanitize_text(value[:80]), ensure_ascii=False)
    return "null" if value is None else type(value).__name__


def literal(value: object, place: str, depth: int = 1) -> Json:
    """Give the JSON value that stored metadata would hold for `value`.

    Strings are sanitised as the store sanitises them; numpy values, tuples, enums, dates, paths
    and UUIDs become what they are in JSON. `place` begins the message of the `InvalidFilter`
    that refuses anything else.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return literal(value.value, place, depth + 1)
    if isinstance(value, str):
        return sanitize_text(str(value))
    if isinstance(value, int | float | Decimal):
        return _number(value, place)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID | PurePath):
        return sanitize_text(str(value))
    return _nested(value, place, depth)


def members(value: object, place: str) -> list[Json]:
    """Give the distinct values of a `$in` operand: any list, tuple, set or array."""
    if isinstance(value, Set):
        value = list(value)
    values = literal(value, place)
    if not isinstance(values, list):
        raise InvalidFilter(f"{place} takes a list of values, not {named(value)}")
    return list({json.dumps(item): item for item in values}.values())


def _number(value: float | Decimal, place: str) -> int | float:
    if isinstance(value, Decimal):
        value = _from_decimal(value, place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidFilter(f"{place}: NaN and infinity cannot be compared with")
        return float(value)
    if value.bit_length() > _MAX_BITS:
        raise InvalidFilter(f"{place}: the number has too many digits")
    return int(value)


def _from_decimal(value: Decimal, place: str) -> int | float:
    if not value.is_finite():
        return math.nan
    if abs(value.adjusted()) > _MAX_DIGITS:
        raise InvalidFilter(f"{place}: the number has too many digits")
    return int(value) if value == value.to_integral_value() else float(value)


def _nested(value: object, place: str, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"{place}: the value is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list | tuple):
        return [literal(item, place, depth + 1) for item in value]
    if isinstance(value, Mapping):
        items = value.items()
        return {sanitize_text(str(key)): literal(item, place, depth + 1) for key, item in items}
    plain = getattr(value, "tolist", None)  # numpy's scalars and arrays
    if callable(plain):
        return literal(plain(), place, depth + 1)
    raise InvalidFilter(f"{place}: cannot compare with {named(value)}")
