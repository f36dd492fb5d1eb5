"""Codex, run headless for one question."""

import json

from gateway_process import TOKEN


async def ask(run_client, clients, gateway, home, *arguments, token=TOKEN, websockets=False, retries=False):
    """Return what Codex printed for one question, asked without retries so that a failure shows at once.

    Args:
        run_client: The fixture.
        clients: The fixture.
        gateway: What Codex is configured to use.
        home: Where its settings are made.
        arguments: Options of ``codex exec``.
        token: The user's.
        websockets: Codex is told that the gateway takes them.
        retries: It tries as often as it does by itself.
    """
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
        {"" if retries else "request_max_retries = 0"}
        {"" if retries else "stream_max_retries = 0"}
        """
    )
    return await run_client(
        clients.codex, "exec", "--skip-git-repo-check", "--ephemeral", "--json", *arguments, "say hi",
        environment={"CODEX_HOME": str(codex_home), "AI_MUX_TOKEN": token},
    )  # fmt: skip


def answer_in(finished):
    """Return the text of the agent's messages among the JSON lines that ``codex exec --json`` prints."""
    events = [json.loads(line) for line in finished.out.splitlines()]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return "".join(item["text"] for item in items if item["type"] == "agent_message")
