"""The index ladder: which index serves a store, and the one expression that builds and queries it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from agent_brain_postgres.store import Column, Metric, Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

Kind = Literal["exact", "hnsw", "hnsw_halfvec", "hnsw_binary"]
Operator = Literal["<=>", "<->", "<#>", "<~>"]

MAX_VECTOR = 2_000  # dimensions that pgvector's HNSW takes, by type
MAX_HALFVEC = 4_000
MAX_EF_SEARCH = 1_000

DISTANCE: dict[Metric, Operator] = {"cosine": "<=>", "l2": "<->", "inner_product": "<#>"}

_OPERATOR_CLASS: dict[Metric, LiteralString] = {
    "cosine": "cosine_ops", "l2": "l2_ops", "inner_product": "ip_ops",
}

# Reading every vector takes as long as the index does with about this many (measured: under 1 us a
# vector inside its row, 6 us for one that is stored outside).
CROSSOVER_INLINE = 2_000
CROSSOVER_OUTSIDE = 1_000

# Of the candidates that a binary index finds, the nearest are told by the full vectors.
BINARY_CANDIDATES = 300
BINARY_OVERSAMPLING = 10


@dataclass(frozen=True, slots=True)
class Rung:
    """One kind of index: `expression` of the column, and of the query, compared by `operator`."""

    kind: Kind
    operator_class: LiteralString
    operator: Operator
    expression: LiteralString

    def candidates(self, top_k: int) -> int:
        """Say how many rows to take from the index so that the best `top_k` are among them."""
        if self.kind != "hnsw_binary":
            return top_k
        return max(BINARY_CANDIDATES, BINARY_OVERSAMPLING * top_k)


def crossover(dimensions: int) -> int:
    """Give the number of rows from which an index is faster than reading every vector."""
    return CROSSOVER_INLINE if dimensions <= MAX_VECTOR else CROSSOVER_OUTSIDE


def decide(
    rows: int,
    dimensions: int,
    metric: Metric,
    pgvector: tuple[int, ...] = (0, 8, 0),
    column: Column = "vector",
) -> Kind:
    """Choose the kind of index for a store of this size; "exact" means none.

    Every pgvector from 0.7 (the oldest that is accepted) can build each kind.
    """
    if pgvector < (0, 7, 0) or rows < crossover(dimensions):
        return "exact"
    return rung(dimensions, metric, column).kind


def rung(dimensions: int, metric: Metric, column: Column = "vector") -> Rung:
    """Give the index that fits vectors of this length, whatever their number.

    Cosine distance is indexed as the inner product of normalised half-precision vectors: the index
    has half the size and is a third faster, at the same recall. Normalised, no component can
    overflow, and zero vectors, which a cosine index leaves out, are in it. The other metrics see
    lengths, so they keep full precision as long as pgvector can index it.
    """
    if dimensions > MAX_HALFVEC:
        return Rung(
            "hnsw_binary", "bit_hamming_ops", "<~>",
            "{extension}.binary_quantize({vector})::pg_catalog.bit({dimensions})",
        )
    if metric == "cosine":
        return Rung(
            "hnsw_halfvec", "halfvec_ip_ops", "<#>",
            "{extension}.l2_normalize({vector})::{extension}.halfvec({dimensions})",
        )
    name = _OPERATOR_CLASS[metric]
    if column == "vector" and dimensions <= MAX_VECTOR:
        return Rung("hnsw", _class("vector_", name), DISTANCE[metric], "{vector}")
    return Rung(
        "hnsw_halfvec", _class("halfvec_", name), DISTANCE[metric],
        "{vector}::{extension}.halfvec({dimensions})",
    )


def _class(prefix: LiteralString, name: LiteralString) -> LiteralString:
    return prefix + name


def store_rung(store: Store) -> Rung | None:
    """Give the index of a store, None while its dimensions are unknown."""
    if store.dimensions is None:
        return None
    return rung(store.dimensions, store.metric, store.column)


def index_name(store: Store, chosen: Rung) -> str:
    """Name the index; another metric is another index, so it has another name."""
    return f"chunks_{chosen.kind}_{store.metric}"


def indexed(store: Store, chosen: Rung, vector: sql.Composable) -> sql.Composed:
    """Apply the index's expression to the column or to a query vector."""
    return sql.SQL(chosen.expression).format(
        extension=sql.Identifier(store.extension_schema),
        vector=vector,
        dimensions=sql.Literal(store.dimensions),
    )


def index_distance(store: Store, chosen: Rung, query: sql.Composable) -> sql.Composed:
    """Give the expression to order by so that the index is used."""
    return sql.SQL("({}) {} ({})").format(
        indexed(store, chosen, sql.Identifier("embedding")),
        store.operator(chosen.operator),
        indexed(store, chosen, query),
    )


def ef_search(top_k: int, rows: int) -> int:
    """Choose `hnsw.ef_search` for a recall above 0.97: from the size of the store and `top_k`."""
    base = 44.0 * float((max(rows, 1_000) / 100_000) ** 0.15)
    return min(MAX_EF_SEARCH, max(math.ceil(base), math.ceil(1.5 * top_k)))


def has_iterative_scan(store: Store) -> bool:
    """Tell whether an index scan goes on until a filter has let enough rows through."""
    return store.pgvector >= (0, 8, 0)
