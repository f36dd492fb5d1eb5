"""The credential's file and the renewer: what changes under us, what cannot be saved, and how it all ends."""

import asyncio
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.machine import names, run
from fakes.renewing import Rig, claude_file, tokens_of, write
from fakes.token_endpoint import TokenEndpoint, send

from ai_mux.credentials.standing import State
from ai_mux.errors import Unavailable
from ai_mux.storage import files

BLANKED = json.dumps({"claudeAiOauth": {"accessToken": "", "refreshToken": "", "expiresAt": 0}, "other": 1})


@pytest.fixture
async def endpoint():
    async with TokenEndpoint("refresh-0") as running:
        yield running


@pytest.fixture
def rig(tmp_path, endpoint):
    return Rig(tmp_path, endpoint)


@pytest.fixture
async def open_directory(endpoint):
    """A directory that other users can enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as directory:  # import now what another user may not read
        warm = Rig(Path(directory), endpoint)
        warm.file(left_s=7200)
        await warm.renewer().check()
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@contextmanager
def another_user(uid):
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


async def eventually(condition, within_s=20.0):
    """Wait, by the naps that the loop takes: while a busy machine stands still, none of them ends."""
    for _ in range(round(within_s / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in time")


def usable(renewer):
    try:
        return renewer.fresh() is not None
    except Unavailable:
        return False


class FailingOs:
    """The operating system, but for one call that fails as often as it is told."""

    def __init__(self, call, error, *, after=0, times=10**6):
        self._call, self._error, self._after, self._times = call, error, after, times

    def __getattr__(self, name):
        real = getattr(os, name)
        if name != self._call:
            return real

        def failing(*args, **kwargs):
            if self._after > 0:
                self._after -= 1
            elif self._times > 0:
                self._times -= 1
                raise OSError(self._error, os.strerror(self._error))
            return real(*args, **kwargs)

        return failing


# Missing, broken, mended


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (None, State.MISSING),
        ("", State.BROKEN),
        ("{", State.BROKEN),
        ("[]", State.BROKEN),
        ('{"claudeAiOauth": 5}', State.BROKEN),
        ('{"claudeAiOauth": {"accessToken": "two words", "refreshToken": "r"}}', State.BROKEN),
        ('{"claudeAiOauth": {"accessToken": 5}}', State.BROKEN),
        (" " * (1 << 20) + "{}", State.BROKEN),
        ("[" * 100_000, State.BROKEN),
        ("{}", State.BLANK),
        (BLANKED, State.BLANK),
    ],
)
async def test_a_missing_or_broken_file_is_a_503_and_back_once_mended(rig, content, state):
    if content is not None:
        write(rig.path, content)
    renewer = rig.renewer()
    with pytest.raises(Unavailable) as caught:
        await renewer.renewed()
    assert not caught.value.retry
    assert renewer.state().state is state
    assert len(rig.log.events("error")) == 1
    await renewer.check()
    assert len(rig.log.events("error")) == 1  # once for each change, not per look
    rig.file(left_s=7200)
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-0"
    assert rig.endpoint.requests == []


async def test_a_mended_file_is_back_within_2_seconds(rig):
    renewer = rig.renewer()
    running = asyncio.create_task(renewer.run())
    await eventually(lambda: renewer.state().state is State.MISSING)
    rig.file(left_s=7200)
    await eventually(lambda: usable(renewer), within_s=2)
    rig.path.unlink()
    await eventually(lambda: renewer.state().state is State.MISSING, within_s=2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await renewer.finish()


async def test_running_renews_at_start_and_survives_being_cancelled_while_renewing(rig):
    rig.file(left_s=200)
    rig.endpoint.gate.clear()
    renewer = rig.renewer()
    running = asyncio.create_task(renewer.run())
    await rig.endpoint.arrived.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    finishing = asyncio.create_task(renewer.finish())
    await asyncio.sleep(0)
    rig.endpoint.gate.set()
    await finishing
    assert tokens_of(rig.path) == ("access-1", "refresh-1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_field_note_22_an_unreadable_file_is_refused_with_uid_mode_and_command(
    endpoint, open_directory
):
    rig = Rig(open_directory, endpoint)
    rig.file(left_s=7200)
    rig.path.parent.chmod(0o755)
    renewer = rig.renewer()
    with another_user(12345):
        await renewer.check()
    problem = renewer.state().problem
    assert "ai-mux runs as uid 12345" in problem
    assert f"{rig.path} belongs to uid 0 with mode 0600" in problem
    assert f"sudo chown 12345 {rig.path.parent} {rig.path}" in problem
    rig.path.chmod(0o644)
    with another_user(12345):
        await renewer.check()  # mended, although neither time nor size changed
    assert renewer.fresh().access.reveal() == "access-0"


# Changes under us


async def test_field_note_3_a_changed_file_is_adopted_even_while_ours_is_fresh(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    await renewer.check()
    rig.file(left_s=3600, access="access-theirs", refresh="refresh-theirs")
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-theirs"


async def test_an_edited_expiry_is_believed(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    await renewer.check()
    rig.file(left_s=-10)
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-1"


@pytest.mark.parametrize("content", ["", '{"claudeAiOauth": {"accessToken": "hal', "[]"])
async def test_a_truncated_file_does_not_stop_what_is_in_memory_and_is_never_written_over(rig, content):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    await renewer.check()
    write(rig.path, content)
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-0"
    assert "credential.broken" in rig.log.events("error")
    rig.clock.pass_s(7190)
    assert (await renewer.renewed()).access.reveal() == "access-1"
    assert rig.path.read_text() == content
    rig.clock.pass_s(28790)
    assert (await renewer.renewed()).access.reveal() == "access-2"
    assert rig.path.read_text() == content
    rig.file(left_s=-5)  # somebody restores the old file: its token is spent, ours is the better one
    await renewer.check()
    assert tokens_of(rig.path) == ("access-2", "refresh-2")
    await renewer.finish()


async def test_a_blanked_file_is_written_over_while_memory_holds_a_live_token(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    await renewer.check()
    write(rig.path, BLANKED)
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-0"
    assert tokens_of(rig.path) == ("access-0", "refresh-0")
    assert json.loads(rig.path.read_text())["other"] == 1
    assert "credential.blanked" in rig.log.events("error")
    assert renewer.state().problem is None


async def test_a_blanked_file_is_the_end_when_memory_holds_nothing_alive(rig):
    rig.file(left_s=-5)
    rig.endpoint.valid = None
    renewer = rig.renewer()
    with pytest.raises(Unavailable):
        await renewer.renewed()
    write(rig.path, BLANKED)
    await renewer.check()
    assert renewer.state().state is State.BLANK
    assert rig.path.read_text() == BLANKED


async def test_deleting_the_file_revokes_at_once_and_it_is_not_recreated(rig):
    rig.file(left_s=100)
    renewer = rig.renewer()
    await renewer.check()
    rig.path.unlink()
    await renewer.check()
    with pytest.raises(Unavailable):
        renewer.fresh()
    rig.clock.pass_s(7200)
    with pytest.raises(Unavailable):
        await renewer.renewed()
    assert not rig.path.exists()


async def test_a_renewal_already_sent_is_saved_although_the_file_was_deleted_meanwhile(rig):
    rig.file(left_s=-5)
    rig.endpoint.gate.clear()
    renewer = rig.renewer()
    waiting = asyncio.create_task(renewer.renewed())
    await rig.endpoint.arrived.wait()
    rig.path.unlink()
    rig.endpoint.gate.set()
    assert (await waiting).access.reveal() == "access-1"
    assert tokens_of(rig.path) == ("access-1", "refresh-1")
    assert json.loads(rig.path.read_text())["mcpOAuth"] == {"kept": 0.1}


async def test_a_login_that_appears_while_we_renew_wins(rig):
    rig.file(left_s=-5)
    rig.endpoint.gate.clear()
    renewer = rig.renewer()
    waiting = asyncio.create_task(renewer.renewed())
    await rig.endpoint.arrived.wait()
    rig.file(left_s=7200, access="access-theirs", refresh="refresh-theirs")
    rig.endpoint.gate.set()
    assert (await waiting).access.reveal() == "access-theirs"
    assert tokens_of(rig.path) == ("access-theirs", "refresh-theirs")


async def codex_login_being_renewed(tmp_path, endpoint):
    """Return a rig, and who waits for a renewal that the endpoint holds."""
    rig = Rig(tmp_path, endpoint, chatgpt=True)
    tokens = {"access_token": "access-0", "refresh_token": "refresh-0", "expires_at": rig.clock.wall - 5}
    write(rig.path, json.dumps({"tokens": tokens}))
    endpoint.gate.clear()
    renewer = rig.renewer()
    waiting = asyncio.create_task(renewer.renewed())
    await endpoint.arrived.wait()
    return rig, waiting


async def test_a_switch_to_an_api_key_while_we_renew_stands_and_loses_no_token(tmp_path, endpoint):
    rig, waiting = await codex_login_being_renewed(tmp_path, endpoint)
    write(rig.path, json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-made-up", "tokens": None}))
    endpoint.gate.set()
    served = await waiting
    assert (served.api_key, served.access.reveal()) == (True, "sk-made-up")
    whole = json.loads(rig.path.read_text())
    assert (whole["auth_mode"], whole["tokens"]["refresh_token"]) == ("apikey", "refresh-1")


async def test_an_api_key_alone_that_is_put_there_while_we_renew_stays_alone(tmp_path, endpoint):
    rig, waiting = await codex_login_being_renewed(tmp_path, endpoint)
    document = json.dumps({"OPENAI_API_KEY": "sk-made-up"})
    write(rig.path, document)
    endpoint.gate.set()
    credential = await waiting
    assert (credential.api_key, credential.access.reveal()) == (True, "sk-made-up")
    assert rig.path.read_text() == document


async def test_a_long_lived_token_that_is_put_there_while_we_renew_wins(rig):
    rig.file(left_s=-5)
    rig.endpoint.gate.clear()
    renewer = rig.renewer()
    waiting = asyncio.create_task(renewer.renewed())
    await rig.endpoint.arrived.wait()
    rig.file(left_s=None, access="long-lived", refresh="")
    document = rig.path.read_text()
    rig.endpoint.gate.set()
    assert (await waiting).access.reveal() == "long-lived"
    assert rig.path.read_text() == document


async def test_other_keys_that_change_while_we_renew_are_kept(rig):
    rig.file(left_s=-5)
    rig.endpoint.gate.clear()
    renewer = rig.renewer()
    waiting = asyncio.create_task(renewer.renewed())
    await rig.endpoint.arrived.wait()
    write(rig.path, rig.path.read_text()[:-1] + ', "new": [1.50]}')
    rig.endpoint.gate.set()
    await waiting
    assert tokens_of(rig.path) == ("access-1", "refresh-1")
    assert rig.path.read_text().endswith('"new": [1.50]}')


# What cannot be saved


@pytest.mark.parametrize(
    ("call", "after", "error", "hint"),
    [
        ("open", 3, errno.EACCES, "uid"),  # after three times of reading
        ("write", 0, errno.ENOSPC, "space"),
        ("fsync", 0, errno.EIO, "uid"),
        ("rename", 0, errno.EBUSY, "mount the directory"),
        ("rename", 0, errno.EROFS, "read-only"),
    ],
)
async def test_nothing_is_spent_when_saving_would_not_work(rig, monkeypatch, call, after, error, hint):
    rig.file(left_s=59)
    renewer = rig.renewer()
    monkeypatch.setattr(files, "os", FailingOs(call, error, after=after))
    assert (await renewer.renewed()).access.reveal() == "access-0"  # while it lives
    rig.clock.pass_s(60)
    with pytest.raises(Unavailable) as caught:
        await renewer.renewed()
    assert caught.value.retry
    assert rig.endpoint.requests == []
    assert hint in str(rig.log.lines)
    monkeypatch.setattr(files, "os", os)
    rig.clock.pass_s(60)
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-1"


# write: rehearsal, reservation, the token. fsync: those, and the directory after the rehearsal and the token.
@pytest.mark.parametrize(
    ("call", "after"), [("write", 2), ("fsync", 3), ("fsync", 4), ("rename", 1), ("ftruncate", 2)]
)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_field_note_2_a_token_that_cannot_be_saved_is_used_from_memory_until_it_is(
    rig, monkeypatch, call, after, error
):
    rig.file(left_s=-5)
    renewer = rig.renewer()
    monkeypatch.setattr(files, "os", FailingOs(call, error, after=after))
    assert (await renewer.renewed()).access.reveal() == "access-1"
    assert "credential.not_saved" in rig.log.events("error")
    assert "memory" in renewer.state().problem
    for _ in range(3):
        rig.clock.pass_s(61)
        await renewer.check()
        assert renewer.fresh().access.reveal() == "access-1"
    locking = asyncio.create_task(files.FileStore(rig.path, rig.log).lock())
    await asyncio.wait({locking}, timeout=0.1)
    assert not locking.done()  # no other process may spend the token that is on disk
    locking.cancel()
    await asyncio.gather(locking, return_exceptions=True)
    monkeypatch.setattr(files, "os", os)
    await renewer.check()
    assert tokens_of(rig.path) == ("access-1", "refresh-1")
    assert renewer.state().problem is None
    assert rig.endpoint.spent == ["refresh-0"]
    assert names(rig.path.parent) == [".ai-mux.lock", ".credentials.json"]
    after_us = rig.renewer()  # the lock is free again
    assert (await after_us.renewed()).access.reveal() == "access-1"


async def test_the_end_waits_until_the_token_is_saved(rig, monkeypatch):
    rig.file(left_s=-5)
    renewer = rig.renewer()
    monkeypatch.setattr(files, "os", FailingOs("rename", errno.EIO, after=1, times=2))
    await renewer.renewed()
    assert tokens_of(rig.path) == ("access-0", "refresh-0")
    await renewer.finish()
    assert tokens_of(rig.path) == ("access-1", "refresh-1")


async def test_the_end_does_not_wait_for_a_renewal_that_has_not_begun(rig):
    rig.file(left_s=-5)
    blocker = files.FileStore(rig.path, rig.log)
    await blocker.lock()
    renewer = rig.renewer()
    waiting = asyncio.create_task(renewer.renewed())
    await eventually(lambda: renewer._waits_for_lock)
    await asyncio.wait_for(renewer.finish(), 5)
    with pytest.raises(Unavailable) as caught:
        await waiting
    assert caught.value.retry
    await blocker.unlock()
    assert rig.endpoint.requests == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with a few blocks."""
    where = tmp_path / "disk"
    where.mkdir()
    if not run("mount", "-t", "tmpfs", "-o", "size=64k", "none", where):
        pytest.skip("a small file system can only be mounted by root")
    yield where
    assert run("umount", "-l", where)


