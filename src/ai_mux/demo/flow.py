"""The demo, from its first line to Ctrl-C.

Rule 1: everything in it is made up and thrown away. It reads no configuration and
no credential of yours, and talks to loopback only.

Rule 2: the gateway is the real one, built as a configuration file says, and the
request goes through it like anybody's.
"""

import asyncio
import json
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TextIO

import aiohttp

from ai_mux.app import App, build
from ai_mux.clock import SystemClock
from ai_mux.config import load
from ai_mux.demo import guide
from ai_mux.demo.page import Page
from ai_mux.demo.provider import SimulatedProvider
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS

_FIRST_PORT: Final = 8080
_PORTS_TRIED: Final = 100
# Far longer than the answer takes, far shorter than anyone waits.
_ANSWER_S: Final = 30


async def run_demo(
    *, once: bool, out: TextIO, pace_s: float = 0.03, first_port: int = _FIRST_PORT, log: Log | None = None
) -> int:
    """Show the gateway at work, then serve until Ctrl-C.

    Args:
        once: End after the answer.
        out: Where the answer and the lines to try are printed.
        pace_s: Seconds between two words of the answer.
        first_port: The port to listen on, or the next one that is free.
        log: Where the gateway logs; stderr unless given. Closed at the end.

    Returns:
        The exit code: 0, or 1 if there was no answer.
    """
    page = Page(out)
    token = f"demo-{secrets.token_hex(12)}"
    # Silent until the answer is printed; then its lines show what the reader tries.
    log = log or Log.to_stderr(level="warn", clock=SystemClock())
    try:
        async with _gateway(token=token, port=_free_port(first_port), pace_s=pace_s, log=log) as app:
            with _signals(app) as stopping:
                address = app.addresses[0]
                page.heading(f"ai-mux listens on {address}")
                page.prose("A simulated provider stands behind it: no credentials, no network.")
                answered = await _unless(stopping, _ask(address, token, page))
                if answered and not once:
                    _print_guide(page, address, token)
                    page.note("Serving until Ctrl-C. Each request shows as a line here.")
                    log.set_level("info")
                    await stopping.wait()
                return 0 if answered or stopping.is_set() else 1
    finally:
        log.close()


@asynccontextmanager
async def _gateway(*, token: str, port: int, pace_s: float, log: Log) -> AsyncIterator[App]:
    """Run the simulated provider and the gateway in front of it."""
    provider = SimulatedProvider(pace_s=pace_s)
    await provider.start()
    try:
        with TemporaryDirectory(prefix="ai-mux-demo-") as directory:
            state_dir = Path(directory)
            provider.write_credentials(state_dir)
            config_file = state_dir / "config.json"
            config_file.touch(mode=0o600)
            config_file.write_text(json.dumps(_config(provider, state_dir, token, port)), encoding="utf-8")
            app = build(load(config_file, known_providers=tuple(PROVIDERS)), log=log)
            try:
                await app.start()
                yield app
            finally:
                await app.stop()
    finally:
        await provider.stop()


def _config(provider: SimulatedProvider, state_dir: Path, token: str, port: int) -> dict[str, object]:
    urls = {
        "claude": (provider.claude_url, provider.claude_token_url),
        "chatgpt": (provider.chatgpt_url, provider.chatgpt_token_url),
    }
    return {
        "listen": f"127.0.0.1:{port}",
        "state_dir": str(state_dir),
        "providers": [
            {"name": name, "base_url": base_url, "token_url": token_url}
            for name, (base_url, token_url) in urls.items()
        ],
        "users": [{"name": "demo", "token": token}],
        "shutdown_timeout": "1s",
        "max_connections": 256,
    }


def _free_port(first: int) -> int:
    """Return the first port from ``first`` on that nobody listens on, or 0: any one."""
    for port in range(first, first + _PORTS_TRIED):
        with socket.socket() as probe:
            # As the server does: a port that was in use a moment ago counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 0


@contextmanager
def _signals(app: App) -> Iterator[asyncio.Event]:
    """Give an event that SIGINT and SIGTERM set. A second one ends running requests too."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        app.ask_to_stop()
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _unless(stopping: asyncio.Event, asking: Coroutine[None, None, bool]) -> bool:
    """Return what ``asking`` comes to, or False if it is interrupted."""
    asked, stopped = asyncio.create_task(asking), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({asked, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return asked.done() and asked.result()
    finally:
        asked.cancel()
        stopped.cancel()
        await asyncio.gather(asked, stopped, return_exceptions=True)


async def _ask(address: str, token: str, page: Page) -> bool:
    """Send one request through the gateway, print the answer as it comes, return whether there was one."""
    url = f"{address}/claude/v1/messages"
    page.note(f"\nPOST {url}")
    question = {"role": "user", "content": guide.QUESTION}
    body = {"model": guide.CLAUDE_MODEL, "max_tokens": 1024, "stream": True, "messages": [question]}
    fields = {"Authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"}
    # Not by a proxy of the environment: this is loopback.
    async with (
        aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as session,
        session.post(url, json=body, headers=fields) as response,
    ):
        if response.status != 200:
            page.prose(f"{response.status}: {await response.text()}")
            return False
        async for line in response.content:
            if line.startswith(b"data: "):
                event = json.loads(line.removeprefix(b"data: "))
                if event["type"] == "content_block_delta":
                    page.word(event["delta"]["text"])
        page.end_of_words()
    return True


def _print_guide(page: Page, address: str, token: str) -> None:
    page.heading("Try it yourself, in another terminal")
    page.prose("This token was made up for this run. The lines below use it.")
    page.copy(guide.token(token))
    page.note("curl, Claude")
    page.copy(guide.curl_claude(address))
    page.note("curl, ChatGPT")
    page.copy(guide.curl_chatgpt(address))
    page.note("Claude Code")
    page.copy(guide.claude_code(address))
    page.note("Codex, in ~/.codex/config.toml")
    page.copy(guide.codex(address))
    page.note("Python, pip install anthropic")
    page.copy(guide.python_anthropic(address))
    page.note("Python, pip install openai")
    page.copy(guide.python_openai(address))
    page.note("What you have used so far")
    page.copy(guide.curl_usage(address))
    page.heading("With your own subscription")
    page.prose("Write config.yaml:")
    page.copy(guide.real_config())
    page.prose(
        "Make a token; log in with the vendor's own client, into directories that belong to ai-mux; start."
    )
    page.copy(guide.real_logins())
