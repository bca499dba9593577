from __future__ import annotations

import datetime
import enum
import json
import math
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import psycopg
import pytest
from filter_model import evaluate, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from agent_brain_postgres.errors import InvalidFilter, StorageError
from agent_brain_postgres.filters import combine, compile_where, source_filter

Metadata = dict[str, Any]
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def truths(connection: Connection, filters: list[Any], rows: list[Metadata]) -> list[list[Any]]:
    """Evaluate every filter on every row in the database: a list of truth values a filter."""
    compiled = [compile_where(where, prefix=f"f{n}") for n, where in enumerate(filters)]
    params: dict[str, Any] = {"rows": [json.dumps(stored(row)) for row in rows]}
    for one in compiled:
        params |= one.params
    statement = sql.SQL(
        "SELECT {} FROM (SELECT ordinality, row::jsonb AS metadata"
        " FROM unnest(%(rows)s::text[]) WITH ORDINALITY AS given(row)) AS stored"
        " ORDER BY ordinality"
    ).format(sql.SQL(", ").join(one.sql for one in compiled))
    found = connection.execute(statement, params).fetchall()
    return [[row[n] for row in found] for n in range(len(filters))]


def matches(connection: Connection, where: Any, *rows: Metadata) -> list[Metadata]:
    [found] = truths(connection, [where], list(rows))
    return [row for row, true in zip(rows, found, strict=True) if true]


# --- the dialect against the model ------------------------------------------------------------

KEYS = ["a", "b", "c", "a.b", "a.b.c", "b.a", ".", "", "%", "%s", "%(f0_0)s", "'", '"', "\\", "{}"]
KEYS += ["é", "🙂", "\x00", "a\x00", "\ud800", "\ufffd", "$ref", "$and", "key with spaces"]
keys = st.sampled_from(["a", "b", "c"]) | st.sampled_from(KEYS)
texts = st.text(st.sampled_from("ab%_\\\"'é🙂\x00\ud800\ufffd"), max_size=3)
texts |= st.sampled_from(["", "1", "true", "null", "Z", "a", "z", "10", "9", "ä"])
numbers = st.integers(-2, 3) | st.floats(allow_nan=False, allow_infinity=False)
numbers |= st.sampled_from([0.1, 1.0, -0.0, 1e300, 5e-324, 2**53 + 1, float(2**53), 2**64, 10**200])
scalars = st.none() | st.booleans() | numbers | texts | st.sampled_from([0, 1, "a"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", ""]), inner, max_size=2)
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
            "$in": st.lists(values, max_size=4) | st.lists(scalars, min_size=33, max_size=50),
            "$nin": st.lists(values, max_size=4) | st.lists(scalars, min_size=33, max_size=50),
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


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW_DRAWS)
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
def test_a_value_that_is_stored_is_found_by_it(
    connection: Connection, row: Metadata, wanted: st.DataObject
) -> None:
    # Random filters seldom hit; these are drawn from the row itself.
    for key, value in row.items():
        name = f"${key}" if key.startswith("$") else key
        others = wanted.draw(st.lists(values, max_size=3))
        filters: list[Metadata] = [
            {name: {"$eq": value}},
            {name: {"$ne": value}},
            {name: {"$in": [*others, value]}},
            {name: {"$nin": [*others, value]}},
            {name: {"$in": [*range(100, 140), value]}},
            {name: {"$contains": value[0] if isinstance(value, list | str) and value else ""}},
            {name: {"$exists": True}},
        ]
        expected = [[evaluate(where, stored(row))] for where in filters]
        assert truths(connection, filters, [row]) == expected


@pytest.fixture
def indexed(connection: Connection) -> list[Metadata]:
    """Fill a table with odd metadata, and make the planner use its GIN index where it can."""
    draw = random.Random(7)
    pool: list[Any] = [None, True, False, 0, 1, 1.5, "", "a", "ab", "%", [], {}, [1], ["a", 1]]
    pool += [{"b": 1}, {"b": "a"}, {"b": {"c": 1}}, {"b": [1]}, [[1]], [{"b": 1, "c": 2}]]
    rows = [{draw.choice(KEYS[:8]): draw.choice(pool) for _ in range(4)} for _ in range(400)]
    connection.execute("CREATE TABLE chunks (chunk_id int PRIMARY KEY, metadata jsonb)")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO chunks VALUES (%s, %s::jsonb)",
            [(number, json.dumps(row)) for number, row in enumerate(rows)],
        )
    connection.execute("CREATE INDEX ON chunks USING gin (metadata jsonb_path_ops)")
    connection.execute("ANALYZE chunks")
    connection.execute("SET enable_seqscan = off")
    return rows


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(where=wheres, generic=st.booleans())
def test_the_index_gives_the_same_answers(
    connection: Connection, indexed: list[Metadata], where: Metadata, generic: bool
) -> None:
    mode = "force_generic_plan" if generic else "force_custom_plan"
    connection.execute("SELECT set_config('plan_cache_mode', %s::text, false)", [mode])
    compiled = compile_where(where)
    statement = sql.SQL("SELECT chunk_id FROM chunks WHERE {} ORDER BY 1").format(compiled.sql)

    found = connection.execute(statement, compiled.params, prepare=True).fetchall()

    expected = [n for n, row in enumerate(indexed) if evaluate(where, stored(row))]
    assert [number for (number,) in found] == expected


