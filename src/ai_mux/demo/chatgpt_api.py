"""The simulated backend of a ChatGPT subscription: what it takes, and how it refuses the rest."""

from typing import Final

from aiohttp import web

from ai_mux.demo import openai
from ai_mux.demo.logins import Login
from ai_mux.demo.responses import Responses, refused
from ai_mux.demo.serving import bearer, guarded, json_object, renewed
from ai_mux.demo.words import Json

_STORED: Final = "Store must be set to false"


class ChatGptApi:
    """Responses, models and the token endpoint of one made-up account."""

    def __init__(self, *, login: Login, responses: Responses) -> None:
        self._login = login
        self._responses = responses

    def routes(self, base: str) -> list[web.RouteDef]:
        """Return what the backend serves below ``base``."""
        return [
            web.post(f"{base}/responses", guarded(self._not_ours, self._response)),
            web.get(f"{base}/responses", guarded(self._not_ours, self._socket), allow_head=False),
            web.post(f"{base}/responses/compact", guarded(self._not_ours, self._responses.compact)),
            web.get(f"{base}/models", guarded(self._not_ours, self._models)),
        ]

    def token_route(self, path: str) -> web.RouteDef:
        """Return the token endpoint."""
        return web.post(path, self._token)

    def _not_ours(self, request: web.Request) -> web.Response | None:
        if not self._login.accepts(bearer(request)):
            return refused(401, "Provided authentication token is expired or invalid.", "token_expired")
        if request.headers.getall("chatgpt-account-id", []) != [self._login.account_id]:
            return web.json_response({"detail": "The account is not the token's"}, status=403)
        return None

    async def _response(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        asked = json_object(raw)
        if asked.get("store") is not False:
            return web.json_response({"detail": _STORED}, status=400)
        if asked.get("stream") is not True:
            return web.json_response({"detail": "Stream must be set to true"}, status=400)
        return await self._responses.over_http(request, raw)

    async def _socket(self, request: web.Request, _raw: bytes) -> web.StreamResponse:
        return await self._responses.over_websocket(
            request, lambda asked: None if asked.get("store") is False else _STORED
        )

    async def _models(self, _request: web.Request, _raw: bytes) -> web.StreamResponse:
        return web.json_response(openai.codex_models(), headers=self._responses.fields())

    async def _token(self, request: web.Request) -> web.StreamResponse:
        pair = await renewed(request, self._login)
        if pair is None:
            return refused(401, "Your refresh token has already been used.", "refresh_token_reused")
        answer: Json = {**pair, "id_token": self._login.id_token()}
        return web.json_response(answer)
