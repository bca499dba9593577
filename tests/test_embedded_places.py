"""Where and as whom the embedded PostgreSQL runs: odd paths, root, other users."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from agent_brain_postgres import embedded
from agent_brain_postgres.embedded import acl
from agent_brain_postgres.errors import StorageError
from tests.embedded_servers import HOLD, as_root, can_run_python, copy, holder, one, passes_as, pid_of, release, run


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "ünïcode 中文",
        "quote'\"double",
        "dollar$HOME`id`",
        "comma,separated",
        "back\\slash %41",
        "x" * 120,
        os.fsdecode(b"latin-\xe9"),
    ],
)
def test_any_directory_name_works(pristine: Path, place: Path, name: str) -> None:
    directory = copy(pristine, place / name)
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1
        assert embedded.start(directory, "agent_brain").conninfo == server.conninfo


def test_a_socket_directory_made_for_a_deep_path_is_removed_with_the_server(pristine: Path, place: Path) -> None:
    directory = copy(pristine, place / ("x" * 120))
    with embedded.start(directory, "agent_brain") as server:
        host = Path(psycopg.conninfo.conninfo_to_dict(server.conninfo)["host"])  # type: ignore[arg-type]
        assert stat.S_IMODE(host.stat().st_mode) == 0o700
    assert not host.exists()


def test_a_relative_directory_is_the_one_below_the_working_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    with embedded.start("postgres", "agent_brain") as server:
        assert server.directory == directory.resolve()


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(StorageError, match="file/postgres"):
        embedded.start(place / "file" / "postgres", "agent_brain")


@as_root
def test_root_runs_it_below_a_private_directory_without_opening_that_to_others(pristine: Path, place: Path) -> None:
    private = place / "private"
    private.mkdir(mode=0o700)
    directory = copy(pristine, private / "postgres")
    with embedded.start(directory, "agent_brain") as server:
        assert one(server.conninfo, "SELECT 1") == 1
    assert private.stat().st_mode & stat.S_IRWXO == 0
    assert not passes_as(pwd.getpwnam("nobody").pw_uid, "stat", directory)


@as_root
def test_an_acl_entry_adds_to_those_that_are_there(place: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    for uid in (12345, nobody):
        place.chmod(0o750)
        acl.allow_search(place, uid)
        (place / "file").write_text("")
    may_stat = {uid: passes_as(uid, "stat", place / "file") for uid in (nobody, 12345, 54321)}
    assert may_stat == {nobody: True, 12345: True, 54321: False}
    assert not passes_as(nobody, "ls", place)


@as_root
def test_an_ordinary_user_can_run_it(place: Path) -> None:
    if not can_run_python("nobody"):
        pytest.skip("this Python is not readable for other users")
    os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
    with holder(place / "postgres", user="nobody", extra_groups=[], cwd="/") as process:
        assert (place / "postgres" / "data").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        release(process)
    assert pid_of(place / "postgres") is None


@as_root
def test_root_and_a_user_share_the_server_in_the_users_directory(place: Path) -> None:
    if not can_run_python("nobody"):
        pytest.skip("this Python is not readable for other users")
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(place, nobody, -1)
    (place / "postgres").mkdir()
    os.chown(place / "postgres", nobody, -1)
    with embedded.start(place / "postgres", "agent_brain") as server:
        run(server.conninfo, "CREATE TABLE of_root AS SELECT 1")
        with holder(place / "postgres", user="nobody", extra_groups=[], cwd="/") as process:
            release(process)
        assert one(server.conninfo, "SELECT count(*) FROM of_root") == 1


@as_root
def test_somebody_elses_directory_is_refused_in_plain_words(directory: Path) -> None:
    if not can_run_python("nobody"):
        pytest.skip("this Python is not readable for other users")
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(directory)],
        user="nobody", extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "belongs to another user" in done.stderr.splitlines()[-1]