# --- one promise at a time --------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        {"k": 1},
        {"k": None},
        {"k": {"$eq": [1]}},
        {"k": {"$gt": 0}},
        {"k": {"$lte": "z"}},
        {"k": {"$in": [None, 1]}},
        {"k": {"$in": [*range(100)]}},
        {"k": {"$contains": ""}},
        {"k": {"$exists": True}},
        {"k.a": 1},
    ],
)
def test_a_missing_key_matches_only_the_negations(connection: Connection, where: Metadata) -> None:
    assert truths(connection, [where, {"$not": where}], [{}]) == [[False], [True]]


def test_a_missing_key_matches_ne_and_nin(connection: Connection) -> None:
    filters = [
        {"k": {"$ne": 1}},
        {"k": {"$ne": None}},
        {"k": {"$nin": [1, None]}},
        {"k": {"$nin": [*range(100)]}},
        {"k": {"$exists": False}},
    ]
    assert truths(connection, filters, [{}]) == [[True]] * len(filters)


def test_null_is_a_value(connection: Connection) -> None:
    rows: list[Metadata] = [{"k": None}, {}, {"k": 0}]
    assert matches(connection, {"k": None}, *rows) == [{"k": None}]
    assert matches(connection, {"k": {"$exists": True}}, *rows) == [{"k": None}, {"k": 0}]


def test_types_do_not_mix(connection: Connection) -> None:
    rows = [{"k": value} for value in (1, 1.0, True, "1", [1], {"1": 1})]
    assert matches(connection, {"k": 1}, *rows) == [{"k": 1}, {"k": 1.0}]
    assert [r["k"] for r in matches(connection, {"k": True}, *rows)] == [True]
    assert matches(connection, {"k": "1"}, *rows) == [{"k": "1"}]


def test_a_range_ignores_values_of_other_types(connection: Connection) -> None:
    rows = [{"k": value} for value in (9, 10.5, "10", "x", True, None, [11], {"a": 12})]
    assert matches(connection, {"k": {"$gt": 9}}, *rows) == [{"k": 10.5}]
    assert matches(connection, {"k": {"$gte": "2"}}, *rows) == [{"k": "x"}]


def test_strings_are_ordered_by_code_point(connection: Connection) -> None:
    rows = [{"k": value} for value in ("Z", "a", "ä", "z", "🙂")]
    assert matches(connection, {"k": {"$lt": "a"}}, *rows) == [{"k": "Z"}]
    assert matches(connection, {"k": {"$gt": "z"}}, *rows) == [{"k": "ä"}, {"k": "🙂"}]


def test_several_operators_on_one_key_must_all_hold(connection: Connection) -> None:
    rows = [{"line": line} for line in (1, 5, 9)]
    assert matches(connection, {"line": {"$gt": 1, "$lt": 9}}, *rows) == [{"line": 5}]


def test_several_keys_must_all_hold(connection: Connection) -> None:
    rows = [{"a": 1, "b": 1}, {"a": 1}, {"b": 1}]
    assert matches(connection, {"a": 1, "b": 1}, *rows) == [{"a": 1, "b": 1}]


def test_lists_and_objects_are_equal_as_a_whole(connection: Connection) -> None:
    rows = [{"k": value} for value in ([1, 2], [2, 1], [1, 2, 2], [1], {"a": 1}, {"a": 1, "b": 2})]
    assert matches(connection, {"k": {"$eq": [1, 2]}}, *rows) == [{"k": [1, 2]}]
    assert matches(connection, {"k": {"$eq": {"a": 1}}}, *rows) == [{"k": {"a": 1}}]


