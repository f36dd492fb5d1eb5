"""What ``ai-mux client-config`` prints, pasted as it is, and run against a gateway."""

import asyncio
import json
import sys

import pytest
from gateway_process import TOKEN

pytestmark = pytest.mark.clients

_ASKS = '"$CLAUDE" -p "say hi" --output-format json\n'


@pytest.fixture
def printed(gateway, tmp_path):
    """Return a function that prints a client's settings for the gateway, whose user's token is in a file."""
    token = tmp_path / "alice.token"
    token.touch(0o600)
    token.write_text(TOKEN + "\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config["users"] = [{"name": "alice", "token_file": str(token)}]
    file = tmp_path / "shown.json"
    file.touch(0o600)
    file.write_text(json.dumps(config))

    async def settings(client, *arguments):
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ai_mux", "client-config", client, *arguments,
            "--config", file, "--url", gateway.url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await program.communicate()
        assert program.returncode == 0, err
        return out.decode()

    return settings


@pytest.fixture
def run_example(run_client):
    """Run a command and return what it printed."""

    async def run(*command, **environment):
        finished = await run_client(*command, environment=environment)
        assert finished.code == 0, finished.out + finished.err
        return finished.out

    return run


@pytest.mark.parametrize("client", ["anthropic-python", "openai-python"])
async def test_python(run_example, printed, client):
    assert "ai-mux" in await run_example(sys.executable, "-c", await printed(client), AI_MUX_TOKEN=TOKEN)


@pytest.mark.parametrize("client", ["anthropic-js", "openai-js"])
async def test_javascript(run_example, clients, printed, tmp_path, client):
    # An import is looked for from where the file lies.
    (tmp_path / "node_modules").symlink_to(clients.modules)
    script = tmp_path / "example.mjs"
    script.write_text(await printed(client))

    assert "ai-mux" in await run_example("node", script, AI_MUX_TOKEN=TOKEN)


async def test_curl_both_providers_with_the_token_from_its_file(run_example, printed, gateway):
    assert "ai-mux" in await run_example("sh", "-ec", await printed("curl"))
    assert await gateway.requests() == [
        ("POST", "/claude/v1/messages", 200),
        ("POST", "/chatgpt/v1/responses", 200),
    ]


async def test_claude_code_from_the_shell_s_lines(run_example, clients, printed):
    lines = await printed("claude-code") + _ASKS

    # A login of the person's own neither takes the token's place nor is sent here.
    out = await run_example(
        "sh", "-ec", lines, CLAUDE=str(clients.claude), DISABLE_TELEMETRY="1",
        CLAUDE_CODE_OAUTH_TOKEN="made-up-login", ANTHROPIC_API_KEY="made-up-key",
    )  # fmt: skip

    assert "ai-mux" in json.loads(out)["result"]


@pytest.mark.parametrize("by_file", [True, False])
async def test_claude_code_from_its_settings_file(run_example, clients, printed, tmp_path, gateway, by_file):
    home = tmp_path / "claude-home"
    home.mkdir()
    settings = await printed("claude-code", "--settings-json")
    if not by_file:
        token = str(tmp_path / "alice.token")
        assert f"cat {token}" in settings
        settings = settings.replace(f"cat {token}", "printenv AI_MUX_TOKEN")
    (home / "settings.json").write_text(settings)

    out = await run_example(
        "sh", "-ec", _ASKS, CLAUDE=str(clients.claude), CLAUDE_CONFIG_DIR=str(home), DISABLE_TELEMETRY="1",
        **({} if by_file else {"AI_MUX_TOKEN": TOKEN}),
    )  # fmt: skip

    assert "ai-mux" in json.loads(out)["result"]
    assert set(await gateway.requests()) == {("POST", "/claude/v1/messages", 200)}


async def test_codex(run_example, clients, printed, tmp_path):
    home = tmp_path / "codex-home"
    home.mkdir()
    (home / "config.toml").write_text(await printed("codex"))

    out = await run_example(
        clients.codex, "exec", "--skip-git-repo-check", "--ephemeral", "say hi",
        CODEX_HOME=str(home), AI_MUX_TOKEN=TOKEN,
    )  # fmt: skip

    assert "ai-mux" in out
