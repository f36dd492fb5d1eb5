"""A credential's file: reading, narrowing, locking, replacing; on a real file system."""

import asyncio
import fcntl
import os
import stat

import pytest
from fakes.machine import names, run
from fakes.records import Records

from ai_mux.errors import StoreError
from ai_mux.storage.files import MAX_BYTES, FileStore
from ai_mux.storage.locks import NAME, FileLock, last_renewal_ns


@pytest.fixture
def log():
    return Records()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "credentials.json"


@pytest.fixture
def store(path, log):
    return FileStore(path, log)


def make(path, content=b"{}", mode=0o600):
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def saved(store, content):
    await store.lock()
    try:
        return await store.save(lambda _: content)
    finally:
        await store.unlock()


async def test_what_is_not_there_is_none(store):
    assert await store.load() is None
    assert await store.version() is None


@pytest.mark.parametrize("open_to", [0o644, 0o640, 0o604, 0o666, 0o622])
async def test_a_file_that_others_can_read_is_narrowed_with_a_warning(store, path, log, open_to):
    make(path, mode=open_to)
    assert (await store.load()).document == b"{}"
    assert mode(path) == 0o600
    assert log.events("warning") == ["credential.narrowed"]
    await store.load()
    assert len(log.lines) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_a_file_that_cannot_be_narrowed_is_refused_with_the_command(tmp_path, log):
    inside = tmp_path / "inside"
    inside.mkdir()
    make(inside / "c.json", mode=0o644)
    if not run("mount", "--bind", inside, inside):
        pytest.skip("mounting is not allowed here")
    try:
        assert run("mount", "-o", "remount,bind,ro", inside)
        with pytest.raises(StoreError, match="chmod 600"):
            await FileStore(inside / "c.json", log).load()
    finally:
        assert run("umount", "-l", inside)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_somebody_else_s_file_is_left_to_its_owner_and_stays_theirs(store, path):
    make(path, mode=0o644)
    os.chown(path, 4321, 4321)
    await store.load()
    assert mode(path) == 0o644
    await saved(store, b"[1]")
    assert (path.stat().st_uid, mode(path)) == (4321, 0o600)


@pytest.mark.parametrize("kind", ["directory", "fifo", "huge", "loop"])
async def test_what_is_no_credential_file_is_refused_at_once(store, path, kind):
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        make(path, b" " * (MAX_BYTES + 1))
    with pytest.raises(StoreError, match=path.name):
        await asyncio.wait_for(store.load(), 5)


async def test_a_version_changes_with_the_file_and_ours_is_known(store, path):
    make(path, b"1")
    first = (await store.load()).version
    assert await store.version() == first
    make(path, b"22")
    assert await store.version() != first
    assert (await saved(store, b"333")).version == await store.version()


async def test_a_saved_file_is_private_and_leaves_nothing_beside_it(store, path, tmp_path):
    old = os.umask(0)
    try:
        await saved(store, b"{}")
    finally:
        os.umask(old)
    assert mode(path) == 0o600
    assert mode(tmp_path / NAME) == 0o600
    assert names(tmp_path) == [NAME, path.name]


async def test_the_lock_excludes_every_other_store_and_another_process(store, path, log):
    await store.lock()
    waiting = asyncio.create_task(FileStore(path, log).lock())
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    if run("flock", "--version"):
        assert not run("flock", "-n", path.parent / NAME, "true")
    await store.unlock()
    await asyncio.wait_for(waiting, 5)


async def test_a_wait_for_the_lock_can_be_cancelled_and_leaves_nothing_locked(store, path, log):
    other = FileStore(path, log)
    for _ in range(20):
        await store.lock()
        waiting = asyncio.create_task(other.lock())
        await asyncio.sleep(0)
        await store.unlock()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not waiting.cancelled():
            await other.unlock()
    await asyncio.wait_for(store.lock(), 5)


async def test_a_lock_file_that_somebody_deleted_is_not_a_second_lock(store, path, log, tmp_path):
    await store.lock()
    waiting = asyncio.create_task(FileStore(path, log).lock())
    (tmp_path / NAME).unlink()
    await asyncio.wait({waiting}, timeout=1)
    assert waiting.done()  # a new file is a new lock; what it may not do is hold the old one
    assert (tmp_path / NAME).exists()


