"""What a file is, by its name: code in some language, prose, or data that is not worth a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

SourceType = Literal["code", "doc"]


@dataclass(frozen=True, slots=True)
class Kind:
    """`source_type` and `language` as the core names them."""

    source_type: SourceType
    language: str


_CODE = {
    "bash": ".sh .bash .zsh",
    "c": ".c .h",
    "cpp": ".cc .cpp .cxx .hh .hpp .hxx",
    "csharp": ".cs",
    "css": ".css .scss .less",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "erlang": ".erl",
    "go": ".go",
    "haskell": ".hs",
    "html": ".html .htm",
    "java": ".java",
    "javascript": ".js .jsx .mjs .cjs",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "objc": ".m .mm",
    "ocaml": ".ml .mli",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1",
    "python": ".py .pyi .pyx",
    "r": ".r",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala",
    "sql": ".sql",
    "swift": ".swift",
    "toml": ".toml",
    "typescript": ".ts .tsx .mts .cts",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}
_BY_SUFFIX = {
    suffix: Kind("code", language)
    for language, suffixes in _CODE.items()
    for suffix in suffixes.split()
}
_BY_NAME = {
    "dockerfile": Kind("code", "dockerfile"),
    "makefile": Kind("code", "make"),
    "cmakelists.txt": Kind("code", "cmake"),
    "jenkinsfile": Kind("code", "groovy"),
    "rakefile": Kind("code", "ruby"),
}
_MARKDOWN = frozenset({".md", ".markdown", ".mdx", ".rst"})
_DATA = (
    ".csv .tsv .json .jsonl .ndjson .geojson .svg .lock .map .log .po .pot .xml .pem .crt .key "
    ".diff .patch .ipynb .sum"
)
_DATA_SUFFIXES = frozenset(_DATA.split())
_DATA_NAMES = frozenset({"package-lock.json", "pnpm-lock.yaml", "yarn.lock", "poetry.lock"})
# Files that hold secrets by convention: nobody wants them in a search index.
_SECRET_NAMES = (".env", ".netrc", ".pgpass", ".npmrc", ".pypirc", "id_rsa", "id_ed25519")


def kind_of(path: PurePath) -> Kind | None:
    """Say what to take a text file for; None for data and for files of secrets."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if name in _DATA_NAMES or suffix in _DATA_SUFFIXES or name.startswith(_SECRET_NAMES):
        return None
    if name.endswith((".min.js", ".min.css")):
        return None
    if suffix in _MARKDOWN:
        return Kind("doc", "markdown")
    return _BY_NAME.get(name) or _BY_SUFFIX.get(suffix) or Kind("doc", "text")
