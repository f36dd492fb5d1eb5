"""The simulated Anthropic API: which requests it takes, and how it refuses the others."""

from typing import Final

from aiohttp import web

from ai_mux.clock import Clock
from ai_mux.demo import claude
from ai_mux.demo.logins import Login
from ai_mux.demo.serving import bearer, guarded, json_object, renewed, stream
from ai_mux.demo.words import new_id, tokens_in

# Without it the real API takes no subscription's token; an API key has nothing to do with it.
_OAUTH_BETA: Final = "oauth-2025-04-20"


class ClaudeApi:
    """Messages, token counts, models and the token endpoint, for one made-up account and one API key."""

    def __init__(self, *, login: Login, key: str, clock: Clock, pace_s: float) -> None:
        self._login = login
        self._key = key
        self._clock = clock
        self._pace_s = pace_s

    def routes(self, base: str) -> list[web.RouteDef]:
        """Return what is served below ``base``."""
        return [
            web.post(f"{base}/v1/messages", guarded(self._refusal, self._messages)),
            web.post(f"{base}/v1/messages/count_tokens", guarded(self._refusal, self._count_tokens)),
            web.get(f"{base}/v1/models", guarded(self._refusal, self._models)),
            web.get(f"{base}/v1/models/{{id}}", guarded(self._refusal, self._model)),
            web.post(f"{base}/v1/oauth/token", self._token),
        ]

    def _refusal(self, request: web.Request) -> web.Response | None:
        fields = request.headers
        betas = ",".join(fields.getall("anthropic-beta", ()))
        with_login = _OAUTH_BETA in [beta.strip() for beta in betas.split(",")]
        if keys := fields.getall("x-api-key", []):
            if keys != [self._key] or "Authorization" in fields:
                return _error(401, "authentication_error", "invalid x-api-key")
            if with_login:
                return _error(400, "invalid_request_error", f"{_OAUTH_BETA} is not for API keys")
        elif not self._login.accepts(bearer(request)):
            return _error(401, "authentication_error", "Invalid bearer token")
        elif not with_login:
            return _error(401, "authentication_error", "OAuth authentication is currently not supported.")
        if "anthropic-version" not in fields:
            return _error(400, "invalid_request_error", "anthropic-version: header is required")
        return None

    async def _messages(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body = json_object(raw)
        for field in ("model", "max_tokens", "messages"):
            if field not in body:
                return _error(400, "invalid_request_error", f"{field}: Field required")
        model, prompt = str(body["model"]), claude.prompt_usage(raw)
        if body.get("stream") is True:
            events = claude.message_events(model, prompt)
            return await stream(request, self._fields(), events, pace_s=self._pace_s)
        return web.json_response(claude.message(model, prompt), headers=self._fields())

    async def _count_tokens(self, _request: web.Request, raw: bytes) -> web.StreamResponse:
        return web.json_response({"input_tokens": tokens_in(raw)}, headers=self._fields())

    async def _models(self, _request: web.Request, _raw: bytes) -> web.StreamResponse:
        return web.json_response(claude.model_list(), headers=self._fields())

    async def _model(self, request: web.Request, _raw: bytes) -> web.StreamResponse:
        name = request.match_info["id"]
        if name not in claude.MODELS:
            return _error(404, "not_found_error", f"model: {name}")
        return web.json_response(claude.model_entry(name), headers=self._fields())

    async def _token(self, request: web.Request) -> web.StreamResponse:
        pair = await renewed(request, self._login)
        if pair is None:
            refused = {"error": "invalid_grant", "error_description": "Refresh token not found or invalid"}
            return web.json_response(refused, status=400)
        return web.json_response({**pair, "scope": "user:inference user:profile"})

    def _fields(self) -> dict[str, str]:
        now = int(self._clock.time())
        five_hours, week = str(now + 5 * 3600), str(now + 7 * 24 * 3600)
        return {
            "request-id": new_id("req_sim"),
            "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
            "anthropic-ratelimit-unified-status": "allowed",
            "anthropic-ratelimit-unified-reset": five_hours,
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-fallback-percentage": "0.5",
            "anthropic-ratelimit-unified-5h-status": "allowed",
            "anthropic-ratelimit-unified-5h-utilization": "0.12",
            "anthropic-ratelimit-unified-5h-reset": five_hours,
            "anthropic-ratelimit-unified-7d-status": "allowed",
            "anthropic-ratelimit-unified-7d-utilization": "0.34",
            "anthropic-ratelimit-unified-7d-reset": week,
        }


def _error(status: int, kind: str, message: str) -> web.Response:
    request_id = new_id("req_sim")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return web.json_response(body, status=status, headers={"request-id": request_id})
