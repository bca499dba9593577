"""Find and read the files worth indexing; count the others by reason."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .ignore import IgnoreFile, ignore_files_above, is_ignored, read_ignore_file
from .languages import Kind, kind_of

MAX_BYTES = 1_000_000
_SNIFFED = 8_192

BINARY = "binary"
DATA = "data, not text or code"
EMPTY = "empty"
ENCODING = "not UTF-8"
LARGE = f"over {MAX_BYTES // 1_000_000} MB"
SPECIAL = "links and special files"
UNREADABLE = "unreadable"


class SkippedFileError(Exception):
    """The file is left out; the message is the reason that it is counted under."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read. `digest` changes whenever its path or contents do."""

    path: Path
    kind: Kind
    text: str
    size: int
    created: float
    modified: float
    digest: str


def find_files(root: Path, but: Path) -> Iterator[Path]:
    """Walk below `root` (or give the one file that it is), in a stable order.

    Ignored and generated directories, and the directory `but`, are left out silently; links are
    not followed.
    """
    if root.is_dir():
        yield from _walk(root, but, ignore_files_above(root))
    else:
        yield root


def _walk(directory: Path, but: Path, ignore_files: list[IgnoreFile]) -> Iterator[Path]:
    if own := read_ignore_file(directory):
        ignore_files = [*ignore_files, own]
    try:
        with os.scandir(directory) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        yield directory  # `read_file` counts it as unreadable
        return
    for entry in entries:
        path = Path(entry.path)
        is_directory = entry.is_dir(follow_symlinks=False)
        if is_ignored(path, is_directory, ignore_files):
            continue
        if not is_directory:
            yield path
        elif path != but and not os.access(path / "pyvenv.cfg", os.F_OK):
            yield from _walk(path, but, ignore_files)


def read_file(path: Path) -> SourceFile:
    """Read a text file; raise `SkippedFileError` with the reason when it is not one."""
    kind = kind_of(path)
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            raise SkippedFileError(UNREADABLE)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SkippedFileError(SPECIAL)
        if status.st_size > MAX_BYTES:
            raise SkippedFileError(LARGE)
        raw = path.read_bytes()
    except OSError as error:
        raise SkippedFileError(UNREADABLE) from error
    text = _decode(raw)
    if kind is None:
        raise SkippedFileError(DATA)
    return SourceFile(
        path=path,
        kind=kind,
        text=text,
        size=len(raw),
        created=status.st_ctime,
        modified=status.st_mtime,
        digest=_digest(path, raw),
    )


def _decode(raw: bytes) -> str:
    if b"\0" in raw[:_SNIFFED]:
        raise SkippedFileError(BINARY)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SkippedFileError(ENCODING) from error
    if not text.strip():
        raise SkippedFileError(EMPTY)
    return text


def _digest(path: Path, raw: bytes) -> str:
    digest = hashlib.blake2b(os.fsencode(path), digest_size=16)
    digest.update(b"\0" + raw)
    return digest.hexdigest()