def test_contains_finds_substrings_and_members(connection: Connection) -> None:
    rows = [{"k": value} for value in ("100% sure", "1000 sure", ["0% s"], {"0% s": 1}, 5)]
    assert matches(connection, {"k": {"$contains": "0% s"}}, *rows) == [rows[0], rows[2]]


def test_contains_finds_whole_members_only(connection: Connection) -> None:
    rows: list[Metadata] = [{"k": [[1, 2]]}, {"k": [[1]]}, {"k": [{"a": 1, "b": 2}]}]
    assert matches(connection, {"k": {"$contains": [1]}}, *rows) == [{"k": [[1]]}]
    assert matches(connection, {"k": {"$contains": {"a": 1}}}, *rows) == []


def test_a_dotted_key_reaches_into_objects_but_not_lists(connection: Connection) -> None:
    rows: list[Metadata] = [{"a": {"b": 1}}, {"a": [{"b": 1}]}, {"a": {"b": 2}}, {"a": 1}]
    assert matches(connection, {"a.b": 1}, *rows) == [{"a": {"b": 1}}]
    assert matches(connection, {"a.0.b": {"$exists": True}}, *rows) == []


def test_a_key_with_a_dot_in_its_name_hides_the_path(connection: Connection) -> None:
    both = {"a.b": 1, "a": {"b": 2}}
    assert matches(connection, {"a.b": 1}, both) == [both]
    assert matches(connection, {"a.b": 2}, both) == []
    assert matches(connection, {"a.b": {"$ne": 2}}, both) == [both]


def test_a_key_of_very_many_dots_is_a_name(connection: Connection) -> None:
    row = {"." * 10_000: 1}
    assert matches(connection, {"." * 10_000: {"$gte": 1}}, row) == [row]


def test_a_key_may_begin_with_a_dollar(connection: Connection) -> None:
    row = {"$ref": 1}
    assert matches(connection, {"$$ref": 1}, row) == [row]


@pytest.mark.parametrize(
    "key", ["x' OR TRUE --", '"', "%s", "%(where_0)s", "%", "", "\u2028", "{}"]
)
def test_any_key_is_only_a_name(connection: Connection, key: str) -> None:
    rows: list[Metadata] = [{key: "v"}, {"other": "v"}]
    assert matches(connection, {key: "v"}, *rows) == [{key: "v"}]
    assert matches(connection, {key: {"$lt": "w"}}, *rows) == [{key: "v"}]


def test_what_cannot_be_stored_is_replaced_as_in_the_store(connection: Connection) -> None:
    row = {"k\x00": "a\x00b\ud800"}
    assert matches(connection, {"\x00k": "ab\udfff"}, row) == [row]
    assert matches(connection, {"k": {"$contains": "\x00"}}, row) == [row]


def test_an_empty_in_matches_nothing_and_nin_everything(connection: Connection) -> None:
    rows: list[Metadata] = [{"k": 1}, {}]
    assert matches(connection, {"k": {"$in": []}}, *rows) == []
    assert matches(connection, {"k": {"$nin": []}}, *rows) == rows


def test_fifty_thousand_values_in_one_filter(connection: Connection) -> None:
    wanted = [f"/src/{number}.py" for number in range(50_000)]
    rows = [{"source": source} for source in ("/src/49999.py", "/src/50000.py")]
    assert matches(connection, {"source": {"$in": wanted}}, *rows) == [rows[0]]
    assert matches(connection, {"source": {"$nin": wanted}}, *rows) == [rows[1]]


class Language(str, enum.Enum):
    GO = "go"


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Language.GO, "go"),
        (Decimal("0.1"), 0.1),
        (datetime.date(2026, 2, 11), "2026-02-11"),
        (datetime.datetime(2026, 2, 11, 1, 2, tzinfo=datetime.timezone.utc), None),
        (PurePosixPath("/src/a.py"), "/src/a.py"),
        (-(10**3000), -(10**3000)),
        (1e308, 1e308),
    ],
)
def test_values_of_other_libraries_are_what_they_are_in_json(
    connection: Connection, value: Any, held: Any
) -> None:
    row = {"k": value.isoformat() if held is None else held}
    assert matches(connection, {"k": value}, row) == [row]
    assert matches(connection, {"k": {"$in": (value,)}}, row) == [row]


@pytest.mark.parametrize("many", [{1, 2}, (1, 2), frozenset([2]), np.array([1, 2]), {2: ""}.keys()])
def test_in_takes_any_collection(connection: Connection, many: Any) -> None:
    assert matches(connection, {"k": {"$in": many}}, {"k": 2}, {"k": 3}) == [{"k": 2}]


