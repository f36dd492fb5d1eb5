"""The file of an API key: what it may hold, how it comes and goes, and that it is only ever read."""

import asyncio
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import pytest
from fakes.machine import names, run
from fakes.records import Records
from hypothesis import given
from hypothesis import strategies as st
from whole import Origin, whole

from ai_mux.credentials.api_key import KeyIssuer
from ai_mux.errors import BrokenCredential, StoreError
from ai_mux.storage.files import FileStore
from ai_mux.storage.inspect import Level, inspect

KEY, OTHER = "sk-proj-Jh7Gc2Ns4Rb9Mw0Ye1", "sk-proj-Ua6Pk3Ez8Ox5Ci2Tq7"
LINE = "POST /chatgpt/v1/responses"


# What a file may hold


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        f"{KEY}\n",
        f"{KEY}\r\n",
        f"\ufeff{KEY}\r\n",
        f"  {KEY}\t\n\n",
        f"\n{KEY}\n",
    ],
)
def test_what_editors_put_around_a_key_is_not_part_of_it(content):
    found = KeyIssuer().read(content.encode())
    assert (found.access.reveal(), found.api_key, found.refresh, found.expires_at) == (KEY, True, None, None)


BROKEN = [
    (b"", "empty"),
    (b"\n", "empty"),
    (b" \r\n\t", "empty"),
    (b"\xef\xbb\xbf", "empty"),
    (f'"{KEY}"\n'.encode(), "quotes"),
    (f"'{KEY}".encode(), "quotes"),
    (f"{KEY}`\n".encode(), "quotes"),
    (f"{KEY}\n{OTHER}\n".encode(), "several lines"),
    (f"{KEY}\r{OTHER}".encode(), "several lines"),
    (f"# mine\n{KEY}\n".encode(), "several lines"),
    (f"OPENAI_API_KEY={KEY}\n".encode(), "alone"),
    (f"export OPENAI_API_KEY={KEY}\n".encode(), "alone"),
    (f"{KEY[:8]} {KEY[8:]}".encode(), "blanks"),
    (f"{KEY}\tmine".encode(), "blanks"),
    (f"{KEY}\x00".encode(), "characters"),
    (f"{KEY}\u2028".encode(), "characters"),
    (KEY.encode("utf-16"), "UTF-8"),
    (b"\xff\xfe\x00\x01\x02", "UTF-8"),
    (b"\x7fELF\x02\x01\x01\x00", "characters"),
    (KEY.replace("-", "\u2013").encode(), "characters"),
]


@pytest.mark.parametrize(("content", "problem"), BROKEN)
def test_what_cannot_be_a_key_is_told_without_being_quoted(content, problem):
    with pytest.raises(BrokenCredential, match=problem) as caught:
        KeyIssuer().read(content)
    assert KEY[8:] not in str(caught.value)
    assert OTHER[8:] not in str(caught.value)


@given(st.binary(max_size=40))
def test_any_file_is_one_key_that_can_be_sent_or_refused(content):
    try:
        key = KeyIssuer().read(content).access.reveal()
    except BrokenCredential:
        return
    assert key
    assert all("!" <= character <= "~" for character in key)
    assert key.encode() in content


# How it comes and goes


@pytest.fixture
async def provider():
    return Origin()


@pytest.fixture
async def mux(tmp_path, provider):
    """A whole ai-mux with one key's file, which is not there yet."""
    async with whole(tmp_path, origins=[provider]) as it:
        it.secrets += [KEY, OTHER]
        it.key = tmp_path / "secrets" / "key"
        it.configure(providers=[{"name": "chatgpt", "base_url": provider.url, "api_key_file": str(it.key)}])
        yield it


