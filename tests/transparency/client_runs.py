"""How each client is run so that it sends what it sends in life.

One run is one client with one set of settings; what it sends is recorded under its
name. The clients are those that are pinned: Claude Code, Codex and the JavaScript
SDKs by the clients' package-lock.json, the Python SDKs by requirements-dev.lock.
curl is the machine's.
"""

import base64
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

# The user's token at the gateway, in every recording.
TOKEN: Final = "made-up-user-token-of-alice"
# What a client may send besides, where two of its settings hold a token each.
OTHER_TOKEN: Final = "made-up-other-token-of-alice"

_QUIET: Final = {
    "CLAUDE_CODE_MAX_RETRIES": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1", "DISABLE_AUTOUPDATER": "1",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a client runs.

    Attributes:
        url: The recorder's address, without a path.
        home: The client's home, which is empty at first.
        modules: ``node_modules`` with the JavaScript SDKs.
        claude: The program of Claude Code.
        codex: The program of Codex.
        run: Runs ``command`` in that home with ``environment`` and no way out but loopback.
    """

    url: str
    home: Path
    modules: Path
    claude: Path
    codex: Path
    run: Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A client and its settings.

    Attributes:
        start: Runs it to its end.
        cuts: The first streamed answer breaks off.
    """

    start: Callable[[Where], Awaitable[Any]]
    cuts: bool = False


# Claude Code


def _claude(*arguments: str, **variables: str) -> Callable[[Where], Awaitable[Any]]:
    def start(where: Where) -> Awaitable[Any]:
        asked = arguments or ("say hi",)
        environment = {
            "ANTHROPIC_BASE_URL": f"{where.url}/claude", "CLAUDE_CONFIG_DIR": str(where.home / "settings"),
        }  # fmt: skip
        return where.run(
            where.claude, "-p", *asked, "--output-format", "json", "--model", "claude-sonnet-5",
            environment=environment | _QUIET | variables,
        )  # fmt: skip

    return start


# Codex


def _codex(*, model: str = "gpt-5.5", **provider: object) -> Callable[[Where], Awaitable[Any]]:
    async def start(where: Where) -> Any:
        settings = {
            "name": "ai-mux", "base_url": f"{where.url}/chatgpt/v1", "wire_api": "responses",
            "request_max_retries": 0, "stream_max_retries": 0,
        } | provider  # fmt: skip
        lines = ['model_provider = "ai-mux"', "[model_providers.ai-mux]"]
        (where.home / "settings").mkdir()
        (where.home / "settings" / "config.toml").write_text(
            "\n".join([*lines, *(f"{key} = {_toml(value)}" for key, value in settings.items())])
        )
        return await _exec(where, model)

    return start


async def _codex_with_a_chatgpt_login(where: Where) -> Any:
    """Run Codex's own provider, pointed here: the only one that compresses its requests."""
    settings = where.home / "settings"
    settings.mkdir()
    (settings / "config.toml").write_text(
        f'openai_base_url = "{where.url}/chatgpt/v1"\nchatgpt_base_url = "{where.url}/nowhere/"\n'
        'cli_auth_credentials_store = "file"\n'
    )
    claims = {
        "email": "alice@example.com", "exp": 4102444800,
        "https://api.openai.com/auth": {"chatgpt_account_id": "made-up-account", "chatgpt_plan_type": "plus"},
    }  # fmt: skip
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    encoded = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts]
    tokens = {
        "id_token": ".".join([*encoded, "c2ln"]), "access_token": TOKEN,
        "refresh_token": "made-up", "account_id": "made-up-account",
    }  # fmt: skip
    login = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens}
    (settings / "auth.json").write_text(json.dumps(login | {"last_refresh": "2026-11-22T00:00:00Z"}))
    return await _exec(where, "gpt-5.5")


def _exec(where: Where, model: str) -> Awaitable[Any]:
    return where.run(
        where.codex, "exec", "--skip-git-repo-check", "--ephemeral", "--json", "-m", model, "say hi",
        environment={"CODEX_HOME": str(where.home / "settings"), "AI_MUX_TOKEN": TOKEN},
    )  # fmt: skip


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


# SDKs


def _python(program: str) -> Callable[[Where], Awaitable[Any]]:
    def start(where: Where) -> Awaitable[Any]:
        return where.run(
            sys.executable, "-c", dedent(program), environment={"URL": where.url, "TOKEN": TOKEN}
        )

    return start


def _javascript(program: str) -> Callable[[Where], Awaitable[Any]]:
    def start(where: Where) -> Awaitable[Any]:
        # An import is looked for from where the file lies.
        (where.home / "node_modules").symlink_to(where.modules)
        script = where.home / "program.mjs"
        script.write_text(dedent(program))
        return where.run("node", script, environment={"URL": where.url, "TOKEN": TOKEN})

    return start


