"""What a text and a query are cut into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_brain_postgres.words import MAX_WORD, analyse, names, tokens


def words(text: str) -> list[str]:
    return [word for token in tokens(text) for word, _, _, _ in analyse(token)[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", "get user name getusername"),
        ("GetUserName", "get user name getusername"),
        ("get_user_name", "get user name getusername"),
        ("GET_USER_NAME", "get user name getusername"),
        ("get-user-name", "get user name getusername"),
        ("HTTPServer2Config", "http server 2 config httpserver2config"),
        ("parseURLs", "parse urls parseurls"),
        ("__init__", "init"),
        ("_private", "private"),
        ("utf8", "utf 8 utf8"),
        ("utf-8", "utf 8 utf8"),
        ("os.path.join", "os path join os.path.join"),
        ("agent_brain.storage", "agent brain agentbrain storage agent_brain.storage"),
        ("src/app/main.py", "src app main py src/app/main.py main.py"),
        ("./lib/x.so", "lib x so lib/x.so x.so"),
        ("v1.2.3", "v 1 v1 2 3 v1.2.3"),
        ("std::vector<int>", "std vector int"),
        ("a->b", "a b"),
        ("C++", "c c++"),
        ("C#", "c c#"),
        ("x+y", "x y"),
        ("Done.", "done"),
        ("...", ""),
        ("don't", "don t"),
        ("(quoted 'text')", "quoted text"),
        ("1234", "1234"),
    ],
)
def test_names_are_words_and_compounds(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_hashes_are_not_cut_into_fragments() -> None:
    assert words("3f8a9b2c7d1e") == ["3f8a9b2c7d1e"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Überprüfung", "überprüfung"),
        ("ÉcoleNormale", "école normale écolenormale"),
        ("привет мир", "привет мир"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("ｆｕｌｌ", "full"),
        ("日本語", "日 日本 本 本語 語"),
        ("Python入門", "python 入 入門 門"),
        ("สวัสดี", "ส สว ว วั ั ัส ส สด ด ดี ี"),
        ("“curly” — dash…", "curly dash"),
    ],
)
def test_other_scripts_are_cut_too(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_parts_take_positions_and_compounds_share_that_of_their_first() -> None:
    found, positions = analyse("os.getUserName")
    assert positions == 4
    assert {word: offset for word, offset, _, _ in found} == {
        "os": 0, "get": 1, "user": 2, "name": 3, "getusername": 1, "os.getusername": 0,
    }  # fmt: skip


def test_the_language_decides_about_plain_words_only() -> None:
    found, _ = analyse("parseUTF8Strings")
    assert [word for word, _, literal, _ in found if not literal] == ["parse", "utf", "strings"]


def test_words_without_end_are_cut() -> None:
    assert all(len(word) <= MAX_WORD for word in words("x" * 5000 + " " + "ab_" * 3000))


@given(st.text())
def test_any_text_has_words_in_order_within_its_positions(text: str) -> None:
    for token in tokens(text):
        found, positions = analyse(token)
        plain = [offset for _, offset, _, compound in found if not compound]
        assert plain == sorted(plain)
        assert all(0 <= offset < max(positions, 1) for _, offset, _, _ in found)
        assert all(word and "\0" not in word for word, _, _, _ in found)


@given(st.text(alphabet="abzABZ019_.-/ ("))
def test_case_of_a_whole_text_does_not_change_its_letters(text: str) -> None:
    letters = "".join(c for c in text.lower() if c.isalnum())
    plain = [word for t in tokens(text) for word, _, _, compound in analyse(t)[0] if not compound]
    assert "".join(plain) == letters


def test_names_stand_as_in_the_text() -> None:
    found = [name for name, _ in names("x = self.getUserName(os.path.join(a))")]
    assert found == [
        "x", "self", "getUserName", "self.getUserName", "os", "path", "join", "os.path.join", "a",
    ]  # fmt: skip
