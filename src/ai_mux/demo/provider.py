"""The polite simulated provider: a server on loopback that answers like the real ones.

Needs no credentials and no network, and gives out its own. It refuses what the
real ones are known to refuse, in their shape, so that a gateway which forwards
the wrong thing is found out: another token or API key than its own, a Claude login
without its beta flag or beside an API key, a key with that flag, a ChatGPT account
that is not named, a response to the subscription that is stored or not streamed.
"""

import secrets
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from ai_mux.clock import Clock, SystemClock
from ai_mux.demo import openai
from ai_mux.demo.chatgpt_api import ChatGptApi
from ai_mux.demo.claude_api import ClaudeApi
from ai_mux.demo.logins import Login, write_chatgpt, write_claude
from ai_mux.demo.openai_api import OpenAIApi
from ai_mux.demo.responses import LARGEST_REQUEST, Answer, Responses
from ai_mux.demo.words import new_id


class SimulatedProvider:
    """Claude, a ChatGPT subscription and OpenAI's API behind one port.

    Args:
        pace_s: Seconds between two words of a streamed answer.
        lifetime_s: Seconds that an access token lives.
        clock: What tokens expire by; the machine's if None.
        answer: Where the events of streamed responses come from.
        middlewares: See each request before it is served, and may answer it instead.

    Attributes:
        claude_login: The tokens of the Claude account.
        claude_key: The API key that Claude takes as well.
        chatgpt_login: The tokens of the ChatGPT account.
        openai_key: The API key of OpenAI's API.
    """

    def __init__(
        self,
        *,
        pace_s: float = 0.03,
        lifetime_s: float = 8 * 3600,
        clock: Clock | None = None,
        answer: Answer = openai.response_events,
        middlewares: Sequence[Middleware] = (),
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self.claude_login = Login(clock=self._clock, lifetime_s=lifetime_s)
        self.chatgpt_login = Login(clock=self._clock, lifetime_s=lifetime_s, account_id=new_id("acct-sim-"))
        self.claude_key = f"sk-ant-sim-{secrets.token_urlsafe(24)}"
        self.openai_key = f"sk-sim-{secrets.token_urlsafe(24)}"
        responses = Responses(clock=self._clock, pace_s=pace_s, answer=answer)
        self._claude = ClaudeApi(
            login=self.claude_login, key=self.claude_key, clock=self._clock, pace_s=pace_s
        )
        self._chatgpt = ChatGptApi(login=self.chatgpt_login, responses=responses)
        self._openai = OpenAIApi(key=self.openai_key, responses=responses, pace_s=pace_s)
        self._middlewares = middlewares
        self._runner: web.AppRunner | None = None
        self._origin = ""

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen; port 0 is any free one. Raises OSError if it cannot."""
        app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=self._middlewares)
        app.add_routes(self._claude.routes("/anthropic"))
        app.add_routes(self._chatgpt.routes("/backend-api/codex"))
        app.add_routes(self._openai.routes("/openai/v1"))
        app.add_routes([self._chatgpt.token_route("/oauth/token")])

        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        except OSError:
            await self.stop()
            raise
        self._origin = f"{'https' if tls else 'http'}://{host}:{self._runner.addresses[0][1]}"

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
        """The ``base_url`` for the provider chatgpt with an API key: OpenAI's API."""
        return f"{self._origin}/openai"

    @property
    def claude_token_url(self) -> str:
        """The OAuth token endpoint of the Claude account."""
        return f"{self._origin}/anthropic/v1/oauth/token"

    @property
    def chatgpt_token_url(self) -> str:
        """The OAuth token endpoint of the ChatGPT account."""
        return f"{self._origin}/oauth/token"
