"""The kinds of credential, and what each changes: design, section 4, written down as data.

Nothing here comes from the code under test. A line of the design that is read
differently there is a difference that a test shows.
"""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ACCOUNT: Final = "made-up-account-of-the-owner"
BETA: Final = b"oauth-2025-04-20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A provider with one kind of credential, as an operator configures it.

    Attributes:
        name: For the tests' names.
        provider: Its name, and the prefix of its paths.
        gateway: Modes of different providers with the same word here share one process.
        secret: What goes upstream.
        base_path: The path of its base URL.
        absent: The leading segment of the client's path that the backend does not have.
        closed: Paths, after the prefix, that are not open to users.
        removed: Fields and families that are removed in this mode beside ``REMOVED``.
        put: (name, value) of what is set in this mode, spelled as where the client sent none.
        joined: (field, member): the list gains the member if it is missing.
        settings: Further settings of the provider.
    """

    name: str
    provider: str
    gateway: str
    secret: str
    base_path: bytes = b""
    absent: bytes = b""
    closed: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    put: tuple[tuple[bytes, bytes], ...] = ()
    joined: tuple[tuple[bytes, bytes], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def target(self, asked: bytes) -> bytes:
        """Return the request target upstream for the one that the client wrote."""
        path, mark, query = asked.partition(b"?")
        rest = path.removeprefix(b"/" + self.provider.encode())
        if self.absent and (rest + b"/").startswith(self.absent + b"/"):
            rest = rest.removeprefix(self.absent)
        return (self.base_path + rest or b"/") + mark + query

    def configuration(self, port: int, directory: Path) -> dict[str, Any]:
        """Return the provider's part of the configuration, its credential written below ``directory``."""
        url = f"http://127.0.0.1:{port}{self.base_path.decode()}"
        return {
            "name": self.provider,
            "base_url": url,
            **self.settings,
            **_CREDENTIALS[self.name](self, directory),
        }


