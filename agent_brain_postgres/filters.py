"""`where` filters, the Chroma dialect: what is well formed, and what it means.

- A condition is true or false, never unknown, so `$not` is plain negation. A missing key matches
  `$ne`, `$nin` and `{"$exists": False}`, and nothing else; a key that holds null is present.
- Types never mix: 1 equals 1.0, but not `True` and not `"1"`. Ranges compare numbers with numbers
  and strings with strings (by code point); on a value of another type they are false.
- `$contains` finds a substring of a string, or a member of a list.
- `"a.b"` is the top-level key `a.b` where there is one, else the value at `b` in the object at
  `a`. Lists are not stepped into.
- A metadata key that begins with a dollar sign is written with two: `{"$$ref": 1}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from psycopg import sql

from agent_brain_postgres.conditions import (
    COMPARISONS,
    TRUE,
    Comparison,
    Conditions,
    all_of,
    any_of,
    negate,
)
from agent_brain_postgres.errors import InvalidFilter
from agent_brain_postgres.literals import MAX_DEPTH, literal, members, named
from agent_brain_postgres.text import sanitize_text

Where = Mapping[str, Any]

_LOGICAL = ("$and", "$or", "$not")


@dataclass(frozen=True)
class Filter:
    """A boolean SQL expression and its named parameters; `empty` when it restricts nothing."""

    sql: sql.Composable
    params: dict[str, Any]
    empty: bool = False


def compile_where(
    where: Where | None,
    metadata: sql.Composable = sql.Identifier("metadata"),  # noqa: B008 (immutable)
    prefix: str = "where",
) -> Filter:
    """Turn a filter into a condition on the `jsonb` column `metadata`.

    Parameters are named `<prefix>_<number>`, so that a filter composes with other named
    parameters in one statement. Raises `InvalidFilter`, which names the operator or key, when the
    filter is malformed.
    """
    if where is None or (isinstance(where, Mapping) and not where):
        return Filter(TRUE, {}, empty=True)
    conditions = Conditions(metadata, prefix)
    return Filter(_filter(conditions, where, 1), conditions.params)


def source_filter(source_types: list[str] | None, languages: list[str] | None) -> Where | None:
    """Build the filter for the core's two shorthand arguments; an empty list means "any"."""
    wanted = {"source_type": source_types, "language": languages}
    return {key: {"$in": values} for key, values in wanted.items() if values} or None


def combine(*filters: Where | None) -> Where | None:
    """Build the filter that requires all the given ones; None and empty ones restrict nothing."""
    given = [where for where in filters if where is not None and where != {}]
    if len(given) < 2:
        return given[0] if given else None
    return {"$and": given}


def _filter(to: Conditions, where: object, depth: int) -> sql.Composed:
    if not isinstance(where, Mapping):
        raise InvalidFilter(f"a where filter is a mapping, not {named(where)}")
    if not where:
        raise InvalidFilter("an empty filter inside $and, $or or $not: leave it out")
    _check_depth(depth)
    return all_of([_entry(to, key, operand, depth) for key, operand in where.items()])


def _entry(to: Conditions, key: object, operand: object, depth: int) -> sql.Composed:
    if not isinstance(key, str):
        raise InvalidFilter(f"a metadata key in a where filter is a string, not {named(key)}")
    if key in _LOGICAL:
        return _logical(to, key, operand, depth)
    if key.startswith("$$"):
        return _field(to, sanitize_text(key[1:]), operand, depth)
    if key in _OPERATORS:
        raise InvalidFilter(f'where: {key} belongs to a metadata key: {{"key": {{"{key}": ...}}}}')
    if key.startswith("$"):
        raise InvalidFilter(
            f"where: unknown operator {named(key)}{_nearest(key, _LOGICAL)}; a metadata key that "
            "begins with $ is written with $$"
        )
    return _field(to, sanitize_text(key), operand, depth)


