"""Credential files, and a renewer over one of them with everything real but time and the provider."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

from fakes.clock import FakeClock
from fakes.records import Records
from fakes.token_endpoint import TokenEndpoint

from ai_mux.credentials.endpoint import TokenEndpoint as Client
from ai_mux.credentials.refresh import Renewer
from ai_mux.providers.chatgpt import PROVIDER as CHATGPT
from ai_mux.providers.claude import PROVIDER as CLAUDE
from ai_mux.storage.files import FileStore


def claude_file(
    path: Path, *, access: str = "access-0", refresh: str | None = "refresh-0", ends: float | None
) -> None:
    """Write a file as Claude Code does, with keys of its own beside ours."""
    login = {
        "accessToken": access,
        "refreshToken": refresh,
        "expiresAt": None if ends is None else int(ends * 1000),
        "scopes": ["user:inference"],
        "subscriptionType": "max",
    }
    write(path, json.dumps({"claudeAiOauth": login, "mcpOAuth": {"kept": 0.10}}))


def write(path: Path, text: str) -> None:
    """Replace a file as a careful program does."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".other")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.rename(path)


def tokens_of(path: Path) -> tuple[str, str]:
    """Return access and refresh token of a Claude file."""
    login = json.loads(path.read_text())["claudeAiOauth"]
    return login["accessToken"], login["refreshToken"]


def jwt(**claims: object) -> str:
    """Return a token with these claims; nobody here checks its signature."""
    parts = ({"alg": "none"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


class Rig:
    """One Claude (or ChatGPT) credential in a directory of its own."""

    def __init__(self, directory: Path, endpoint: TokenEndpoint, *, chatgpt: bool = False) -> None:
        self.clock = FakeClock()
        self.log = Records()
        self.endpoint = endpoint
        self.provider = CHATGPT if chatgpt else CLAUDE
        self.path = directory / self.provider.name / self.provider.credential_file

    def file(
        self, *, left_s: float | None, access: str = "access-0", refresh: str | None = "refresh-0"
    ) -> None:
        ends = None if left_s is None else self.clock.wall + left_s
        claude_file(self.path, access=access, refresh=refresh, ends=ends)

    def renewer(
        self,
        *,
        interval_s: float = 600,
        timeout_s: float = 30,
        wait_s: float = 40,
        store: Callable[[Path, Records], FileStore] = FileStore,
    ) -> Renewer:
        return Renewer(
            name=self.provider.name,
            store=store(self.path, self.log),
            issuer=self.provider.issuer,
            endpoint=Client(self.endpoint.url, timeout_s=timeout_s),
            clock=self.clock,
            log=self.log,
            check_interval_s=interval_s,
            request_wait_s=wait_s,
        )