def put(path: Path, content: str | bytes = KEY, mode: int = 0o600) -> None:
    """Write a key's file as an editor does, in place."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


async def within_s(seconds, condition):
    """Wait by the naps that the loop takes: while a busy machine stands still, none of them ends."""
    for _ in range(round(seconds / 0.02)):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("too late")


async def test_a_key_that_appears_changes_and_vanishes_is_seen_within_two_seconds(mux, provider):
    await mux.start()
    first = await mux.ask(LINE)
    assert (first.status, first.get(b"x-should-retry")) == (503, b"false")
    assert b"has no API key on this server yet" in first.body

    async def served() -> bool:
        return (await mux.ask(LINE)).status == 200

    put(mux.key)
    await within_s(2, served)

    async def with_the_other() -> bool:
        await mux.ask(LINE)
        return OTHER.encode() in provider.raw

    put(mux.key, OTHER)
    await within_s(2, with_the_other)

    async def refused() -> bool:
        return (await mux.ask(LINE)).status == 503

    mux.key.unlink()
    await within_s(2, refused)
    assert not mux.key.exists()
    assert [line["event"] for line in await mux.events("credential.missing")] == ["credential.missing"] * 2


@pytest.mark.parametrize("content", [content for content, _ in BROKEN])
async def test_a_key_that_is_held_outlives_what_its_file_becomes(mux, provider, content):
    put(mux.key)
    await mux.start()
    assert (await mux.ask(LINE)).status == 200
    put(mux.key, content)
    await mux.reload()
    answer = await mux.ask(LINE)
    assert answer.status == 200
    assert provider.raw.count(KEY.encode()) == 2
    (line,) = await mux.logged("credential.broken")
    assert (line["level"], line["in_use"]) == ("error", True)
    assert str(mux.key) in line["mend"]


@pytest.mark.parametrize("content", [content for content, _ in BROKEN[::3]])
async def test_a_file_that_never_held_a_key_is_a_503_until_it_does(mux, provider, content):
    put(mux.key, content)
    await mux.start()
    answer = await mux.ask(LINE)
    assert (answer.status, answer.get(b"x-should-retry")) == (503, b"false")
    assert b"has an API key that this server cannot read" in answer.body
    assert not provider.asked
    put(mux.key)
    await mux.reload()
    assert (await mux.ask(LINE)).status == 200
    (line,) = await mux.events("credential.mended")
    assert line["file"] == str(mux.key)


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "huge", "dangling"])
async def test_what_is_no_file_at_all_is_a_503_and_holds_nobody_up(mux, provider, kind):
    await mux.start()
    mux.key.parent.mkdir()
    if kind == "directory":
        mux.key.mkdir()
    elif kind == "fifo":
        os.mkfifo(mux.key)
    elif kind == "huge":
        put(mux.key, "x" * (2 << 20))
    else:
        mux.key.symlink_to(mux.key if kind == "loop" else mux.key.with_name("nowhere"))
    await mux.reload()
    if kind != "dangling":
        await mux.logged("credential.broken")
    assert (await mux.ask(LINE)).status == 503
    if kind == "directory":
        mux.key.rmdir()
    else:
        mux.key.unlink()
    put(mux.key)
    await mux.reload()
    assert (await mux.ask(LINE)).status == 200


async def test_a_mounted_secret_is_followed_when_its_link_moves(mux, provider):
    """As Kubernetes swaps a Secret: a link to a link, and the inner one is replaced."""
    mux.key.parent.mkdir()
    for number, key in enumerate((KEY, OTHER)):
        put(mux.key.parent / str(number) / "key", key)
    data = mux.key.with_name("data")
    data.symlink_to("0")
    mux.key.symlink_to("data/key")
    await mux.start()
    assert (await mux.ask(LINE)).status == 200
    other = mux.key.with_name("data.new")
    other.symlink_to("1")
    other.rename(data)
    await mux.reload()
    assert (await mux.ask(LINE)).status == 200
    assert f"Bearer {OTHER}".encode() in provider.asked[-1].raw_head


# Only ever read


async def test_a_key_s_file_and_its_directory_are_never_written_or_locked(mux, provider):
    provider.answer = lambda _: b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    put(mux.key)
    before = mux.key.stat()
    await mux.start()
    for _ in range(3):
        assert (await mux.ask(LINE)).status == 503
        mux.clock.pass_s(3600)
        await mux.reload()
    await mux.app.stop()
    after = mux.key.stat()
    assert names(mux.key.parent) == ["key"]
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino, before.st_mtime_ns, before.st_ctime_ns,
    )  # fmt: skip


async def test_a_key_in_a_directory_of_its_own_needs_no_directory_made(mux):
    await mux.start()
    assert not mux.key.parent.exists()
    assert not (mux.state / "chatgpt").exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o604, 0o644, 0o606])
async def test_a_key_is_used_with_the_mode_it_has_and_a_warning_only_if_all_can_read_it(mux, mode):
    put(mux.key, mode=mode)
    await mux.start()
    assert (await mux.ask(LINE)).status == 200
    warned = [(line["level"], line["mode"]) for line in await mux.events("credential.open_to_others")]
    assert warned == ([("warn", f"{mode:04o}")] if mode & 0o007 else [])
    found = inspect(mux.key, KeyIssuer(), now=time.time(), is_ours=False).findings
    assert [finding.mend for finding in found if finding.level is Level.WARNING] == (
        [f"chmod o= {mux.key}"] if warned else []
    )
    assert stat.S_IMODE(mux.key.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_key_of_another_user_that_all_can_read_is_warned_of_too(mux):
    put(mux.key, mode=0o644)
    os.chown(mux.key, 4321, 4321)
    await mux.start()
    assert (await mux.ask(LINE)).status == 200
    (line,) = await mux.events("credential.open_to_others")
    assert (line["level"], line["file"]) == ("warn", str(mux.key))


async def test_a_key_on_a_read_only_mount_is_used_although_others_can_read_it(mux):
    put(mux.key, mode=0o644)
    if not run("mount", "--bind", mux.key.parent, mux.key.parent):
        pytest.skip("only root can mount")
    try:
        assert run("mount", "-o", "remount,bind,ro", mux.key.parent)
        await mux.start()
        assert (await mux.ask(LINE)).status == 200
        await mux.reload()
        (line,) = await mux.events("credential.open_to_others")
        assert line["level"] == "warn"
    finally:
        assert run("umount", "-l", mux.key.parent)


@pytest.fixture
def unreadable():
    """A key's file that this process may not open, where everybody may pass."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    put(directory / "key", mode=0o000)
    yield directory / "key"
    shutil.rmtree(directory)


