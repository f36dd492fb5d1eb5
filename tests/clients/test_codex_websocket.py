"""Codex, headless, through the gateway over a WebSocket, and what it does where there is none."""

import asyncio
import json
import ssl
import time

import pytest
from aiohttp import web
from codex_client import answer_in, ask
from gateway_process import STRANGER, restarted
from watching import Watch

pytestmark = pytest.mark.clients

HANDSHAKE = "GET /backend-api/codex/responses"
POST = "POST /backend-api/codex/responses"
PATH = "/chatgpt/v1/responses"


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture(params=["http", "https"])
def upstream(request):
    """Settings of ``serve`` for a provider that speaks plain HTTP, or TLS by an authority of its own."""
    if request.param == "http":
        return {}
    certificate = request.getfixturevalue("certificate")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return {"tls": tls, "ca_file": str(certificate), "claude": {"ca_file": str(certificate)}}


def texts(asked):
    """Return the texts of what was asked."""
    return [part["text"] for item in asked["input"] for part in item.get("content", ()) if "text" in part]


def usage_limit():
    """Return the error for which the client has words of its own."""
    resets_at = int(time.time()) + 7200
    return {"type": "usage_limit_reached", "message": "made up", "plan_type": "plus", "resets_at": resets_at}


# Over the WebSocket


async def test_codex_is_served_over_one_websocket_from_its_warm_up_on(
    run_client, clients, serve, watch, upstream, tmp_path
):
    provider = watch.provider()
    gateway = await serve(provider, **upstream)
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert watch.lines == [(HANDSHAKE, 101)]  # and no POST
    warm_up, question = watch.asked
    assert warm_up["generate"] is False
    assert question["previous_response_id"] == watch.completed[0]
    assert "say hi" in texts(question)
    assert not set(texts(warm_up)) & set(texts(question))  # what is new, and nothing twice
    fields = watch.seen[0].fields
    assert fields.getall("authorization") == [f"Bearer {provider.chatgpt_login.access}"]
    assert fields.getall("chatgpt-account-id") == [provider.chatgpt_login.account_id]
    assert "sec-websocket-extensions" not in fields
    assert "responses_websockets" in fields["openai-beta"]
    assert await gateway.requests() == [("GET", PATH, 101)]


async def test_codex_uses_a_tool_and_reports_back_over_the_same_websocket(
    run_client, clients, serve, watch, upstream, tmp_path
):
    call = {
        "type": "function_call", "id": "fc_made_up", "call_id": "call_made_up", "name": "exec_command",
        "arguments": json.dumps({"cmd": "echo $((6 * 7)) made up; head -c 20000 /dev/zero | tr '\\0' x"}),
    }  # fmt: skip
    watch.script = [
        [
            {"type": "response.created", "response": {"id": "resp_made_up"}},
            {"type": "response.output_item.done", "output_index": 0, "item": call},
            {"type": "response.completed", "response": {"id": "resp_made_up", "output": [call]}},
        ]
    ]
    gateway = await serve(watch.provider(), **upstream)
    finished = await ask(
        run_client, clients, gateway, tmp_path, "--dangerously-bypass-approvals-and-sandbox", websockets=True
    )

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert watch.lines == [(HANDSHAKE, 101)]
    _, _, report = watch.asked
    assert report["previous_response_id"] == "resp_made_up"
    (output,) = (item for item in report["input"] if item["type"] == "function_call_output")
    assert output["call_id"] == "call_made_up"
    assert "42 made up" in str(output["output"])
    assert await gateway.requests() == [("GET", PATH, 101)]


async def test_a_token_that_the_handshake_finds_revoked_is_renewed_and_codex_notices_nothing(
    run_client, clients, serve, watch, tmp_path
):
    provider = watch.provider()
    gateway = await serve(provider)
    provider.chatgpt_login.revoke_access()
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True)

    assert finished.code == 0, finished.out + finished.err
    assert watch.lines == [(HANDSHAKE, 401), ("POST /oauth/token", 200), (HANDSHAKE, 101)]
    assert await gateway.requests() == [("GET", PATH, 101)]