def nested(depth: int) -> Metadata:
    where: Metadata = {"k": 1}
    for _ in range(depth):
        where = {"$not": {"$and": [where]}}
    return where


def test_filters_may_nest_deeply(connection: Connection) -> None:
    assert matches(connection, nested(30), {"k": 1}, {}) == [{"k": 1}]


def itself() -> Metadata:
    where: Metadata = {}
    where["$and"] = [where]
    return where


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ([("k", 1)], "a mapping, not list"),
        ("k", "a where filter is a mapping"),
        ({1: "x"}, "is a string, not int"),
        ({"$andd": [{"k": 1}]}, 'unknown operator "$andd"; did you mean $and?'),
        ({"$xor": [{"k": 1}]}, 'unknown operator "$xor"; did you mean $or?'),
        ({"$where": "1=1"}, 'unknown operator "$where"'),
        ({"$eq": 1}, "$eq belongs to a metadata key"),
        ({"k": {"$gte ": 1}}, 'where "k": unknown operator "$gte "; did you mean $gte?'),
        ({"k": {"$regex": "x"}}, 'unknown operator "$regex"'),
        ({"k": {"$GT": 1}}, 'unknown operator "$GT"; did you mean $gt?'),
        ({"k": {"gt": 1}}, '"gt" is not an operator; did you mean $gt?'),
        ({"k": {"$gt": 1, "x": 2}}, '"x" is not an operator'),
        ({"k": {"$or": [1, 2]}}, "$or goes around whole filters"),
        ({"k": {}}, 'where "k": an empty mapping'),
        ({"k": ["go", "c"]}, '{"$in": [...]}'),
        ({"k": {"$in": "go"}}, 'where "k": $in takes a list'),
        ({"k": {"$nin": None}}, "$nin takes a list of values, not null"),
        ({"k": {"$gt": True}}, "$gt takes a number or a string, not bool"),
        ({"k": {"$lt": None}}, "$lt takes a number or a string, not null"),
        ({"k": {"$lte": [1]}}, "$lte takes a number or a string, not list"),
        ({"k": {"$exists": 1}}, "$exists takes true or false, not int"),
        ({"k": {"$not": 1}}, "$not takes operators"),
        ({"$and": []}, "$and takes a list of one or more"),
        ({"$or": []}, "$or takes a list of one or more"),
        ({"$or": {"k": 1}}, "$or takes a list of one or more"),
        ({"$and": [{}]}, "an empty filter inside"),
        ({"$and": [1]}, "a mapping, not int"),
        ({"$not": {}}, "an empty filter inside"),
        ({"$not": [{"k": 1}]}, "a mapping, not list"),
        ({"k": math.nan}, 'where "k": NaN and infinity'),
        ({"k": {"$lt": -math.inf}}, "NaN and infinity"),
        ({"k": np.float32("inf")}, "NaN and infinity"),
        ({"k": Decimal("sNaN")}, "NaN and infinity"),
        ({"k": {"$in": [1, math.nan]}}, "NaN and infinity"),
        ({"k": 10**5000}, "too many digits"),
        ({"k": Decimal("1e999999")}, "too many digits"),
        ({"k": b"x"}, "cannot compare with bytes"),
        ({"k": object()}, "cannot compare with object"),
        (nested(5_000), "levels deep"),
        (itself(), "levels deep"),
        ({"k": {"$eq": holding_itself()}}, "levels deep"),
        ({"$or": [{"k": n} for n in range(20_001)]}, "$in takes any number of values"),
    ],
)
def test_a_malformed_filter_is_refused_by_name(where: Any, said: str) -> None:
    with pytest.raises(InvalidFilter) as refused:
        compile_where(where)
    assert said in str(refused.value)
    assert isinstance(refused.value, StorageError)
    assert len(str(refused.value)) < 300


def test_no_filter_restricts_nothing(connection: Connection) -> None:
    assert compile_where(None).empty
    assert compile_where({}).empty
    assert not compile_where({"k": {"$nin": []}}).empty
    assert matches(connection, None, {}, {"k": 1}) == [{}, {"k": 1}]


def test_the_filter_given_is_not_changed() -> None:
    where = {"$and": [{"k": {"$in": ["b", "a", "b"]}}], "a.b": {"$gt": 1}}
    before = json.dumps(where)
    compile_where(where)
    assert json.dumps(where) == before