def _logical(to: Conditions, operator: str, operand: object, depth: int) -> sql.Composed:
    if operator == "$not":
        return negate(_filter(to, operand, depth + 1))
    if not isinstance(operand, list | tuple) or not operand:
        raise InvalidFilter(f"where: {operator} takes a list of one or more filters")
    parts = [_filter(to, part, depth + 1) for part in operand]
    return all_of(parts) if operator == "$and" else any_of(parts)


def _field(to: Conditions, key: str, operand: object, depth: int) -> sql.Composed:
    """Compile the value, or the operators that must all hold, at one metadata key."""
    place = f"where {named(key)}"
    if isinstance(operand, Mapping):
        _check_depth(depth)
        _check_operators(place, operand)
        return all_of([_operator(to, key, name, operand[name], depth) for name in operand])
    value = literal(operand, place)
    if isinstance(value, list | dict):
        # A list here nearly always means $in, and equality would silently match nothing.
        raise InvalidFilter(
            f'{place}: a list needs an operator: {{"$in": [...]}} for any of its members, '
            '{"$eq": [...]} for the same list, {"$contains": ...} for one member'
        )
    return to.equal(key, value)


def _operator(to: Conditions, key: str, operator: str, operand: object, depth: int) -> sql.Composed:
    place = f"where {named(key)}: {operator}"
    if operator != "$not":
        return _OPERATORS[operator](to, key, operand, place)
    if not isinstance(operand, Mapping):
        raise InvalidFilter(f'{place} takes operators, such as {{"$gt": 5}}')
    return negate(_field(to, key, operand, depth + 1))


def _equal(to: Conditions, key: str, operand: object, place: str) -> sql.Composed:
    return to.equal(key, literal(operand, place))


def _one_of(to: Conditions, key: str, operand: object, place: str) -> sql.Composed:
    return to.one_of(key, members(operand, place))


def _contains(to: Conditions, key: str, operand: object, place: str) -> sql.Composed:
    return to.contains(key, literal(operand, place))


def _exists(to: Conditions, key: str, operand: object, place: str) -> sql.Composed:
    wanted = literal(operand, place)
    if not isinstance(wanted, bool):
        raise InvalidFilter(f"{place} takes true or false, not {named(operand)}")
    return to.exists(key) if wanted else negate(to.exists(key))


_Operator = Callable[[Conditions, str, object, str], sql.Composed]


def _compare(operator: Comparison) -> _Operator:
    def compare(to: Conditions, key: str, operand: object, place: str) -> sql.Composed:
        bound = literal(operand, place)
        if isinstance(bound, bool) or not isinstance(bound, int | float | str):
            raise InvalidFilter(f"{place} takes a number or a string, not {named(operand)}")
        return to.compare(key, operator, bound)

    return compare


def _negated(operator: _Operator) -> _Operator:
    return lambda to, key, operand, place: negate(operator(to, key, operand, place))


_OPERATORS: dict[str, _Operator] = {
    "$eq": _equal,
    "$ne": _negated(_equal),
    **{operator: _compare(operator) for operator in COMPARISONS},
    "$in": _one_of,
    "$nin": _negated(_one_of),
    "$contains": _contains,
    "$exists": _exists,
}
_AT_A_KEY = (*_OPERATORS, "$not")


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the where filter is nested more than {MAX_DEPTH} levels deep")


def _check_operators(place: str, operators: Mapping[Any, Any]) -> None:
    if not operators:
        raise InvalidFilter(f"{place}: an empty mapping instead of an operator")
    for name in operators:
        if name not in _AT_A_KEY:
            _refuse_operator(place, name)


def _refuse_operator(place: str, name: object) -> None:
    if name in _LOGICAL:
        raise InvalidFilter(f"{place}: {name} goes around whole filters, not inside a key")
    if isinstance(name, str) and name.startswith("$"):
        raise InvalidFilter(f"{place}: unknown operator {named(name)}{_nearest(name, _AT_A_KEY)}")
    raise InvalidFilter(
        f"{place}: {named(name)} is not an operator{_nearest(f'${name}', _AT_A_KEY)}; compare "
        'with a whole object by {"$eq": {...}}, with a value inside it by a dotted key'
    )


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name.lower()[:40], known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
