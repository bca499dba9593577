"""Conditions on the values in a `jsonb` column of metadata, as SQL.

Each is true or false, never null, whatever the metadata holds, and none can fail in the database.
All values and keys are parameters, cast in the SQL: the server never has to guess a type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql

from agent_brain_postgres.errors import InvalidFilter
from agent_brain_postgres.literals import MAX_DEPTH, Json

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Up to here "one of" is an OR of containments, each served by the GIN index; above, a hash table.
FEW_VALUES = 64
# PostgreSQL takes 65,535 parameters a statement; planning has become slow long before.
MAX_PARAMETERS = 20_000

TRUE, FALSE = sql.Composed([sql.SQL("TRUE")]), sql.Composed([sql.SQL("FALSE")])
Comparison = Literal["$gt", "$gte", "$lt", "$lte"]
COMPARISONS: dict[Comparison, sql.SQL] = {
    "$gt": sql.SQL(">"),
    "$gte": sql.SQL(">="),
    "$lt": sql.SQL("<"),
    "$lte": sql.SQL("<="),
}


def all_of(conditions: Sequence[sql.Composed]) -> sql.Composed:
    """Require every one of the conditions, of which there is at least one."""
    return _join(" AND ", conditions)


def any_of(conditions: Sequence[sql.Composed]) -> sql.Composed:
    """Require one of the conditions, of which there is at least one."""
    return _join(" OR ", conditions)


def negate(condition: sql.Composed) -> sql.Composed:
    """Require the opposite."""
    return _sql("(NOT {})", condition)


class Conditions:
    """Builds conditions on one column and collects their parameters in `params`."""

    def __init__(self, metadata: sql.Composable, prefix: str) -> None:
        self.params: dict[str, Any] = {}
        self._metadata = metadata
        self._prefix = prefix
        self._names: dict[tuple[str, str], str] = {}

    def equal(self, key: str, value: Json) -> sql.Composed:
        """Require the value at `key` to equal `value`."""
        condition = self._containing(key, value)
        if not isinstance(value, list | dict):
            return condition
        # Containment is not equality for lists and objects: the index finds, this decides.
        return _sql("({} AND {} = {})", condition, self._value(key), self._json(value))

    def one_of(self, key: str, values: Sequence[Json]) -> sql.Composed:
        """Require the value at `key` to equal one of `values`."""
        if not values:
            return FALSE
        if len(values) <= FEW_VALUES:
            return any_of([self.equal(key, value) for value in values])
        # A subquery that depends on nothing is hashed once, also in a prepared generic plan,
        # where `= ANY (parameter)` compares one by one.
        return _sql(
            "(({value} IN (SELECT jsonb_array_elements({wanted}))) IS TRUE)",
            value=self._value(key),
            wanted=self._json(list(values)),
        )

    def compare(self, key: str, operator: Comparison, bound: float | str) -> sql.Composed:
        """Require a number (or a string) at `key` that is above or below `bound`."""
        parts = {"value": self._value(key), "operator": COMPARISONS[operator]}
        if isinstance(bound, str):
            return _sql(
                "((jsonb_typeof({value}) = 'string' AND"
                " ({value} #>> '{{}}') COLLATE \"C\" {operator} {bound}) IS TRUE)",
                bound=self._text(bound),
                **parts,
            )
        # `jsonb` compares its numbers as numeric: no cast that could fail on another type.
        return _sql(
            "((jsonb_typeof({value}) = 'number' AND {value} {operator} {bound}) IS TRUE)",
            bound=self._json(bound),
            **parts,
        )

    def contains(self, key: str, wanted: Json) -> sql.Composed:
        """Require a list at `key` with the member `wanted`, or a string with that substring."""
        member = self._containing(key, [wanted])
        if isinstance(wanted, list | dict):
            return _sql("({} AND {})", member, self._has_member(key, wanted))
        if not isinstance(wanted, str):
            return member
        return _sql(
            "({member} OR (jsonb_typeof({value}) = 'string' AND"
            " strpos(({value} #>> '{{}}') COLLATE \"C\", {wanted}) > 0) IS TRUE)",
            member=member,
            value=self._value(key),
            wanted=self._text(wanted),
        )

    def exists(self, key: str) -> sql.Composed:
        """Require `key` to be present; null is a value."""
        return _sql("({} IS NOT NULL)", self._value(key))

    def _has_member(self, key: str, wanted: Json) -> sql.Composed:
        return _sql(
            "EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof({value})"
            " WHEN 'array' THEN {value} ELSE '[]'::jsonb END) AS member WHERE member = {wanted})",
            value=self._value(key),
            wanted=self._json(wanted),
        )

    def _containing(self, key: str, value: Json) -> sql.Composed:
        """Give `@>`, the one form that an index with `jsonb_path_ops` serves."""
        arms: list[sql.Composed] = []
        for path in _readings(key):
            arm = _sql("{} @> {}", self._metadata, self._json(_nest(path, value)))
            if arms:
                arm = _sql("({} AND NOT {} ? {})", arm, self._metadata, self._text(key))
            arms.append(arm)
        return any_of(arms)

    def _value(self, key: str) -> sql.Composed:
        """Give the value at `key` as `jsonb`; null when the key is missing."""
        places = [
            _sql("({})", sql.SQL(" -> ").join([self._metadata, *map(self._text, path)]))
            for path in _readings(key)
        ]
        return places[0] if len(places) == 1 else _sql("coalesce({}, {})", *places)

    def _json(self, value: Json) -> sql.Composed:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _sql("{}::jsonb", self._parameter("jsonb", text))

    def _text(self, value: str) -> sql.Composed:
        return _sql("{}::text", self._parameter("text", value))

    def _parameter(self, kind: str, value: str) -> sql.Placeholder:
        """Name a parameter; the same value (under the same cast) is sent once."""
        name = self._names.setdefault((kind, value), f"{self._prefix}_{len(self._names)}")
        self.params[name] = value
        if len(self.params) > MAX_PARAMETERS:
            raise InvalidFilter(
                f"the where filter has more than {MAX_PARAMETERS} conditions; "
                "$in takes any number of values"
            )
        return sql.Placeholder(name)


def _readings(key: str) -> list[tuple[str, ...]]:
    """List the places that a key may mean, as names from the top down; the first present wins."""
    path = tuple(key.split("."))
    return [(key,), path] if 1 < len(path) <= MAX_DEPTH else [(key,)]


def _nest(path: tuple[str, ...], value: Json) -> Json:
    for name in reversed(path):
        value = {name: value}
    return value


def _leaves(part: sql.Composable) -> Iterator[sql.Composable]:
    if isinstance(part, sql.Composed):
        for inner in part:
            yield from _leaves(inner)
    else:
        yield part


def _sql(template: LiteralString, *args: Any, **kwargs: Any) -> sql.Composed:
    """Format, and keep the result flat: psycopg renders nested parts by recursion."""
    return sql.Composed(list(_leaves(sql.SQL(template).format(*args, **kwargs))))


def _join(joint: LiteralString, conditions: Sequence[sql.Composed]) -> sql.Composed:
    if len(conditions) == 1:
        return conditions[0]
    return _sql("({})", sql.SQL(joint).join(conditions))
