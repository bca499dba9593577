from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from agent_brain_postgres.filters import compile_where
from tests.filter_model import evaluate, stored
from tests.filter_queries import Connection, Metadata, truths

KEYS = ["a", "b", "c", "a.b", "a.b.c", "b.a", ".", "", "%", "%s", "%(f0_0)s", "'", '"', "\\", "{}"]
KEYS += ["é", "🙂", "\x00", "a\x00", "\ud800", "\ufffd", "$ref", "$and", "key with spaces"]
keys = st.sampled_from(["a", "b", "a.b"]) | st.sampled_from(KEYS)
texts = st.text(st.sampled_from("ab%_\\\"'é🙂\x00\ud800\ufffd"), max_size=3)
texts |= st.sampled_from(["", "1", "true", "null", "Z", "a", "z", "10", "9", "ä"])
numbers = st.integers(-2, 3) | st.floats(allow_nan=False, allow_infinity=False)
numbers |= st.sampled_from([0.1, 1.0, -0.0, 1e300, 5e-324, 2**53 + 1, float(2**53), 2**64, 10**200])
# Few enough that random filters hit random metadata; lists and objects that contain one another.
POOL: list[Any] = [None, True, False, 0, 1, 1.0, "", "a", "b", "ab", "%", [], {}, [1], ["a", 1]]
POOL += [[1, 1], [[1]], [[1, 2]], [{"b": 1}], [{"b": 1, "c": 2}], {"b": 1}, {"b": 1, "c": 2}]
POOL += [{"b": "a"}, {"b": {"c": 1}}, {"b": {"c": 1, "a": 0}}, {"b": [1]}, {"b": None}]
scalars = st.sampled_from(POOL[:11]) | st.none() | st.booleans() | numbers | texts
values = st.sampled_from(POOL) | st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c", ""]), inner, max_size=2)
    ),
    max_leaves=5,
)
metadatas = st.dictionaries(keys, values, max_size=5)

operators: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "$eq": values,
            "$ne": values,
            "$gt": numbers | texts,
            "$gte": numbers | texts,
            "$lt": numbers | texts,
            "$lte": numbers | texts,
            "$in": st.lists(values, max_size=4) | st.lists(scalars, min_size=65, max_size=70),
            "$nin": st.lists(values, max_size=4) | st.lists(scalars, min_size=65, max_size=70),
            "$contains": values,
            "$exists": st.booleans(),
            "$not": operators,
        },
    ).filter(bool)
)
# One operator at a time for the most part: several together are nearly always false.
single = operators.map(lambda several: dict([next(iter(several.items()))]))
written_keys = keys.map(lambda key: f"${key}" if key.startswith("$") else key)
fields = st.dictionaries(written_keys, scalars | single | operators, min_size=1, max_size=2)
wheres: st.SearchStrategy[Metadata] = st.recursive(
    fields,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.tuples(fields, inner).map(lambda two: {**two[0], "$or": [two[1]]}),
    ),
    max_leaves=4,
)
SLOW_DRAWS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def connection(server: str) -> Iterator[Connection]:
    """Give one connection for all: rows come with the query, so that no test needs a table."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = on")
        yield connection


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(
    rows=st.lists(metadatas, min_size=1, max_size=12),
    filters=st.lists(wheres, min_size=1, max_size=12),
)
def test_filters_mean_what_the_model_says(
    connection: Connection, rows: list[Metadata], filters: list[Metadata]
) -> None:
    expected = [[evaluate(where, stored(row)) for row in rows] for where in filters]

    assert truths(connection, filters, rows) == expected


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(row=metadatas, wanted=st.data())
def test_a_value_that_is_stored_is_found_by_it(connection: Connection, row: Metadata, wanted: st.DataObject) -> None:
    # Random filters seldom hit; these are drawn from the row itself.
    for key, value in row.items():
        name = f"${key}" if key.startswith("$") else key
        others = wanted.draw(st.lists(values, max_size=3))
        filters: list[Metadata] = [
            {name: {"$eq": value}},
            {name: {"$ne": value}},
            {name: {"$in": [*others, value]}},
            {name: {"$nin": [*others, value]}},
            {name: {"$in": [*range(100, 170), value]}},
            {name: {"$contains": value[0] if isinstance(value, list | str) and value else ""}},
            {name: {"$exists": True}},
        ]
        expected = [[evaluate(where, stored(row))] for where in filters]
        assert truths(connection, filters, [row]) == expected


@pytest.fixture
def indexed(dsn: str) -> Iterator[tuple[Connection, list[Metadata]]]:
    """Fill a table with odd metadata, and make the planner use its GIN index where it can."""
    draw = random.Random(7)
    rows = [{draw.choice(KEYS[:8]): draw.choice(POOL) for _ in range(4)} for _ in range(400)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE chunks (chunk_id int PRIMARY KEY, metadata jsonb)")
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO chunks VALUES (%s, %s::jsonb)",
                [(number, json.dumps(row)) for number, row in enumerate(rows)],
            )
        connection.execute("CREATE INDEX ON chunks USING gin (metadata jsonb_path_ops)")
        connection.execute("ANALYZE chunks")
        connection.execute("SET enable_seqscan = off")
        yield connection, rows


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(where=wheres, generic=st.booleans())
def test_the_index_gives_the_same_answers(
    indexed: tuple[Connection, list[Metadata]], where: Metadata, generic: bool
) -> None:
    connection, rows = indexed
    mode = "force_generic_plan" if generic else "force_custom_plan"
    connection.execute("SELECT set_config('plan_cache_mode', %s::text, false)", [mode])
    compiled = compile_where(where)
    statement = sql.SQL("SELECT chunk_id FROM chunks WHERE {} ORDER BY 1").format(compiled.sql)

    found = connection.execute(statement, compiled.params, prepare=True).fetchall()

    expected = [n for n, row in enumerate(rows) if evaluate(where, stored(row))]
    assert [number for (number,) in found] == expected
