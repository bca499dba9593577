"""Run `where` filters in a database, on rows of metadata that are given with the query."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import sql

from agent_brain_postgres.filters import compile_where
from tests.filter_model import stored

Metadata = dict[str, Any]
Connection = psycopg.Connection[tuple[Any, ...]]


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


def nested(depth: int) -> Metadata:
    """Build a filter of 2 * `depth` levels; an even `depth` leaves its meaning."""
    where: Metadata = {"k": 1}
    for _ in range(depth):
        where = {"$not": {"$and": [where]}}
    return where