def test_two_filters_share_a_statement(connection: Connection) -> None:
    first = compile_where({"a": 1}, sql.Identifier("one", "metadata"), prefix="first")
    second = compile_where({"a": 2}, sql.Identifier("two", "metadata"), prefix="second")
    statement = sql.SQL(
        "SELECT {}, {}, %(other)s::int"
        " FROM (SELECT '{{\"a\": 1}}'::jsonb AS metadata) AS one,"
        " (SELECT '{{\"a\": 1}}'::jsonb AS metadata) AS two"
    ).format(first.sql, second.sql)
    params = {**first.params, **second.params, "other": 3}
    assert connection.execute(statement, params).fetchone() == (True, False, 3)


def test_a_filter_works_with_parameters_bound_in_the_client(dsn: str) -> None:
    where = {"k%": {"$gt": "a'b", "$in": [*map(str, range(50)), "b"], "$contains": "b"}}
    with psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor) as connection:
        assert matches(connection, where, {"k%": "b"}, {}) == [{"k%": "b"}]


def test_the_core_s_arguments_become_a_filter(connection: Connection) -> None:
    rows = [
        {"source_type": "code", "language": "go"},
        {"source_type": "code", "language": "c"},
        {"source_type": "doc"},
    ]
    assert matches(connection, source_filter(["code"], ["go", "c++"]), *rows) == rows[:1]
    assert matches(connection, source_filter(["code", "doc"], None), *rows) == rows
    assert source_filter([], None) is None


def test_combined_filters_must_all_hold(connection: Connection) -> None:
    rows = [{"a": 1, "b": 1}, {"a": 1}, {"b": 1}]
    assert matches(connection, combine({"a": 1}, None, {}, {"b": 1}), *rows) == rows[:1]
    assert matches(connection, combine(None, {"a": 1}), *rows) == rows[:2]
    assert combine(None, {}) is None


# --- plans ------------------------------------------------------------------------------------


@pytest.fixture
def corpus(connection: Connection) -> Connection:
    """Give a connection to a database with 5,000 rows of the core's kind of metadata."""
    connection.execute(
        """
        CREATE TABLE chunks AS
        SELECT n AS chunk_id, jsonb_build_object(
            'chunk_id', 'chunk_' || md5(n::text), 'source', '/src/' || n / 10 || '.py',
            'source_type', CASE WHEN n % 100 = 0 THEN 'doc' ELSE 'code' END,
            'language', 'language ' || n % 200, 'start_line', n % 1000,
            'a.b', n, 'git', jsonb_build_object('author', jsonb_build_object('id', n)),
            'imports', jsonb_build_array('os', 'module ' || n), 'content', 'text ' || n
        ) AS metadata FROM generate_series(1, 5000) AS n
        """
    )
    connection.execute("CREATE INDEX chunks_metadata ON chunks USING gin (metadata jsonb_path_ops)")
    connection.execute("VACUUM ANALYZE chunks")
    return connection


def plan(connection: Connection, where: Metadata) -> str:
    compiled = compile_where(where)
    statement = sql.SQL("EXPLAIN SELECT chunk_id FROM chunks WHERE {}").format(compiled.sql)
    return "\n".join(line for (line,) in connection.execute(statement, compiled.params))


@pytest.mark.parametrize(
    "where",
    [
        {"source": "/src/7.py"},
        {"source": {"$eq": "/src/7.py"}},
        {"start_line": 7, "source_type": "code"},
        {"imports": {"$eq": ["os", "module 7"]}},
        {"language": {"$in": ["language 1", "language 2", "language 3"]}},
        {"source": {"$in": [f"/src/{n}.py" for n in range(20)]}},
        {"imports": {"$contains": 7}},
        {"git.author.id": 7},
        {"a.b": 7},
        {
            "$and": [
                {"source_type": {"$in": ["code", "doc"]}},
                {"language": {"$in": ["language 1"]}},
            ]
        },
        {"$or": [{"source": "/src/7.py"}, {"language": "language 8", "start_line": {"$gt": 5}}]},
        {"source": "/src/7.py", "content": {"$contains": "text"}},
        {"source": "/src/7.py", "language": {"$nin": [f"language {n}" for n in range(100)]}},
    ],
)
def test_the_gin_index_serves(corpus: Connection, where: Metadata) -> None:
    text = plan(corpus, where)
    assert "Bitmap Index Scan on chunks_metadata" in text
    assert "Seq Scan" not in text


def test_many_values_are_hashed_once(corpus: Connection) -> None:
    assert "hashed SubPlan" in plan(corpus, {"start_line": {"$in": [*range(1000)]}})