async def test_a_key_that_we_may_not_read_is_told_with_what_mends_it(unreadable):
    """By its store: the whole program runs as one user, who in a test may be root."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(StoreError, match="read") as caught:
            await FileStore(unreadable, Records(), is_ours=False).load()
        assert str(unreadable) in str(caught.value)
    finally:
        if user == 0:
            os.seteuid(0)


async def test_neither_key_nor_piece_of_one_is_logged_or_answered(mux, provider):
    """At debug, with the provider's refusal quoting the key; what else is asserted when ``mux`` is closed."""
    provider.answer = lambda _: (
        b"HTTP/1.1 401 No\r\nx-echo: %b\r\nContent-Length: 26\r\n\r\n%b" % (KEY.encode(), KEY.encode())
    )
    put(mux.key)
    await mux.start()
    answer = await mux.ask(LINE)
    assert answer.status == 503
    assert KEY[8:17].encode() not in answer.raw_head + answer.body
    provider.answer = lambda _: b"HTTP/1.1 403 No\r\nContent-Length: 26\r\n\r\n" + KEY.encode()
    await mux.ask(LINE)
    (line,) = await mux.events("upstream.response")
    assert line["body"] == "[masked]"
    assert repr(mux.app._assembly.renewers).count(KEY[8:17]) == 0
