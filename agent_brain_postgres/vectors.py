"""Nearest neighbours: one statement that always finds `top_k` rows where that many match."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from agent_brain_postgres import ladder
from agent_brain_postgres.filters import Filter
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.store import Metric, Store
from agent_brain_postgres.types import SearchResult

if TYPE_CHECKING:
    from typing_extensions import LiteralString

FloatVector = NDArray[np.float32]

# How to find the rows: by the index; by reading every row that matches; or, for a filter met for
# the first time, by whichever a sample of the rows says.
Way = Literal["index", "exact", "sample"]

# Finding a row that matches, accurately, costs as much through the index as comparing this many
# rows divided by the share that the filter keeps (measured).
STEP = 20.0
SAMPLED_ROWS = 1_000
# A filter may keep what is near the query less often than the rest: times as many candidates.
FILTERED = 2.5
# Stores of this size are not worth a sample.
SMALL = 5_000
MIN_SCANNED, MAX_SCANNED = 500, 1_000_000

# The settings are made before the scan that waits for them, and end with the statement.
SETTINGS: LiteralString = """(
    SELECT pg_catalog.concat(
        pg_catalog.set_config('hnsw.ef_search', %(near_ef)s, true)
        {iterative})
) IS NOT NULL"""

ITERATIVE: LiteralString = """,
        pg_catalog.set_config('hnsw.iterative_scan', 'relaxed_order', true),
        pg_catalog.set_config('hnsw.max_scan_tuples', %(near_scan)s, true)"""

# A share of the rows, read in whole pages, says what the filter keeps.
SAMPLE: LiteralString = """
sample AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE {condition})::float8 / nullif(count(*), 0) AS kept
    FROM {chunks} TABLESAMPLE SYSTEM (%(near_percent)s)
),"""

SAMPLE_ALLOWS: LiteralString = "(SELECT kept FROM sample) > %(near_kept)s AND "

# OFFSET 0 keeps the filter out of the index scan's planning: otherwise a generic plan, which
# cannot know what the filter keeps, might read all matches instead.
BY_INDEX: LiteralString = """
found AS MATERIALIZED (
    SELECT {columns}, {distance} AS distance
    FROM (
        SELECT chunk_id, document, metadata, embedding FROM {chunks}
        WHERE {gate}{settings}
        ORDER BY {index_distance}
        OFFSET 0
    ) AS scanned
    WHERE {condition}
    LIMIT {candidates}
),"""

BY_INDEX_UNFILTERED: LiteralString = """
found AS MATERIALIZED (
    SELECT {columns}, {distance} AS distance
    FROM {chunks}
    WHERE {settings}
    ORDER BY {index_distance}
    LIMIT {candidates}
),"""

# When the index came back short (a filter, deleted rows, no iterative scan), every row is read.
# Adding zero keeps this from being another index scan.
COMPLETE: LiteralString = """
complete AS (
    SELECT {columns}, {distance} AS distance
    FROM {chunks}
    WHERE (SELECT count(*) FROM found) < {top_k} AND {condition}
    ORDER BY ({distance}) + 0
    LIMIT {top_k}
)
SELECT {columns}, distance{kept}
FROM (
    SELECT * FROM found WHERE (SELECT count(*) FROM found) >= {top_k}
    UNION ALL
    SELECT * FROM complete
) AS either
ORDER BY distance
LIMIT {top_k}"""

EXACT: LiteralString = """
SELECT {columns}, {distance} AS distance
FROM {chunks}
WHERE {condition}
ORDER BY ({distance}) + 0
LIMIT {top_k}"""

SEARCH: LiteralString = """
SELECT chunk_id, document, metadata, score, {kept} AS kept
FROM (SELECT *, {score} AS score FROM ({nearest}) AS nearest) AS scored
WHERE score >= %(near_threshold)s
ORDER BY distance, chunk_id COLLATE "C"
"""

# Distances of zero vectors are NaN; an infinite inner product is a score of 1.
SCORES: dict[Metric, LiteralString] = {
    "cosine": "greatest(0.0, least(1.0, 1.0 - {distance}))",
    "l2": "1.0 / (1.0 + {distance})",
    "inner_product": "1.0 - 1.0 / (1.0 + greatest(0.0, -({distance})))",
}

SCORE: LiteralString = "CASE WHEN {distance} = 'NaN' THEN 0.0 ELSE {score} END"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one search is going to be made: all that its statement depends on but the values."""

    way: Way
    top_k: int
    condition: str | None
    columns: tuple[str, ...]


def score(store: Store, distance: sql.Composable) -> sql.Composed:
    """Turn a distance into the 0-1 score of the store's metric, in SQL."""
    scored = sql.SQL(SCORES[store.metric]).format(distance=distance)
    return sql.SQL(SCORE).format(distance=distance, score=scored)


async def search(
    connection: Connection,
    store: Store,
    query: FloatVector,
    top_k: int,
    similarity_threshold: float,
    condition: Filter,
) -> list[SearchResult]:
    """Find the `top_k` nearest chunks that match `condition`, in one round trip, best first."""
    if top_k <= 0 or store.dimensions is None:
        return []
    plan = choose(store, top_k, condition, ("chunk_id", "document", "metadata"))
    params = parameters(store, plan, query, condition)
    params["near_threshold"] = float(similarity_threshold)
    cursor = await connection.execute(
        _search_statement(store, plan), params, binary=True, prepare=True
    )
    rows = await cursor.fetchall()
    if plan.way == "sample" and (rows or similarity_threshold <= 0):
        _learn(store, plan, condition, rows[0][4] if rows else 0.0)
    return [
        SearchResult(text=row[1], metadata=row[2], score=row[3], chunk_id=row[0]) for row in rows
    ]


