"""The engine's fixtures, and proxies: real ones once for all tests, hostile ones test by test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine.conftest import certificate, opened, pytest_asyncio_loop_factories
from fakes.real_proxies import RealProxy, missing, real_proxy

__all__ = ["certificate", "opened", "pytest_asyncio_loop_factories"]

RealProxies = Callable[..., RealProxy]


@pytest.fixture(scope="session")
def real(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProxies]:
    """Return a real proxy of a kind, started when first asked for."""
    running: dict[tuple[str, bool], RealProxy] = {}
    with contextlib.ExitStack() as stack:

        def start(scheme: str, *, credentials: bool) -> RealProxy:
            if names := missing(scheme):
                pytest.skip(f"proxies of the kind {scheme} are not tested: no {', '.join(names)}")
            if (scheme, credentials) not in running:
                where = tmp_path_factory.mktemp(scheme)
                running[scheme, credentials] = stack.enter_context(
                    real_proxy(scheme, where, certificate=certificate, credentials=credentials)
                )
            return running[scheme, credentials]

        yield start
