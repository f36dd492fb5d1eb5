"""The two providers under their own names, for programs that reach everything through a proxy.

A page's configuration names no address of a provider, so it is run without one: the
environment's proxy leads to simulated providers, whose certificates a throwaway
authority vouches for. What is asked for besides is refused, so nothing reaches a real one.
"""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from ai_mux.clock import SystemClock
from ai_mux.demo import openai
from ai_mux.demo.chatgpt_api import ChatGptApi
from ai_mux.demo.claude_api import ClaudeApi
from ai_mux.demo.logins import Login, write_chatgpt, write_claude
from ai_mux.demo.openai_api import OpenAIApi
from ai_mux.demo.responses import Responses

_CLAUDE: Final = ("api.anthropic.com", "platform.claude.com")
_CHATGPT: Final = ("chatgpt.com", "auth.openai.com")
_OPENAI: Final = ("api.openai.com",)
REAL: Final = ("https://api.anthropic.com", "https://chatgpt.com")
CLAUDE_KEY: Final = "sk-ant-api-made-up-key-of-a-page"
OPENAI_KEY: Final = "sk-made-up-key-of-a-page"


@dataclass(frozen=True, slots=True, kw_only=True)
class Internet:
    """What a program needs to reach the providers.

    Attributes:
        environment: What it is told.
        logins: A directory with the files that the vendors' logins leave.
    """

    environment: dict[str, str]
    logins: Path


@contextlib.asynccontextmanager
async def internet(directory: Path) -> AsyncIterator[Internet]:
    """Run the providers, and the proxy that leads to them.

    Args:
        directory: An empty one.
    """
    certificate = _certificate(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    clock = SystemClock()
    claude = Login(clock=clock, lifetime_s=8 * 3600)
    chatgpt = Login(clock=clock, lifetime_s=8 * 3600, account_id="made-up-account")
    responses = Responses(clock=clock, pace_s=0, answer=openai.response_events)
    subscription = ChatGptApi(login=chatgpt, responses=responses)
    served = {
        _CLAUDE: ClaudeApi(login=claude, key=CLAUDE_KEY, clock=clock, pace_s=0).routes(""),
        _CHATGPT: [*subscription.routes("/backend-api/codex"), subscription.token_route("/oauth/token")],
        _OPENAI: OpenAIApi(key=OPENAI_KEY, responses=responses, pace_s=0).routes("/v1"),
    }
    write_claude(claude, directory / "claude.json")
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    write_chatgpt(chatgpt, directory / "chatgpt.json", last_refresh=now)
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for names, routes in served.items():
            app = web.Application(client_max_size=2**26)
            app.add_routes(routes)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            ports |= dict.fromkeys(names, runner.addresses[0][1])
        tunnels: set[asyncio.Task[None]] = set()

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tunnels.add(task)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _tunnel(reader, writer, ports)
            writer.close()
            tunnels.discard(task)

        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        environment = {"HTTPS_PROXY": address, "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": str(certificate)}
        yield Internet(environment=environment, logins=directory)
        proxy.close()
        for task in tuple(tunnels):
            task.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ports: dict[str, int]) -> None:
    """Serve one CONNECT (RFC 9110, 9.3.6), to the providers alone."""
    method, target, *_ = (await reader.readuntil(b"\r\n\r\n")).decode().split()
    port = ports.get(target.removesuffix(":443"))
    if method != "CONNECT" or port is None:
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return
    there, back = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pass(reader, back))
            both.create_task(_pass(there, writer))
    except* OSError:
        pass
    finally:
        back.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _certificate(directory: Path) -> Path:
    """Make a throwaway certificate, its own authority, for every name; return it and its key in one file."""
    directory.mkdir(exist_ok=True)
    both = directory / "internet.pem"
    names = ",".join(f"DNS:{name}" for name in (*_CLAUDE, *_CHATGPT, *_OPENAI))
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=made up", "-days", "2", "-addext", f"subjectAltName={names}",
        "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
        "-keyout", str(directory / "key.pem"), "-out", str(directory / "certificate.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    both.write_bytes((directory / "key.pem").read_bytes() + (directory / "certificate.pem").read_bytes())
    return both
