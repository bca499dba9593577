from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from agent_brain_postgres.filters import combine, compile_where, source_filter
from tests.filter_queries import Connection, Metadata, matches, nested, truths


@pytest.fixture(scope="module")
def connection(server: str) -> Iterator[Connection]:
    """Give one connection for all: rows come with the query, so that no test needs a table."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = on")
        yield connection


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
    assert matches(connection, {"a.b": {"$lt": 2}}, both) == [both]
    assert matches(connection, {"a.b": {"$contains": 2}}, {**both, "a": {"b": [2]}}) == []


def test_a_key_of_very_many_dots_is_a_name(connection: Connection) -> None:
    row = {"." * 10_000: 1}
    assert matches(connection, {"." * 10_000: {"$gte": 1}}, row) == [row]


def test_a_key_may_begin_with_a_dollar(connection: Connection) -> None:
    row = {"$ref": 1}
    assert matches(connection, {"$$ref": 1}, row) == [row]


@pytest.mark.parametrize("key", ["x' OR TRUE --", '"', "%s", "%(where_0)s", "%", "", "\u2028", "{}"])
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
def test_values_of_other_libraries_are_what_they_are_in_json(connection: Connection, value: Any, held: Any) -> None:
    row = {"k": value.isoformat() if held is None else held}
    assert matches(connection, {"k": value}, row) == [row]
    assert matches(connection, {"k": {"$in": (value,)}}, row) == [row]


@pytest.mark.parametrize("many", [{1, 2}, (1, 2), frozenset([2]), np.array([1, 2]), {2: ""}.keys()])
def test_in_takes_any_collection(connection: Connection, many: Any) -> None:
    assert matches(connection, {"k": {"$in": many}}, {"k": 2}, {"k": 3}) == [{"k": 2}]


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


def test_filters_may_nest_deeply(connection: Connection) -> None:
    assert matches(connection, nested(30), {"k": 1}, {}) == [{"k": 1}]
