"""Claude Code, headless, through the gateway."""

import json

import pytest
from gateway_process import STRANGER, TOKEN
from watching import Watch

pytestmark = pytest.mark.clients

# No calls to anywhere but the model.
_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}


async def ask(run_client, clients, gateway, home, **variables):
    """Return the exit code and the JSON result of one question."""
    finished = await run_client(
        clients.claude, "-p", "say hi", "--output-format", "json", "--model", "claude-sonnet-5",
        environment={
            "CLAUDE_CONFIG_DIR": str(home / "claude-config"), "ANTHROPIC_BASE_URL": f"{gateway.url}/claude",
        } | variables | _QUIET,
    )  # fmt: skip
    assert finished.out, finished.err
    return finished.code, json.loads(finished.out)


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
async def test_claude_code_gets_its_answer_with_the_token_in_either_variable(
    run_client, clients, gateway, tmp_path, variable
):
    code, result = await ask(
        run_client, clients, gateway, tmp_path, CLAUDE_CODE_MAX_RETRIES="0", **{variable: TOKEN}
    )

    assert (code, result["is_error"], result["subtype"]) == (0, False, "success")
    assert "ai-mux" in result["result"]
    assert set(await gateway.requests()) == {("POST", "/claude/v1/messages", 200)}


async def test_claude_code_is_told_once_that_its_token_is_wrong(run_client, clients, gateway, tmp_path):
    # Its own retries stay on: without x-should-retry it would try for more than a minute.
    code, result = await ask(run_client, clients, gateway, tmp_path, ANTHROPIC_AUTH_TOKEN=STRANGER)

    assert code == 1
    assert result["api_error_status"] == 401
    assert "No valid ai-mux token" in result["result"]
    assert await gateway.requests() == [("POST", "/claude/v1/messages", 401)]


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
async def test_claude_code_is_served_with_the_servers_api_key_and_no_sign_of_a_login(
    run_client, clients, serve, tmp_path, variable
):
    watch = Watch()
    provider = watch.provider()
    gateway = await serve(provider, claude={"api_key": provider.claude_key})
    code, result = await ask(
        run_client, clients, gateway, tmp_path, CLAUDE_CODE_MAX_RETRIES="0", **{variable: TOKEN}
    )

    assert (code, result["is_error"]) == (0, False)
    assert "ai-mux" in result["result"]
    assert set(watch.lines) == {("POST /anthropic/v1/messages", 200)}
    for one in watch.seen:
        assert one.fields.getall("x-api-key") == [provider.claude_key]
        assert "authorization" not in one.fields
        assert "claude-code-20250219" in one.fields["anthropic-beta"]
        assert "oauth" not in one.fields["anthropic-beta"]


async def test_claude_code_is_told_once_that_the_servers_api_key_is_not_accepted(
    run_client, clients, serve, tmp_path
):
    watch = Watch()
    gateway = await serve(watch.provider(), claude={"api_key": "sk-ant-made-up-and-revoked"})
    code, result = await ask(run_client, clients, gateway, tmp_path, ANTHROPIC_AUTH_TOKEN=TOKEN)

    assert code == 1
    assert result["api_error_status"] == 503
    assert "operator" in result["result"]
    assert "made-up" not in result["result"]
    assert watch.lines == [("POST /anthropic/v1/messages", 401)]
    assert await gateway.requests() == [("POST", "/claude/v1/messages", 503)]
