"""The lines to try: ai-mux's clients, each with the settings that it needs."""

from typing import Final

CLAUDE_MODEL: Final = "claude-sonnet-5"
CHATGPT_MODEL: Final = "gpt-5.5"
QUESTION: Final = "What is ai-mux?"


def token(value: str) -> str:
    """Return the line that the other lines need."""
    return f"export AI_MUX_TOKEN={value}"


def curl_claude(address: str) -> str:
    """Return a streamed message."""
    return rf"""
curl -N {address}/claude/v1/messages \
  -H "authorization: Bearer $AI_MUX_TOKEN" \
  -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \
  -d '{{"model": "{CLAUDE_MODEL}", "max_tokens": 1024, "stream": true,
       "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
"""


def curl_chatgpt(address: str) -> str:
    """Return a streamed response, as a subscription takes it."""
    return rf"""
curl -N {address}/chatgpt/v1/responses \
  -H "authorization: Bearer $AI_MUX_TOKEN" -H 'content-type: application/json' \
  -d '{{"model": "{CHATGPT_MODEL}", "store": false, "stream": true,
       "instructions": "Be brief.",
       "input": [{{"role": "user", "content": "{QUESTION}"}}]}}'
"""


def curl_usage(address: str) -> str:
    """Return how a user sees what they have used."""
    return f'curl {address}/usage -H "authorization: Bearer $AI_MUX_TOKEN"'


def claude_code(address: str) -> str:
    """Return how Claude Code is started."""
    return f'ANTHROPIC_BASE_URL={address}/claude ANTHROPIC_AUTH_TOKEN="$AI_MUX_TOKEN" claude'


def codex(address: str) -> str:
    """Return what goes into Codex's ``config.toml``."""
    return f"""
model = "{CHATGPT_MODEL}"
model_provider = "ai-mux"

[model_providers.ai-mux]
name = "ai-mux"
base_url = "{address}/chatgpt/v1"
wire_api = "responses"
env_key = "AI_MUX_TOKEN"
supports_websockets = true
"""


def python_anthropic(address: str) -> str:
    """Return a program for Anthropic's SDK."""
    return f"""
import os, anthropic

client = anthropic.Anthropic(base_url="{address}/claude", api_key=os.environ["AI_MUX_TOKEN"])
messages = [{{"role": "user", "content": "{QUESTION}"}}]
answer = client.messages.create(model="{CLAUDE_MODEL}", max_tokens=1024, messages=messages)
print(answer.content[0].text)
"""


def python_openai(address: str) -> str:
    """Return a program for OpenAI's SDK. A subscription wants ``store=False`` and a stream."""
    return f"""
import os, openai

client = openai.OpenAI(base_url="{address}/chatgpt/v1", api_key=os.environ["AI_MUX_TOKEN"])
question = [{{"role": "user", "content": "{QUESTION}"}}]
for event in client.responses.create(
    model="{CHATGPT_MODEL}", instructions="Be brief.", input=question, store=False, stream=True
):
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
"""


def real_config() -> str:
    """Return a configuration to go on with."""
    return """
listen: "127.0.0.1:8080"
state_dir: "~/.ai-mux"
providers:
  - claude
  - chatgpt
users:
  - name: "me"
    token_file: "~/.ai-mux/token"
"""


def real_logins() -> str:
    """Return the commands that make a token, log in with the vendors' own clients, and start."""
    return """
(umask 077 && mkdir -p ~/.ai-mux && openssl rand -hex 24 > ~/.ai-mux/token)
ai-mux login claude --config config.yaml   # ./start in a checkout
ai-mux login chatgpt --config config.yaml
ai-mux --config config.yaml
"""
