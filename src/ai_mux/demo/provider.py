"""The polite simulated provider: a server on loopback that answers like the real ones.

Needs no credentials and no network, and gives out its own. It refuses what the
real ones are known to refuse, in their shape, so that a gateway which forwards
the wrong thing is found out: another token than its own, a Claude login without
its beta flag or beside an API key, a ChatGPT account that is not named, a
response to the subscription that is stored or not streamed.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from ai_mux.clock import Clock, SystemClock
from ai_mux.demo.chatgpt_api import ChatGptApi
from ai_mux.demo.claude_api import ClaudeApi
from ai_mux.demo.logins import Login, write_chatgpt, write_claude
from ai_mux.demo.words import new_id

# As ai-mux's own default for request bodies.
_LARGEST_BODY: Final = 64 * 1024 * 1024


class SimulatedProvider:
    """Claude and ChatGPT behind one port.

    Args:
        pace_s: Seconds between two words of a streamed answer.
        tolerant: The subscription's backend too takes responses that are stored or not streamed.
        lifetime_s: Seconds that an access token lives.
        clock: What tokens expire by; the machine's if None.

    Attributes:
        claude_login: The tokens of the Claude account.
        chatgpt_login: The tokens of the ChatGPT account.
    """

    def __init__(
        self,
        *,
        pace_s: float = 0.03,
        tolerant: bool = False,
        lifetime_s: float = 8 * 3600,
        clock: Clock | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self.claude_login = Login(clock=self._clock, lifetime_s=lifetime_s)
        self.chatgpt_login = Login(clock=self._clock, lifetime_s=lifetime_s, account_id=new_id("acct-sim-"))
        self._claude = ClaudeApi(login=self.claude_login, clock=self._clock, pace_s=pace_s)
        self._chatgpt = ChatGptApi(
            login=self.chatgpt_login, clock=self._clock, pace_s=pace_s, tolerant=tolerant
        )
        self._runner: web.AppRunner | None = None
        self._origin = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free one. Raises OSError if it cannot."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.add_routes(self._claude.routes("/anthropic"))
        app.add_routes(self._chatgpt.subscription_routes("/backend-api/codex"))
        # A gateway in subscription mode removes the leading /v1, a client of the API sends it.
        app.add_routes(self._chatgpt.api_routes("/openai"))
        app.add_routes(self._chatgpt.api_routes("/openai/v1"))
        app.add_routes([self._chatgpt.token_route("/oauth/token")])

        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self.stop()
            raise
        self._origin = f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening and end what runs. Harmless where nothing was started."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def write_credentials(self, state_dir: Path) -> None:
        """Write both credential files under ``state_dir``, as the vendors' logins would, valid here only."""
        write_claude(self.claude_login, state_dir / "claude" / ".credentials.json")
        now = datetime.fromtimestamp(self._clock.time(), UTC).isoformat().replace("+00:00", "Z")
        write_chatgpt(self.chatgpt_login, state_dir / "chatgpt" / "auth.json", last_refresh=now)

    @property
    def claude_url(self) -> str:
        """The ``base_url`` for the provider claude."""
        return f"{self._origin}/anthropic"

    @property
    def chatgpt_url(self) -> str:
        """The ``base_url`` for the provider chatgpt: a subscription's backend."""
        return f"{self._origin}/backend-api/codex"

    @property
    def openai_url(self) -> str:
        """Another ``base_url`` for the provider chatgpt: takes what OpenAI's API takes."""
        return f"{self._origin}/openai"

    @property
    def claude_token_url(self) -> str:
        """The OAuth token endpoint of the Claude account."""
        return f"{self._origin}/anthropic/v1/oauth/token"

    @property
    def chatgpt_token_url(self) -> str:
        """The OAuth token endpoint of the ChatGPT account."""
        return f"{self._origin}/oauth/token"
