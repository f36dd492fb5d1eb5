"""The clients' settings and first programs. The address is put in; the token comes from AI_MUX_TOKEN."""

import json
import shlex
from pathlib import Path
from typing import Final

_CLAUDE_MODEL: Final = "claude-sonnet-5"
_CHATGPT_MODEL: Final = "gpt-5.5"


def claude_code(base: str) -> str:
    """Return a shell's lines that make Claude Code use this server."""
    # A login of its own would be sent here by Claude Code, or preferred to the token.
    return f"""\
export ANTHROPIC_BASE_URL="{base}/claude"
export ANTHROPIC_AUTH_TOKEN="$AI_MUX_TOKEN"
unset ANTHROPIC_API_KEY CLAUDE_CODE_OAUTH_TOKEN
"""


def claude_settings(base: str, token_file: Path | None) -> str:
    """Return Claude Code's settings file. It expands no variables, so the token comes from a command."""
    helper = "printenv AI_MUX_TOKEN" if token_file is None else f"cat {shlex.quote(str(token_file))}"
    made = {"apiKeyHelper": helper, "env": {"ANTHROPIC_BASE_URL": f"{base}/claude"}}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def codex(base: str) -> str:
    """Return what goes into Codex's ``config.toml``."""
    return f"""\
model = "{_CHATGPT_MODEL}"
model_provider = "ai-mux"

[model_providers.ai-mux]
name = "ai-mux"
base_url = "{base}/chatgpt/v1"
wire_api = "responses"
env_key = "AI_MUX_TOKEN"
supports_websockets = true
"""


# ``%s`` stands for the address, from here on.
CURL: Final = {
    "claude": rf"""
curl -N %s/claude/v1/messages \
  -H "x-api-key: $AI_MUX_TOKEN" -H "anthropic-version: 2023-06-01" -H "content-type: application/json" \
  -d '{{"model": "{_CLAUDE_MODEL}", "max_tokens": 1024, "stream": true,
       "messages": [{{"role": "user", "content": "Say hello."}}]}}'
""",
    "chatgpt": rf"""
curl -N %s/chatgpt/v1/responses \
  -H "Authorization: Bearer $AI_MUX_TOKEN" -H "content-type: application/json" \
  -d '{{"model": "{_CHATGPT_MODEL}", "instructions": "You are a helpful assistant.", "store": false,
       "stream": true, "input": [{{"role": "user", "content": "Say hello."}}]}}'
""",
}

# A subscription's backend takes only what is streamed and not stored.
PROGRAMS: Final = {
    "anthropic-python": f"""\
import os

import anthropic

client = anthropic.Anthropic(base_url="%s/claude", api_key=os.environ["AI_MUX_TOKEN"])
message = client.messages.create(
    model="{_CLAUDE_MODEL}",
    max_tokens=1024,
    messages=[{{"role": "user", "content": "Say hello."}}],
)
print(message.content[0].text)
""",
    "openai-python": f"""\
import os

import openai

client = openai.OpenAI(base_url="%s/chatgpt/v1", api_key=os.environ["AI_MUX_TOKEN"])
stream = client.responses.create(
    model="{_CHATGPT_MODEL}",
    instructions="You are a helpful assistant.",
    input=[{{"role": "user", "content": "Say hello."}}],
    store=False,
    stream=True,
)
for event in stream:
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
""",
    "anthropic-js": f"""\
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({{
  baseURL: "%s/claude",
  apiKey: process.env.AI_MUX_TOKEN,
}});
const message = await client.messages.create({{
  model: "{_CLAUDE_MODEL}",
  max_tokens: 1024,
  messages: [{{ role: "user", content: "Say hello." }}],
}});
console.log(message.content[0].text);
""",
    "openai-js": f"""\
import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "%s/chatgpt/v1",
  apiKey: process.env.AI_MUX_TOKEN,
}});
const stream = await client.responses.create({{
  model: "{_CHATGPT_MODEL}",
  instructions: "You are a helpful assistant.",
  input: [{{ role: "user", content: "Say hello." }}],
  store: false,
  stream: true,
}});
for await (const event of stream) {{
  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);
}}
""",
}
