"""What both simulated APIs need of HTTP: tokens, bodies, paced streams."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import cast

from aiohttp import web

from ai_mux.demo.logins import Login
from ai_mux.demo.words import Json

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refusal = Callable[[web.Request], web.Response | None]
Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


def guarded(refusal: Refusal, answer: Answer) -> Handler:
    """Return a handler that answers with the refusal where there is one. The body is read either way."""

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        return refusal(request) or await answer(request, raw)

    return handle


def bearer(request: web.Request) -> str:
    """Return the bearer token (RFC 6750, 2.1), or nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def json_object(raw: bytes | str) -> Json:
    """Return a body's or frame's JSON object, or an empty one, which then lacks what is required."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return cast(Json, body) if isinstance(body, dict) else {}


async def stream(
    request: web.Request, fields: Mapping[str, str], events: Iterable[bytes], *, pace_s: float
) -> web.StreamResponse:
    """Send events as they come, with a pause after each piece of text."""
    response = web.StreamResponse(headers={**fields, "Cache-Control": "no-cache"})
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    await response.prepare(request)
    for event in events:
        await response.write(event)
        if b"delta" in event:
            await asyncio.sleep(pace_s)
    await response.write_eof()
    return response


async def renewed(request: web.Request, login: Login) -> Json | None:
    """Serve a token endpoint: return the new pair, or None where the refresh token is not accepted."""
    # RFC 6749, section 6, wants a form; the vendors' own clients send JSON.
    if request.content_type == "application/json":
        body = json_object(await request.read())
    else:
        body = dict(await request.post())
    if body.get("grant_type") != "refresh_token" or not login.renew(str(body.get("refresh_token", ""))):
        return None
    return {
        "token_type": "Bearer",
        "access_token": login.access,
        "refresh_token": login.refresh,
        "expires_in": int(login.lifetime_s),
    }
