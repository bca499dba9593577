"""How good searches are: nDCG@10, recall@100, MRR@10 and milliseconds, beside exact references.

    python benchmarks/quality.py                      a collection made of the standard library
    python benchmarks/quality.py FOLDER [FOLDER ...]  collections in the layout of `retrieval.py`

The references run on the same data in this process: BM25 by `bm25s` (Lucene's variant, English
stemmer and stop words) plain and with identifiers split, exact vector search, and their fusions.
Writes `quality.json`, `quality.md` and `quality.png` to --output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from retrieval import Collection, read, standard_library
from rich.console import Console
from rich.table import Table

from agent_brain_postgres import PostgresBackend, PostgresConfig
from agent_brain_postgres.words import analyse, tokens

Ranking = list[str]
Search = Callable[[int, int], Awaitable[Ranking]]

DEPTH = 100


def ndcg(ranking: Ranking, grades: dict[str, int], depth: int = 10) -> float:
    gains = [2 ** grades.get(document, 0) - 1 for document in ranking[:depth]]
    ideal = sorted((2**grade - 1 for grade in grades.values()), reverse=True)[:depth]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def _discounted(gains: list[int]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def recall(ranking: Ranking, grades: dict[str, int]) -> float:
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant & set(ranking[:DEPTH])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Ranking, grades: dict[str, int]) -> float:
    places = [i for i, doc in enumerate(ranking[:10], 1) if grades.get(doc, 0) > 0]
    return 1 / places[0] if places else 0.0


def assess(collection: Collection, rankings: dict[int, Ranking]) -> dict[str, float]:
    """Average the measures over the queries that have judgements."""
    judged = [
        (rankings[i], collection.judgements[query])
        for i, query in enumerate(collection.query_ids)
        if query in collection.judgements
    ]
    return {
        "ndcg@10": float(np.mean([ndcg(*pair) for pair in judged])),
        "recall@100": float(np.mean([recall(*pair) for pair in judged])),
        "mrr@10": float(np.mean([reciprocal_rank(*pair) for pair in judged])),
    }


# References


def bm25_scores(collection: Collection, split: bool) -> np.ndarray[Any, Any]:
    """Score all documents for all queries by exact BM25."""
    import bm25s
    import Stemmer  # type: ignore[import-not-found]

    def text(value: str) -> str:
        if not split:
            return value
        words = (word for token in tokens(value) for word in analyse(token)[0])
        return " ".join(word for word, _, _, compound in words if not compound)

    stemmer = Stemmer.Stemmer("english")

    def cut(values: list[str]) -> Any:
        return bm25s.tokenize(
            list(map(text, values)), stopwords="en", stemmer=stemmer,
            return_ids=False, show_progress=False,
        )

    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(cut(collection.documents), show_progress=False)
    return np.array([index.get_scores(query) for query in cut(collection.queries)])


def ranking_of(collection: Collection, scores: Any) -> Ranking:
    best = np.argsort(-scores, kind="stable")[:DEPTH]
    return [collection.ids[i] for i in best if scores[i] > -np.inf]


def reciprocal(scores: Any) -> Any:
    """1 / (60 + rank) for the best hundred, 0 for the others."""
    points = np.zeros(scores.size)
    best = np.argsort(-scores, kind="stable")[:DEPTH]
    points[best] = 1.0 / (61 + np.arange(best.size))
    return points


def scaled(scores: Any) -> Any:
    """0 to 1 for the best hundred, 0 for the others."""
    best = np.argsort(-scores, kind="stable")[:DEPTH]
    low, high = scores[best].min(), scores[best].max()
    points = np.zeros(scores.size)
    points[best] = (scores[best] - low) / ((high - low) or 1.0)
    return points


def references(collection: Collection) -> dict[str, dict[str, float]]:
    rows: dict[str, Any] = {
        "BM25 (bm25s)": bm25_scores(collection, split=False),
        "BM25 (bm25s), identifiers split": bm25_scores(collection, split=True),
    }
    if collection.vectors is not None and collection.query_vectors is not None:
        words = rows["BM25 (bm25s), identifiers split"]
        vectors = collection.query_vectors @ collection.vectors.T
        pairs = list(zip(vectors, words, strict=True))
        rows["vector, exact"] = vectors
        rows["RRF of both, equal weights"] = [reciprocal(v) + reciprocal(w) for v, w in pairs]
        rows["min-max of both, 0.6 and 0.4"] = [
            0.6 * scaled(v) + 0.4 * scaled(w) for v, w in pairs
        ]
    return {
        name: assess(collection, {i: ranking_of(collection, row) for i, row in enumerate(scores)})
        for name, scores in rows.items()
    }


# The backend


async def store(backend: PostgresBackend, collection: Collection, fields: bool) -> None:
    """Write the documents; with `fields`, their titles go into the metadata too."""
    vectors = collection.vectors
    if vectors is None:
        vectors = np.ones((len(collection.ids), 1), np.float32)
    metadatas = [
        {"source_type": "doc", **({"symbol_name": title} if fields and title else {})}
        for title in collection.titles
    ]
    await backend.reset()
    await backend.upsert_documents(collection.ids, vectors, collection.documents, metadatas)
    await backend.wait_until_indexed()


def searches(backend: PostgresBackend, collection: Collection) -> dict[str, Search]:
    async def keyword(i: int, k: int) -> Ranking:
        return [r.chunk_id for r in await backend.keyword_search(collection.queries[i], k)]

    found: dict[str, Search] = {"keyword": keyword}
    vectors = collection.query_vectors
    if vectors is None:
        return found

    async def vector(i: int, k: int) -> Ranking:
        return [r.chunk_id for r in await backend.vector_search(vectors[i], k, 0.0)]

    async def hybrid(i: int, k: int) -> Ranking:
        results = await backend.hybrid_search(collection.queries[i], vectors[i], k)
        return [r.chunk_id for r in results]

    async def rrf(i: int, k: int) -> Ranking:
        results = await backend.hybrid_search_with_rrf(collection.queries[i], vectors[i], k)
        return [r.chunk_id for r in results]

    return found | {"vector": vector, "hybrid": hybrid, "hybrid, RRF": rrf}


async def measure(collection: Collection, search: Search) -> dict[str, float]:
    """Assess the best hundred, and time the best ten."""
    queries = range(len(collection.queries))
    found = assess(collection, {i: await search(i, DEPTH) for i in queries})
    times = []
    for i in queries:
        start = time.perf_counter()
        await search(i, 10)
        times.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    return found | {"p50 ms": float(p50), "p95 ms": float(p95)}


async def run(collection: Collection, conninfo: str) -> dict[str, dict[str, float]]:
    rows = references(collection)
    config = PostgresConfig(db_schema="benchmark_quality").with_connection(conninfo, "benchmark")
    width = 1 if collection.vectors is None else collection.vectors.shape[1]
    backend = PostgresBackend(config, embedding_dimensions=width)
    await backend.initialize()
    try:
        for fields in (False, True):
            await store(backend, collection, fields)
            for name, search in searches(backend, collection).items():
                if fields and name == "vector":
                    continue
                label = f"{name}, titles in metadata" if fields else name
                rows[f"this: {label}"] = await measure(collection, search)
    finally:
        await backend.close()
    return rows


# Output

MEASURES = ("ndcg@10", "recall@100", "mrr@10", "p50 ms", "p95 ms")


def cells(row: dict[str, float]) -> list[str]:
    return [
        "" if (value := row.get(name)) is None else f"{value:.{1 if 'ms' in name else 3}f}"
        for name in MEASURES
    ]


def tables(report: dict[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    for name, result in report["collections"].items():
        title = f"{name}: {result['documents']} documents, {result['queries']} queries"
        yield title, [[mode, *cells(row)] for mode, row in result["rows"].items()]


def write(report: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "quality.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [f"{report['date']}, {report['machine']}", ""]
    for title, rows in tables(report):
        lines += [f"**{title}**", "", "| ranking | " + " | ".join(MEASURES) + " |"]
        lines += ["| --- |" + " --- |" * len(MEASURES)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    (output / "quality.md").write_text("\n".join(lines))
    plot(report, output / "quality.png")


def plot(report: dict[str, Any], path: Path) -> None:
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    results = report["collections"]
    figure, axes = plt.subplots(1, len(results), figsize=(7 * len(results), 5), squeeze=False)
    for axis, (name, result) in zip(axes[0], results.items(), strict=True):
        modes = list(result["rows"])[::-1]
        values = [result["rows"][mode]["ndcg@10"] for mode in modes]
        colours = ["#336791" if mode.startswith("this") else "#b0b0b0" for mode in modes]
        bars = axis.barh(modes, values, color=colours)
        axis.bar_label(bars, fmt="%.3f", padding=3)
        axis.set(title=name, xlabel="nDCG@10", xlim=(0, max(values) * 1.15))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@contextmanager
def server(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    from agent_brain_postgres import embedded

    with tempfile.TemporaryDirectory() as folder, embedded.start(folder, "benchmark") as running:
        yield running.conninfo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--database-url", help="a server to use; default: the embedded one")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    collections = [read(folder) for folder in arguments.folders] or [standard_library()]
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "collections": {},
    }
    with server(arguments.database_url) as conninfo:
        for collection in collections:
            report["collections"][collection.name] = {
                "documents": len(collection.ids),
                "queries": len(collection.queries),
                "rows": asyncio.run(run(collection, conninfo)),
            }
    for title, rows in tables(report):
        table = Table("ranking", *MEASURES, title=title)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    write(report, arguments.output)


if __name__ == "__main__":
    main()
