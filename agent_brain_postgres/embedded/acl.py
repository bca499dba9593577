"""Search permission on a directory for one user, leaving everyone else's rights alone."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id

_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NOBODY = 0xFFFFFFFF  # the id of entries that have none
_SEARCH = 0o1

_Entries = dict[tuple[int, int], int]


def allow_search(directory: Path, uid: int) -> None:
    """Let the user pass through `directory`, by a POSIX ACL, else by its mode (`o+x`).

    Neither lets anybody list the directory. The mode is for file systems without ACLs; it is not
    used when the directory's ACL is merely refused to us.
    """
    if hasattr(os, "setxattr"):
        try:
            _grant(directory, uid)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
    directory.chmod(stat.S_IMODE(directory.stat().st_mode) | stat.S_IXOTH)


def _grant(directory: Path, uid: int) -> None:
    entries = _read(directory)
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _SEARCH
    # The mask bounds what named users may do. Without one yet, it must not take from the group.
    mask = entries.get((_MASK, _NOBODY), entries[_GROUP, _NOBODY])
    entries[_MASK, _NOBODY] = mask | _SEARCH
    packed = [_ENTRY.pack(tag, bits, name) for (tag, name), bits in sorted(entries.items())]
    os.setxattr(directory, _ATTRIBUTE, _HEADER.pack(_VERSION) + b"".join(packed))


def _read(directory: Path) -> _Entries:
    try:
        raw = os.getxattr(directory, _ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = directory.stat().st_mode
        return {
            (_OWNER, _NOBODY): mode >> 6 & 7,
            (_GROUP, _NOBODY): mode >> 3 & 7,
            (_OTHER, _NOBODY): mode & 7,
        }
    return {(tag, name): bits for tag, bits, name in _ENTRY.iter_unpack(raw[_HEADER.size :])}
