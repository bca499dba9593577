"""The workload: chunks cut from installed Python files, embedded with wordllama, cached on disk."""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINES, CHARACTERS = 40, 1_500  # of a chunk: as the core cuts code
SHORTEST = 80
BLOCK = 1_000
QUERIES = 200

# Filters by the share of the rows that they keep; metadata carries the keys they ask for.
FILTERS: dict[str, tuple[dict[str, Any], float]] = {
    "50%": ({"source_type": "code"}, 0.5),
    "13%": ({"language": "kept13"}, 0.135),
    "10%": ({"tenth": 1}, 0.1),
    "2%": ({"fiftieth": 1}, 0.018),
    "1%": ({"hundredth": 1}, 0.01),
    "0.1%": ({"thousandth": 1}, 0.001),
}


@dataclass
class Workload:
    """Rows in the order in which they are stored; vectors are float32 of length `dimensions`."""

    ids: list[str]
    documents: list[str]
    metadatas: list[dict[str, Any]]
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    questions: list[str]

    def matching(self, where: dict[str, Any] | None) -> NDArray[np.intp]:
        """Give the positions of the rows that match a filter of one or more equal keys."""
        wanted = (where or {}).items()
        return np.array(
            [i for i, m in enumerate(self.metadatas) if all(m.get(k) == v for k, v in wanted)],
            dtype=np.intp,
        )

    def nearest(self, query: NDArray[np.float32], rows: NDArray[np.intp], k: int) -> set[str]:
        """Find the true nearest rows by cosine, among `rows`."""
        vectors = self.vectors[rows] if len(rows) < len(self.vectors) else self.vectors
        similar = vectors @ query
        best = np.argpartition(-similar, min(k, len(similar) - 1))[:k]
        return {self.ids[rows[i]] for i in best}


def load(cache: Path, rows: int, dimensions: int) -> Workload:
    """Load `rows` chunks; vectors wider than the model's go through a fixed random projection."""
    chunks, embeddings = _cached(cache, rows)
    if len(chunks) < rows:  # more rows than there are files: repeat them, moved a little
        chunks, embeddings = _repeat(chunks, embeddings, rows)
    vectors = _widen(embeddings, dimensions)
    rng = np.random.default_rng(7)
    chosen = rng.choice(rows, min(QUERIES, rows), replace=False)
    noise = rng.standard_normal((len(chosen), dimensions)) * (0.3 / np.sqrt(dimensions))
    share = rng.random(rows)
    return Workload(
        ids=[f"chunk_{_scatter(i):016x}" for i in range(rows)],
        documents=[chunk["text"] for chunk in chunks],
        metadatas=[_metadata(i, chunk, float(share[i])) for i, chunk in enumerate(chunks)],
        vectors=vectors,
        queries=_normalise(vectors[chosen] + noise),
        questions=[_question(chunks[i]["text"]) for i in chosen],
    )


def _scatter(number: int) -> int:
    return (number * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64


def _metadata(number: int, chunk: dict[str, Any], share: float) -> dict[str, Any]:
    path, line = chunk["path"], chunk["line"]
    return {
        "chunk_id": f"chunk_{_scatter(number):016x}",
        "source": path,
        "file_name": path.rpartition("/")[2],
        "chunk_index": line // LINES,
        "source_type": "code" if share < FILTERS["50%"][1] else "doc",
        "language": "kept13" if share < FILTERS["13%"][1] else "python",
        "tenth": int(share < FILTERS["10%"][1]),
        "fiftieth": int(share < FILTERS["2%"][1]),
        "hundredth": int(share < FILTERS["1%"][1]),
        "thousandth": int(share < FILTERS["0.1%"][1]),
        "start_line": line,
        "end_line": line + LINES,
        "created_at": "2026-11-23T00:00:00",
    }


def _question(text: str) -> str:
    words = [word for word in text.split() if word.isalpha() and len(word) > 3]
    return " ".join(words[5:10]) or "how are the rows stored"


def _normalise(vectors: NDArray[Any]) -> NDArray[np.float32]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def _widen(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    width = vectors.shape[1]
    if dimensions == width:
        return _normalise(vectors)
    projection = np.random.default_rng(11).standard_normal((width, dimensions)).astype(np.float32)
    return _normalise(np.asarray(vectors @ projection))


def _repeat(
    chunks: list[dict[str, Any]], vectors: NDArray[np.float32], rows: int
) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
    rng = np.random.default_rng(13)
    taken = np.arange(rows) % len(chunks)
    moved = vectors[taken]
    moved[len(chunks) :] += 0.02 * rng.standard_normal(
        (rows - len(chunks), vectors.shape[1]), dtype=np.float32
    )
    return [chunks[i] for i in taken], moved


def _cached(cache: Path, rows: int) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
    texts, vectors = cache / "chunks.jsonl", cache / "embeddings.npy"
    if not (texts.exists() and vectors.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        _create(texts, vectors, max(rows, 100_000))
    with texts.open(encoding="utf-8") as lines:
        chunks = [json.loads(line) for line, _ in zip(lines, range(rows), strict=False)]
    return chunks, np.load(vectors)[: len(chunks)]


def _create(texts: Path, vectors: Path, rows: int) -> None:
    import wordllama
    from wordllama import WordLlama

    chunks = [chunk for chunk, _ in zip(_cut(), range(rows), strict=False)]
    model = WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    parts = [
        model.embed([chunk["text"] for chunk in chunks[i : i + BLOCK]], norm=True)
        for i in range(0, len(chunks), BLOCK)
    ]
    np.save(vectors, np.vstack(parts).astype(np.float32))
    with texts.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(chunk) + "\n" for chunk in chunks)


def _cut() -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            for start in range(0, len(lines), LINES):
                text = "\n".join(lines[start : start + LINES])[:CHARACTERS]
                if len(text) >= SHORTEST and text not in seen:
                    seen.add(text)
                    yield {"path": str(path), "line": start, "text": text}


def default_cache() -> Path:
    """Give the folder for the workload: outside the repository."""
    return Path.home() / ".cache" / "agent-brain-postgres" / "benchmarks"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    sys.stdout.write(f"{len(load(arguments.cache, arguments.rows, 256).ids)} rows\n")
