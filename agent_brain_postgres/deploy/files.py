"""Text files as a deployment needs them: written whole or not at all, never readable by others."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent_brain_postgres.errors import DeployError

PRIVATE = 0o600
PUBLIC = 0o644


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file's text with `\\n` line ends, and what writing it back must keep."""

    text: str
    newline: str = "\n"
    byte_order_mark: bool = False

    @classmethod
    def decode(cls, raw: bytes, path: Path) -> TextFile:
        """Decode UTF-8; the line end is the one that most lines have."""
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DeployError(f"{path} is not UTF-8 text ({error.reason}): convert it") from error
        windows = text.count("\r\n")
        newline = "\r\n" if windows * 2 > text.count("\n") else "\n"
        return cls(text.replace("\r\n", "\n"), newline, raw.startswith(b"\xef\xbb\xbf"))

    def encode(self) -> bytes:
        """Give the bytes to write."""
        text = self.text.replace("\n", self.newline) if self.newline != "\n" else self.text
        return text.encode("utf-8-sig" if self.byte_order_mark else "utf-8")


def read(path: Path) -> TextFile | None:
    """Read a text file; None when there is none."""
    try:
        return TextFile.decode(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeployError(f"cannot read {path}: {_reason(error)}") from error


def write(path: Path, file: TextFile, mode: int | None = None) -> None:
    """Replace a file in one step, so that a reader sees the old text or the new one.

    The umask never widens `mode`. None keeps the mode of the file that is replaced. A symbolic
    link stays one: what it points to is replaced.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, file.encode(), _mode(target, mode))
    except OSError as error:
        raise DeployError(f"cannot write {path}: {_reason(error)}") from error


def _mode(target: Path, mode: int | None) -> int:
    if mode is not None:
        return mode
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        return PUBLIC


def _replace(target: Path, content: bytes, mode: int) -> None:
    # mkstemp makes the file 0600: it is never readable by others, not even while it is written.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def back_up(path: Path) -> Path:
    """Copy a file beside itself, under a name that is still free, with the same mode."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    backup = path.with_name(f"{path.name}.{stamp}.bak")
    number = 0
    while backup.exists():
        number += 1
        backup = path.with_name(f"{path.name}.{stamp}-{number}.bak")
    file = read(path)
    assert file is not None, "only what exists is backed up"
    write(backup, file, path.stat().st_mode & 0o777)
    return backup


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
