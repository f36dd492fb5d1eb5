"""The simulated provider answers like the real ones, refuses what they refuse, and the demo runs on it."""

import asyncio
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from contextlib import asynccontextmanager

import aiohttp
import pytest

from ai_mux.clock import SystemClock
from ai_mux.config import load
from ai_mux.demo import SimulatedProvider, guide, run_demo
from ai_mux.demo.words import TEXT
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
RESPONSE = {"model": "gpt-5.5", "store": False, "stream": True, "input": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def provider():
    provider = SimulatedProvider(pace_s=0)
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield session


def claude_fields(provider: SimulatedProvider, **changed: str | None) -> dict[str, str]:
    fields = {
        "authorization": f"Bearer {provider.claude_login.access}",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219, oauth-2025-04-20",
    }
    merged = fields | {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in merged.items() if value is not None}


def chatgpt_fields(provider: SimulatedProvider, **changed: str | None) -> dict[str, str]:
    fields = {
        "authorization": f"Bearer {provider.chatgpt_login.access}",
        "chatgpt-account-id": provider.chatgpt_login.account_id,
    }
    merged = fields | {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in merged.items() if value is not None}


async def post(http, url: str, body: object, fields: dict[str, str]):
    async with http.post(url, json=body, headers=fields) as response:
        return response, await response.text()


def events(text: str) -> list[dict]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


# Claude


async def test_a_streamed_message_is_the_sequence_that_clients_expect(provider, http):
    url, fields = f"{provider.claude_url}/v1/messages?beta=true", claude_fields(provider)
    response, text = await post(http, url, MESSAGE | {"stream": True}, fields)
    seen = events(text)
    kinds = [event["type"] for event in seen]
    deltas = kinds.count("content_block_delta")

    assert response.status == 200
    assert response.content_type == "text/event-stream"
    assert kinds == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [line[7:] for line in text.splitlines() if line.startswith("event: ")] == kinds
    assert "".join(event["delta"]["text"] for event in seen if event["type"] == kinds[3]) == TEXT
    assert seen[0]["message"]["usage"]["input_tokens"] > 0
    assert seen[0]["message"]["model"] == "claude-sonnet-5"
    assert seen[-2]["delta"]["stop_reason"] == "end_turn"
    assert seen[-2]["usage"]["output_tokens"] > 50
    assert response.headers["request-id"].startswith("req_")
    assert response.headers["anthropic-ratelimit-unified-status"] == "allowed"


async def test_a_plain_message_holds_the_same_text(provider, http):
    response, text = await post(http, f"{provider.claude_url}/v1/messages", MESSAGE, claude_fields(provider))
    message = json.loads(text)
    assert response.status == 200
    assert message["content"] == [{"type": "text", "text": TEXT}]
    assert message["usage"]["output_tokens"] > 50


@pytest.mark.parametrize("ttl", ["5m", "1h"])
async def test_a_prompt_with_marks_for_the_cache_is_partly_read_from_it_and_written_to_it(
    provider, http, ttl
):
    part = {"type": "text", "text": "long " * 100, "cache_control": {"type": "ephemeral", "ttl": ttl}}
    marked = MESSAGE | {"messages": [{"role": "user", "content": [part]}]}
    _, text = await post(http, f"{provider.claude_url}/v1/messages", marked, claude_fields(provider))
    usage = json.loads(text)["usage"]
    other = {"5m": "1h", "1h": "5m"}[ttl]
    assert usage["cache_read_input_tokens"] > 0
    assert usage["cache_creation_input_tokens"] > 0
    assert usage["cache_creation"] == {
        f"ephemeral_{ttl}_input_tokens": usage["cache_creation_input_tokens"],
        f"ephemeral_{other}_input_tokens": 0,
    }


async def test_claude_counts_tokens_and_lists_models(provider, http):
    base, fields = provider.claude_url, claude_fields(provider)
    _, counted = await post(http, f"{base}/v1/messages/count_tokens", MESSAGE, fields)
    assert json.loads(counted)["input_tokens"] > 10
    async with http.get(f"{base}/v1/models?limit=1000", headers=fields) as response:
        models = await response.json()
    assert all(model["id"].startswith("claude-") for model in models["data"])
    async with http.get(f"{base}/v1/models/{models['first_id']}", headers=fields) as response:
        assert (await response.json())["id"] == models["first_id"]
    async with http.get(f"{base}/v1/models/claude-none", headers=fields) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (404, "not_found_error")
    async with http.head(f"{base}/v1/models", headers=fields) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("changed", "status", "kind"),
    [
        ({"authorization": None}, 401, "authentication_error"),
        ({"authorization": "Bearer someone-elses-token"}, 401, "authentication_error"),
        ({"x_api_key": "someone-elses-token"}, 401, "authentication_error"),
        ({"anthropic_beta": None}, 401, "authentication_error"),
        ({"anthropic_beta": "not-oauth-2025-04-20"}, 401, "authentication_error"),
        ({"anthropic_version": None}, 400, "invalid_request_error"),
    ],
)
async def test_claude_refuses_what_the_real_one_refuses(provider, http, changed, status, kind):
    url = f"{provider.claude_url}/v1/messages"
    response, text = await post(http, url, MESSAGE, claude_fields(provider, **changed))
    body = json.loads(text)
    assert (response.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize(
    ("changed", "status", "kind"),
    [
        ({}, 200, None),
        ({"x_api_key": "sk-ant-someone-elses"}, 401, "authentication_error"),
        ({"authorization": "Bearer made-up"}, 401, "authentication_error"),
        ({"anthropic_beta": "oauth-2025-04-20"}, 400, "invalid_request_error"),
        ({"anthropic_version": None}, 400, "invalid_request_error"),
    ],
)
async def test_claude_takes_its_api_key_where_nothing_of_a_login_is_beside_it(
    provider, http, changed, status, kind
):
    without_login = {"authorization": None, "anthropic_beta": None, "x_api_key": provider.claude_key}
    fields = claude_fields(provider, **without_login | changed)
    response, text = await post(http, f"{provider.claude_url}/v1/messages", MESSAGE, fields)
    assert (response.status, json.loads(text).get("error", {}).get("type")) == (status, kind)


async def test_claude_takes_no_oauth_token_as_an_api_key_and_no_api_key_as_a_token(provider, http):
    swapped = [
        {"authorization": None, "anthropic_beta": None, "x_api_key": provider.claude_login.access},
        {"authorization": f"Bearer {provider.claude_key}"},
    ]
    for changed in swapped:
        fields = claude_fields(provider, **changed)
        response, _ = await post(http, f"{provider.claude_url}/v1/messages", MESSAGE, fields)
        assert response.status == 401


@pytest.mark.parametrize("missing", ["model", "max_tokens", "messages"])
async def test_a_message_needs_its_required_fields(provider, http, missing):
    body = {name: value for name, value in MESSAGE.items() if name != missing}
    url = f"{provider.claude_url}/v1/messages"
    response, text = await post(http, url, body, claude_fields(provider))
    assert (response.status, json.loads(text)["error"]["message"]) == (400, f"{missing}: Field required")


# ChatGPT


async def test_a_streamed_response_is_the_sequence_that_clients_expect(provider, http):
    url, fields = f"{provider.chatgpt_url}/responses", chatgpt_fields(provider)
    response, text = await post(http, url, RESPONSE, fields)
    seen = events(text)
    deltas = [event["delta"] for event in seen if event["type"] == "response.output_text.delta"]

    assert response.status == 200
    assert [event["type"] for event in seen] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert "".join(deltas) == TEXT
    completed = seen[-1]["response"]
    assert completed["output"][0]["content"][0]["text"] == TEXT
    assert completed["usage"]["total_tokens"] > 50
    assert completed["id"] == seen[0]["response"]["id"]
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-codex-primary-window-minutes"] == "300"
    assert "openai-model" not in response.headers  # invented, it makes Codex warn of a rerouted model


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"store": True}, "Store must be set to false"),
        ({"store": None}, "Store must be set to false"),
        ({"stream": False}, "Stream must be set to true"),
    ],
)
async def test_the_subscription_takes_only_streams_that_are_not_stored(provider, http, changed, detail):
    url = f"{provider.chatgpt_url}/responses"
    response, text = await post(http, url, RESPONSE | changed, chatgpt_fields(provider))
    assert (response.status, json.loads(text)) == (400, {"detail": detail})


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"authorization": None}, 401),
        ({"authorization": "Bearer someone-elses-token"}, 401),
        ({"chatgpt_account_id": None}, 403),
        ({"chatgpt_account_id": "acct-of-someone-else"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/responses", "/responses/compact"])
async def test_the_subscription_wants_the_token_and_the_account(provider, http, path, changed, status):
    fields = chatgpt_fields(provider, **changed)
    response, _ = await post(http, provider.chatgpt_url + path, RESPONSE, fields)
    assert response.status == status


async def test_the_subscription_lists_models_and_compacts(provider, http):
    fields = chatgpt_fields(provider)
    async with http.get(f"{provider.chatgpt_url}/models?client_version=0.169.0", headers=fields) as response:
        assert (await response.json())["models"][0]["slug"] == "gpt-5.5"
    _, text = await post(http, f"{provider.chatgpt_url}/responses/compact", RESPONSE, fields)
    assert json.loads(text)["output"][0]["type"] == "compaction"


# Over a WebSocket


@pytest.fixture
def dial(http):
    """Connect to where a response is asked for, and return a function that asks and hears to the end."""

    @asynccontextmanager
    async def connected(base: str, fields: dict[str, str]):
        async with http.ws_connect(f"{base}/responses", headers=fields) as socket:

            async def ask(frame: object) -> list[dict]:
                await socket.send_json(frame)
                heard = []
                while not heard or heard[-1]["type"] not in {"response.completed", "error"}:
                    heard.append(await socket.receive_json(timeout=10))
                return heard

            yield ask

    return connected


CREATE = {"type": "response.create"} | RESPONSE


async def test_a_websocket_carries_the_events_of_the_stream(provider, http, dial):
    fields = chatgpt_fields(provider)
    _, streamed = await post(http, f"{provider.chatgpt_url}/responses", RESPONSE, fields)
    async with dial(provider.chatgpt_url, fields) as ask:
        heard = await ask(CREATE)
    assert [event["type"] for event in heard] == [event["type"] for event in events(streamed)]
    assert [event.keys() for event in heard] == [event.keys() for event in events(streamed)]
    assert "".join(event.get("delta", "") for event in heard) == TEXT


async def test_a_warm_up_says_nothing_and_can_be_gone_on_from(provider, dial):
    async with dial(provider.chatgpt_url, chatgpt_fields(provider)) as ask:
        begun, done = await ask(CREATE | {"generate": False})
        assert (begun["type"], done["type"]) == ("response.created", "response.completed")
        assert done["response"]["output"] == []
        *_, answered = await ask(CREATE | {"previous_response_id": done["response"]["id"]})
    assert answered["response"]["output"][0]["content"][0]["text"] == TEXT
    assert answered["response"]["previous_response_id"] == done["response"]["id"]


async def test_what_one_websocket_was_answered_another_one_does_not_know(provider, dial):
    fields = chatgpt_fields(provider)
    async with dial(provider.chatgpt_url, fields) as ask, dial(provider.chatgpt_url, fields) as ask_other:
        *_, done = await ask(CREATE)
        (refused,) = await ask_other(CREATE | {"previous_response_id": done["response"]["id"]})
    assert (refused["status"], refused["error"]["code"]) == (400, "previous_response_not_found")


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ([], "response.create"),
        ({"type": "response.steer"}, "response.create"),
        ({name: value for name, value in CREATE.items() if name != "model"}, "model"),
        (CREATE | {"store": True}, "Store must be set to false"),
    ],
)
async def test_a_frame_that_is_refused_ends_nothing(provider, dial, frame, said):
    async with dial(provider.chatgpt_url, chatgpt_fields(provider)) as ask:
        (refused,) = await ask(frame)
        assert (refused["type"], refused["status"]) == ("error", 400)
        assert said in refused["error"]["message"]
        assert (await ask(CREATE))[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("changed", "status"), [({"authorization": None}, 401), ({"chatgpt_account_id": None}, 403)]
)
async def test_a_handshake_is_refused_as_a_request_is(provider, dial, changed, status):
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        async with dial(provider.chatgpt_url, chatgpt_fields(provider, **changed)):
            pass
    assert raised.value.status == status


