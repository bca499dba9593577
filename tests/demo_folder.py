"""A small folder to index."""

from __future__ import annotations

from pathlib import Path

import pytest

SERVER_PY = '''"""Where requests come in."""

import hashlib


def check_password(user, password):
    """Compare the hash of a password with the stored one."""
    return hashlib.scrypt(password, salt=user.salt, n=16384, r=8, p=1) == user.hash


class RateLimiter:
    def allowRequest(self, client):
        return self.bucket[client] > 0
'''
GUIDE_MD = """# Guide

## Growing tomatoes

Water the tomatoes in the morning and remove the side shoots.

## Backups

The nightly job copies the database to another building.
"""


@pytest.fixture
def folder(place: Path) -> Path:
    """Give a folder with a file of code and one of prose."""
    root = place / "folder"
    (root / "src").mkdir(parents=True)
    (root / "src" / "server.py").write_text(SERVER_PY)
    (root / "guide.md").write_text(GUIDE_MD)
    return root
