"""Names that a line of code defines. By pattern: good enough to label a chunk, not to compile."""

from __future__ import annotations

import re
from typing import NamedTuple


class Symbol(NamedTuple):
    """`kind` is one of the core's: function, class, method, ..."""

    name: str
    kind: str


_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub"
    r"(?:\([a-z]+\))?|unsafe|override|open|sealed|data|inline|virtual|extern|declare|const)\s+)*"
)
_KINDS = {
    "def": "function",
    "defp": "function",
    "func": "function",
    "fun": "function",
    "fn": "function",
    "function": "function",
    "sub": "function",
    "class": "class",
    "struct": "class",
    "object": "class",
    "interface": "interface",
    "trait": "interface",
    "protocol": "interface",
    "enum": "enum",
    "type": "type",
    "impl": "class",
    "module": "module",
    "namespace": "module",
    "mod": "module",
}
_DEFINITION = re.compile(
    rf"^(?P<indent>\s*){_MODIFIERS}(?P<keyword>{'|'.join(_KINDS)})\b[*\s]+"
    r"(?:\([^)]*\)\s*)?(?P<name>[A-Za-z_$][\w$.]*)"
)
# C, C++, Java, C#: a type, a name, an argument list, and no statement in sight.
_C_FUNCTION = re.compile(
    r"^(?P<indent>[ \t]{0,8})(?:[A-Za-z_][\w:<>,*&\[\] ]*[\s*&]+)(?P<name>~?[A-Za-z_][\w:]*)"
    r"\s*\([^;={}]*\)?\s*(?:const\s*)?\{?\s*$"
)
_C_LIKE = frozenset({"c", "cpp", "java", "csharp", "objc"})
_KEYWORDS = "if for while switch return else do catch case throw new delete sizeof goto"
_STATEMENTS = frozenset(_KEYWORDS.split())
_JS_ARROW = re.compile(
    r"^(?P<indent>\s*)(?:export\s+)?(?:const|let|var)\s+(?P<name>[\w$]+)\s*=\s*(?:async\s*)?"
    r"(?:function\b|\([^)]*\)\s*(?::[^=]+)?=>|[\w$]+\s*=>)"
)
_SQL = re.compile(
    r"^(?P<indent>\s*)create\s+(?:or\s+replace\s+)?(?:\w+\s+)*?"
    r"(?P<keyword>table|view|function|procedure|index|trigger|type)\s+"
    r"(?:if\s+not\s+exists\s+)?(?P<name>[\w.\"]+)",
    re.IGNORECASE,
)
_IMPORT = re.compile(
    r"^\s*(?:import\b|from\s+\S+\s+import\b|#\s*include\b|use\s+\w|require\b|using\s)"
)

_NOT_CODE = frozenset({"css", "html", "toml", "yaml", "make", "dockerfile", "cmake"})


def symbol_in(line: str, language: str) -> Symbol | None:
    """Give what a line defines, if anything."""
    if language in _NOT_CODE or len(line) > 500:
        return None
    if language == "sql":
        match = _SQL.match(line)
        return Symbol(match["name"].strip('"'), match["keyword"].lower()) if match else None
    if match := _DEFINITION.match(line):
        kind = _KINDS[match["keyword"]]
        inside = kind == "function" and bool(match["indent"])
        return Symbol(match["name"], "method" if inside else kind)
    if language in ("javascript", "typescript") and (match := _JS_ARROW.match(line)):
        return Symbol(match["name"], "function")
    if language in _C_LIKE and (match := _C_FUNCTION.match(line)):
        words = set(line.split("(")[0].replace("*", " ").split())
        if not words & _STATEMENTS:
            return Symbol(match["name"], "method" if match["indent"] else "function")
    return None


def is_import(line: str) -> bool:
    """Say whether a line imports something."""
    return bool(_IMPORT.match(line))