async def test_a_websocket_that_is_open_does_not_keep_the_provider_from_stopping(dial):
    provider = SimulatedProvider(pace_s=0)
    await provider.start()
    async with dial(provider.chatgpt_url, chatgpt_fields(provider)) as ask:
        await ask(CREATE)
        async with asyncio.timeout(10):
            await provider.stop()


# OpenAI's API


def key_fields(provider: SimulatedProvider) -> dict[str, str]:
    return {"authorization": f"Bearer {provider.openai_key}"}


async def test_the_api_takes_plain_and_stored_responses_and_chat_completions(provider, http, dial):
    base, fields = f"{provider.openai_url}/v1", key_fields(provider)
    _, text = await post(http, f"{base}/responses", {"model": "gpt-5.5", "input": "hi"}, fields)
    assert json.loads(text)["status"] == "completed"
    assert json.loads(text)["store"] is True
    async with dial(base, fields) as ask:
        *_, done = await ask({"type": "response.create", "model": "gpt-5.5", "input": "hi"})
    assert done["response"]["output"][0]["content"][0]["text"] == TEXT

    chat = {"model": "gpt-5.5", "messages": MESSAGE["messages"]}
    _, text = await post(http, f"{base}/chat/completions", chat, fields)
    assert json.loads(text)["choices"][0]["message"]["content"] == TEXT
    streamed = chat | {"stream": True, "stream_options": {"include_usage": True}}
    _, text = await post(http, f"{base}/chat/completions", streamed, fields)
    *chunks, usage = events(text)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == TEXT
    assert usage["usage"]["total_tokens"] > 50
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert text.endswith("data: [DONE]\n\n")

    long = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "long " * 1000}]}
    _, text = await post(http, f"{base}/chat/completions", long, fields)
    usage = json.loads(text)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] // 2 > 500

    async with http.get(f"{base}/models", headers=fields) as response:
        assert (await response.json())["data"][0]["id"] == "gpt-5.5"
    async with http.get(f"{base}/models/gpt-5.5", headers=fields) as response:
        assert (await response.json())["object"] == "model"
    async with http.get(f"{base}/models/none", headers=fields) as response:
        assert response.status == 404


