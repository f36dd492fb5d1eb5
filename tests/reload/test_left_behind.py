"""However often and whenever it is asked for: a reload leaves nothing behind."""

import asyncio
import gc
import ssl
from pathlib import Path

from engine.upstream import Upstream
from engine.wires import Wire, eventually
from fakes.records import Records
from whole import USERS, claude, ok, request

from ai_mux.proxy.routes import Destination, Gateway, Origin, Route
from ai_mux.reloading import Reloads


async def test_two_hundred_reloads_leave_nothing_behind(mux, origin):
    roots = str(Path(__file__).parent.with_name("test_config_tls.pem"))
    providers = [claude(origin), {"name": "chatgpt", "base_url": "https://localhost:1", "ca_file": roots}]
    mux.configure(providers=providers)
    await mux.start()
    wire = await Wire.to(mux.port)
    kinds = (Gateway, Route, Destination, Origin, ssl.SSLContext)

    def counted() -> dict[str, int]:
        gc.collect()
        return {kind.__name__: sum(type(one) is kind for one in gc.get_objects()) for kind in kinds}

    await mux.reload()
    before, tasks = counted(), len(asyncio.all_tasks())
    for number in range(200):
        mux.configure(providers=providers, max_body_size=100 + number)
        await mux.reload()
        if not number % 10:
            assert (await mux.ask_over(wire, "POST /claude/v1/messages")).status == 200
    assert len(mux.app._assembly.renewers) == 2
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, what="tasks are left")
    mux.app.server.sweep(mux.clock.monotonic())
    wire.close()
    await eventually(lambda: not mux.app.server.connections, what="the client is gone")
    await eventually(
        lambda: all(count <= before[kind] for kind, count in counted().items()),
        what=lambda: f"{counted()} instead of {before}",
    )


async def test_connections_to_where_nobody_goes_any_more_are_closed_at_once_or_after_their_request(
    mux, origin
):
    provider = Upstream()
    mux.configure(providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{provider.port}"}])
    await mux.start()
    clients = [await Wire.to(mux.port) for _ in range(2)]
    ends = []
    for client in clients:
        await client.send(request("POST /claude/v1/messages"))
        ends.append(await provider.accept())
        await ends[-1].message()
    await ends[0].send(ok())
    assert (await clients[0].message()).status == 200
    assert mux.app.server.pool.idle_count == 1
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert mux.app.server.pool.idle_count == 0
    await ends[0].end()
    await ends[1].send(ok())
    assert (await clients[1].message()).status == 200
    await ends[1].end()
    assert (await mux.ask()).status == 200
    assert mux.app.server.pool.idle_count == 1  # that one may serve again
    for client in clients:
        client.close()
    await provider.close()


async def test_a_storm_ends_in_the_last_configuration_and_few_reloads(mux, origin):
    await mux.start()
    for number in range(500):
        mux.configure(providers=[claude(origin)], max_body_size=1000 + number)
        mux.app.reload()
        await asyncio.sleep(0)
    await eventually(lambda: not mux.app._reloads.is_running, what="the storm is over")
    assert mux.app.server.gateway.max_body_size == 1499
    assert 1 <= len(await mux.events("config.reloaded")) <= 500
    for _ in range(500):
        mux.app.reload()
    before = len(await mux.events("config.reloaded"))
    await eventually(lambda: not mux.app._reloads.is_running, what="the storm is over")
    assert len(await mux.events("config.reloaded")) - before <= 2


async def test_who_asks_while_a_reload_runs_gets_one_more_after_it():
    """Even if that one fails: the next configuration may be good."""
    begun: list[int] = []
    may_end = asyncio.Event()

    async def once() -> None:
        begun.append(len(begun))
        await may_end.wait()
        if len(begun) == 1:
            raise RuntimeError

    reloads = Reloads(once, spawn=asyncio.create_task, log=Records())
    reloads.ask()
    await eventually(lambda: begun, what="the first has begun")
    for _ in range(5):
        reloads.ask()
    assert (reloads.is_running, begun) == (True, [0])
    may_end.set()
    await eventually(lambda: not reloads.is_running, what="it ends")
    assert begun == [0, 1]


async def test_a_reload_that_meets_the_end_changes_nothing(mux):
    provider = Upstream()
    mux.configure(providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{provider.port}"}])
    await mux.start()
    client = await Wire.to(mux.port)
    await client.send(request("POST /claude/v1/messages"))
    upstream = await provider.accept()
    await upstream.message()
    running = mux.app.server.gateway
    mux.configure(providers=[], users=USERS[:1])
    mux.app.reload()
    mux.app.ask_to_stop()
    stopping = asyncio.create_task(mux.app.stop())
    await eventually(
        lambda: not mux.app._reloads.is_running, what="the reload ends while the request goes on"
    )
    mux.app.reload()
    assert not mux.app._reloads.is_running
    assert mux.app.server.gateway is running
    await upstream.send(ok())
    assert (await client.message()).status == 200
    client.close()
    await stopping
    assert not await mux.events("config.reloaded", "config.not_reloaded")
    await provider.close()
