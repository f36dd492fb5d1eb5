"""ChatGPT: the Codex backend with a subscription's OAuth login, OpenAI's API with an API key.

The credential file is Codex's ``auth.json``, or a flat object with the same
tokens; it is written back in the shape that was read.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from ai_mux.credentials import oauth
from ai_mux.credentials.api_key import plain_key
from ai_mux.credentials.credential import Credential
from ai_mux.credentials.document import changed, parse
from ai_mux.credentials.oauth import Issuer, Reason
from ai_mux.errors import BrokenCredential
from ai_mux.providers.base import Backend, PathRule
from ai_mux.secret import Secret
from ai_mux.wire.answers import Dialect
from ai_mux.wire.headers import Changes

# Codex's public OAuth client, to which its logins belong; a login is renewed by its own client.
_CLIENT_ID: Final = "app_EMoamEEZ73f0CkXaXp7hrann"
# OpenAI's own claims in its ID and access tokens.
_CLAIMS: Final = "https://api.openai.com/auth"
_PROFILE: Final = "https://api.openai.com/profile"
# When Codex renews a token that does not say when it ends.
_ASSUMED_LIFETIME_S: Final = 8 * 86400

# The version segment that OpenAI's SDKs put before every path and the Codex backend does not have.
_VERSION: Final = b"/v1"
_RESPONSES: Final = tuple(
    rule
    for version in (_VERSION, b"")
    for rule in (
        PathRule(path=version + b"/responses", methods=(b"POST",), upgrade=True),
        PathRule(path=version + b"/responses/compact", methods=(b"POST",)),
        PathRule(path=version + b"/models", methods=(b"GET", b"HEAD")),
    )
)
_SUBSCRIPTION: Final = Backend(
    base_url="https://chatgpt.com/backend-api/codex",
    paths=_RESPONSES,
    absent=_VERSION,
    impossible={
        b"/chat/completions": "A ChatGPT subscription has no Chat Completions API; its only interface is "
        "Responses. Use /chatgpt/v1/responses.",
    },
)
_API: Final = Backend(
    base_url="https://api.openai.com",
    paths=(
        *_RESPONSES,
        PathRule(path=_VERSION + b"/chat/completions", methods=(b"POST",)),
        PathRule(path=_VERSION + b"/embeddings", methods=(b"POST",)),
        PathRule(path=_VERSION + b"/models/{id}", methods=(b"GET", b"HEAD")),
    ),
)


class ChatGPTIssuer:
    """Reads and renews Codex's login."""

    def read(self, document: bytes) -> Credential:
        """Return the login of either shape, or the API key where the file is a login by that."""
        whole = parse(document)
        tokens = _tokens(whole)
        access = oauth.token(tokens.get("access_token"), "access_token")
        refresh = oauth.token(tokens.get("refresh_token"), "refresh_token") or None
        key = oauth.token(whole.get("OPENAI_API_KEY"), "OPENAI_API_KEY")
        says_key = whole.get("auth_mode") == "apikey"
        if says_key and not key:
            raise BrokenCredential("auth_mode is apikey, and OPENAI_API_KEY holds no key")
        if says_key or (key and not access and refresh is None):
            return Credential(access=plain_key(key.reveal()), refresh=None, expires_at=None, api_key=True)
        id_token = _lenient(tokens.get("id_token"))
        lifetime_s = _lifetime_s(oauth.claims(access))
        obtained_at = _instant(whole.get("last_refresh"))
        expires_at = oauth.seconds(tokens.get("expires_at", whole.get("expires_at")))
        if expires_at is None or (expires_at <= 0 and refresh is None):
            expires_at = _end(oauth.seconds(oauth.claims(access).get("exp")), lifetime_s, obtained_at)
        about = _about(id_token, access)
        provenance = oauth.members(tokens.get("oauth_provenance"))
        return Credential(
            access=access,
            refresh=refresh,
            expires_at=expires_at,
            lifetime_s=lifetime_s,
            obtained_at=obtained_at,
            account_id=oauth.text(tokens.get("account_id")) or oauth.text(about.get("chatgpt_account_id")),
            fedramp=about.get("chatgpt_account_is_fedramp") is True,
            id_token=id_token,
            client_id=oauth.text(provenance.get("client_id")),
            owner=_owner(id_token, access),
            plan=oauth.text(about.get("chatgpt_plan_type")),
            layout="flat" if whole is tokens else "Codex's",
        )

    def write(self, document: bytes, credential: Credential) -> bytes:
        """Set what a renewal changes, each where the document has it."""
        whole = parse(document)
        nested = "tokens" in whole or "access_token" not in whole
        at: tuple[str, ...] = ("tokens",) if nested else ()
        tokens = _tokens(whole)
        changes: dict[tuple[str, ...], object] = {
            (*at, "access_token"): credential.access.reveal(),
            (*at, "refresh_token"): credential.refresh.reveal() if credential.refresh else None,
        }
        if credential.id_token is not None and (nested or "id_token" in tokens):
            changes[*at, "id_token"] = credential.id_token.reveal()
        end = credential.expires_at
        for place in {(*at, "expires_at"), ("expires_at",)}:
            holder = tokens if len(place) > 1 else whole
            if "expires_at" in holder or not nested:
                old = holder.get("expires_at")
                changes[place] = None if end is None else oauth.in_unit_of(old, end, default_ms=False)
        if credential.obtained_at is not None and (nested or "last_refresh" in whole):
            received = datetime.fromtimestamp(credential.obtained_at, UTC)
            changes[("last_refresh",)] = received.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return changed(document, changes)

    def request(self, credential: Credential, reason: Reason) -> Mapping[str, str]:
        """Ask for a new pair, with the reason, which this endpoint takes."""
        return {
            "client_id": credential.client_id or _CLIENT_ID,
            "grant_type": "refresh_token",
            "refresh_reason": reason.value,
            "refresh_token": credential.refresh.reveal() if credential.refresh else "",
        }

    def renewed(self, credential: Credential, answer: Mapping[str, object], now: float) -> Credential:
        """Return the new tokens; each is optional in the answer, and the old one stays then."""
        access, refresh = oauth.new_token(answer, "access_token"), oauth.new_token(answer, "refresh_token")
        if access is None and refresh is None:
            raise BrokenCredential("the answer holds no token")
        id_token = oauth.new_token(answer, "id_token")
        about = _about(id_token, access or credential.access)
        kept = replace(
            credential,
            refresh=refresh or credential.refresh,
            id_token=id_token or credential.id_token,
            account_id=credential.account_id or oauth.text(about.get("chatgpt_account_id")),
            fedramp=about.get("chatgpt_account_is_fedramp") is True if id_token else credential.fedramp,
        )
        if access is None:
            return kept
        said = oauth.claims(access)
        lifetime_s = oauth.lifetime_s(answer) or _lifetime_s(said)
        if lifetime_s is not None:
            end: float | None = now + lifetime_s
        else:
            end = oauth.seconds(said.get("exp")) or now + _ASSUMED_LIFETIME_S
        return replace(kept, access=access, expires_at=end, lifetime_s=lifetime_s, obtained_at=now)

    def is_permanent(self, status: int, answer: Mapping[str, object]) -> bool:
        """Any 401 of OpenAI's endpoint is about the refresh token, and final."""
        return status == 401 or (400 <= status < 500 and status != 429 and oauth.is_final(answer))

    def login(self, path: str) -> str:
        """Our verb runs Codex, and puts its login where it belongs: it needs the same configuration."""
        return f"run `ai-mux login chatgpt`, with the server's --config, for a login in {path}"