async def test_the_api_takes_no_login_and_the_subscription_no_api_key(provider, http):
    login = chatgpt_fields(provider)
    response, text = await post(http, f"{provider.openai_url}/v1/responses", RESPONSE, login)
    assert (response.status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
    response, text = await post(
        http, f"{provider.chatgpt_url}/responses", RESPONSE, login | key_fields(provider)
    )
    assert (response.status, json.loads(text)["error"]["code"]) == (401, "token_expired")


async def test_words_come_one_by_one(http):
    provider = SimulatedProvider(pace_s=0.001)
    await provider.start()
    try:
        body = MESSAGE | {"stream": True}
        url = f"{provider.claude_url}/v1/messages"
        async with http.post(url, json=body, headers=claude_fields(provider)) as response:
            pieces = [piece async for piece, _ in response.content.iter_chunks()]
    finally:
        await provider.stop()
    assert len(pieces) > 20


# Logins


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
@pytest.mark.parametrize("sent_as", ["json", "data"])
async def test_a_refresh_token_is_good_for_one_renewal(provider, http, name, sent_as):
    login = getattr(provider, f"{name}_login")
    url = getattr(provider, f"{name}_token_url")
    first, old_access = login.refresh, login.access
    body = {"grant_type": "refresh_token", "refresh_token": first, "client_id": "made-up"}

    async with http.post(url, **{sent_as: body}) as response:
        pair = await response.json()
    assert (pair["access_token"], pair["refresh_token"]) == (login.access, login.refresh)
    assert pair["expires_in"] == 8 * 3600
    assert pair["access_token"] != old_access
    assert login.accepts(pair["access_token"])
    assert login.accepts(old_access)

    async with http.post(url, **{sent_as: body}) as response:
        refused = await response.json()
    assert login.renewals == 1
    if name == "claude":
        assert (response.status, refused["error"]) == (400, "invalid_grant")
    else:
        assert (response.status, refused["error"]["code"]) == (401, "refresh_token_reused")


async def test_revoked_and_expired_access_tokens_are_refused(http):
    class Clock(SystemClock):
        def __init__(self) -> None:
            super().__init__()
            self.time = lambda: self.now
            self.now = 1_800_000_000.0

    clock = Clock()
    login = SimulatedProvider(clock=clock, lifetime_s=60).claude_login
    assert login.accepts(login.access)
    clock.now += 60
    assert not login.accepts(login.access)
    assert login.renew(login.refresh)
    assert login.accepts(login.access)
    login.revoke_access()
    assert not login.accepts(login.access)


async def test_the_credential_files_are_read_by_the_real_providers(provider, tmp_path):
    provider.write_credentials(tmp_path)
    for name, login in (("claude", provider.claude_login), ("chatgpt", provider.chatgpt_login)):
        path = tmp_path / name / PROVIDERS[name].credential_file
        credential = PROVIDERS[name].issuer.read(path.read_bytes())
        assert credential.access.reveal() == login.access
        assert credential.refresh.reveal() == login.refresh
        assert credential.account_id == login.account_id
        assert abs(credential.expires_at - login.expires_at) < 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    document = json.loads((tmp_path / "claude" / ".credentials.json").read_text())
    assert document["claudeAiOauth"]["expiresAt"] > 10**12  # milliseconds, as Claude Code writes them


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_behind(provider):
    port = int(provider.claude_url.split(":")[2].split("/")[0])
    second = SimulatedProvider()
    with pytest.raises(OSError):
        await second.start(port=port)
    await second.stop()


# The demo

# Where the demo begins to look for a port: each Python that runs the tests just then has its own.
FIRST_PORT = 18_080 + os.getpid() % 100 * 100


class Screen(io.StringIO):
    """What the demo printed; others can wait for a word of it."""

    def __init__(self) -> None:
        super().__init__()
        self._written = asyncio.Event()

    def write(self, text: str) -> int:
        self._written.set()
        return super().write(text)

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(20):
            while text not in self.getvalue():
                self._written.clear()
                await self._written.wait()


def quiet() -> Log:
    return Log(level="warn", write=len, clock=SystemClock())


def one_line(text: str) -> str:
    return " ".join(text.split())


async def test_once_prints_the_answer_and_ends():
    out = Screen()
    assert await run_demo(once=True, out=out, pace_s=0, first_port=FIRST_PORT, log=quiet()) == 0
    assert TEXT in one_line(out.getvalue())
    assert "\x1b" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "AI_MUX_TOKEN" not in out.getvalue()


async def test_the_next_free_port_is_taken():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        out = Screen()
        assert await run_demo(once=True, out=out, pace_s=0, first_port=port, log=quiet()) == 0
    used = int(re.search(r"listens on http://127\.0\.0\.1:(\d+)", out.getvalue())[1])
    assert port < used < port + 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["Hello!", "Serving until Ctrl-C"])
