"""Codex, headless, through the gateway; over WebSocket it falls back to HTTP."""

import json

import pytest
from gateway_process import STRANGER, TOKEN

pytestmark = pytest.mark.clients


async def ask(run_client, clients, gateway, home, *, token=TOKEN, websockets=False):
    """Return what Codex printed for one question, asked without retries so that a failure shows at once."""
    codex_home = home / "codex-home"
    codex_home.mkdir()
    (codex_home / "config.toml").write_text(
        f"""
        model = "gpt-5.5"
        model_provider = "ai-mux"
        [model_providers.ai-mux]
        name = "ai-mux"
        base_url = "{gateway.url}/chatgpt/v1"
        wire_api = "responses"
        env_key = "AI_MUX_TOKEN"
        supports_websockets = {str(websockets).lower()}
        request_max_retries = 0
        stream_max_retries = 0
        """
    )
    return await run_client(
        clients.codex, "exec", "--skip-git-repo-check", "--ephemeral", "--json", "say hi",
        environment={"CODEX_HOME": str(codex_home), "AI_MUX_TOKEN": token},
    )  # fmt: skip


def answer_in(finished):
    """Return the text of the agent's messages among the JSON lines that ``codex exec --json`` prints."""
    events = [json.loads(line) for line in finished.out.splitlines()]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return "".join(item["text"] for item in items if item["type"] == "agent_message")


async def test_codex_gets_its_answer_over_http(run_client, clients, gateway, tmp_path):
    finished = await ask(run_client, clients, gateway, tmp_path)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert await gateway.requests() == [("POST", "/chatgpt/v1/responses", 200)]


async def test_codex_with_websockets_falls_back_to_http_on_the_first_426(
    run_client, clients, gateway, tmp_path
):
    finished = await ask(run_client, clients, gateway, tmp_path, websockets=True)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert await gateway.requests() == [
        ("GET", "/chatgpt/v1/responses", 426),
        ("POST", "/chatgpt/v1/responses", 200),
    ]


async def test_codex_shows_its_user_that_the_token_is_wrong(run_client, clients, gateway, tmp_path):
    finished = await ask(run_client, clients, gateway, tmp_path, token=STRANGER)

    assert finished.code == 1
    assert "No valid ai-mux token" in finished.out
    assert await gateway.requests() == [("POST", "/chatgpt/v1/responses", 401)]