class ChatGPT:
    """The provider ``chatgpt``."""

    name = "chatgpt"
    dialect = Dialect.OPENAI
    token_url = "https://auth.openai.com/oauth/token"  # noqa: S105 - an address, no secret
    credential_file = "auth.json"
    issuer: Issuer = ChatGPTIssuer()

    def backend(self, *, api_key: bool) -> Backend:
        """Return OpenAI's API for a key, the Codex backend for a login."""
        return _API if api_key else _SUBSCRIPTION

    def changes(self, credential: Credential) -> Changes:
        """Return the bearer token and, of a login, the account; drop what would name another."""
        put = [(b"Authorization", b"Bearer " + credential.access.reveal().encode("ascii"))]
        # Meant for another provider, which some clients take every gateway to be.
        drop = {b"anthropic-beta"}
        if credential.api_key:
            return Changes(put=tuple(put), drop=frozenset(drop))
        # Chosen by whoever owns the login, not by its users.
        drop |= {b"openai-organization", b"openai-project", b"x-openai-account-routing-override"}
        if credential.account_id is not None:
            put.append((b"chatgpt-account-id", credential.account_id.encode("ascii")))
        else:
            drop.add(b"chatgpt-account-id")
        if credential.fedramp:
            put.append((b"X-OpenAI-Fedramp", b"true"))
        else:
            drop.add(b"x-openai-fedramp")
        return Changes(put=tuple(put), drop=frozenset(drop))


def _tokens(whole: Mapping[str, object]) -> Mapping[str, object]:
    """Return the object that holds the tokens: ``tokens`` of Codex's shape, else the document itself."""
    if "tokens" not in whole:
        return whole
    tokens = whole["tokens"]
    if tokens is not None and not isinstance(tokens, dict):
        raise BrokenCredential("tokens is not a JSON object")
    return oauth.members(tokens)


def _lenient(value: object) -> Secret | None:
    try:
        return oauth.token(value, "id_token") or None
    except BrokenCredential:
        return None  # only claims are read from it, and those may be missing


def _about(id_token: Secret | None, access: Secret) -> Mapping[str, object]:
    """Return OpenAI's claims about the account: of the ID token, else of the access token."""
    said = oauth.claims(id_token).get(_CLAIMS) or oauth.claims(access).get(_CLAIMS)
    return oauth.members(said)


def _owner(id_token: Secret | None, access: Secret) -> str | None:
    """Return the account's e-mail address: OpenID Connect's claim, else OpenAI's own."""
    for said in (oauth.claims(id_token), oauth.claims(access)):
        if owner := oauth.text(said.get("email")) or oauth.text(
            oauth.members(said.get(_PROFILE)).get("email")
        ):
            return owner
    return None


def _lifetime_s(said: Mapping[str, object]) -> float | None:
    issued, end = oauth.seconds(said.get("iat")), oauth.seconds(said.get("exp"))
    return end - issued if issued is not None and end is not None and end > issued else None


def _end(exp: float | None, lifetime_s: float | None, obtained_at: float | None) -> float | None:
    """Return when an access token ends by our clock.

    ``exp`` is by the provider's clock. Where the file says when the token was received,
    that and the lifetime tell the same by the clock of this machine; if that is later,
    ours is ahead, and trusting ``exp`` would renew a good token at every start.
    """
    if exp is not None:
        by_receipt = obtained_at + lifetime_s if obtained_at is not None and lifetime_s is not None else exp
        return max(exp, by_receipt)
    return obtained_at + _ASSUMED_LIFETIME_S if obtained_at is not None else None


def _instant(value: object) -> float | None:
    """Return an RFC 3339 timestamp, or a number, as seconds since 1970."""
    if not isinstance(value, str):
        return oauth.seconds(value)
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError):
        return None


PROVIDER: Final = ChatGPT()