async def test_a_signal_ends_it_in_order_at_any_time(number, when):
    out = Screen()
    pace_s = 0.5 if when == "Hello!" else 0
    running = asyncio.create_task(
        run_demo(once=False, out=out, pace_s=pace_s, first_port=FIRST_PORT, log=quiet())
    )
    await out.shows(when)
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(running, 10) == 0


async def test_the_curl_lines_work_as_printed():
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    out = Screen()
    running = asyncio.create_task(run_demo(once=False, out=out, pace_s=0, first_port=FIRST_PORT, log=quiet()))
    await out.shows("Serving until Ctrl-C")
    page = out.getvalue()
    token = re.search(r"^export AI_MUX_TOKEN=.+$", page, re.MULTILINE)[0]
    commands = re.findall(r"^curl .+?\n\n", page, re.MULTILINE | re.DOTALL)
    answers = []
    for command in commands:
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", f"{token}\n{command}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=os.environ | {"no_proxy": "*"},  # whatever proxy this machine uses
        )  # fmt: skip
        answers.append((await asyncio.wait_for(shell.communicate(), 20))[0].decode())
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == 0
    claude, chatgpt, usage = answers
    assert "message_stop" in claude
    assert "response.completed" in chatgpt
    assert json.loads(usage)["usage"]["today"]["requests"] == 1 + 2  # the demo's own among them


