"""A state_dir that cannot keep what is written into it: said at start and by ``check``, with what mends it.

Each is a real file system, and a real process. That the server serves all the same is part of
it: a token that lives can be used where it could not be saved.
"""

import ctypes.util
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from clients.gateway_process import running, verb
from engine.wires import eventually
from fakes.machine import names, run
from fakes.renewing import claude_file

from ai_mux.storage import obstacles

SECCOMP = ctypes.util.find_library("seccomp")
# Answers every call of flock with an error, and then becomes a program. SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(…).
NO_LOCKS = """
import ctypes, os, sys
seccomp = ctypes.CDLL(sys.argv[1])
seccomp.seccomp_init.restype = ctypes.c_void_p
rules = ctypes.c_void_p(seccomp.seccomp_init(0x7FFF0000))
flock = seccomp.seccomp_syscall_resolve_name(b"flock")
assert seccomp.seccomp_rule_add(rules, 0x00050000 | int(sys.argv[2]), flock, 0) == 0
assert seccomp.seccomp_load(rules) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture
def disk(tmp_path):
    """A file system of its own for the state, 64 KiB large; return what remounts it with other options."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    if not run("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", state):
        pytest.skip("a small file system can only be mounted by root")
    yield lambda options: run("mount", "-o", f"remount,{options}", state)
    assert run("umount", "-l", state)


@pytest.fixture
def public():
    """A directory that another user reaches, which pytest's own are not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def as_nobody():
    """Be another user, from now on until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    yield lambda: os.seteuid(12345)
    os.seteuid(0)


async def told_at_start(directory, event="directory.unusable", **settings):
    """Start the server, see that it serves and stops, and return its lines of an event."""
    async with running(directory, providers=[{"name": "claude"}], settings=settings) as gateway:
        await gateway.stop()
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


async def told_by_check(directory):
    """Return each error that ``check`` finds, and what mends it, by what it is about."""
    code, text = await verb(directory, "check", "--json")
    found = json.loads(text)["findings"]
    assert code == any(one["level"] == "error" for one in found)
    return {one["about"]: (one["text"], one["mend"]) for one in found if one["level"] == "error"}


async def test_a_read_only_disk_is_told_once_at_start_and_by_check(tmp_path, disk):
    state = tmp_path / "state"
    claude_file(state / "claude" / ".credentials.json", ends=None)
    assert disk("ro")
    (line,) = await told_at_start(tmp_path)
    mend = f"sudo mount -o remount,rw {state}, or set state_dir to another place"
    assert line["problem"] == f"the file system of {state} is read-only"
    assert line["mend"].startswith(mend)
    found = await told_by_check(tmp_path)
    assert found["state_dir"][0] == line["problem"]
    assert found["state_dir"][1].startswith(mend)
    assert found["usage"][1].startswith(mend)
    assert "is read-only; a renewed token could not be saved" in found["claude"][0]
    assert "chown" not in str(found)


async def test_a_full_disk_is_told_at_start_and_by_check(tmp_path, disk):
    state = tmp_path / "state"
    ballast = state / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    (line,) = await told_at_start(tmp_path, usage={"enabled": False})
    assert line["problem"] == f"the file system of {state} is full, or a quota is used up"
    assert line["mend"].startswith(f"free some space (df -h {state}, df -i {state})")
    found = await told_by_check(tmp_path)
    assert found["state_dir"] == (line["problem"], line["mend"])
    assert names(state) == ["ballast"] or names(state) == ["ballast", "claude"]


async def test_a_disk_without_a_free_inode_is_told_at_start_and_by_check(tmp_path, disk):
    state = tmp_path / "state"
    (state / "claude").mkdir()
    assert disk("nr_inodes=3")
    (state / "last").touch()
    (line,) = await told_at_start(tmp_path, usage={"enabled": False})
    assert "df -i" in line["mend"]
    assert "full" in (await told_by_check(tmp_path))["state_dir"][0]


@pytest.mark.skipif(SECCOMP is None, reason="needs libseccomp")
@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_file_system_without_locks_is_told_at_start_and_by_check(tmp_path, monkeypatch, answer):
    program = tmp_path / "python-without-locks"
    launcher = [sys.executable, "-c", NO_LOCKS, SECCOMP, str(answer), sys.executable]
    quoted = " ".join("'" + one.replace("'", "'\\''") + "'" for one in launcher)
    program.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=None)
    (line,) = await told_at_start(tmp_path)
    assert line["problem"].startswith(f"the file system of {tmp_path}/state has no locks")
    assert line["mend"].startswith("set state_dir to another place, on a local file system")
    found = await told_by_check(tmp_path)
    assert {about for about, (text, _) in found.items() if "has no locks" in text} >= {"state_dir", "claude"}


async def test_a_state_dir_where_a_file_is_in_the_way_is_told(tmp_path):
    (tmp_path / "file").touch()
    (line,) = await told_at_start(tmp_path, state_dir=str(tmp_path / "file" / "state"))
    assert line["problem"] == f"{tmp_path}/file/state cannot be used: Not a directory"


async def test_what_root_would_spoil_for_the_owner_of_state_dir_is_a_warning(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 12345, -1)
    (line,) = await told_at_start(tmp_path, "directory.foreign")
    assert line["level"] == "warn"
    assert line["problem"] == f"{state} belongs to uid 12345, which cannot use what root writes there"
    assert line["mend"] == f"run ai-mux as that user (sudo -u '#12345' …), or sudo chown 0 {state}"
    code, text = await verb(tmp_path, "check")
    assert line["mend"] in text
    assert code == 1  # for the login that is missing


@pytest.mark.parametrize(
    ("there", "mend"), [(True, "sudo chown -R 12345 {}"), (False, "sudo install -d -m 700 -o 12345 {}")]
)
def test_a_state_dir_of_another_user_is_told_with_the_command_that_makes_it_ours(
    public, as_nobody, there, mend
):
    state = public / "state"
    if there:
        state.mkdir(mode=0o700)
    as_nobody()
    exc = obstacles.tried(state)
    told = obstacles.trouble(state, exc, setting="state_dir")
    above = state if there else public
    assert told.problem.startswith(f"{above} is not writable for uid 12345; {above} belongs to uid 0")
    assert told.mend.startswith(mend.format(state))
    if there:
        assert obstacles.foreseen(state).errno == errno.EACCES
    assert obstacles.foreign(state) is None


def test_a_directory_that_can_be_used_is_left_as_it_was(tmp_path):
    before = tmp_path.stat().st_mode
    assert obstacles.tried(tmp_path) is None
    assert obstacles.foreseen(tmp_path) is None
    assert (names(tmp_path), tmp_path.stat().st_mode) == ([], before)
    assert obstacles.tried(tmp_path / "state") is None
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_one_cause_is_told_once_and_another_one_besides(tmp_path):
    (tmp_path / "file").touch()
    inside, deeper, elsewhere = tmp_path / "file" / "a", tmp_path / "file" / "a" / "b", Path("/proc/none")
    found = obstacles.unusable({inside: "state_dir", deeper: "state_dir", elsewhere: "credentials of x"})
    assert len(found) == 2
    assert str(inside) in found[0].problem
    assert "credentials of x" in found[1].mend


async def test_a_reload_looks_again(tmp_path, disk):
    nothing_open = {"usage": {"enabled": False}}
    async with running(tmp_path, providers=[], settings=nothing_open) as gateway:
        assert disk("ro")
        gateway.program.send_signal(signal.SIGHUP)
        await eventually(lambda: "directory.unusable" in gateway.log.read_text(), what="it is told")
        assert disk("rw")
