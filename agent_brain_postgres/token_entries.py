"""Thousands of tokens taken apart at once: what `words.analyse` says of each, as arrays.

`words.analyse` is the definition. Plain tokens (letters, digits and ``_ - . /`` of ASCII: nearly all
of code and of English) are cut by one regular expression that runs over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.numbers import Ints, Lookup, Numbers
from agent_brain_postgres.words import MAX_WORD, OPAQUE, PART, Word, analyse

FIRST_WORD = -3
"""The code of word 0, and on from there to lower ones."""

_TOKEN_ENDS, _NAME_ENDS = -1, -2  # the codes of what stands between words

_is_plain = re.compile(rf"[A-Za-z0-9_./-]{{1,{MAX_WORD}}}").fullmatch
_pieces = re.compile(rf"[\n./]|{PART}").findall
_COMPOUNDS = str.maketrans({".": "\n", "/": "\n", "_": None, "-": None})


class Entries(NamedTuple):
    """Words of tokens, in arrays of one length."""

    token: Ints
    code: Ints
    """The number of a lexeme; or, from `FIRST_WORD` down, of a word that the language decides."""
    offset: Ints
    """Positions after the first of the token."""
    compound: NDArray[np.bool_]

    def chosen(self, which: NDArray[np.bool_] | Ints) -> Entries:
        """Give some of them."""
        token, code, offset, compound = self
        return Entries(token[which], code[which], offset[which], compound[which])


class Codes(Lookup):
    """The code of each piece of a plain token, in the case that it is written in."""

    def __init__(self, words: Numbers, lexemes: Numbers) -> None:
        super().__init__({"\n": _TOKEN_ENDS, ".": _NAME_ENDS, "/": _NAME_ENDS})
        self.words, self.lexemes = words, lexemes

    def __missing__(self, piece: str) -> int:
        code = self[piece] = self.of_word(piece.lower(), literal=piece.isdigit())
        return code

    def of_word(self, text: str, *, literal: bool) -> int:
        """Give the code of a word: that of its lexeme when it is one as it stands."""
        return self.lexemes[text] if literal else FIRST_WORD - self.words[text]


def join(parts: Sequence[Entries]) -> Entries:
    """Put entries together."""
    token, code, offset, compound = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Entries(token, code, offset, compound)


def take_apart(tokens: Sequence[str], codes: Codes) -> tuple[Entries, Ints]:
    """Give the words of tokens, by the places of these in the list, and the positions of each."""
    plain = [i for i, token in enumerate(tokens) if _is_plain(token)]
    place = np.array(plain, np.int64)
    positions = np.zeros(len(tokens), np.int64)
    others = np.ones(len(tokens), np.bool_)
    found: list[Entries] = []
    if plain:
        entries, positions[place], others[place] = _plain([tokens[i] for i in plain], codes)
        found.append(entries._replace(token=place[entries.token]))
    left = np.flatnonzero(others).tolist()
    analysed = [analyse(tokens[i]) for i in left]
    positions[left] = [taken for _, taken in analysed]
    words = [(i, word) for i, (words, _) in zip(left, analysed, strict=True) for word in words]
    found.append(_entries(words, codes))
    return join(found), positions


def _entries(words: Sequence[tuple[int, Word]], codes: Codes) -> Entries:
    return Entries(
        np.array([token for token, _ in words], np.int64),
        np.array([codes.of_word(text, literal=lit) for _, (text, _, lit, _) in words], np.int64),
        np.array([offset for _, (_, offset, _, _) in words], np.int64),
        np.array([compound for _, (_, _, _, compound) in words], np.bool_),
    )


class _Names(NamedTuple):
    """The names that tokens consist of: what stands between dots and slashes."""

    token: Ints
    size: Ints
    """Words in the name."""
    offset: Ints
    """Of its first word, within the token."""


def _plain(tokens: Sequence[str], codes: Codes) -> tuple[Entries, Ints, NDArray[np.bool_]]:
    """Take plain tokens apart, but for those that hold hashes or keys; and say which these are."""
    joined = "\n".join([token.strip("./") for token in tokens])
    code = codes.of(_pieces(joined))
    between = (code < 0) & (code > FIRST_WORD)
    token, name = np.cumsum(code == _TOKEN_ENDS), np.cumsum(between)
    owner = np.append(0, token[between])
    token, name, code = token[~between], name[~between], code[~between]
    positions = np.bincount(token, minlength=len(tokens))
    first = np.cumsum(positions) - positions  # the first word of each token
    size = np.bincount(name, minlength=owner.size)
    names = _Names(owner, size, np.cumsum(size) - size - first[owner])
    numbers = np.bincount(name[code >= 0], minlength=owner.size)
    opaque = np.zeros(len(tokens), np.bool_)
    opaque[owner[np.minimum(numbers, size - numbers) >= OPAQUE]] = True
    compound = np.zeros(token.size, np.bool_)
    words = Entries(token, code, np.arange(token.size) - first[token], compound)
    compounds = _compounds(joined.lower(), names, ~opaque & (positions > 0), codes.lexemes)
    return join((words.chosen(~opaque[token]), compounds)), positions, opaque


def _compounds(lower: str, names: _Names, wanted: NDArray[np.bool_], lexemes: Numbers) -> Entries:
    """Give names of several words, and paths, as they stand in tokens that are wanted."""
    paths = np.flatnonzero((np.bincount(names.token) > 1) & wanted)
    owners, texts = _paths(lower.split("\n"), paths.tolist())
    compound = np.flatnonzero((names.size > 1) & wanted[names.token])
    all_names = lower.translate(_COMPOUNDS).split("\n")
    texts += [all_names[i] for i in compound.tolist()]
    return Entries(
        np.append(owners, names.token[compound]),
        lexemes.of(texts),
        np.append(np.zeros(owners.size, np.int64), names.offset[compound]),
        np.ones(len(texts), np.bool_),
    )


def _paths(whole: Sequence[str], paths: Sequence[int]) -> tuple[Ints, list[str]]:
    """Give the paths themselves and their last elements, each with the token it is of."""
    owners, texts = list(paths), [whole[i] for i in paths]
    for i in paths:
        _, slash, tail = whole[i].rpartition("/")
        if slash and "." in tail:
            owners.append(i)
            texts.append(tail)
    return np.array(owners, np.int64), texts
