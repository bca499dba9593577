"""Texts by number, and the slices that they are given as, against a dictionary and plain strings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent_brain_postgres.numbers import Numbers
from agent_brain_postgres.slices import LONG, MULTIPLIER, PADDING, Slices, Texts

TEXT = (
    st.text(max_size=3)
    | st.text(st.sampled_from("abÄ"), min_size=7, max_size=18)
    | st.sampled_from(["", "x" * LONG, "x" * LONG + "y", "y" * (LONG + 1), "x" * 1_000])
)
TEXTS = st.lists(TEXT, max_size=30)

MASK = (1 << 64) - 1


def slices(texts: list[bytes]) -> Slices:
    sizes = np.array([len(text) for text in texts])
    buffer = np.frombuffer(bytes(PADDING) + b"".join(texts) + bytes(PADDING), np.uint8)
    return Slices(buffer, np.cumsum(sizes) - sizes + PADDING, sizes)


def sharing_a_hash(count: int) -> list[bytes]:
    """Make texts of two words: the first makes up for what the second, read before, changed."""
    texts = []
    for second in range(count):
        hashed = ((16 * MULTIPLIER & MASK) ^ second) * MULTIPLIER & MASK
        texts.append((hashed ^ hashed >> 32).to_bytes(8, "little") + second.to_bytes(8, "little"))
    return texts


@given(batches=st.lists(TEXTS, max_size=4))
def test_a_text_has_one_number_and_a_number_one_text(batches: list[list[str]]) -> None:
    numbers, model = Numbers(), dict[str, int]()
    for texts in batches:
        found = numbers.of(Slices.of(texts)).tolist()
        for text, number in zip(texts, found, strict=True):
            assert model.setdefault(text, number) == number
    assert sorted(model.values()) == list(range(len(model))) == list(range(len(numbers)))
    assert numbers.texts[:].texts() == [*model]


def test_texts_that_share_a_hash_have_their_own_numbers() -> None:
    texts = sharing_a_hash(6)
    assert len({*slices(texts).hashes().tolist()}) == 1
    numbers = Numbers()
    first = numbers.of(slices(texts[:3] * 2)).tolist()
    assert first == [*first[:3]] * 2
    again = numbers.of(slices(texts)).tolist()
    assert again[:3] == first[:3]
    assert sorted(again) == list(range(6))


def test_many_texts_find_their_numbers_again() -> None:
    numbers, texts = Numbers(), [f"word{i}" for i in range(30_000)]
    parts = [numbers.of(Slices.of(texts[i : i + 7_000])) for i in range(0, len(texts), 7_000)]
    found = np.concatenate(parts).tolist()
    assert sorted(found) == list(range(30_000))
    assert numbers.of(Slices.of(texts)).tolist() == found


@given(texts=TEXTS, others=TEXTS)
def test_slices_are_what_the_texts_are(texts: list[str], others: list[str]) -> None:
    one, other = Slices.of(texts), Slices.of(others)
    assert one.texts() == one.lines().texts() == texts
    assert one.joined() == "\n".join(texts)
    assert one.packed()[:-PADDING].tobytes() == "".join(texts).encode()
    assert (one.hashes() == one.lines().hashes()).all()
    assert one.equal(one.lines()).all()
    grown = Texts()
    grown.extend(one)
    grown.extend(other)
    assert grown[:].texts() == texts + others


def test_texts_of_all_lengths_are_copied_side_by_side() -> None:
    texts = ["x" * (i % 23) + str(i) for i in range(20_000)]
    assert Slices.of(texts).packed()[:-PADDING].tobytes() == "".join(texts).encode()


@given(texts=TEXTS)
def test_slices_are_ordered_by_their_first_eight_bytes(texts: list[str]) -> None:
    ordered = [texts[i].encode()[:8].ljust(8, b"\0") for i in Slices.of(texts).in_order()]
    assert ordered == sorted(ordered)


@given(texts=TEXTS)
def test_unequal_texts_of_one_hash_are_told_apart(texts: list[str]) -> None:
    changed = [text[:-1] + "z" for text in texts]
    same = Slices.of(texts).equal(Slices.of(changed))
    long = [i for i, text in enumerate(texts) if len(text.encode()) > 8]
    assert [same[i] for i in long] == [texts[i] == changed[i] for i in long]