# What is removed from every request, whatever the credential.
REMOVED: Final = (
    # Said to us, or about this one connection (RFC 9110, 7.6.1).
    b"cookie", b"proxy-*", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"expect",
    # About where the user is.
    b"forwarded", b"x-forwarded-*", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"via",
    b"cf-*", b"cdn-loop",
)  # fmt: skip
# What Connection may not remove.
PROTECTED: Final = (b"host", b"content-length", b"authorization")
# What stays of Accept-Encoding.
CODINGS: Final = (b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity")
# What is removed from a WebSocket handshake, and what of REMOVED stays in it.
REMOVED_FROM_HANDSHAKES: Final = (b"sec-websocket-extensions",)
KEPT_IN_HANDSHAKES: Final = (b"connection", b"upgrade")

# What is removed from every response: hop-by-hop (Trailer passes, because trailers do), and
# what the provider's host says about itself.
REMOVED_FROM_RESPONSES: Final = (
    b"connection", b"keep-alive", b"te", b"upgrade", b"proxy-*",
    b"set-cookie", b"alt-svc", b"strict-transport-security", b"nel", b"report-to",
)  # fmt: skip
# Where the clients of a provider look for a request's id.
ID_FIELDS: Final = {"claude": b"request-id", "chatgpt": b"x-request-id"}

_SUBSCRIPTION_REMOVES: Final = (
    b"x-api-key", b"anthropic-beta", b"chatgpt-account-id", b"openai-organization", b"openai-project",
    b"x-openai-account-routing-override", b"x-openai-fedramp",
)  # fmt: skip
_NOT_ON_A_SUBSCRIPTION: Final = (b"/v1/chat/completions", b"/v1/embeddings", b"/v1/models/gpt-5.5")

CLAUDE_LOGIN: Final = Mode(
    name="claude-login",
    provider="claude",
    gateway="logins",
    secret="sk-ant-oat01-madeup-access-token",
    removed=(b"x-api-key",),
    put=((b"Authorization", b"Bearer sk-ant-oat01-madeup-access-token"),),
    joined=((b"anthropic-beta", BETA),),
)
CLAUDE_KEY: Final = Mode(
    name="claude-key",
    provider="claude",
    gateway="keys",
    secret="sk-ant-api03-madeup-api-key",
    removed=(b"authorization",),
    put=((b"x-api-key", b"sk-ant-api03-madeup-api-key"),),
)
CLAUDE_WITH_HEADERS: Final = Mode(
    name="claude-with-headers",
    provider="claude",
    gateway="others",
    secret="sk-ant-oat01-madeup-long-lived",
    removed=(b"x-api-key", b"x-stainless-os"),
    put=((b"Authorization", b"Bearer sk-ant-oat01-madeup-long-lived"), (b"X-Team", b"green")),
    joined=((b"anthropic-beta", BETA),),
    settings={"headers": {"X-Team": "green", "x-stainless-os": None}},
)
CHATGPT_LOGIN: Final = Mode(
    name="chatgpt-login",
    provider="chatgpt",
    gateway="logins",
    secret="made-up-access-token-of-a-fedramp-account",
    base_path=b"/backend-api/codex",
    absent=b"/v1",
    closed=_NOT_ON_A_SUBSCRIPTION,
    removed=_SUBSCRIPTION_REMOVES,
    put=(
        (b"Authorization", b"Bearer made-up-access-token-of-a-fedramp-account"),
        (b"chatgpt-account-id", ACCOUNT.encode()),
        (b"X-OpenAI-Fedramp", b"true"),
    ),
)
CHATGPT_LOGIN_WITHOUT_ACCOUNT: Final = Mode(
    name="chatgpt-login-without-account",
    provider="chatgpt",
    gateway="others",
    secret="made-up-access-token-of-nobody",
    base_path=b"/backend-api/codex",
    absent=b"/v1",
    closed=_NOT_ON_A_SUBSCRIPTION[:1],
    removed=_SUBSCRIPTION_REMOVES,
    put=((b"Authorization", b"Bearer made-up-access-token-of-nobody"),),
    settings={"paths": "all"},
)
CHATGPT_KEY: Final = Mode(
    name="chatgpt-key",
    provider="chatgpt",
    gateway="keys",
    secret="sk-proj-madeup-api-key",
    removed=(b"x-api-key", b"anthropic-beta"),
    put=((b"Authorization", b"Bearer sk-proj-madeup-api-key"),),
)
MODES: Final = (
    CLAUDE_LOGIN,
    CLAUDE_KEY,
    CLAUDE_WITH_HEADERS,
    CHATGPT_LOGIN,
    CHATGPT_LOGIN_WITHOUT_ACCOUNT,
    CHATGPT_KEY,
)


def near(entry: bytes) -> list[bytes]:
    """Return names that a careless look would take for one that is listed."""
    plain = entry.removesuffix(b"*").removesuffix(b"-")
    others = (
        b"x-" + plain,
        plain + b"s",
        plain[:-1],
        plain.replace(b"-", b"_"),
        b"a" + plain + b"-x",
        plain + b"_x",
    )
    return [name for name in others if name != entry]


# The credentials' files


def _write(directory: Path, name: str, content: str) -> str:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.touch(0o600)
    file.write_text(content)
    return str(file)


def _claude_login(mode: Mode, directory: Path) -> dict[str, str]:
    login = {"accessToken": mode.secret, "refreshToken": "made-up-refresh", "expiresAt": 4102444800000}
    content = json.dumps({"claudeAiOauth": login})
    return {"credentials": _write(directory, f"{mode.name}/.credentials.json", content)}


def _claude_token(mode: Mode, directory: Path) -> dict[str, str]:
    content = json.dumps({"claudeAiOauth": {"accessToken": mode.secret}})
    return {"credentials": _write(directory, f"{mode.name}/.credentials.json", content)}


def _chatgpt_login(mode: Mode, directory: Path) -> dict[str, str]:
    claims = {"https://api.openai.com/auth": {"chatgpt_account_is_fedramp": True}}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    id_token = ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])
    tokens = {
        "id_token": id_token, "access_token": mode.secret,
        "refresh_token": "made-up-refresh", "account_id": ACCOUNT, "expires_at": 4102444800,
    }  # fmt: skip
    content = json.dumps({"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens})
    return {"credentials": _write(directory, f"{mode.name}/auth.json", content)}


def _chatgpt_token(mode: Mode, directory: Path) -> dict[str, str]:
    login = {"access_token": mode.secret, "refresh_token": "made-up-refresh", "expires_at": 4102444800}
    return {"credentials": _write(directory, f"{mode.name}/auth.json", json.dumps(login))}


def _key(mode: Mode, directory: Path) -> dict[str, str]:
    return {"api_key_file": _write(directory, f"{mode.name}/key", mode.secret + "\n")}


_CREDENTIALS: Final = {
    CLAUDE_LOGIN.name: _claude_login,
    CLAUDE_KEY.name: _key,
    CLAUDE_WITH_HEADERS.name: _claude_token,
    CHATGPT_LOGIN.name: _chatgpt_login,
    CHATGPT_LOGIN_WITHOUT_ACCOUNT.name: _chatgpt_token,
    CHATGPT_KEY.name: _key,
}
