"""Retrieval collections: documents, queries and judgements, from a folder or made on the spot.

A folder has `docs.jsonl` ({"id", "title", "text"}), `queries.jsonl` ({"id", "text"}), `qrels.tsv`
(query, document, grade) and, for vector search, `docs.npy` and `queries.npy` in the same order.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

EVERY = 5  # of the functions that have a docstring, one in so many is asked for


@dataclass(frozen=True)
class Collection:
    """Documents in order, queries in order, and per query the grades of the relevant ones."""

    name: str
    ids: list[str]
    titles: list[str]
    texts: list[str]
    query_ids: list[str]
    queries: list[str]
    judgements: dict[str, dict[str, int]]
    vectors: Vectors | None = None
    query_vectors: Vectors | None = None

    @property
    def documents(self) -> list[str]:
        return [f"{title}\n{text}" for title, text in zip(self.titles, self.texts, strict=True)]


def read(folder: Path) -> Collection:
    """Read a collection from a folder."""
    docs = _lines(folder / "docs.jsonl")
    queries = _lines(folder / "queries.jsonl")
    judgements: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines():
        query, document, grade = line.split("\t")
        judgements.setdefault(query, {})[document] = int(grade)
    vectors = [
        np.load(path).astype(np.float32) if (path := folder / name).exists() else None
        for name in ("docs.npy", "queries.npy")
    ]
    return Collection(
        folder.name,
        [doc["id"] for doc in docs],
        [doc["title"] for doc in docs],
        [doc["text"] for doc in docs],
        [query["id"] for query in queries],
        [query["text"] for query in queries],
        judgements,
        *vectors,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def standard_library(limit: int | None = None) -> Collection:
    """Make a collection of code: functions of the standard library, without their docstrings.

    The first sentence of a docstring is the query whose only relevant document is its function.
    """
    functions = list(_functions(Path(sysconfig.get_paths()["stdlib"])))[:limit]
    ids = [str(number) for number in range(len(functions))]
    asked = [i for i, (_, _, sentence) in enumerate(functions) if len(sentence.split()) > 3]
    asked = asked[::EVERY]
    documents = [f"{name}\n{body}" for name, body, _ in functions]
    queries = [functions[i][2] for i in asked]
    vectors, query_vectors = _embed(documents), _embed(queries)
    return Collection(
        "stdlib",
        ids,
        [name for name, _, _ in functions],
        [body for _, body, _ in functions],
        [f"q{i}" for i in asked],
        queries,
        {f"q{i}": {ids[i]: 1} for i in asked},
        vectors,
        query_vectors,
    )


def _functions(root: Path) -> Iterator[tuple[str, str, str]]:
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.relative_to(root).parts):
            continue
        try:
            source = path.read_text()
            tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _function(node, source.splitlines())


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> Iterator[tuple[str, str, str]]:
    docstring = ast.get_docstring(node) or ""
    start, end = node.lineno - 1, node.end_lineno or node.lineno
    body = lines[start:end]
    if docstring:
        first = node.body[0]
        body = lines[start : first.lineno - 1] + lines[first.end_lineno : end]
    text = "\n".join(body)
    if len(text) > 60:
        sentence = re.split(r"(?<=[.!?])\s|\n\s*\n", docstring.strip())[0]
        yield node.name, text[:4000], " ".join(sentence.split())


def _embed(texts: list[str]) -> Vectors | None:
    try:
        import wordllama
        from wordllama import WordLlama
    except ImportError:
        return None
    cache = Path(wordllama.__file__).parent
    model = WordLlama.load(cache_dir=cache, disable_download=True)
    parts = [model.embed(texts[i : i + 1000], norm=True) for i in range(0, len(texts), 1000)]
    return np.vstack(parts).astype(np.float32)
