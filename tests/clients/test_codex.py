"""Codex, headless, through the gateway over HTTP."""

import pytest
from codex_client import answer_in, ask
from gateway_process import STRANGER
from watching import Watch

pytestmark = pytest.mark.clients


async def test_codex_gets_its_answer_over_http(run_client, clients, gateway, tmp_path):
    finished = await ask(run_client, clients, gateway, tmp_path)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert await gateway.requests() == [("POST", "/chatgpt/v1/responses", 200)]


async def test_codex_shows_its_user_that_the_token_is_wrong(run_client, clients, gateway, tmp_path):
    finished = await ask(run_client, clients, gateway, tmp_path, token=STRANGER)

    assert finished.code == 1
    assert "No valid ai-mux token" in finished.out
    assert await gateway.requests() == [("POST", "/chatgpt/v1/responses", 401)]


async def test_codex_is_served_with_the_servers_api_key(run_client, clients, serve, tmp_path):
    watch = Watch()
    provider = watch.provider()
    gateway = await serve(provider, openai=True, api_key=provider.openai_key)
    finished = await ask(run_client, clients, gateway, tmp_path)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert watch.lines == [("POST /openai/v1/responses", 200)]
    assert watch.seen[0].fields.getall("authorization") == [f"Bearer {provider.openai_key}"]
