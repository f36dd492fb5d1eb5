"""The made-up logins of the simulated provider, and the files that hold them.

Rule 1: a refresh token is accepted once. Spent a second time it is refused, as
the real endpoints do, so that a program that spends one twice is found out.

Rule 2: tokens are random. Nothing that looks like one of them can stand in a log
or an answer by chance.
"""

import base64
import json
import secrets
from pathlib import Path
from typing import Final

from ai_mux.clock import Clock

_CLAIM: Final = "https://api.openai.com/auth"


class Login:
    """One account's tokens, as the provider's side knows them.

    Attributes:
        access: The newest access token.
        refresh: The only refresh token that is accepted.
        expires_at: When ``access`` stops working, in seconds since 1970.
        renewals: How many times the refresh token was exchanged.
    """

    def __init__(self, *, clock: Clock, lifetime_s: float, account_id: str | None = None) -> None:
        self.account_id = account_id
        self.lifetime_s = lifetime_s
        self.renewals = 0
        self._clock = clock
        self._accepted: dict[str, float] = {}
        self._issue()

    def accepts(self, access: str) -> bool:
        """Return whether an access token was issued here and still lives."""
        return self._accepted.get(access, 0) > self._clock.time()

    def renew(self, refresh: str) -> bool:
        """Exchange the refresh token for a new pair, or return False: it is not, or no longer, accepted."""
        if not secrets.compare_digest(refresh.encode(), self.refresh.encode()):
            return False
        self.renewals += 1
        self._issue()
        return True

    def revoke_access(self) -> None:
        """Accept no access token issued so far, as if its owner had signed out elsewhere."""
        self._accepted.clear()

    def id_token(self) -> str:
        """Return an id token whose claims name the account, as ChatGPT's do."""
        return self._jwt({_CLAIM: {"chatgpt_account_id": self.account_id, "chatgpt_plan_type": "plus"}})

    def _issue(self) -> None:
        self.expires_at = self._clock.time() + self.lifetime_s
        self.refresh = f"sim-rt-{secrets.token_urlsafe(24)}"
        self.access = f"sim-at-{secrets.token_urlsafe(24)}"
        if self.account_id is not None:
            self.access = self._jwt({_CLAIM: {"chatgpt_account_id": self.account_id}})
        self._accepted[self.access] = self.expires_at

    def _jwt(self, claims: dict[str, object]) -> str:
        # Shaped like RFC 7519's, so that its expiry can be read. Nobody checks the signature.
        issued = {"iat": int(self._clock.time()), "exp": int(self.expires_at), **claims}
        parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, issued))
        encoded = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts]
        return ".".join([*encoded, secrets.token_urlsafe(24)])


def write_claude(login: Login, path: Path) -> None:
    """Write the file that Claude Code's login leaves behind."""
    oauth = {
        "accessToken": login.access,
        "refreshToken": login.refresh,
        "expiresAt": int(login.expires_at * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    _write(path, {"claudeAiOauth": oauth})


def write_chatgpt(login: Login, path: Path, *, last_refresh: str) -> None:
    """Write the file that Codex's login leaves behind."""
    tokens = {
        "id_token": login.id_token(),
        "access_token": login.access,
        "refresh_token": login.refresh,
        "account_id": login.account_id,
    }
    document = {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": tokens,
        "last_refresh": last_refresh,
    }
    _write(path, document)


def _write(path: Path, document: object) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
