"""A whole ai-mux whose ledger cannot be written: requests notice nothing, and what memory holds stays."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest
from clients.gateway_process import TOKEN, running, verb
from engine.wires import Wire, eventually
from fakes.claude_answers import TOTAL, answer
from fakes.machine import names, run
from fakes.renewing import claude_file
from whole import ACCESS, Origin, claude, request, whole

MESSAGES = "POST /claude/v1/messages"
_RETRIED_S = 31  # the longest wait between two tries


@pytest.fixture
async def origin():
    return Origin(lambda _: answer())


@pytest.fixture
async def mux(tmp_path, origin):
    """A whole ai-mux with a limit, not yet started."""
    async with whole(tmp_path, origins=[origin]) as it:
        it.secrets.append(ACCESS)
        claude_file(it.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        it.configure(providers=[claude(origin)], limits={"requests": ["1000/hour"]})
        yield it


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own for the state, 1 MiB large; return what remounts it with other options."""
    state = tmp_path / "state"
    state.mkdir()
    if not run("mount", "-t", "tmpfs", "-o", "size=1m", "none", state):
        pytest.skip("a small file system can only be mounted by root")
    yield lambda options: run("mount", "-o", f"remount,{options}", state)
    assert run("umount", "-l", state)


async def ask(mux, times):
    """Ask some times over one connection, and see that each is answered."""
    wire = await Wire.to(mux.port)
    for _ in range(times):
        assert (await mux.ask_over(wire, MESSAGES)).status == 200
    wire.close()


async def kept(mux):
    """Return how many requests ``ai-mux usage`` tells of, once memory holds none any more."""
    await eventually(lambda: mux.app._books.ledger.queued == 0, what="all is written")
    return sum(group["requests"] for group in await mux.usage("user"))


async def has_tried(mux):
    """Wait until no try to write is under way or due: the next one begins when time passes."""
    ledger = mux.app._books.ledger
    await eventually(
        lambda: ledger._busy_since is None and ledger._writing._not_before > mux.clock.mono,
        what="it has tried",
    )


async def works_again(mux, rows):
    """Let the time of the next try come, and wait for what was kept in memory."""
    mux.clock.pass_s(_RETRIED_S)
    (line, *more) = await mux.logged("ledger.works")
    assert not more
    assert line["rows"] >= rows


async def test_a_ledger_that_is_locked_for_a_minute_delays_nobody_and_loses_nothing(mux):
    await mux.start()
    await ask(mux, 3)
    await eventually(lambda: mux.app._books.ledger.written == 3, what="they are written")
    with closing(sqlite3.connect(mux.state / "usage.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await ask(mux, 20)
        await mux.logged("ledger.failing")
        for _ in range(6):
            mux.clock.pass_s(10)
            await ask(mux, 5)
        page = await mux.ask("GET /usage")
        assert page.status == 200
        assert json.loads(page.body)["limits"][0]["used"] == 53  # limits count without it
        await has_tried(mux)  # else it may succeed with a try that began before the last requests
        other.execute("ROLLBACK")
    await works_again(mux, 50)
    assert await kept(mux) == 53
    assert [line["problem"] for line in await mux.events("ledger.failing")] == [
        f"cannot write {mux.state / 'usage.sqlite'}: another program holds it locked"
    ]


async def test_a_full_disk_delays_nobody_and_loses_nothing(small_disk, mux):
    await mux.start()
    await ask(mux, 3)
    await eventually(lambda: mux.app._books.ledger.written == 3, what="they are written")
    ballast = mux.state / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    await ask(mux, 300)
    assert "full" in (await mux.logged("ledger.failing"))[0]["problem"]
    ballast.unlink()
    await works_again(mux, 1)
    assert await kept(mux) == 303


async def test_a_state_dir_that_cannot_be_written_delays_nobody_and_is_written_when_it_can(small_disk, mux):
    assert small_disk("ro")
    await mux.start()
    await ask(mux, 20)
    page = json.loads((await mux.ask("GET /usage")).body)
    assert page["usage"] is None
    assert page["problem"]
    assert page["limits"][0]["used"] == 20
    (failing,) = await mux.logged("ledger.failing")
    assert str(mux.state) in failing["problem"]
    assert small_disk("rw")
    await works_again(mux, 20)
    assert await kept(mux) == 20


async def test_a_ledger_that_is_corrupt_is_moved_aside_with_an_error_and_a_new_one_begins(mux):
    file = mux.state / "usage.sqlite"
    file.write_bytes(b"no database at all, but a hundred bytes" * 100)
    await mux.start()
    await ask(mux, 5)
    (failing,) = await mux.logged("ledger.failing")
    (aside,) = [name for name in names(mux.state) if "corrupt" in name]
    assert aside in failing["problem"]
    assert (mux.state / aside).read_bytes() == b"no database at all, but a hundred bytes" * 100
    await works_again(mux, 0)
    await ask(mux, 2)
    assert await kept(mux) == 7


async def test_a_stop_while_the_ledger_is_locked_says_what_was_lost(mux, monkeypatch):
    monkeypatch.setattr("ai_mux.bookkeeping._LAST_ROWS_S", 0.1)
    await mux.start()
    await ask(mux, 1)
    await eventually(lambda: mux.app._books.ledger.written == 1, what="it is written")
    with closing(sqlite3.connect(mux.state / "usage.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await ask(mux, 4)
        await mux.app.stop()
        assert [line["rows"] for line in await mux.events("ledger.lost")] == [4]


async def test_after_sigkill_at_most_the_last_second_is_missing(tmp_path, origin):
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
    clock = asyncio.get_running_loop().time
    answered, at = [], 0.0
    async with running(tmp_path, providers=[claude(origin)]) as gateway:
        wire = await Wire.to(int(gateway.url.rpartition(":")[2]))
        while len(answered) < 50 or answered[-1] - answered[0] < 1.5:
            began = clock()
            await wire.send(request(MESSAGES, token=TOKEN))
            assert (await wire.message()).status == 200
            # While a busy machine stands still, so does the ledger.
            at += min(clock() - began, 0.05)
            answered.append(at)
        await gateway.kill()
        wire.close()
    code, printed = await verb(tmp_path, "usage", "--json", "--by", "user")
    assert code == 0, printed
    (alice,) = json.loads(printed)["groups"]
    old = sum(at - one >= 1 for one in answered)
    assert 0 < old <= alice["requests"] <= len(answered)
    assert alice["tokens"]["total"] == alice["requests"] * TOTAL
    # And what was kept is what a new start limits by.
    limits = {"requests": [f"{alice['requests']}/day"]}
    async with running(tmp_path, providers=[claude(origin)], settings={"limits": limits}) as gateway:
        wire = await Wire.to(int(gateway.url.rpartition(":")[2]))
        await wire.send(request(MESSAGES, token=TOKEN))
        refused = await wire.message()
        assert refused.status == 429
        assert 86_000 < int(refused.get(b"retry-after")) <= 86_400 + 1440
        wire.close()
    await origin.upstream.close()
