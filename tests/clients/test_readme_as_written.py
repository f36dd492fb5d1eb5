"""The README's examples of clients, run as they are written but for the address."""

import json
import sys

import pytest
from documents import blocks
from gateway_process import TOKEN

pytestmark = pytest.mark.clients


def only_block(language, under):
    (block,) = blocks(language, under=under)
    return block


def at(gateway, block):
    assert "http://127.0.0.1:8080" in block
    return block.replace("http://127.0.0.1:8080", gateway.url)


@pytest.fixture
def run_example(run_client):
    """Run a command with the user's token in AI_MUX_TOKEN, and return what it printed."""

    async def run(*command, **environment):
        finished = await run_client(*command, environment={"AI_MUX_TOKEN": TOKEN} | environment)
        assert finished.code == 0, finished.out + finished.err
        return finished.out

    return run


@pytest.mark.parametrize("block", blocks("python"))
async def test_python(run_example, gateway, block):
    assert "ai-mux" in await run_example(sys.executable, "-c", at(gateway, block))


@pytest.mark.parametrize("block", blocks("bash", under="curl"))
async def test_curl(run_example, gateway, block):
    assert "ai-mux" in await run_example("sh", "-c", at(gateway, block))


@pytest.mark.parametrize("block", blocks("js"))
async def test_javascript(run_example, clients, gateway, tmp_path, block):
    # An import is looked for from where the file lies.
    (tmp_path / "node_modules").symlink_to(clients.modules)
    script = tmp_path / "example.mjs"
    script.write_text(at(gateway, block))

    assert "ai-mux" in await run_example("node", script)


async def test_claude_code(run_example, clients, gateway, tmp_path):
    block = only_block("bash", under="Claude Code")
    assert block.endswith("\nclaude\n")
    block = block.removesuffix("claude\n") + '"$CLAUDE" -p "say hi" --output-format json\n'

    out = await run_example("sh", "-c", at(gateway, block), CLAUDE=str(clients.claude), DISABLE_TELEMETRY="1")

    assert "ai-mux" in json.loads(out)["result"]


async def test_codex(run_example, clients, gateway, tmp_path):
    (tmp_path / "config.toml").write_text(at(gateway, only_block("toml", under="Codex")))

    out = await run_example(
        clients.codex, "exec", "--skip-git-repo-check", "--ephemeral", "say hi", CODEX_HOME=str(tmp_path)
    )

    assert "ai-mux" in out
