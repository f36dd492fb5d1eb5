"""The simulated API of OpenAI: with an API key, responses of any kind and chat completions."""

from aiohttp import web

from ai_mux.demo import openai
from ai_mux.demo.responses import Responses, missing_model, refused
from ai_mux.demo.serving import bearer, guarded, json_object, stream
from ai_mux.demo.words import tokens_in


class OpenAIApi:
    """Responses, chat completions and models for one made-up key."""

    def __init__(self, *, key: str, responses: Responses, pace_s: float) -> None:
        self._key = key
        self._responses = responses
        self._pace_s = pace_s

    def routes(self, base: str) -> list[web.RouteDef]:
        """Return what is served below ``base``."""
        return [
            web.post(f"{base}/responses", guarded(self._not_valid, self._responses.over_http)),
            web.get(f"{base}/responses", guarded(self._not_valid, self._socket), allow_head=False),
            web.post(f"{base}/responses/compact", guarded(self._not_valid, self._responses.compact)),
            web.post(f"{base}/chat/completions", guarded(self._not_valid, self._chat)),
            web.get(f"{base}/models", guarded(self._not_valid, self._models)),
            web.get(f"{base}/models/{{id}}", guarded(self._not_valid, self._model)),
        ]

    def _not_valid(self, request: web.Request) -> web.Response | None:
        if bearer(request) != self._key:
            return refused(401, "Incorrect API key provided.", "invalid_api_key")
        return None

    async def _socket(self, request: web.Request, _raw: bytes) -> web.StreamResponse:
        return await self._responses.over_websocket(request)

    async def _chat(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        asked, count = json_object(raw), tokens_in(raw)
        if "model" not in asked:
            return missing_model()
        model, fields = str(asked["model"]), self._responses.fields()
        if asked.get("stream") is True:
            options = asked.get("stream_options")
            usage = isinstance(options, dict) and options.get("include_usage") is True
            events = openai.chat_events(model, count, include_usage=usage)
            return await stream(request, fields, events, pace_s=self._pace_s)
        return web.json_response(openai.chat_completion(model, count), headers=fields)

    async def _models(self, _request: web.Request, _raw: bytes) -> web.StreamResponse:
        return web.json_response(openai.model_list(), headers=self._responses.fields())

    async def _model(self, request: web.Request, _raw: bytes) -> web.StreamResponse:
        name = request.match_info["id"]
        if name not in openai.MODELS:
            return refused(404, f"The model '{name}' does not exist.", "model_not_found")
        return web.json_response(openai.model_entry(name), headers=self._responses.fields())
