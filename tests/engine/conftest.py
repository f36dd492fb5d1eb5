"""Every test here runs on each engine that people use; ``AI_MUX_ENGINE`` narrows it to one."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from engine.harness import Gate, descriptors, none_left
from engine.upstream import Upstream

from ai_mux.proxy.engine import ENVIRONMENT, Engine

_ENGINE_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()

Factory = Callable[[], asyncio.AbstractEventLoop]
Open = Callable[..., Awaitable[Gate]]


def _factory(name: str) -> Factory:
    def new_loop() -> asyncio.AbstractEventLoop:
        loop = Engine(name)._new_loop()
        _ENGINE_OF[loop] = name
        return loop

    return new_loop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    """Run on the stock loop, on the default engine, and on the loop that replaces the stock one."""
    wanted = os.environ.get(ENVIRONMENT)
    names = [wanted] if wanted else ["asyncio", "aiofastnet", "uvloop"]
    return {name: _factory(name) for name in names}


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Open gates with settings of the test's own; all are closed, and asserted about, at its end."""
    gates: list[Gate] = []
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int)  # the resolver's threads and their pipes are not leaks
    before = descriptors()

    async def open_gate(
        *, upstream_window: int | None = None, upstream_tls: ssl.SSLContext | None = None, **settings: Any
    ) -> Gate:
        upstream = Upstream(window=upstream_window, tls=upstream_tls)
        gates.append(Gate(engine=_ENGINE_OF[loop], upstream=upstream, settings=settings))
        return gates[-1]

    yield open_gate
    for gate in gates:
        await gate.close()
    await none_left(before)


@pytest.fixture
async def gate(opened: Open) -> Gate:
    """An engine with the usual settings."""
    return await opened()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throwaway key and certificate for localhost in one file, its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("TLS is not tested: there is no openssl command to make a certificate with")
    made = tmp_path_factory.mktemp("tls")
    key, cert, both = made / "key.pem", made / "cert.pem", made / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both
