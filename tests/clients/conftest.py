"""The vendors' own clients and SDKs, through a gateway process, to a simulated provider.

Rule 1: nothing here can reach a real provider. A client starts with an empty
environment, an empty home, made-up credentials, and a proxy for everything but
loopback that refuses every connection.

Rule 2: the gateway is the program as shipped, ``python -m ai_mux --config FILE``.
What it did is read from its own log.

Rule 3: what did not run is said aloud. Without npm the clients cannot be installed;
the last lines of the run then say so. With AI_MUX_CLIENTS=required it is a failure.
"""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import programs_needed
import pytest
from engine.conftest import certificate
from gateway_process import Gateway, running
from vendor_clients import Clients, Finished, NotInstalled, installed, run

from ai_mux.demo import SimulatedProvider

__all__ = ["certificate"]


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> Clients:
    try:
        return installed()
    except NotInstalled as exc:
        programs_needed.lacking(str(exc), request.config, area="CLIENT", required_by="AI_MUX_CLIENTS")


Serve = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Return a function that starts a provider, which speaks TLS if given a context, and a gateway before it.

    ``openai`` sends chatgpt's requests to OpenAI's API instead of the subscription's backend.
    ``claude`` and the other keywords, chatgpt's, are settings of those providers; a setting
    ``api_key`` is written to an ``api_key_file``. ``settings`` are keys of the whole configuration.
    Everything ends with the test.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            provider: SimulatedProvider,
            *,
            tls: ssl.SSLContext | None = None,
            openai: bool = False,
            claude: dict[str, Any] | None = None,
            settings: dict[str, Any] | None = None,
            **chatgpt: Any,
        ) -> Gateway:
            await provider.start(tls=tls)
            stack.push_async_callback(provider.stop)
            if not (tmp_path / "state").exists():
                provider.write_credentials(tmp_path / "state")
            configured = {
                "claude": {"base_url": provider.claude_url, "token_url": provider.claude_token_url},
                "chatgpt": {
                    "base_url": provider.openai_url if openai else provider.chatgpt_url,
                    "token_url": provider.chatgpt_token_url,
                },
            }
            for name, more in (("claude", claude or {}), ("chatgpt", chatgpt)):
                configured[name] |= {"name": name} | more
                if "api_key" in configured[name]:
                    configured[name]["api_key_file"] = _file(tmp_path, name, configured[name].pop("api_key"))
            return await stack.enter_async_context(
                running(tmp_path, providers=list(configured.values()), settings=settings)
            )

        yield start


def _file(directory: Path, name: str, key: str) -> str:
    file = directory / f"{name}-api-key"
    file.touch(0o600)
    file.write_text(key + "\n")
    return str(file)


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    """A gateway in front of a provider that refuses what the real subscription backend refuses."""
    return await serve(SimulatedProvider(pace_s=0))


@pytest.fixture(scope="session")
def dead_proxy() -> Iterator[str]:
    """The URL of a proxy that refuses every connection, and whose port nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


Run = Callable[..., Awaitable[Finished]]


@pytest.fixture
def run_client(tmp_path: Path, dead_proxy: str) -> Run:
    """``run`` in an empty home, with no way out but loopback."""
    home = tmp_path / "home"
    home.mkdir()
    return partial(run, home=home, proxy=dead_proxy)
