"""The same requests to the core on Chroma, its default, and on this backend: the same answers.

Chroma compares with every chunk as long as there are fewer than a hundred. Beyond that its index
misses some of the nearest ones, as the core sets it up; this backend does not, as `test_app` shows.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from .harness import SERVE, Api, Project, running

QUESTIONS = (
    "how are escapes in a JSON string decoded",
    "merge sorted inputs into one",
    "push an item onto the heap and pop the smallest",
    "moons of Jupiter",
    "what does a deadlock need",
    "def raw_decode(self, s, idx=0)",
    "knead the dough",
)
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "code": {"source_types": ["code"]},
    "prose": {"source_types": ["doc"]},
    "python": {"languages": ["python"]},
    "both": {"source_types": ["code", "doc"], "languages": ["python"]},
    "file": {"file_paths": ["*decoder.py"]},
    "threshold": {"similarity_threshold": 0.2},
}
RARE = {"scanstring": "decoder.py", "Galileo": "astronomy.md", "nlargest": "heapq.py"}


@dataclass
class Answers:
    """What one backend said to everything."""

    job: dict[str, Any]
    count: int
    folders: list[dict[str, Any]]
    vector: dict[tuple[str, str], list[dict[str, Any]]]
    rare: dict[str, list[dict[str, Any]]]
    hybrid: dict[str, list[dict[str, Any]]]
    chunks: dict[str, dict[str, Any]]
    removed: int
    left: int


def ask(api: Api, docs: Path) -> Answers:
    job = api.index(docs)
    vector = {
        (question, name): api.query(question, mode="vector", **options)
        for question in QUESTIONS
        for name, options in FILTERS.items()
    }
    found = {result["chunk_id"] for results in vector.values() for result in results}
    return Answers(
        job=job,
        count=api.count(),
        folders=api.get("/index/folders/")["folders"],
        vector=vector,
        rare={word: api.query(word, mode="bm25", top_k=50) for word in RARE},
        hybrid={question: api.query(question, mode="hybrid") for question in QUESTIONS},
        chunks={chunk_id: api.get(f"/query/chunk/{chunk_id}") for chunk_id in sorted(found)},
        removed=api.remove_folder(docs)["chunks_deleted"],
        left=api.count(),
    )


@pytest.fixture(scope="module")
def few(project: Project) -> Path:
    """A folder of fewer than a hundred chunks."""
    folder = project.root / "few"
    folder.mkdir()
    for name in ("json/decoder.py", "heapq.py", "astronomy.md", "cooking.md", "handbook.md"):
        shutil.copy(project.docs / name, folder)
    return folder


@pytest.fixture(scope="module")
def chroma(project: Project, few: Path) -> Answers:
    """The core as it comes."""
    variant = replace(project, storage={"backend": "chroma"}, state_name=".state-chroma")
    with running(variant) as server:
        return ask(server.api, few)


@pytest.fixture(scope="module")
def postgres(project: Project, few: Path) -> Answers:
    """The core on this backend."""
    with running(project, SERVE) as server:
        return ask(server.api, few)


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [result["chunk_id"] for result in results]


def test_the_same_chunks_are_stored(chroma: Answers, postgres: Answers) -> None:
    assert postgres.job["status"] == chroma.job["status"] == "done"
    assert postgres.job["total_chunks"] == chroma.job["total_chunks"]
    assert postgres.count == chroma.count < 100
    assert [f["chunk_count"] for f in postgres.folders] == [
        f["chunk_count"] for f in chroma.folders
    ]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_vector_search_agrees(
    chroma: Answers, postgres: Answers, question: str, name: str
) -> None:
    theirs, ours = chroma.vector[question, name], postgres.vector[question, name]
    scores = {result["chunk_id"]: result["score"] for result in theirs}
    # Chroma leaves out what points away from the question; here it scores 0 and fills up top_k.
    alike = [result for result in ours if result["score"] > 0]
    assert set(ids(alike)) == set(scores)
    for result in alike:
        assert result["score"] == pytest.approx(scores[result["chunk_id"]], abs=1e-3)


def test_results_carry_the_same_text_and_metadata(chroma: Answers, postgres: Answers) -> None:
    volatile = {"created_at"}
    for key, results in postgres.vector.items():
        theirs = {result["chunk_id"]: result for result in chroma.vector[key]}
        for ours in results:
            if ours["chunk_id"] not in theirs:
                assert ours["score"] == 0
                continue
            other = theirs[ours["chunk_id"]]
            for field in ("text", "source", "source_type", "language"):
                assert ours[field] == other[field]
            assert {k: v for k, v in ours["metadata"].items() if k not in volatile} == {
                k: v for k, v in other["metadata"].items() if k not in volatile
            }


def test_a_chunk_looked_up_is_the_same(chroma: Answers, postgres: Answers) -> None:
    assert chroma.chunks
    assert {i: postgres.chunks[i] for i in chroma.chunks} == chroma.chunks


@pytest.mark.parametrize("word", RARE)
def test_a_rare_word_is_found_in_the_same_chunks(
    chroma: Answers, postgres: Answers, word: str
) -> None:
    def holding(results: list[dict[str, Any]]) -> set[str]:
        return {r["chunk_id"] for r in results if word.lower() in r["text"].lower()}

    assert holding(postgres.rare[word]) >= holding(chroma.rare[word])
    assert Path(postgres.rare[word][0]["source"]).name == RARE[word]


@pytest.mark.parametrize("question", QUESTIONS)
def test_hybrid_search_finds_the_same_best_file(
    chroma: Answers, postgres: Answers, question: str
) -> None:
    assert postgres.hybrid[question][0]["source"] == chroma.hybrid[question][0]["source"]


def test_removing_the_folder_removes_as_much(chroma: Answers, postgres: Answers) -> None:
    assert (postgres.removed, postgres.left) == (chroma.removed, chroma.left)
