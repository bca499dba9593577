"""YAML that people edit: settings are merged in, everything else stays as it was written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from agent_brain_postgres.errors import SettingsError

_FIRST_INDENTED_KEY = re.compile(r"^( +)[^\s#-][^\n]*:", re.MULTILINE)
# A key whose value is a list: how far its dashes are indented is a matter of taste.
_FIRST_LIST = re.compile(
    r"^( *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*( *)-[ \n]", re.MULTILINE
)


def merged(text: str, settings: Mapping[str, Any], source: str = "config.yaml") -> str:
    """Set the given keys, deeply, in a YAML document.

    Comments, key order, quotes, anchors and blank lines are kept, and lines that are not
    concerned stay byte for byte. Raises `SettingsError` when the text is not a YAML mapping;
    `source` names it there.
    """
    document = _load(text, source)
    if document is None:
        return _appended(text, settings)
    if not isinstance(document, CommentedMap):
        raise SettingsError(f"{source}: a mapping is expected at the top, not a list or a scalar")
    before = _dump(document, text)
    _merge(document, settings, document, source)
    after = _dump(document, text)
    return text if after == before else _spliced(text, before, after)


def parse(text: str, source: str = "config.yaml") -> dict[str, Any]:
    """Read a YAML mapping as plain data; an empty document is an empty mapping."""
    _load(text, source)
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise _malformed(error, source) from error
    return data if isinstance(data, dict) else {}


def _load(text: str, source: str) -> Any:
    try:
        return _yaml(text).load(text)
    except YAMLError as error:
        raise _malformed(error, source) from error


def _malformed(error: YAMLError, source: str) -> SettingsError:
    mark = getattr(error, "problem_mark", None)
    where = f" line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or "malformed"
    return SettingsError(f"{source}{where}: no valid YAML: {problem}")


def _yaml(text: str) -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.explicit_start = any(line.rstrip() == "---" for line in text.split("\n"))
    key, dash = _FIRST_INDENTED_KEY.search(text), _FIRST_LIST.search(text)
    offset = max(0, len(dash[2]) - len(dash[1])) if dash else 0
    yaml.indent(mapping=len(key[1]) if key else 2, sequence=offset + 2, offset=offset)
    return yaml


def _dump(document: CommentedMap, text: str) -> str:
    stream = StringIO()
    _yaml(text).dump(document, stream)
    return stream.getvalue()


def _appended(text: str, settings: Mapping[str, Any]) -> str:
    """Write the first settings of a file that holds nothing, or nothing but comments."""
    stream = StringIO()
    YAML().dump(_plain(settings), stream)
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + stream.getvalue()


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, Mapping) else v for k, v in settings.items()}


def _merge(
    target: CommentedMap, settings: Mapping[str, Any], root: CommentedMap, source: str
) -> None:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _merge(_section(target, key, root, source), value, root, source)
        elif key not in target or target[key] != value or type(target[key]) is not type(value):
            if key in target and str(target[key]) == str(value) and isinstance(value, str):
                continue  # The same text in the user's own quotes.
            target[key] = value


def _section(target: CommentedMap, key: str, root: CommentedMap, source: str) -> CommentedMap:
    """Give the mapping under `key`, one that no other part of the document shares."""
    section = target.get(key)
    if section is None:
        section = CommentedMap()
        target[key] = section
    elif not isinstance(section, CommentedMap):
        raise SettingsError(f"{source}: {key} must be a mapping, not {section!r}")
    elif _occurrences(root, section) > 1:
        target[key] = section = CommentedMap(section.items())
    return section


def _occurrences(node: Any, wanted: CommentedMap) -> int:
    found = int(node is wanted)
    if isinstance(node, CommentedMap):
        children = [value for key, value in node.items() if _is_own(node, key)]
    else:
        children = list(node) if isinstance(node, CommentedSeq) else []
    return found + sum(_occurrences(child, wanted) for child in children)


def _is_own(node: CommentedMap, key: Any) -> bool:
    return any(key == own for own, _ in node.non_merged_items())


def _spliced(text: str, before: str, after: str) -> str:
    """Carry the difference between two dumps over to the text as the user wrote it.

    A dump may lay out lines anew that nobody changed (indentation of lists, spaces before a
    comment). Where the lines of dump and text correspond one to one, only the changed ones are
    taken from the dump.
    """
    original, old, new = (s.splitlines(keepends=True) for s in (text, before, after))
    if len(original) != len(old) or not _same_words(original, old):
        return after
    if not text.endswith("\n"):
        original[-1] += "\n"
    result: list[str] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, first, last, start, end in matcher.get_opcodes():
        result += original[first:last] if tag == "equal" else new[start:end]
    spliced = "".join(result)
    return spliced if _means_the_same(spliced, after) else after


def _means_the_same(spliced: str, dumped: str) -> bool:
    try:
        return parse(spliced) == parse(dumped)
    except SettingsError:
        return False


def _same_words(original: list[str], dumped: list[str]) -> bool:
    return all(a.split() == b.split() for a, b in zip(original, dumped, strict=True))
