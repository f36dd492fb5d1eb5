"""A proxy as most would write it: aiohttp's server in front of aiohttp's client.

    python bench/aiohttp_proxy.py --port PORT --upstream URL [--ca FILE]

It does the comparable work (checks the user's token, sets the provider's, streams
both ways, logs a line a request) with none of our engine, and so shows what the
engine is worth.
"""

import argparse
import logging
import ssl
from collections.abc import AsyncIterator, Mapping

import aiohttp
import traffic
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

# RFC 9110, section 7.6.1; Host and Authorization are set anew.
_NOT_PASSED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "authorization"}
)

_SESSION = web.AppKey("session", aiohttp.ClientSession)


def _passed(fields: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in fields.items() if name.lower() not in _NOT_PASSED)


def application(*, upstream: str, ca: str | None) -> web.Application:
    """Return the proxy for ``upstream``, whose certificate ``ca`` vouches for."""
    tls = ssl.create_default_context(cafile=ca) if ca else True

    async def session(app: web.Application) -> AsyncIterator[None]:
        app[_SESSION] = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        yield
        await app[_SESSION].close()

    async def forward(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {traffic.USER_TOKEN}":
            raise web.HTTPUnauthorized
        fields = _passed(request.headers)
        fields["Authorization"] = f"Bearer {traffic.PROVIDER_TOKEN}"
        async with request.app[_SESSION].request(
            request.method,
            URL(upstream + request.raw_path.removeprefix("/claude"), encoded=True),
            headers=fields,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/claude/{path:.*}", forward)
    return app


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--upstream", required=True)
    arguments.add_argument("--ca")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO)
    web.run_app(
        application(upstream=options.upstream, ca=options.ca),
        host="127.0.0.1",
        port=options.port,
        shutdown_timeout=0.1,  # the clients are gone by then
        print=None,
    )