def fill(where: Path) -> Path:
    ballast = where / "ballast"
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as exc:
            assert exc.errno == errno.ENOSPC
    return ballast


async def test_a_full_disk_spends_nothing_and_one_that_fills_up_meanwhile_loses_nothing(small_disk, endpoint):
    rig = Rig(small_disk, endpoint)
    rig.file(left_s=-5)
    ballast = fill(small_disk)
    renewer = rig.renewer()
    with pytest.raises(Unavailable):
        await renewer.renewed()
    assert endpoint.requests == []
    assert "space" in renewer.state().problem
    ballast.unlink()
    rig.clock.pass_s(60)

    def fill_and_answer(there, writer, body):
        fill(small_disk)
        send(writer, *there.exchange(body))

    endpoint.script = [fill_and_answer]
    assert (await renewer.renewed()).access.reveal() == "access-1"
    assert tokens_of(rig.path) == ("access-1", "refresh-1")


async def test_a_file_that_is_a_mount_of_its_own_is_refused_before_anything_is_spent(tmp_path, endpoint):
    rig = Rig(tmp_path, endpoint)
    rig.file(left_s=-5)
    outside = tmp_path / "outside.json"
    shutil.move(rig.path, outside)
    rig.path.touch(mode=0o600)
    if not run("mount", "--bind", outside, rig.path):
        pytest.skip("only root can mount")
    try:
        renewer = rig.renewer()
        with pytest.raises(Unavailable):
            await renewer.renewed()
        assert "mount the directory" in renewer.state().problem
        assert endpoint.requests == []
    finally:
        assert run("umount", "-l", rig.path)


