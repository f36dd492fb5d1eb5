"""Claude: Anthropic's API with a Claude subscription's OAuth login.

The credential file is Claude Code's ``.credentials.json``; other programs' keys
in it stay as they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ai_mux.credentials import oauth
from ai_mux.credentials.credential import Credential
from ai_mux.credentials.document import changed, parse
from ai_mux.credentials.oauth import Issuer, Reason
from ai_mux.errors import BrokenCredential
from ai_mux.providers.base import Backend, PathRule
from ai_mux.secret import Secret
from ai_mux.wire.answers import Dialect
from ai_mux.wire.headers import Changes

# Claude Code's public OAuth client, to which its logins belong; a login is renewed by its own client.
_CLIENT_ID: Final = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
_LOGIN: Final = "claudeAiOauth"


_API: Final = Backend(
    base_url="https://api.anthropic.com",
    paths=(
        PathRule(path=b"/v1/messages", methods=(b"POST",)),
        PathRule(path=b"/v1/messages/count_tokens", methods=(b"POST",), free=True),
        PathRule(path=b"/v1/models", methods=(b"GET", b"HEAD")),
        PathRule(path=b"/v1/models/{id}", methods=(b"GET", b"HEAD")),
    ),
)


class ClaudeIssuer:
    """Reads and renews Claude Code's login."""

    def read(self, document: bytes) -> Credential:
        """Return the login in the member ``claudeAiOauth``; without one, tokens read as blanked."""
        whole = parse(document)
        login = oauth.members(whole.get(_LOGIN))
        if _LOGIN in whole and whole[_LOGIN] is not None and not isinstance(whole[_LOGIN], dict):
            raise BrokenCredential(f"{_LOGIN} is not a JSON object")
        refresh = oauth.token(login.get("refreshToken"), f"{_LOGIN}.refreshToken") or None
        expires_at = oauth.seconds(login.get("expiresAt"))
        if refresh is None and (expires_at is None or expires_at <= 0):
            expires_at = None  # a long-lived token, stored without an end
        return Credential(
            access=oauth.token(login.get("accessToken"), f"{_LOGIN}.accessToken"),
            refresh=refresh,
            expires_at=expires_at,
            client_id=oauth.text(login.get("clientId")),
            plan=_plan(login),
        )

    def write(self, document: bytes, credential: Credential) -> bytes:
        """Set the three members that a renewal changes."""
        old = oauth.members(parse(document).get(_LOGIN)).get("expiresAt")
        end = credential.expires_at
        return changed(
            document,
            {
                (_LOGIN, "accessToken"): credential.access.reveal(),
                (_LOGIN, "refreshToken"): credential.refresh.reveal() if credential.refresh else None,
                (_LOGIN, "expiresAt"): None if end is None else oauth.in_unit_of(old, end, default_ms=True),
            },
        )

    def request(self, credential: Credential, reason: Reason) -> Mapping[str, str]:
        """Ask without ``scope``: that means "as granted" (RFC 6749, section 6), whatever was granted."""
        return {
            "grant_type": "refresh_token",
            "refresh_token": _revealed(credential.refresh),
            "client_id": credential.client_id or _CLIENT_ID,
        }

    def renewed(self, credential: Credential, answer: Mapping[str, object], now: float) -> Credential:
        """Return the new pair; the old refresh token where no new one came."""
        access, refresh = oauth.new_token(answer, "access_token"), oauth.new_token(answer, "refresh_token")
        if access is None and refresh is None:
            raise BrokenCredential("the answer holds no token")
        kept = replace(credential, refresh=refresh or credential.refresh)
        if access is None:
            return kept
        lifetime_s = oauth.lifetime_s(answer)
        return replace(
            kept,
            access=access,
            expires_at=None if lifetime_s is None else now + lifetime_s,
            lifetime_s=lifetime_s,
            obtained_at=now,
        )

    def is_permanent(self, status: int, answer: Mapping[str, object]) -> bool:
        """``invalid_grant`` is what Anthropic's endpoint says of a spent or revoked refresh token."""
        return 400 <= status < 500 and status != 429 and oauth.is_final(answer)

    def login(self, path: str) -> str:
        """Our verb runs Claude Code, and puts its login where it belongs: it needs the same configuration."""
        return (
            f"run `ai-mux login claude`, with the server's --config, for a login in {path}; "
            "or give a token of `claude setup-token` to `ai-mux login claude --token-stdin`, likewise"
        )


class Claude:
    """The provider ``claude``."""

    name = "claude"
    dialect = Dialect.ANTHROPIC
    token_url = "https://platform.claude.com/v1/oauth/token"  # noqa: S105 - an address, no secret
    credential_file = ".credentials.json"
    issuer: Issuer = ClaudeIssuer()

    def backend(self, *, api_key: bool) -> Backend:
        """Return Anthropic's API, which takes both."""
        return _API

    def changes(self, credential: Credential) -> Changes:
        """Return the API key; or the bearer token, and the beta without which no OAuth token is taken."""
        if credential.api_key:
            return Changes(put=((b"x-api-key", credential.access.reveal().encode("ascii")),))
        return Changes(
            put=((b"Authorization", b"Bearer " + credential.access.reveal().encode("ascii")),),
            include=((b"anthropic-beta", b"oauth-2025-04-20"),),
        )


def _plan(login: Mapping[str, object]) -> str | None:
    """Return the subscription and, where the file has it, its tier of rate limits."""
    said = (oauth.text(login.get(name)) for name in ("subscriptionType", "rateLimitTier"))
    return ", ".join(one for one in said if one) or None


def _revealed(refresh: Secret | None) -> str:
    return refresh.reveal() if refresh is not None else ""


PROVIDER: Final = Claude()