def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_none(tmp_path, monkeypatch):
    real = fcntl.flock

    def deleted_first(fd, operation):
        (tmp_path / NAME).unlink()
        real(fd, operation)

    lock = FileLock()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", deleted_first)
        assert not lock.try_lock(tmp_path)
    assert lock.try_lock(tmp_path)
    assert not FileLock().try_lock(tmp_path)
    lock.unlock()


def test_a_new_lock_file_tells_of_no_renewal(tmp_path):
    lock = FileLock()
    assert lock.try_lock(tmp_path)
    assert last_renewal_ns(tmp_path) is None
    lock.note_renewal(5)
    assert last_renewal_ns(tmp_path) == 5
    lock.unlock()


async def test_only_what_a_save_wrote_counts_as_renewed(store, path):
    make(path)
    assert (await store.load()).renewed_at is None
    await store.lock()
    await store.prepare()  # which rehearses
    assert (await store.load()).renewed_at is None
    renewed = await store.save(lambda _: b"[]")
    await store.unlock()
    assert renewed.renewed_at == pytest.approx(path.stat().st_mtime)
    make(path, b"[2]")
    os.utime(path, (5, 5))
    assert (await store.load()).renewed_at is None


async def test_the_rehearsal_replaces_the_file_by_its_like_once(store, path):
    make(path, b'{"a": 1}')
    before = path.stat()
    await store.lock()
    await store.prepare()
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mtime_ns, after.st_mode, path.read_bytes()) == (
        before.st_mtime_ns,
        before.st_mode,
        b'{"a": 1}',
    )
    await store.prepare()
    assert path.stat().st_ino == after.st_ino
    await store.unlock()


async def test_space_is_reserved_in_a_private_file_and_given_back(store, path, tmp_path):
    make(path, b"x" * 1000)
    await store.lock()
    await store.prepare()
    [reserved] = set(tmp_path.iterdir()) - {path, tmp_path / NAME}
    assert (reserved.stat().st_size, mode(reserved)) == (1000 + 16384, 0o600)
    await store.unlock()
    assert names(tmp_path) == [NAME, path.name]


async def test_what_a_killed_process_left_is_swept_up(store, path, tmp_path):
    make(path)
    left = tmp_path / f".{path.name}.0123456789abcdef.ai-mux-tmp"
    left.write_bytes(b"half a token")
    await store.lock()
    await store.prepare()
    assert not left.exists()
    await store.unlock()


async def test_a_file_that_changes_before_the_rename_is_decided_about_again(store, path):
    make(path, b"1")
    seen = []

    def over(current):
        seen.append(current)
        if len(seen) < 3:
            make(path, b"%d" % (len(seen) + 1))
        return b"ours over " + current

    await store.lock()
    assert (await store.save(over)).document == b"ours over 3"
    await store.unlock()
    assert seen == [b"1", b"2", b"3"]


async def test_a_file_that_never_rests_is_an_error_and_not_an_endless_loop(store, path):
    def over(current):
        make(path, (current or b"") + b"x")
        return b"ours"

    await store.lock()
    with pytest.raises(StoreError, match="keeps changing"):
        await store.save(over)
    await store.unlock()


async def test_nothing_is_written_when_the_document_is_to_stay(store, path):
    make(path, b"theirs")
    before = path.stat()
    await store.lock()
    assert (await store.save(lambda _: None)).document == b"theirs"
    await store.unlock()
    assert path.stat() == before


async def test_a_cancelled_save_is_whole_before_its_caller_goes_on(store, path):
    await store.lock()
    saving = asyncio.create_task(store.save(lambda _: b"x" * 500_000))
    await asyncio.sleep(0)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    assert saving.cancelled()
    assert path.read_bytes() == b"x" * 500_000
    await store.unlock()


async def test_a_directory_that_vanished_is_made_again_for_a_token_that_has_no_other_place(tmp_path, log):
    deep = tmp_path / "gone" / "c.json"
    deep.parent.mkdir(mode=0o700)
    store = FileStore(deep, log)
    await store.lock()
    (deep.parent / NAME).unlink()
    deep.parent.rmdir()
    await store.save(lambda _: b"{}")
    await store.unlock()
    assert deep.read_bytes() == b"{}"
    assert mode(deep.parent) == 0o700
