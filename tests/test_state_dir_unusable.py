"""A state_dir that cannot keep what is written into it: said at start and by ``check``, with what mends it.

Each is a real file system, and a real process. That the server serves all the same is part of
it: a token that lives can be used where it could not be saved.
"""

import ctypes.util
import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from clients.gateway_process import running, verb
from documents import ROOT
from engine.wires import eventually
from fakes.machine import names, run
from fakes.records import Records
from fakes.renewing import Rig, claude_file
from fakes.token_endpoint import TokenEndpoint

from ai_mux.errors import StoreError
from ai_mux.storage import obstacles
from ai_mux.storage.files import FileStore
from ai_mux.storage.refusals import mending_command

REFERENCE = "docs/reference/command-line.md"
SECCOMP = ctypes.util.find_library("seccomp")
# Answers every call of flock, or every lock of lockf, with an error, and then becomes a program.
# SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(…); fcntl's second argument SCMP_CMP_EQ (4) F_SETLK.
NO_LOCKS = """
import ctypes, fcntl, os, sys
seccomp = ctypes.CDLL(sys.argv[1])
seccomp.seccomp_init.restype = ctypes.c_void_p
rules = ctypes.c_void_p(seccomp.seccomp_init(0x7FFF0000))
class Argument(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
name = sys.argv[3].encode()
call = seccomp.seccomp_syscall_resolve_name(name)
compared = [Argument(1, 4, fcntl.F_SETLK, 0)] if name == b"fcntl" else []
several = (Argument * 1)(*compared)
answer = 0x00050000 | int(sys.argv[2])
assert seccomp.seccomp_rule_add_array(rules, answer, call, len(compared), several) == 0
assert seccomp.seccomp_load(rules) == 0
os.execv(sys.argv[4], sys.argv[4:])
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
    above = Path(tempfile.mkdtemp())
    above.chmod(0o755)
    made = above / "public"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(above)


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
    return [line for line in read(directory) if line["event"] == event]


def read(directory):
    """Return the lines of the log."""
    return [json.loads(line) for line in (directory / "gateway.log").read_text().splitlines()]


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
    assert list(found) == ["state_dir"]  # one cause, and nothing else to mend
    assert found["state_dir"][0].startswith(line["problem"])
    assert found["state_dir"][1] == line["mend"]
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
    assert set(found) == {"state_dir", "claude"}
    assert "does not exist" in found["claude"][0]
    assert found["state_dir"][0].startswith(line["problem"])
    assert found["state_dir"][1] == line["mend"]
    assert names(state) == ["ballast"] or names(state) == ["ballast", "claude"]


@pytest.mark.parametrize("options", ["ro", "size=4k"])
async def test_the_ledger_tells_of_its_directory_in_the_same_words(tmp_path, disk, options):
    state = tmp_path / "state"
    if options != "ro":
        (state / "ballast").write_bytes(bytes(4096))
    assert disk(options)
    (directory,) = await told_at_start(tmp_path)
    (line,) = [one for one in read(tmp_path) if one["event"] == "ledger.failing"]
    same = f"{directory['problem']}; {directory['mend']}"
    assert line["problem"] == f"cannot write {state}/usage.sqlite: {same}"


async def test_a_credential_with_a_disk_of_its_own_is_told_of_besides(tmp_path, disk):
    claude_file(tmp_path / "state" / "c.json", ends=None)
    assert disk("ro")
    (tmp_path / "books").mkdir(mode=0o700)
    config = {
        "state_dir": str(tmp_path / "books"),
        "providers": [{"name": "claude", "credentials": str(tmp_path / "state" / "c.json")}],
    }
    (tmp_path / "config.json").touch(0o600)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = await told_by_check(tmp_path)
    assert list(found) == ["claude"]
    assert "is read-only; a renewed token could not be saved" in found["claude"][0]
    assert "or set credentials of claude to another place" in found["claude"][1]


async def test_all_that_a_finding_can_be_about_is_documented(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 12345, -1)
    admin, audit = {"listen": "127.0.0.1:0"}, str(tmp_path / "audit.jsonl")
    config = {"state_dir": str(tmp_path / "state"), "providers": ["claude"], "admin": admin, "audit": audit}
    (tmp_path / "config.json").touch(0o600)
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, text = await verb(tmp_path, "check", "--json")
    found = {one["about"] for one in json.loads(text)["findings"]} - {"claude"}
    (row,) = re.findall(r"^\| `findings\[\].about` .*$", (ROOT / REFERENCE).read_text(), re.M)
    documented = re.findall("`([a-z_]+)`|(a provider's name)", row.split("|")[3])
    assert {one for one, _ in documented if one} == found
    assert any(name for _, name in documented)


async def test_a_disk_without_a_free_inode_is_told_at_start_and_by_check(tmp_path, disk):
    state = tmp_path / "state"
    (state / "claude").mkdir()
    assert disk("nr_inodes=3")
    (state / "last").touch()
    (line,) = await told_at_start(tmp_path, usage={"enabled": False})
    assert "df -i" in line["mend"]
    assert "full" in (await told_by_check(tmp_path))["state_dir"][0]


@pytest.mark.skipif(SECCOMP is None, reason="needs libseccomp")
@pytest.mark.parametrize(
    ("answer", "call"),
    [(errno.ENOLCK, "flock"), (errno.EOPNOTSUPP, "flock"), (errno.ENOSYS, "flock"), (errno.ENOLCK, "fcntl")],
)
async def test_a_file_system_without_locks_is_told_at_start_and_by_check(tmp_path, monkeypatch, answer, call):
    program = tmp_path / "python-without-locks"
    launcher = [sys.executable, "-c", NO_LOCKS, SECCOMP, str(answer), call, sys.executable]
    quoted = " ".join("'" + one.replace("'", "'\\''") + "'" for one in launcher)
    program.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=None)
    (line,) = await told_at_start(tmp_path)
    assert line["problem"].startswith(f"the file system of {tmp_path}/state has no locks")
    assert line["mend"].startswith("set state_dir to another place, on a local file system")
    found = await told_by_check(tmp_path)
    assert [about for about, (text, _) in found.items() if "has no locks" in text] == ["state_dir"]


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


@pytest.mark.parametrize("directory", ["/", "/var", "/var/lib", "/home/somebody"])
def test_a_directory_of_many_is_never_given_away_whole(as_nobody, directory):
    as_nobody()
    told = obstacles.trouble(Path(directory), PermissionError(errno.EACCES, ""), setting="state_dir")
    assert "chown" not in told.mend
    assert told.mend.endswith("set state_dir to another place")


async def test_a_credential_behind_a_closed_directory_is_one_trouble_with_the_mend_of_the_directory(
    public, as_nobody
):
    state = public / "state"
    file = state / "claude" / ".credentials.json"
    claude_file(file, ends=None)
    state.chmod(0o700)
    store = FileStore(file, Records())
    assert await store.load()
    as_nobody()
    told = []
    for look in (store.load, store.version):
        with pytest.raises(StoreError) as refused:
            await look()
        told.append((refused.value.problem, refused.value.mend))
    problem = f"ai-mux runs as uid 12345, {state} belongs to uid 0 with mode 0700"
    mend = f"sudo chown -R 12345 {state}, or run ai-mux as the user whose it is"
    assert told == [(f"cannot read {file}: Permission denied; {problem}", mend)] * 2


async def test_what_the_log_says_mends_it_is_not_the_problem_once_more(public, as_nobody):
    async with TokenEndpoint("refresh-0") as endpoint:
        rig = Rig(public, endpoint)
        rig.file(left_s=7200)
        public.chmod(0o700)
        await rig.renewer().check()
        renewer = rig.renewer()
        as_nobody()
        for _ in range(3):
            await renewer.check()
    (line,) = [one for one in rig.log.lines if one[1] == "credential.broken"]
    assert line[2]["mend"] == f"sudo chown -R 12345 {public}, or run ai-mux as the user whose it is"
    assert "sudo" not in line[2]["problem"]
    assert "sudo" in renewer.state().problem  # which is all that `status` shows


@pytest.mark.parametrize("there", [True, False])
def test_a_command_names_only_what_is_there(public, as_nobody, there):
    file = public / "c.json"
    if there:
        file.touch(0o600)
    as_nobody()
    command = f"sudo chown 12345 {public}"
    assert mending_command(file).startswith(f"{command} {file} && " if there else f"{command} && ")
    assert (f"chmod 600 {file}" in mending_command(file)) is there


def test_a_directory_of_ours_that_we_may_not_write_is_not_given_to_us_once_more(public, as_nobody):
    os.chown(public, 12345, -1)
    public.chmod(0o500)
    as_nobody()
    told = obstacles.trouble(public, obstacles.tried(public), setting="state_dir")
    assert told.mend.startswith(f"sudo chmod 700 {public}, or ")


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
