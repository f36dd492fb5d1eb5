"""The polite simulated provider: a server on loopback that answers like the real ones.

Needs no credentials and no network, and gives out its own. It refuses what the
real ones are known to refuse, in their shape, so that a gateway which forwards
the wrong thing is found out: another token than its own, a Claude login without
its beta flag or beside an API key, a ChatGPT account that is not named, a
response to the subscription that is stored or not streamed.

    {claude_url}    /v1/messages, /v1/messages/count_tokens, /v1/models, /v1/models/ID
    {chatgpt_url}   /responses, /responses/compact, /models          the subscription's backend
    {openai_url}    [/v1]/responses, /chat/completions, /models …    tolerant, like the API
"""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from aiohttp import web

from ai_mux.clock import Clock, SystemClock
from ai_mux.demo import claude, openai
from ai_mux.demo.logins import Login, write_chatgpt, write_claude
from ai_mux.demo.words import Json, new_id, tokens_in

# As ai-mux's own default for request bodies.
_LARGEST_BODY: Final = 64 * 1024 * 1024
_WINDOW_S: Final = 5 * 3600
_WEEK_S: Final = 7 * 24 * 3600


class SimulatedProvider:
    """Claude and ChatGPT behind one port.

    Args:
        pace_s: Seconds between two words of a streamed answer.
        tolerant: The subscription's backend too takes responses that are stored or not streamed.
        lifetime_s: How long an access token lives.
        clock: What tokens expire by.

    Attributes:
        claude_login: The tokens of the Claude account.
        chatgpt_login: The tokens of the ChatGPT account.
    """

    def __init__(
        self,
        *,
        pace_s: float = 0.03,
        tolerant: bool = False,
        lifetime_s: float = 8 * 3600,
        clock: Clock | None = None,
    ) -> None:
        self._pace_s = pace_s
        self._tolerant = tolerant
        self._clock: Clock = clock or SystemClock()
        self.claude_login = Login(clock=self._clock, lifetime_s=lifetime_s)
        self.chatgpt_login = Login(clock=self._clock, lifetime_s=lifetime_s, account_id=new_id("acct-sim-"))
        self._runner: web.AppRunner | None = None
        self._origin = ""

    # Life

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free one. Raises OSError if it cannot."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self.stop()
            raise
        bound = self._runner.addresses[0]
        self._origin = f"http://{host}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening and end what runs. Harmless where nothing was started."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def write_credentials(self, state_dir: Path) -> None:
        """Write both credential files under ``state_dir``, as the vendors' logins would, valid here only."""
        write_claude(self.claude_login, state_dir / "claude" / ".credentials.json")
        now = datetime.fromtimestamp(self._clock.time(), UTC).isoformat().replace("+00:00", "Z")
        write_chatgpt(self.chatgpt_login, state_dir / "chatgpt" / "auth.json", last_refresh=now)

    # Where it listens

    @property
    def claude_url(self) -> str:
        """The ``base_url`` for the provider claude."""
        return f"{self._origin}/anthropic"

    @property
    def chatgpt_url(self) -> str:
        """The ``base_url`` for the provider chatgpt: a subscription's backend."""
        return f"{self._origin}/backend-api/codex"

    @property
    def openai_url(self) -> str:
        """Another ``base_url`` for the provider chatgpt, which takes what the API takes."""
        return f"{self._origin}/openai"

    @property
    def claude_token_url(self) -> str:
        """The OAuth token endpoint of the Claude account."""
        return f"{self._origin}/anthropic/v1/oauth/token"

    @property
    def chatgpt_token_url(self) -> str:
        """The OAuth token endpoint of the ChatGPT account."""
        return f"{self._origin}/oauth/token"

    def _routes(self) -> list[web.RouteDef]:
        tolerant = [
            route
            for path in ("/openai", "/openai/v1")
            for route in (
                web.post(f"{path}/responses", self._openai_response),
                web.post(f"{path}/responses/compact", self._compact),
                web.post(f"{path}/chat/completions", self._chat),
                web.get(f"{path}/models", self._openai_models),
                web.get(f"{path}/models/{{id}}", self._openai_models),
            )
        ]
        return [
            web.post("/anthropic/v1/messages", self._messages),
            web.post("/anthropic/v1/messages/count_tokens", self._count_tokens),
            web.get("/anthropic/v1/models", self._claude_models),
            web.get("/anthropic/v1/models/{id}", self._claude_models),
            web.post("/anthropic/v1/oauth/token", self._claude_token),
            web.post("/backend-api/codex/responses", self._subscription_response),
            web.post("/backend-api/codex/responses/compact", self._compact),
            web.get("/backend-api/codex/models", self._codex_models),
            web.post("/oauth/token", self._chatgpt_token),
            *tolerant,
        ]

    # Claude

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        if refused := self._claude_refusal(request):
            return refused
        raw = await request.read()
        body = _object(raw)
        for field in ("model", "max_tokens", "messages"):
            if field not in body:
                return _claude_error(400, "invalid_request_error", f"{field}: Field required")
        model, count = str(body["model"]), tokens_in(raw)
        if body.get("stream") is True:
            return await self._stream(request, self._claude_fields(), claude.message_events(model, count))
        return web.json_response(claude.message(model, count), headers=self._claude_fields())

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        if refused := self._claude_refusal(request):
            return refused
        count: Json = {"input_tokens": tokens_in(await request.read())}
        return web.json_response(count, headers=self._claude_fields())

    async def _claude_models(self, request: web.Request) -> web.StreamResponse:
        if refused := self._claude_refusal(request):
            return refused
        name = request.match_info.get("id")
        if name is None:
            return web.json_response(claude.model_list(), headers=self._claude_fields())
        if name not in claude.MODELS:
            return _claude_error(404, "not_found_error", f"model: {name}")
        return web.json_response(claude.model_entry(name), headers=self._claude_fields())

    def _claude_refusal(self, request: web.Request) -> web.Response | None:
        if "x-api-key" in request.headers:
            return _claude_error(401, "authentication_error", "invalid x-api-key")
        if not self.claude_login.accepts(_bearer(request)):
            return _claude_error(401, "authentication_error", "Invalid bearer token")
        betas = ",".join(request.headers.getall("anthropic-beta", ()))
        if "oauth-2025-04-20" not in [one.strip() for one in betas.split(",")]:
            text = "OAuth authentication is currently not supported."
            return _claude_error(401, "authentication_error", text)
        if "anthropic-version" not in request.headers:
            return _claude_error(400, "invalid_request_error", "anthropic-version: header is required")
        return None

    def _claude_fields(self) -> dict[str, str]:
        now = int(self._clock.time())
        return {
            "request-id": new_id("req_sim"),
            "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
            "anthropic-ratelimit-unified-status": "allowed",
            "anthropic-ratelimit-unified-reset": str(now + _WINDOW_S),
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-fallback-percentage": "0.5",
            "anthropic-ratelimit-unified-5h-status": "allowed",
            "anthropic-ratelimit-unified-5h-utilization": "0.12",
            "anthropic-ratelimit-unified-5h-reset": str(now + _WINDOW_S),
            "anthropic-ratelimit-unified-7d-status": "allowed",
            "anthropic-ratelimit-unified-7d-utilization": "0.34",
            "anthropic-ratelimit-unified-7d-reset": str(now + _WEEK_S),
        }

    # ChatGPT

    async def _subscription_response(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if refused := self._chatgpt_refusal(request):
            return refused
        body = _object(raw)
        if not self._tolerant:
            if body.get("store") is not False:
                return web.json_response({"detail": "Store must be set to false"}, status=400)
            if body.get("stream") is not True:
                return web.json_response({"detail": "Stream must be set to true"}, status=400)
        return await self._response(request, raw, body)

    async def _openai_response(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if refused := self._openai_refusal(request):
            return refused
        return await self._response(request, raw, _object(raw))

    async def _response(self, request: web.Request, raw: bytes, body: Json) -> web.StreamResponse:
        if "model" not in body:
            return _openai_error(400, "Missing required parameter: 'model'.", "missing_required_parameter")
        model, count, store = str(body["model"]), tokens_in(raw), body.get("store") is not False
        if body.get("stream") is True:
            events = openai.response_events(model, count, store=store)
            return await self._stream(request, self._chatgpt_fields(), events)
        return web.json_response(openai.response(model, count, store=store), headers=self._chatgpt_fields())

    async def _compact(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if refused := self._openai_refusal(request):
            return refused
        return web.json_response(openai.compacted(tokens_in(raw)), headers=self._chatgpt_fields())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if refused := self._openai_refusal(request):
            return refused
        body = _object(raw)
        if "model" not in body:
            return _openai_error(400, "you must provide a model parameter", "missing_required_parameter")
        model, count = str(body["model"]), tokens_in(raw)
        if body.get("stream") is True:
            options = body.get("stream_options")
            usage = isinstance(options, dict) and options.get("include_usage") is True
            events = openai.chat_events(model, count, include_usage=usage)
            return await self._stream(request, self._chatgpt_fields(), events)
        return web.json_response(openai.chat_completion(model, count), headers=self._chatgpt_fields())

    async def _codex_models(self, request: web.Request) -> web.StreamResponse:
        if refused := self._chatgpt_refusal(request):
            return refused
        return web.json_response(openai.codex_models(), headers=self._chatgpt_fields())

    async def _openai_models(self, request: web.Request) -> web.StreamResponse:
        if refused := self._openai_refusal(request):
            return refused
        name = request.match_info.get("id")
        if name is None:
            return web.json_response(openai.model_list(), headers=self._chatgpt_fields())
        if name not in openai.MODELS:
            return _openai_error(404, f"The model '{name}' does not exist", "model_not_found")
        return web.json_response(openai.model_entry(name), headers=self._chatgpt_fields())

    def _openai_refusal(self, request: web.Request) -> web.Response | None:
        if not self.chatgpt_login.accepts(_bearer(request)):
            return _openai_error(401, "Provided authentication token is expired or invalid.", "token_expired")
        return None

    def _chatgpt_refusal(self, request: web.Request) -> web.Response | None:
        if refused := self._openai_refusal(request):
            return refused
        if request.headers.getall("chatgpt-account-id", []) != [self.chatgpt_login.account_id]:
            return web.json_response({"detail": "The account is not the token's"}, status=403)
        return None

    def _chatgpt_fields(self) -> dict[str, str]:
        now = int(self._clock.time())
        return {
            "x-request-id": new_id("req_sim"),
            "x-codex-primary-used-percent": "12",
            "x-codex-primary-window-minutes": str(_WINDOW_S // 60),
            "x-codex-primary-reset-at": str(now + _WINDOW_S),
            "x-codex-secondary-used-percent": "34",
            "x-codex-secondary-window-minutes": str(_WEEK_S // 60),
            "x-codex-secondary-reset-at": str(now + _WEEK_S),
        }

    # The token endpoints

    async def _claude_token(self, request: web.Request) -> web.StreamResponse:
        login, body = self.claude_login, await _form(request)
        if body.get("grant_type") != "refresh_token" or not login.renew(str(body.get("refresh_token", ""))):
            text = "Refresh token not found or invalid"
            return web.json_response({"error": "invalid_grant", "error_description": text}, status=400)
        return web.json_response({**_pair(login), "scope": "user:inference user:profile"})

    async def _chatgpt_token(self, request: web.Request) -> web.StreamResponse:
        login, body = self.chatgpt_login, await _form(request)
        if body.get("grant_type") != "refresh_token" or not login.renew(str(body.get("refresh_token", ""))):
            return _openai_error(401, "Your refresh token has already been used.", "refresh_token_reused")
        return web.json_response({**_pair(login), "id_token": login.id_token()})

    # Streaming

    async def _stream(
        self, request: web.Request, fields: dict[str, str], events: Iterable[bytes]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**fields, "Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        await response.prepare(request)
        for event in events:
            await response.write(event)
            if b"delta" in event:
                await asyncio.sleep(self._pace_s)
        await response.write_eof()
        return response


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _object(raw: bytes) -> Json:
    """Return a body's JSON object, or an empty one, which then lacks what is required."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return cast(Json, body) if isinstance(body, dict) else {}


async def _form(request: web.Request) -> Json:
    # RFC 6749, 6, says form-encoded; the vendors' clients send JSON, some others the form.
    if request.content_type == "application/json":
        return _object(await request.read())
    return dict(await request.post())


def _pair(login: Login) -> Json:
    return {
        "token_type": "Bearer",
        "access_token": login.access,
        "refresh_token": login.refresh,
        "expires_in": int(login.lifetime_s),
    }


def _claude_error(status: int, kind: str, message: str) -> web.Response:
    request_id = new_id("req_sim")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return web.json_response(body, status=status, headers={"request-id": request_id})


def _openai_error(status: int, message: str, code: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers={"x-request-id": new_id("req_sim")})
