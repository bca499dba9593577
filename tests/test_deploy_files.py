"""Files that people edit: merged into, never reformatted, never readable by others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_brain_postgres import deploy
from agent_brain_postgres.deploy import env_file, files, yaml_file
from agent_brain_postgres.errors import DeployError, SettingsError

SETTINGS = {
    "storage": {
        "backend": "postgres",
        "postgres": {"host": "127.0.0.1", "port": 5433, "database": "brain", "user": "me"},
    }
}

COMMENTED = """\
# Agent Brain, our team's settings
embedding:
    provider: openai     # not ollama
    model: 'text-embedding-3-large'
    base_url: "http://proxy:8080"


reranker: {enabled: yes, top_k:   5}   # braces stay
folders:
  - src      # ours
  -   docs
  - "a: b"
storage:
    # chroma until the migration
    backend: chroma  # change me
    # the end of storage
graphrag:
    enabled: false
long: "%s"
""" % ("word " * 60)


def merged(text: str) -> str:
    return deploy.merged_yaml(text, SETTINGS)


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [x for x in old if x not in new], [x for x in new if x not in old]


def test_only_the_lines_that_are_set_change() -> None:
    gone, added = changed_lines(COMMENTED, merged(COMMENTED))
    assert gone == ["    backend: chroma  # change me"]
    assert added == [
        "    backend: postgres # change me",
        "    postgres:",
        "        host: 127.0.0.1",
        "        port: 5433",
        "        database: brain",
        "        user: me",
    ]


def test_merging_again_changes_nothing() -> None:
    once = merged(COMMENTED)
    assert merged(once) == once


def test_keys_that_are_there_keep_their_place_and_comment() -> None:
    text = "storage:\n  postgres:\n    port: 1 # old\n    language: german\n  backend: postgres\n"
    lines = merged(text).splitlines()
    assert lines[2] == "    port: 5433 # old"
    assert lines[3] == "    language: german"
    assert lines[-1] == "  backend: postgres"


def test_values_that_already_say_so_keep_their_quotes() -> None:
    text = yaml.safe_dump(SETTINGS).replace("127.0.0.1", "'127.0.0.1'").replace("me\n", '"me"\n')
    assert merged(text) == text


def test_an_anchor_shared_with_another_section_is_not_changed_there() -> None:
    text = "base: &base {host: db, port: 1}\nother: *base\nstorage:\n  postgres: *base\n"
    data = yaml.safe_load(merged(text))
    assert data["other"] == {"host": "db", "port": 1}
    assert data["storage"]["postgres"] == {**SETTINGS["storage"]["postgres"]}  # type: ignore[dict-item]


def test_a_merge_key_stays_and_is_overridden() -> None:
    text = "d: &d {host: db, pool_size: 5}\nstorage:\n  postgres:\n    <<: *d\n    language: x\n"
    after = merged(text)
    assert "<<: *d" in after
    assert yaml.safe_load(after)["storage"]["postgres"]["pool_size"] == 5
    assert yaml.safe_load(after)["storage"]["postgres"]["host"] == "127.0.0.1"


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "# no line end", "---\n", "{}\n"])
def test_an_empty_document_keeps_what_it_says(text: str) -> None:
    after = merged(text)
    assert yaml.safe_load(after) == SETTINGS
    assert all(line in after for line in text.splitlines() if line.startswith("#"))


@pytest.mark.parametrize(
    "text", ["- a\n", "just text\n", "storage: yes\n", "storage:\n  postgres: [1]\n"]
)
def test_a_document_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        merged(text)


def test_malformed_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(SettingsError, match="line 2"):
        merged("a: 1\n  b: 2\n")


plain = st.one_of(st.integers(), st.booleans(), st.text("abc \"'#:é", max_size=8), st.none())
documents = st.dictionaries(
    st.text("abcxyz", min_size=1, max_size=5),
    st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.text("klm", min_size=1, max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)


@settings(deadline=None)
@given(documents, st.sampled_from([2, 4, 3]), st.booleans())
def test_any_document_keeps_all_its_data(
    document: dict[str, Any], indent: int, flow: bool
) -> None:
    text = yaml.safe_dump(document, indent=indent, default_flow_style=flow, allow_unicode=True)
    after = merged(text)
    assert yaml.safe_load(after) == {**document, **SETTINGS}
    assert merged(after) == after


def test_windows_line_ends_and_a_byte_order_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + COMMENTED.replace("\n", "\r\n").encode())
    file = files.read(path)
    assert file is not None
    files.write(path, files.TextFile(merged(file.text), file.newline, file.byte_order_mark))
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf#")
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert yaml.safe_load(raw.decode("utf-8-sig"))["storage"] == SETTINGS["storage"]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("größe: 1\n".encode("latin-1"))
    with pytest.raises(DeployError, match="not UTF-8"):
        files.read(path)


def test_variables_are_set_in_place_and_others_left_alone() -> None:
    text = "# ours\nexport A=1  # one\n\nB='two words'\nC=3\n"
    after = deploy.merged_environment(text, {"B": "new", "C": None, "D": "4", "A": "1"})
    assert after == "# ours\nexport A=1  # one\n\nB=new\nD=4\n"


def test_a_variable_that_is_set_twice_is_set_once_afterwards() -> None:
    assert deploy.merged_environment("A=1\nA=2\n", {"A": "3"}) == "A=3\n"


def test_an_environment_file_without_a_last_line_end_gets_one() -> None:
    assert deploy.merged_environment("A=1", {"B": "2"}) == "A=1\nB=2\n"


values = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r\0\x85  \x0b\x0c\x1c\x1d\x1e"),
    max_size=20,
)


@given(values)
def test_any_value_is_read_back_as_it_was(value: str) -> None:
    text = deploy.merged_environment("", {"KEY": value})
    assert dotenv_values(stream=StringIO(text), interpolate=False)["KEY"] == value


def test_a_value_with_a_line_break_is_refused() -> None:
    with pytest.raises(DeployError, match="line break"):
        env_file.quoted("a\nb")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def test_a_private_file_is_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "secret"
    files.write(path, files.TextFile("x"), files.PRIVATE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\n")
    path.chmod(0o640)
    files.write(path, files.TextFile("a: 2\n"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "dotfiles.yaml", tmp_path / "config.yaml"
    target.write_text("a: 1\n")
    link.symlink_to(target)
    files.write(link, files.TextFile("a: 2\n"))
    assert link.is_symlink()
    assert target.read_text() == "a: 2\n"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.mkdir()
    with pytest.raises(DeployError, match="cannot write"):
        files.write(path, files.TextFile("x"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


def test_backups_never_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    files.write(path, files.TextFile("x"), files.PRIVATE)
    made = {files.back_up(path) for _ in range(3)}
    assert len(made) == 3
    assert {stat.S_IMODE(backup.stat().st_mode) for backup in made} == {0o600}


def test_plain_yaml_is_parsed_to_plain_data() -> None:
    assert yaml_file.parse(COMMENTED)["folders"] == ["src", "docs", "a: b"]