async def test_codex_is_served_over_a_websocket_with_the_api_key_of_an_auth_json(
    run_client, clients, serve, watch, tmp_path
):
    provider = watch.provider()
    provider.write_credentials(tmp_path / "state")
    auth_json = tmp_path / "state" / "chatgpt" / "auth.json"
    auth_json.write_text(json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": provider.openai_key}))
    gateway = await serve(provider, openai=True)
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert watch.lines == [("GET /openai/v1/responses", 101)]
    assert watch.seen[0].fields.getall("authorization") == [f"Bearer {provider.openai_key}"]
    assert "chatgpt-account-id" not in watch.seen[0].fields


# Where there is none


@pytest.mark.parametrize("status", [404, 502])
async def test_codex_falls_back_to_http_at_once_where_the_upstream_has_no_websocket(
    run_client, clients, serve, watch, tmp_path, status
):
    watch.refusals = [lambda: web.json_response({"detail": "made up"}, status=status)]
    gateway = await serve(watch.provider())
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True, retries=True)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert watch.lines == [(HANDSHAKE, status), (POST, 200)]
    assert await gateway.requests() == [("GET", PATH, 426), ("POST", PATH, 200)]


# What goes wrong


async def test_codex_tells_its_user_of_the_usage_limit_that_the_handshake_met(
    run_client, clients, serve, watch, tmp_path
):
    watch.refusals = [lambda: web.json_response({"error": usage_limit()}, status=429)] * 9
    gateway = await serve(watch.provider())
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True)

    assert finished.code == 1
    assert "hit your usage limit" in finished.out
    assert "try again at" in finished.out  # it has read when
    assert set(watch.lines) == {(HANDSHAKE, 429)}
    assert set(await gateway.requests()) == {("GET", PATH, 429)}


async def test_codex_tells_its_user_of_the_usage_limit_that_came_over_the_websocket(
    run_client, clients, serve, watch, tmp_path
):
    watch.script = [[{"type": "error", "status": 429, "error": usage_limit()}]]
    gateway = await serve(watch.provider())
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True)

    assert finished.code == 1
    assert "hit your usage limit" in finished.out
    assert "try again at" in finished.out
    assert watch.lines == [(HANDSHAKE, 101)]


async def test_codex_shows_its_user_that_the_token_is_wrong(run_client, clients, serve, watch, tmp_path):
    gateway = await serve(watch.provider())
    finished = await ask(run_client, clients, gateway, tmp_path, token=STRANGER, websockets=True)

    assert finished.code == 1
    assert "No valid ai-mux token" in finished.out
    assert not watch.seen
    assert {status for _, _, status in await gateway.requests()} == {401}


async def test_codex_begins_anew_where_the_provider_cuts_its_websocket(
    run_client, clients, serve, watch, tmp_path
):
    def cut():
        yield {"type": "response.created", "response": {"id": "resp_made_up"}}
        raise ConnectionResetError

    watch.script = [cut()]
    gateway = await serve(watch.provider())
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True, retries=True)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert watch.lines == [(HANDSHAKE, 101)] * 2
    assert "previous_response_id" not in watch.asked[2]


async def test_codex_outlives_a_restart_of_the_gateway_in_the_middle_of_an_answer(
    run_client, clients, serve, watch, tmp_path
):
    watch.script = [[{"type": "response.created", "response": {"id": "resp_made_up"}}]]  # and no more
    gateway = await serve(watch.provider())
    asking = asyncio.create_task(ask(run_client, clients, gateway, tmp_path, websockets=True, retries=True))
    async with asyncio.timeout(30):
        while len(watch.asked) < 2:
            assert not asking.done(), asking.result()
            await asyncio.sleep(0.02)
    async with restarted(gateway, tmp_path):
        finished = await asking

    assert await gateway.requests() == [("GET", PATH, 101)]
    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