# A crash at each step

# First the rehearsal, then the reserved space, then the token. A save syncs the file, then the directory.
BEFORE_SPENDING = [("write", 1), ("fsync", 1), ("rename", 1), ("fsync", 2), ("write", 2), ("fsync", 3)]
AFTER_SPENDING = [("write", 3), ("fsync", 4), ("rename", 2), ("fsync", 5)]


@pytest.mark.parametrize(
    ("call", "at"),
    [*BEFORE_SPENDING, *AFTER_SPENDING],
)
async def test_a_crash_at_any_step_leaves_a_whole_file_that_the_next_start_can_use(rig, call, at):
    rig.clock.wall = time.time()
    rig.file(left_s=-5)
    child = Path(__file__).parent / "fakes" / "renewing_process.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, child, rig.path, rig.endpoint.url, call, str(at),
        env={**os.environ, "PYTHONPATH": str(child.parent.parent)},
    )  # fmt: skip
    assert await process.wait() == 9
    before = tokens_of(rig.path)
    assert before in {("access-0", "refresh-0"), ("access-1", "refresh-1")}
    if rig.endpoint.spent:
        # Killed between the provider's answer and the rename: the one window that nothing can close.
        assert (call, at) in AFTER_SPENDING
    if rig.endpoint.valid == before[1]:
        renewer = rig.renewer()
        assert (await renewer.renewed()).access.reveal() == "access-1"
        assert tokens_of(rig.path) == ("access-1", "refresh-1")
        if before == ("access-0", "refresh-0"):
            assert names(rig.path.parent) == [".ai-mux.lock", ".credentials.json"]
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600


async def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(tmp_path, endpoint):
    rig = Rig(tmp_path, endpoint)
    real = tmp_path / "elsewhere" / "real.json"
    claude_file(real, ends=rig.clock.wall - 5)
    rig.path.parent.mkdir()
    rig.path.symlink_to(real)
    await rig.renewer().renewed()
    assert rig.path.is_symlink()
    assert tokens_of(real) == ("access-1", "refresh-1")
    assert (real.parent / ".ai-mux.lock").exists()