_ANTHROPIC_PYTHON: Final = """
    import asyncio, os
    from anthropic import Anthropic, AsyncAnthropic
    where = dict(base_url=os.environ["URL"] + "/claude", api_key=os.environ["TOKEN"], max_retries=0)
    asked = dict(model="claude-sonnet-5", messages=[{"role": "user", "content": "say hi"}])
    with Anthropic(**where) as client:
        client.messages.create(max_tokens=100, **asked)
        with client.messages.stream(max_tokens=100, **asked) as stream:
            stream.get_final_message()
        client.messages.count_tokens(**asked)
        client.beta.messages.create(max_tokens=100, betas=["context-1m-2025-08-07"], **asked)
        list(client.models.list())
        client.models.retrieve("claude-sonnet-5")
    async def main():
        async with AsyncAnthropic(**where) as client:
            await client.messages.create(max_tokens=100, timeout=30, **asked)
    asyncio.run(main())
"""
_OPENAI_PYTHON: Final = """
    import os
    from openai import OpenAI
    with OpenAI(base_url=os.environ["URL"] + "/chatgpt/v1", api_key=os.environ["TOKEN"], max_retries=0,
                organization="org-made-up", project="proj_madeup") as client:
        list(client.responses.create(model="gpt-5.5", input="say hi", store=False, stream=True))
        client.responses.create(model="gpt-5.5", input="say hi")
        client.chat.completions.create(model="gpt-5.5", messages=[{"role": "user", "content": "say hi"}])
        client.embeddings.create(model="text-embedding-3-small", input="hi")
        list(client.models.list())
        client.models.retrieve("gpt-5.5")
"""
_ANTHROPIC_JAVASCRIPT: Final = """
    import Anthropic from "@anthropic-ai/sdk";
    const {URL: url, TOKEN: apiKey} = process.env;
    const client = new Anthropic({baseURL: url + "/claude", apiKey, maxRetries: 0});
    const asked = {model: "claude-sonnet-5", messages: [{role: "user", content: "say hi"}]};
    await client.messages.create({max_tokens: 100, ...asked});
    await client.messages.stream({max_tokens: 100, ...asked}).finalMessage();
    await client.messages.countTokens(asked);
    for await (const model of client.models.list()) await client.models.retrieve(model.id);
"""
_OPENAI_JAVASCRIPT: Final = """
    import OpenAI from "openai";
    const {URL: url, TOKEN: apiKey} = process.env;
    const client = new OpenAI({baseURL: url + "/chatgpt/v1", apiKey, maxRetries: 0});
    const stream = await client.responses.create(
        {model: "gpt-5.5", input: "say hi", store: false, stream: true});
    for await (const event of stream) {}
    await client.responses.create({model: "gpt-5.5", input: "say hi"});
    await client.chat.completions.create({model: "gpt-5.5", messages: [{role: "user", content: "say hi"}]});
    await client.embeddings.create({model: "text-embedding-3-small", input: "hi"});
    for await (const model of client.models.list()) {}
    await client.models.retrieve("gpt-5.5");
"""

# curl


def _curl(*arguments: str, path: str = "/claude/v1/messages") -> Callable[[Where], Awaitable[Any]]:
    def start(where: Where) -> Awaitable[Any]:
        # 2 MiB, for which curl asks before it sends (RFC 9110, 10.1.1).
        (where.home / "large.json").write_bytes(b'{"stream":false,"filler":"' + b"x" * (2 << 20) + b'"}')
        return where.run("curl", "-sS", *arguments, where.url + path, environment={})

    return start


_QUESTION: Final = (
    '{"model":"claude-sonnet-5","max_tokens":100,"messages":[{"role":"user","content":"say hi"}]}'
)
_BEARER: Final = ("-H", f"Authorization: Bearer {TOKEN}")
_KEY: Final = ("-H", f"x-api-key: {TOKEN}", "-H", "anthropic-version: 2023-06-01")
_JSON: Final = ("-H", "content-type: application/json")

RUNS: Final[dict[str, Run]] = {
    "claude-code-token": Run(start=_claude(ANTHROPIC_AUTH_TOKEN=TOKEN), cuts=True),
    "claude-code-key": Run(start=_claude(ANTHROPIC_API_KEY=TOKEN)),
    "claude-code-both": Run(start=_claude(ANTHROPIC_AUTH_TOKEN=TOKEN, ANTHROPIC_API_KEY=OTHER_TOKEN)),
    "claude-code-oauth": Run(start=_claude(CLAUDE_CODE_OAUTH_TOKEN=TOKEN)),
    "claude-code-context": Run(start=_claude("/context", ANTHROPIC_AUTH_TOKEN=TOKEN)),
    "claude-code-discovery": Run(
        start=_claude(
            ANTHROPIC_AUTH_TOKEN=TOKEN,
            CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="",  # discovery counts as that
            ANTHROPIC_CUSTOM_HEADERS="X-Team: blue\nX-Forwarded-For: 192.0.2.1",
        )
    ),
    "codex-http": Run(start=_codex(env_key="AI_MUX_TOKEN", supports_websockets=False)),
    "codex-websocket": Run(start=_codex(env_key="AI_MUX_TOKEN", supports_websockets=True)),
    "codex-command": Run(start=_codex(auth={"command": "printenv", "args": ["AI_MUX_TOKEN"]})),
    "codex-login": Run(start=_codex_with_a_chatgpt_login),
    "anthropic-python": Run(start=_python(_ANTHROPIC_PYTHON)),
    "openai-python": Run(start=_python(_OPENAI_PYTHON)),
    "anthropic-js": Run(start=_javascript(_ANTHROPIC_JAVASCRIPT)),
    "openai-js": Run(start=_javascript(_OPENAI_JAVASCRIPT)),
    "curl-key": Run(start=_curl(*_KEY, *_JSON, "-d", _QUESTION)),
    "curl-bearer": Run(start=_curl(*_BEARER, *_JSON, "--compressed", "-d", _QUESTION)),
    "curl-http10": Run(start=_curl(*_KEY, *_JSON, "-0", "-d", _QUESTION)),
    "curl-h2c": Run(start=_curl(*_KEY, *_JSON, "--http2", "-d", _QUESTION)),
    "curl-get-h2c": Run(start=_curl(*_BEARER, "--http2", path="/chatgpt/v1/models")),
    "curl-head": Run(start=_curl(*_BEARER, "-I", path="/chatgpt/v1/models")),
    "curl-large": Run(start=_curl(*_KEY, *_JSON, "--data-binary", "@large.json")),
    "curl-chunked": Run(
        start=_curl(*_KEY, *_JSON, "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-d", _QUESTION)
    ),
}
