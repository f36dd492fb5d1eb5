"""Renewals across reloads: no token is lost, spent twice, or spent for who is gone."""

import asyncio
import json
from pathlib import Path

from engine.wires import eventually
from fakes.renewing import claude_file, tokens_of, write
from fakes.token_endpoint import TokenEndpoint
from whole import ACCESS, BOB, REFRESH, USERS, Whole, claude


def renewable(mux: Whole, *, left_s: float) -> Path:
    path = mux.state / "claude" / ".credentials.json"
    claude_file(path, access=ACCESS, refresh=REFRESH, ends=mux.clock.wall + left_s)
    return path


async def test_a_renewal_outlives_its_provider_s_removal_and_is_shared_when_it_comes_back(mux, origin):
    path = renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        one = claude(origin, token_url=endpoint.url)
        mux.configure(providers=[one])
        await mux.start()
        waiting = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        (renewer,) = mux.app._assembly.renewers.values()
        mux.configure(providers=[])
        await mux.reload()
        mux.configure(providers=[one])
        await mux.reload()
        assert list(mux.app._assembly.renewers.values()) == [renewer]
        again = asyncio.create_task(mux.ask())
        await eventually(lambda: mux.app.server.requests == 2, what="the second waits too")
        endpoint.gate.set()
        assert (await waiting).status == (await again).status == 200
        assert endpoint.spent == [REFRESH]
        assert tokens_of(path) == ("access-1", "refresh-1")


async def test_a_file_that_is_now_reached_by_a_link_is_still_renewed_once(mux, origin):
    """By another renewer, for a path counts as it is written; but behind the same lock."""
    path, link = renewable(mux, left_s=-5), mux.directory / "link.json"
    link.symlink_to(path)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        one = claude(origin, token_url=endpoint.url)
        mux.configure(providers=[one])
        await mux.start()
        waiting = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        mux.configure(providers=[{**one, "credentials": str(link)}])
        await mux.reload()
        again = asyncio.create_task(mux.ask())
        await eventually(lambda: mux.app.server.requests == 2, what="the second waits too")
        endpoint.gate.set()
        assert (await waiting).status == (await again).status == 200
        assert endpoint.spent == [REFRESH]
        assert tokens_of(path) == ("access-1", "refresh-1")


async def test_a_provider_that_was_taken_out_is_not_renewed_any_more(mux, origin):
    """Its turn would come once a second, as does that of a login which stays: two of those are enough."""
    path = renewable(mux, left_s=28800)
    tokens = {"access_token": "made-up", "refresh_token": "r-0", "expires_at": mux.clock.wall + 28800}
    write(mux.state / "chatgpt" / "auth.json", json.dumps({"tokens": tokens}))
    async with TokenEndpoint(REFRESH) as gone, TokenEndpoint("r-0") as staying:
        stays = {"name": "chatgpt", "token_url": staying.url}
        mux.configure(providers=[claude(origin, token_url=gone.url), stays])
        await mux.start()
        mux.configure(providers=[stays])
        await mux.reload()
        for times in (1, 2):
            mux.clock.pass_s(28800)
            await mux.logged("credential.renewed", times=times)  # its lifetime is counted from the answer on
        assert len(staying.spent) == 2
        await mux.app.stop()  # which would wait for a renewal
        assert not gone.requests
        assert tokens_of(path) == (ACCESS, REFRESH)


async def test_the_end_waits_for_the_renewal_of_a_provider_that_was_removed(mux, origin):
    path = renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)])
        await mux.start()
        asking = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        asking.cancel()
        mux.configure(providers=[])
        await mux.reload()
        stopping = asyncio.create_task(mux.app.stop())
        await mux.logged("stopping")
        endpoint.gate.set()
        await stopping
        assert tokens_of(path) == ("access-1", "refresh-1")


async def test_a_token_that_could_not_be_saved_is_saved_although_its_provider_is_gone(mux, origin):
    """The directory is away while the token comes: nobody asks for it any more, and it must not be lost."""
    path = renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)])
        await mux.start()
        asking = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        mux.configure(providers=[])
        await mux.reload()
        away = path.parent.rename(path.parent.with_name("away"))
        path.parent.touch()  # no directory can be made in its place
        endpoint.gate.set()
        await mux.logged("credential.not_saved")
        path.parent.unlink()
        away.rename(path.parent)
        mux.clock.pass_s(61)
        await eventually(lambda: tokens_of(path) == ("access-1", "refresh-1"), what="the token is saved")
        assert (await asking).status == 200


async def test_a_hanging_renewal_does_not_hold_up_the_next_configuration(mux, origin):
    renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)])
        await mux.start()
        await mux.reload()
        await endpoint.arrived.wait()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)], users=USERS[:1])
        await mux.reload()
        assert (await mux.ask(token=BOB)).status == 401
        endpoint.gate.set()
        assert (await mux.ask()).status == 200


async def test_another_token_url_and_interval_count_from_the_next_renewal_on(mux, origin):
    """A token of eight hours, and a look once a day: by the old interval it would end unseen."""
    renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as old, TokenEndpoint("refresh-1") as new:
        mux.configure(providers=[claude(origin, token_url=old.url)], refresh_check_interval="24h")
        await mux.start()
        assert (await mux.ask()).status == 200
        mux.configure(providers=[claude(origin, token_url=new.url)], refresh_check_interval="1m")
        await mux.reload()
        mux.clock.pass_s(28800 - 250)  # five minutes are the least
        await eventually(lambda: new.spent, what="it renews by itself, at the new endpoint")
        assert old.spent == [REFRESH]
        assert new.spent == ["refresh-1"]
