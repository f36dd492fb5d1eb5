"""A configuration that cannot be used changes nothing, and what needs a restart is told."""

import asyncio
import os
from pathlib import Path

import pytest
from fakes.renewing import claude_file
from whole import ACCESS, ALICE, BOB, CAROL, USERS, Whole, claude, request, whole

from ai_mux.providers.claude import Claude


def in_its_place(make):
    """Return what removes the configuration and makes something else of it."""

    def damage(mux: Whole) -> None:
        mux.path.unlink()
        make(mux.path)

    return damage


BROKEN = {
    "vanished": (in_its_place(lambda path: None), ["cannot be read"]),
    "empty": (in_its_place(Path.touch), ["is empty"]),
    "half": (lambda mux: mux.path.write_text("{"), [":1"]),
    "UTF-16": (lambda mux: mux.path.write_bytes(b"\xff\xfe{"), ["UTF-8"]),
    "a directory": (in_its_place(Path.mkdir), ["is a directory"]),
    "a pipe": (in_its_place(os.mkfifo), ["not a regular file"]),
    "a loop": (in_its_place(lambda path: path.symlink_to(path)), ["cannot be read"]),
    "three mistakes": (
        lambda mux: mux.configure(log_level="loud", max_connections=-1, shutdown="1s"),
        ["log_level", "max_connections", "shutdown: unknown key"],
    ),
    "no certificate": (
        lambda mux: mux.configure(tls={"enabled": True, "cert_path": "/no/c", "key_path": "/no/k"}),
        ["tls.cert_path", "tls.key_path"],
    ),
    "no token file": (
        lambda mux: mux.configure(users=[{"name": "bob", "token_file": str(mux.directory / "none")}]),
        ["users[0].token_file"],
    ),
    "no users": (lambda mux: mux.configure(users=None), ["users: none are left"]),
    "empty users": (lambda mux: mux.configure(users=[]), ["users"]),
}


@pytest.mark.parametrize(("damage", "said"), list(BROKEN.values()), ids=list(BROKEN))
async def test_a_bad_configuration_changes_nothing_and_each_problem_is_a_line(mux, origin, damage, said):
    await mux.start()
    running = mux.app.server.gateway
    damage(mux)
    await mux.reload()
    lines = await mux.events("config.not_reloaded")
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert (line["level"], words in line["problem"]) == ("error", True), line
        assert str(mux.path) in line["problem"]
    assert mux.app.server.gateway is running
    assert (await mux.ask()).status == 200
    if mux.path.is_dir():
        mux.path.rmdir()
    else:
        mux.path.unlink(missing_ok=True)
    mux.configure(providers=[claude(origin)], users=USERS[:1])
    await mux.reload()
    assert (await mux.ask(token=BOB)).status == 401
    assert not await mux.events("config.needs_restart")


async def test_a_configuration_that_is_wrong_at_the_very_end_changes_nothing_before_it(
    mux, origin, monkeypatch
):
    """The proxy of the environment is looked at last of all, and only then it may be wrong."""
    await mux.start()
    mux.configure(providers=[{"name": "claude", "base_url": "https://made-up.invalid"}], users=USERS[:1])
    monkeypatch.setenv("HTTPS_PROXY", "gopher://made-up")
    await mux.reload()
    (line,) = await mux.events("config.not_reloaded")
    assert "HTTPS_PROXY" in line["problem"]
    assert [(await mux.ask(token=token)).status for token in (ALICE, BOB)] == [200, 200]


async def test_a_bad_configuration_does_not_keep_credentials_from_being_read_again(mux, origin):
    await mux.start()
    mux.path.write_text("{")
    claude_file(
        mux.state / "claude" / ".credentials.json", access="Nc0jPs5Dy1Ft7hGu3Za", refresh=None, ends=None
    )
    await mux.reload()
    await mux.logged("credential.read", times=2)
    assert (await mux.ask()).status == 200
    assert origin.asked[-1].get(b"authorization") == b"Bearer Nc0jPs5Dy1Ft7hGu3Za"


class Faulty(Claude):
    """Claude, with a fault that can be switched on."""

    fault = False

    def backend(self, *, api_key):
        if self.fault:
            raise RuntimeError(CAROL)
        return super().backend(api_key=api_key)


async def test_a_bug_costs_one_reload_and_tells_nothing(tmp_path, origin):
    faulty = Faulty()
    async with whole(tmp_path, origins=[origin], providers={"claude": faulty}) as mux:
        mux.secrets += [CAROL]
        claude_file(mux.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        mux.configure(providers=[claude(origin)])
        await mux.start()
        mux.configure(providers=[claude(origin)], users=USERS[:1])
        faulty.fault = True
        await mux.reload()
        (line,) = await mux.events("config.not_reloaded")
        assert "RuntimeError" in line["problem"]
        assert (await mux.ask(token=BOB)).status == 200
        faulty.fault = False
        await mux.reload()
        assert (await mux.ask(token=BOB)).status == 401


async def test_what_needs_a_restart_is_told_and_the_rest_is_taken_over(mux, origin):
    await mux.start()
    other = mux.directory / "elsewhere"
    for _ in range(2):  # told again: it is still so
        mux.configure(providers=[claude(origin)], users=USERS[:1], listen="127.0.0.1:1", state_dir=str(other))
        await mux.reload()
    lines = await mux.events("config.needs_restart")
    assert [line["keys"] for line in lines] == [["listen", "state_dir"]] * 2
    assert lines[0]["level"] == "warn"
    assert [(await mux.ask(token=token)).status for token in (ALICE, BOB)] == [200, 401]
    assert not other.exists()
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert len(await mux.events("config.needs_restart")) == 2


async def test_the_socket_of_the_start_is_served_and_removed_whatever_listen_says_now(mux, origin):
    first, other = mux.directory / "first.sock", mux.directory / "other.sock"
    mux.configure(providers=[claude(origin)], listen=f"unix:{first}")
    await mux.start()
    other.touch()
    mux.configure(providers=[claude(origin)], listen=f"unix:{other}")
    await mux.reload()
    reader, writer = await asyncio.open_unix_connection(first)
    writer.write(request("POST /claude/v1/messages"))
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    await mux.app.stop()
    assert (first.exists(), other.exists()) == (False, True)


async def test_a_server_without_users_may_stay_so(mux, origin):
    mux.configure(providers=[claude(origin)], users=None)
    await mux.start()
    mux.configure(providers=[claude(origin)], users=None, max_body_size=1)
    await mux.reload()
    assert (await mux.ask()).status == 413
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert (await mux.ask(token=CAROL)).status == 401
