"""Search by vector and by words at once: both by index, fused in one statement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql

from agent_brain_postgres import keywords, ranking, vectors
from agent_brain_postgres.errors import InvalidInput
from agent_brain_postgres.filters import Filter
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.query import parse
from agent_brain_postgres.store import Store
from agent_brain_postgres.types import SearchResult

if TYPE_CHECKING:
    from typing_extensions import LiteralString

Fusion = Literal["relative", "rrf"]

# Results of each branch that are fused; more when more are asked for.
DEPTH: dict[Fusion, int] = {"relative": 64, "rrf": 100}

# Vector and keyword weight where none is given, by measurement: see docs/search.md.
WEIGHTS: dict[Fusion, tuple[float, float]] = {"relative": (0.55, 0.45), "rrf": (0.5, 0.5)}

FUSED: LiteralString = """
WITH nearest AS MATERIALIZED ({nearest}),
near AS MATERIALIZED (
    SELECT chunk_id, score,
        row_number() OVER (ORDER BY distance, chunk_id COLLATE "C")::int AS rank,
        {scaled} * max(score) OVER () AS scaled
    FROM (SELECT chunk_id, distance, {score} AS score FROM nearest) AS scored
    WHERE score >= %(hy_threshold)s
),
{ranked},
worded AS MATERIALIZED (
    SELECT chunk_id, score / max(score) OVER () AS score{matched},
        row_number() OVER (ORDER BY score DESC, chunk_id COLLATE "C")::int AS rank,
        {scaled} * least(1, max(score) OVER () / (2.5 * (SELECT sum(gain) FROM terms))) AS scaled
    FROM ranked WHERE score > 0
),
fused AS MATERIALIZED (
    SELECT chunk_id, near.score AS vector_score, near.rank AS vector_rank,
        worded.score AS keyword_score, worded.rank AS keyword_rank{matched},
        {fusion} AS score
    FROM near FULL JOIN worded USING (chunk_id)
    ORDER BY score DESC, chunk_id COLLATE "C"
    LIMIT {top_k}
)
SELECT chunk_id, document, metadata, coalesce(score / nullif(max(score) OVER (), 0), 0.0),
    vector_rank, vector_score, keyword_rank, keyword_score{matched}
FROM fused JOIN {chunks} AS chunk USING (chunk_id)
ORDER BY score DESC, chunk_id COLLATE "C"
"""

# From 0 for the last of a branch to 1 for its best; 1 for all when there is no difference. A
# branch then counts as much as it is sure of itself: by the score of its best vector, or by how
# much of the score that all the words together could give is reached.
SCALED: LiteralString = """coalesce(
            (score - min(score) OVER ()) / nullif(max(score) OVER () - min(score) OVER (), 0), 1.0)"""

FUSIONS: dict[Fusion, LiteralString] = {
    "relative": """%(hy_vector)s * coalesce(near.scaled, 0.0)
            + %(hy_keyword)s * coalesce(worded.scaled, 0.0)""",
    "rrf": """%(hy_vector)s * coalesce(1.0 / (%(hy_k)s + near.rank), 0.0)
            + %(hy_keyword)s * coalesce(1.0 / (%(hy_k)s + worded.rank), 0.0)""",
}


@dataclass
class HybridResult(SearchResult):
    """A chunk that was found, and its place in each branch; None where a branch has not found it.

    `vector_score` is the 0-1 score of the metric, `keyword_score` is relative to the best.
    """

    vector_rank: int | None = None
    vector_score: float | None = None
    keyword_rank: int | None = None
    keyword_score: float | None = None


async def search(
    connection: Connection,
    store: Store,
    query: str,
    query_embedding: vectors.FloatVector,
    top_k: int,
    *,
    fusion: Fusion,
    vector_weight: float | None,
    keyword_weight: float | None,
    rrf_k: int,
    similarity_threshold: float,
    filter: Filter,
    explain: bool = False,
) -> list[SearchResult]:
    """Find the `top_k` best chunks by both ways, in one round trip: scores 0-1, the best is 1.

    The results are `HybridResult`s.
    `similarity_threshold` is about the vector branch: what the words find stays.
    """
    params = _fusion_parameters(fusion, vector_weight, keyword_weight, rrf_k)
    params["hy_threshold"] = float(similarity_threshold)
    if top_k <= 0 or store.dimensions is None:
        return []
    depth = max(DEPTH[fusion], top_k)
    plan = vectors.choose(store, depth, filter, ("chunk_id",))
    parsed = parse(query)
    shape = ranking.shape(parsed, depth, filter, explain=explain, enough=top_k)
    params |= vectors.parameters(store, plan, query_embedding, filter)
    params |= ranking.parameters(store, parsed)
    statement = _statement(store, plan, shape, fusion, top_k)
    cursor = await connection.execute(statement, params, binary=True)
    rows = await cursor.fetchall()
    results: list[SearchResult] = [_result(row) for row in rows]
    if explain:
        await keywords.explain_matches(connection, store, results, [row[8] for row in rows])
    return results


def _result(row: tuple[Any, ...]) -> HybridResult:
    return HybridResult(
        text=row[1],
        metadata=row[2],
        score=row[3],
        chunk_id=row[0],
        vector_rank=row[4],
        vector_score=row[5],
        keyword_rank=row[6],
        keyword_score=row[7],
    )


def _fusion_parameters(
    fusion: Fusion, vector_weight: float | None, keyword_weight: float | None, rrf_k: int
) -> dict[str, Any]:
    if fusion not in WEIGHTS:
        raise InvalidInput(f"fusion is 'relative' or 'rrf', not {fusion!r}")
    default = WEIGHTS[fusion]
    if vector_weight is None and keyword_weight is None:
        vector_weight, keyword_weight = default
    elif vector_weight is None or keyword_weight is None:
        given = vector_weight if keyword_weight is None else keyword_weight
        other = max(0.0, 1.0 - (given or 0.0))
        vector_weight = other if vector_weight is None else vector_weight
        keyword_weight = other if keyword_weight is None else keyword_weight
    weights = float(vector_weight), float(keyword_weight)
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise InvalidInput(f"weights are not negative, and one is above 0: {weights}")
    if fusion == "relative":
        return {"hy_vector": weights[0], "hy_keyword": weights[1]}
    if rrf_k < 0:
        raise InvalidInput(f"rrf_k is not negative: {rrf_k}")
    return {"hy_vector": weights[0], "hy_keyword": weights[1], "hy_k": float(rrf_k)}


@lru_cache(maxsize=256)
def _statement(
    store: Store, plan: vectors.Plan, shape: ranking.Shape, fusion: Fusion, top_k: int
) -> bytes:
    statement = sql.SQL(FUSED).format(
        nearest=vectors.nearest(store, plan),
        score=vectors.score(store, sql.Identifier("distance")),
        ranked=ranking.ranked(store, shape),
        scaled=sql.SQL(SCALED),
        fusion=sql.SQL(FUSIONS[fusion]),
        matched=sql.SQL(", matched" if shape.explain else ""),
        top_k=sql.Literal(top_k),
        chunks=store.chunks,
    )
    return statement.as_bytes(None)
