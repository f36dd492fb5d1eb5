"""The simulated ChatGPT: a subscription's backend, and a tolerant API beside it for the same account."""

from aiohttp import web

from ai_mux.clock import Clock
from ai_mux.demo import openai
from ai_mux.demo.logins import Login
from ai_mux.demo.serving import bearer, guarded, json_object, renewed, stream
from ai_mux.demo.words import Json, new_id, tokens_in


class ChatGptApi:
    """Responses, models and the token endpoint of one made-up account.

    ``tolerant``: the subscription's backend too takes responses that are stored or
    not streamed, which the real one refuses.
    """

    def __init__(self, *, login: Login, clock: Clock, pace_s: float, tolerant: bool) -> None:
        self._login = login
        self._clock = clock
        self._pace_s = pace_s
        self._tolerant = tolerant

    def subscription_routes(self, base: str) -> list[web.RouteDef]:
        """Return what the subscription's backend serves below ``base``."""
        return [
            web.post(f"{base}/responses", guarded(self._not_ours, self._subscription_response)),
            web.post(f"{base}/responses/compact", guarded(self._not_ours, self._compact)),
            web.get(f"{base}/models", guarded(self._not_ours, self._codex_models)),
        ]

    def api_routes(self, base: str) -> list[web.RouteDef]:
        """Return what the tolerant API serves below ``base``."""
        return [
            web.post(f"{base}/responses", guarded(self._not_valid, self._response)),
            web.post(f"{base}/responses/compact", guarded(self._not_valid, self._compact)),
            web.post(f"{base}/chat/completions", guarded(self._not_valid, self._chat)),
            web.get(f"{base}/models", guarded(self._not_valid, self._models)),
            web.get(f"{base}/models/{{id}}", guarded(self._not_valid, self._model)),
        ]

    def token_route(self, path: str) -> web.RouteDef:
        """Return the token endpoint."""
        return web.post(path, self._token)

    def _not_valid(self, request: web.Request) -> web.Response | None:
        if self._login.accepts(bearer(request)):
            return None
        return _error(401, "Provided authentication token is expired or invalid.", "token_expired")

    def _not_ours(self, request: web.Request) -> web.Response | None:
        if refused := self._not_valid(request):
            return refused
        if request.headers.getall("chatgpt-account-id", []) != [self._login.account_id]:
            return web.json_response({"detail": "The account is not the token's"}, status=403)
        return None

    async def _subscription_response(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body = json_object(raw)
        if not self._tolerant:
            if body.get("store") is not False:
                return web.json_response({"detail": "Store must be set to false"}, status=400)
            if body.get("stream") is not True:
                return web.json_response({"detail": "Stream must be set to true"}, status=400)
        return await self._response(request, raw)

    async def _response(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body = json_object(raw)
        if "model" not in body:
            return _error(400, "Missing required parameter: 'model'.", "missing_required_parameter")
        model, count, store = str(body["model"]), tokens_in(raw), body.get("store") is not False
        if body.get("stream") is True:
            events = openai.response_events(model, count, store=store)
            return await stream(request, self._fields(), events, pace_s=self._pace_s)
        return web.json_response(openai.response(model, count, store=store), headers=self._fields())

    async def _compact(self, _request: web.Request, raw: bytes) -> web.StreamResponse:
        return web.json_response(openai.compacted(tokens_in(raw)), headers=self._fields())

    async def _chat(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body = json_object(raw)
        if "model" not in body:
            return _error(400, "Missing required parameter: 'model'.", "missing_required_parameter")
        model, count = str(body["model"]), tokens_in(raw)
        if body.get("stream") is True:
            options = body.get("stream_options")
            usage = isinstance(options, dict) and options.get("include_usage") is True
            events = openai.chat_events(model, count, include_usage=usage)
            return await stream(request, self._fields(), events, pace_s=self._pace_s)
        return web.json_response(openai.chat_completion(model, count), headers=self._fields())

    async def _codex_models(self, _request: web.Request, _raw: bytes) -> web.StreamResponse:
        return web.json_response(openai.codex_models(), headers=self._fields())

    async def _models(self, _request: web.Request, _raw: bytes) -> web.StreamResponse:
        return web.json_response(openai.model_list(), headers=self._fields())

    async def _model(self, request: web.Request, _raw: bytes) -> web.StreamResponse:
        name = request.match_info["id"]
        if name not in openai.MODELS:
            return _error(404, f"The model '{name}' does not exist.", "model_not_found")
        return web.json_response(openai.model_entry(name), headers=self._fields())

    async def _token(self, request: web.Request) -> web.StreamResponse:
        pair = await renewed(request, self._login)
        if pair is None:
            return _error(401, "Your refresh token has already been used.", "refresh_token_reused")
        answer: Json = {**pair, "id_token": self._login.id_token()}
        return web.json_response(answer)

    def _fields(self) -> dict[str, str]:
        now = int(self._clock.time())
        return {
            "x-request-id": new_id("req_sim"),
            "x-codex-primary-used-percent": "12",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": str(now + 300 * 60),
            "x-codex-secondary-used-percent": "34",
            "x-codex-secondary-window-minutes": "10080",
            "x-codex-secondary-reset-at": str(now + 10080 * 60),
        }


def _error(status: int, message: str, code: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers={"x-request-id": new_id("req_sim")})