def _learn(store: Store, plan: Plan, condition: Filter, kept: float | None) -> None:
    if kept is not None:  # a sample may have met no row at all
        store.estimates.learn(_key(plan.condition, condition), kept)


def choose(store: Store, top_k: int, condition: Filter, columns: tuple[str, ...]) -> Plan:
    """Decide how to search from what is known of the store and the filter."""
    if condition.empty:
        small = 0 < store.estimates.rows < ladder.crossover(store.dimensions or 0)
        return Plan("exact" if small else "index", top_k, None, columns)
    text = condition.sql.as_string(None)
    kept = store.estimates.kept(_key(text, condition))
    way: Way
    if store.estimates.rows == 0:  # nobody has looked yet: it may be huge
        way = "index"
    elif store.estimates.rows <= SMALL:
        way = "exact"
    elif kept is None:
        way = "sample"
    else:
        way = "index" if kept > crossover(store, top_k, text) else "exact"
    return Plan(way, top_k, text, columns)


def crossover(store: Store, top_k: int, condition: str) -> float:
    """Give the share of the rows above which the index is faster than reading what matches.

    Reading costs as many comparisons as rows match (or as there are, when no index serves the
    filter); the index takes `top_k` / share steps.
    """
    rows = max(store.estimates.rows, 1)
    if "@>" in condition:
        return min(1.0, math.sqrt(STEP * top_k / rows))
    return min(1.0, STEP * top_k / rows)


def parameters(
    store: Store, plan: Plan, query: FloatVector, condition: Filter
) -> dict[str, Any]:
    """Give the values of a plan's statement."""
    params: dict[str, Any] = dict(condition.params)
    params["near_query"] = HalfVector(query) if store.column == "halfvec" else query
    if plan.way == "exact":
        return params
    rows = store.estimates.rows
    candidates = _candidates(store, plan.top_k)
    share = 1.0
    if plan.condition is not None:
        known = store.estimates.kept(_key(plan.condition, condition)) or 0.0
        share = max(crossover(store, plan.top_k, plan.condition), known)
    params["near_ef"] = str(_ef_search(store, candidates, share))
    if ladder.has_iterative_scan(store):
        params["near_scan"] = str(_scan_limit(rows, share, candidates))
    if plan.way == "sample":
        params["near_kept"] = share
        params["near_percent"] = min(100.0, 100.0 * SAMPLED_ROWS / max(rows, 1))
    return params


def _ef_search(store: Store, candidates: int, share: float) -> int:
    """Give as many candidates as let enough rows through the filter at the first step."""
    ef = float(store.estimates.ef_search or ladder.ef_search(candidates, store.estimates.rows))
    if share < 1.0:
        ef = max(FILTERED * ef, 4.0 * candidates / share)
    return min(ladder.MAX_EF_SEARCH, max(round(ef), candidates))


def _scan_limit(rows: int, share: float, candidates: int) -> int:
    """Bound a scan that finds too little by the cost of reading all that matches."""
    limit = max(4 * candidates / share, rows * share / STEP)
    return round(min(MAX_SCANNED, max(MIN_SCANNED, limit)))


def _candidates(store: Store, top_k: int) -> int:
    chosen = ladder.store_rung(store)
    return chosen.candidates(top_k) if chosen is not None else top_k


def _key(text: str | None, condition: Filter) -> Hashable:
    return text, tuple(map(str, condition.params.values()))


@lru_cache(maxsize=256)
def _search_statement(store: Store, plan: Plan) -> bytes:
    sampled = plan.way == "sample"
    statement = sql.SQL(SEARCH).format(
        kept=sql.SQL("kept") if sampled else sql.SQL("NULL::float8"),
        score=score(store, sql.Identifier("distance")),
        nearest=nearest(store, plan, kept=sampled),
    )
    return statement.as_bytes(None)


def nearest(store: Store, plan: Plan, *, kept: bool = False) -> sql.Composed:
    """Compose a query that yields the plan's columns and `distance`, nearest first.

    It may be the body of a CTE: its parameters are those of `parameters()`, which begin with
    `near_`, and the filter's own. With `kept` it has a column for what the sample found.
    """
    query = sql.Placeholder("near_query", format="b")
    condition = sql.SQL(plan.condition or "TRUE")
    parts: dict[str, sql.Composable] = {
        "chunks": store.chunks,
        "columns": sql.SQL(", ").join(map(sql.Identifier, plan.columns)),
        "condition": condition,
        "distance": sql.SQL("embedding {} {}").format(
            store.operator(ladder.DISTANCE[store.metric]), query
        ),
        "top_k": sql.Literal(plan.top_k),
    }
    if plan.way == "exact":
        return sql.SQL(EXACT).format(**parts)
    chosen = ladder.store_rung(store)
    assert chosen is not None, "a search needs the dimensions"
    iterative = sql.SQL(ITERATIVE if ladder.has_iterative_scan(store) else "")
    parts |= {
        "settings": sql.SQL(SETTINGS).format(iterative=iterative),
        "index_distance": ladder.index_distance(store, chosen, query),
        "candidates": sql.Literal(chosen.candidates(plan.top_k)),
        "gate": sql.SQL(SAMPLE_ALLOWS if plan.way == "sample" else ""),
        "kept": sql.SQL(", (SELECT kept FROM sample) AS kept" if kept else ""),
    }
    by_index = BY_INDEX_UNFILTERED if plan.condition is None else BY_INDEX
    sample = SAMPLE if plan.way == "sample" else ""
    return sql.SQL("WITH " + sample + by_index + COMPLETE).format(**parts)
