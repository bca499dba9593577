"""What the demo indexes and how it cuts, labels and shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_brain_postgres.demo.chunks import CODE, PROSE, Chunk, chunk_file
from agent_brain_postgres.demo.embedding import DIMENSIONS, Embedder
from agent_brain_postgres.demo.files import SkippedFileError, find_files, read_file
from agent_brain_postgres.demo.render import best_lines
from agent_brain_postgres.demo.state import state_directory

# The core's keys that each chunk carries.
CORE_KEYS = set(
    "chunk_id source file_name chunk_index total_chunks source_type created_at file_path "  # noqa: SIM905
    "file_type file_size creation_date last_modified_date doc_id".split()
)


def chunks_of(path: Path) -> list[Chunk]:
    return chunk_file(read_file(path), str(path.parent))


def test_the_default_store_is_the_same_in_each_run_and_outside_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chosen = state_directory(folder, None, keep=False)
    assert chosen == state_directory(folder, None, keep=False)
    assert chosen != state_directory(tmp_path, None, keep=False)
    assert chosen.is_relative_to(tmp_path / "cache")


def test_keep_puts_the_store_into_the_folder_where_git_and_the_demo_ignore_it(
    folder: Path,
) -> None:
    kept = state_directory(folder, None, keep=True)
    assert kept == folder / ".agent-brain" / "demo"
    assert (kept / ".gitignore").read_text() == "*\n"
    assert not [path for path in find_files(folder, but=kept) if ".agent-brain" in path.parts]


def test_a_state_directory_inside_the_folder_is_not_indexed(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "file.txt").write_text("ours")
    assert folder / "state" / "file.txt" not in find_files(folder, but=folder / "state")


def test_gitignore_rules_are_followed(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    root = tmp_path / "project"
    names = [
        "kept.txt", "a.log", "important.log", "build/out.txt", "src/build/out.txt",
        "docs/one.tmp", "docs/deep/two.tmp", "only/here.txt", "src/only/here.txt", "sub/local.txt",
        "node_modules/m.js", "venv/lib.py", "x1.txt", "x2.txt", "from_above.txt",
    ]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    (root / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / ".gitignore").write_text("from_above.txt\n")
    rules = ["# comment", "*.log", "!important.log", "build/", "docs/**/*.tmp", "/only", "x[!2].txt"]
    (root / ".gitignore").write_text("\n".join(rules))
    (root / "sub" / ".gitignore").write_text("local.txt")
    found = {
        path.relative_to(root).as_posix()
        for path in find_files(root, but=tmp_path / "state")
        if path.name != ".gitignore"
    }
    assert found == {"kept.txt", "important.log", "src/only/here.txt", "x2.txt"}


@pytest.mark.parametrize("name", [".env", ".env.agent-brain", ".pgpass", "id_rsa", "server.key"])
def test_files_of_secrets_are_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("PASSWORD=secret")
    with pytest.raises(SkippedFileError):
        read_file(tmp_path / name)


def test_chunks_carry_the_keys_of_the_core(folder: Path) -> None:
    (code,) = chunks_of(folder / "src" / "server.py")
    assert code.metadata.keys() > CORE_KEYS | {"language", "symbol_name", "start_line", "imports"}
    assert code.metadata["source_type"] == "code"
    assert code.metadata["symbol_name"] == "check_password"
    (prose,) = chunks_of(folder / "guide.md")
    assert prose.metadata.keys() > CORE_KEYS | {"heading_path", "section_title", "content_type"}
    assert re.fullmatch(r"chunk_[0-9a-f]{16}", prose.chunk_id)


def test_chunk_ids_depend_on_path_and_position_alone(folder: Path) -> None:
    before = [chunk.chunk_id for chunk in chunks_of(folder / "guide.md")]
    (folder / "guide.md").write_text("something else")
    assert [chunk.chunk_id for chunk in chunks_of(folder / "guide.md")] == before


@pytest.mark.parametrize(("suffix", "limits"), [(".py", CODE), (".md", PROSE)])
def test_chunks_keep_to_the_limits_lose_no_text_and_know_their_lines(
    tmp_path: Path, suffix: str, limits: object
) -> None:
    assert limits in (CODE, PROSE)
    largest = CODE if limits is CODE else PROSE
    lines = [f"{'  ' * (n % 3)}line {n} " + "word " * (n % 30) for n in range(700)]
    lines[300] = "x" * 5_000
    path = tmp_path / f"file{suffix}"
    path.write_text("\r\n".join(lines))
    chunks = chunks_of(path)
    assert max(len(chunk.text) for chunk in chunks) <= largest.characters
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join("".join(lines).split())
    for chunk in chunks:
        first, start = chunk.text.split("\n")[0], chunk.metadata["start_line"]
        assert first.strip() in lines[start - 1]
        assert chunk.metadata["total_chunks"] == len(chunks)


@pytest.mark.parametrize(
    ("name", "text", "symbol"),
    [
        ("a.go", "func (s *Server) Handle(w Writer) {\n}\n", "Handle"),
        ("a.rs", "pub async fn parse_line(s: &str) -> u8 {\n}\n", "parse_line"),
        ("a.ts", "export const fetchUser = async (id: string) => {\n}\n", "fetchUser"),
        ("a.c", "static int\nread_block(struct file *f, int n)\n{\n}\n", None),
        ("b.c", "static int read_block(struct file *f, int n)\n{\n}\n", "read_block"),
        ("a.java", "public final class Parser extends Base {\n}\n", "Parser"),
        ("a.sql", "CREATE TABLE IF NOT EXISTS users (id int);\n", "users"),
        ("c.c", "if (ready(x)) {\n}\n", None),
    ],
)
def test_definitions_of_many_languages_name_their_chunk(
    tmp_path: Path, name: str, text: str, symbol: str | None
) -> None:
    (tmp_path / name).write_text(text)
    (chunk,) = chunks_of(tmp_path / name)
    assert chunk.metadata.get("symbol_name") == symbol


def test_the_snippet_is_where_the_words_of_the_query_are() -> None:
    text = "\n".join([*["padding"] * 10, "    the needle is here", "    and here", *["tail"] * 5])
    assert best_lines(text, "Needle here") == (
        10,
        "    the needle is here\n    and here\ntail",
    )


def test_vectors_have_unit_length_and_a_text_without_words_gets_the_zero_vector() -> None:
    vectors = Embedder().embed(["some words", "", "\ud800 lone"])
    assert vectors.shape == (3, DIMENSIONS)
    assert abs(float((vectors[0] ** 2).sum()) - 1) < 1e-5
    assert (vectors == vectors).all()  # no NaN