def test_at_a_terminal_the_command_prints_with_colour_and_nothing_on_stderr(tmp_path):
    ours, theirs = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm"}
    command = [sys.executable, "-m", "ai_mux", "demo", "--once"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environ)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux's word for: the other side is closed
            break
        if not piece:
            break
        seen += piece
    _, errors = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 0
    assert errors == b""
    assert "\x1b[32m" in seen.decode()
    plain = re.sub(r"\x1b\[\d+m", "", seen.decode())
    assert TEXT in one_line(plain)


def test_the_configuration_to_go_on_with_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ai-mux" / "token"
    token.parent.mkdir(mode=0o700)
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef" * 3 + "\n")
    file = tmp_path / "config.yaml"
    file.touch(mode=0o600)
    file.write_text(guide.real_config())
    config = load(file, known_providers=tuple(PROVIDERS))
    assert config.warnings == ()
    assert [user.name for user in config.users] == ["me"]


def test_the_settings_to_try_are_well_formed():
    address = "http://127.0.0.1:8080"
    codex = tomllib.loads(guide.codex(address))
    ours = codex["model_providers"][codex["model_provider"]]
    assert (ours["base_url"], ours["supports_websockets"]) == (f"{address}/chatgpt/v1", True)
    for program in (guide.python_anthropic(address), guide.python_openai(address)):
        compile(program, "guide", "exec")


def test_starting_the_server_does_not_import_the_demo():
    program = "import sys, ai_mux.app, ai_mux.cli; print([n for n in sys.modules if n == 'ai_mux.demo'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"[]\n"
