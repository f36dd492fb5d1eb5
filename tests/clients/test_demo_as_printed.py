"""What ``ai-mux demo`` prints for the vendors' clients, run as it is printed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path

import pytest
from codex_client import answer_in

pytestmark = pytest.mark.clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """A running demo.

    Attributes:
        page: What it printed, until it said that it serves.
        log: The file that its stderr goes to.
        program: The process.
    """

    page: str
    log: Path
    program: Process

    @property
    def token(self) -> str:
        """The user's token that it made up."""
        return re.search(r"^export AI_MUX_TOKEN=(.+)$", self.page, re.MULTILINE)[1]

    async def requests(self) -> list[tuple[str, str, int]]:
        """Stop it, as Ctrl-C does, and return (method, path, status) of what came after the page."""
        if self.program.returncode is None:
            self.program.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await self.program.communicate()
        assert self.program.returncode == 0
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line["method"], line["path"], line["status"]) for line in lines if "status" in line]


@pytest.fixture
async def demo(tmp_path):
    log = tmp_path / "demo.log"
    with log.open("wb") as stderr:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ai_mux", "demo", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=stderr, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
    async with asyncio.timeout(60):
        page = await program.stdout.readuntil(b"Serving until Ctrl-C")
    running = Demo(page=page.decode(), log=log, program=program)
    yield running
    await running.requests()


async def test_codex_is_answered_over_a_websocket_by_the_settings_that_the_demo_prints(
    run_client, clients, demo, tmp_path
):
    settings = re.search(r"^model = .+?\n\n\[model_providers.+?\n\n", demo.page, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "config.toml").write_text(settings)
    finished = await run_client(
        clients.codex, "exec", "--skip-git-repo-check", "--ephemeral", "--json", "say hi",
        environment={"CODEX_HOME": str(tmp_path), "AI_MUX_TOKEN": demo.token},
    )  # fmt: skip

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in answer_in(finished)
    assert await demo.requests() == [("GET", "/chatgpt/v1/responses", 101)]


async def test_claude_code_is_answered_by_the_line_that_the_demo_prints(run_client, clients, demo):
    (line,) = re.findall(r"^ANTHROPIC_BASE_URL=.+ claude$", demo.page, re.MULTILINE)
    command = line.removesuffix("claude") + '"$CLAUDE" -p "say hi" --output-format json'
    environment = {"CLAUDE": str(clients.claude), "AI_MUX_TOKEN": demo.token, "DISABLE_TELEMETRY": "1"}
    finished = await run_client("sh", "-c", command, environment=environment)

    assert finished.code == 0, finished.out + finished.err
    assert "ai-mux" in json.loads(finished.out)["result"]
