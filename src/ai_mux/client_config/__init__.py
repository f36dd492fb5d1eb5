"""``ai-mux client-config``: the settings with which each client uses this server, ready to paste.

Rule 1: no token is printed. Every client is given a reference to it, the variable AI_MUX_TOKEN; how
that is set is said, as far as the configuration tells: the token itself is not kept in memory.

Rule 2: what is to be pasted is apart from what is to be known. ``text`` alone is for the client.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ai_mux.client_config import templates
from ai_mux.config import Config, UserConfig
from ai_mux.errors import ConfigError

# No quote, blank, "$" or "\": it is put between the quotes of five languages. No path: what stands
# behind the host is a provider's prefix, and that is put in here.
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-_~:\[\]%]+/?")

# What a client reaches, and how it is told of a certificate authority of one's own.
CLIENTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "claude-code": (("claude",), "NODE_EXTRA_CA_CERTS=FILE"),
    "codex": (("chatgpt",), "CODEX_CA_CERTIFICATE=FILE"),
    "anthropic-python": (("claude",), "SSL_CERT_FILE=FILE"),
    "openai-python": (("chatgpt",), "SSL_CERT_FILE=FILE"),
    "anthropic-js": (("claude",), "NODE_EXTRA_CA_CERTS=FILE"),
    "openai-js": (("chatgpt",), "NODE_EXTRA_CA_CERTS=FILE"),
    "curl": (("claude", "chatgpt"), "--cacert FILE"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client needs.

    Attributes:
        text: To be pasted, or appended to the client's own file.
        notes: What the person who pastes it should know, a sentence each.
    """

    text: str
    notes: tuple[str, ...]


def settings(
    client: str, config: Config, *, user: str | None, url: str | None, settings_json: bool = False
) -> Settings:
    """Return the settings of one client for the server that a configuration describes.

    Args:
        client: One of ``CLIENTS``.
        config: Says where it listens, and whom it knows.
        user: Whose token; None where it does not matter, or there is but one.
        url: Where clients reach it, where that is not where it listens.
        settings_json: Of Claude Code: its settings file instead of a shell's lines.

    Raises:
        ConfigError: There is no such user, or this client cannot reach such a server.
    """
    if settings_json and client != "claude-code":
        raise ConfigError("--settings-json is for claude-code alone")
    one = _user(config, user)
    base, notes = _base(client, config, url)
    export, about_token = _export(config, one)
    served = [provider.name for provider in config.providers]
    wanted, _ = CLIENTS[client]
    reached = [name for name in wanted if name in served] or list(wanted)
    if not set(wanted) & set(served):
        notes.append(f"this server does not serve {' or '.join(wanted)}: add what you need to `providers`")
    match client:
        case "claude-code" if settings_json:
            text = templates.claude_settings(base, None if one is None else one.token_file)
            notes.append("it belongs into ~/.claude/settings.json, beside what is there already")
            if one is None or one.token_file is None:
                notes.append(f"Claude Code takes the token from its environment: {export}")
        case "claude-code":
            text = f"{export}\n{templates.claude_code(base)}"
            notes.append("to make it permanent: --settings-json prints what Claude Code's own settings need")
        case "curl":
            socket = "" if url or config.listen.path is None else shlex.quote(str(config.listen.path))
            at = f"--unix-socket {socket} {base}" if socket else base
            text = "\n".join([export, *(templates.CURL[name] % at for name in reached)])
        case "codex":
            text = templates.codex(base)
            notes.append("it belongs into ~/.codex/config.toml; the first two lines go above every [table]")
            notes.append(f"Codex takes the token from its environment: {export}")
        case _:
            text = templates.PROGRAMS[client] % base
            notes.append(f"the program takes the token from its environment: {export}")
    return Settings(text=text, notes=(*notes, *about_token))


# Where


def _base(client: str, config: Config, url: str | None) -> tuple[str, list[str]]:
    if url is not None:
        if not _URL.fullmatch(url):
            raise ConfigError(
                "--url must be like https://ai-mux.example:8443, without a path: each client's is added here"
            )
        return url.rstrip("/"), []
    listen = config.listen
    if listen.path is not None:
        if client == "curl":
            return "http://localhost", []
        raise ConfigError(
            f"the server listens on a unix socket, and {client} cannot use one; let it listen on "
            "127.0.0.1:8080, or say with --url where a server in front of it is reached"
        )
    if not listen.port:
        raise ConfigError(
            "`listen` has port 0, so each start has another; say with --url where it is reached"
        )
    scheme = "http" if config.tls is None else "https"
    host = listen.host
    notes = []
    if host in {None, "0.0.0.0", "::"}:  # noqa: S104 - compared, not listened on
        host = "127.0.0.1"
        notes.append(
            f"it listens on all interfaces; for other machines: --url {scheme}://NAME-OF-THIS-HOST:{listen.port}"
        )
        if config.tls is None:
            notes.append("it speaks plain HTTP, which shows the token to the network between; see `tls`")
    elif listen.is_local:
        there = f"{listen.port}:{listen.text}"
        notes.append(
            f"only this machine reaches it; from another one: ssh -L {there} THIS-HOST, and the same"
        )
    if config.tls is not None:
        _, authority = CLIENTS[client]
        notes.append("the URL's host must be one that the certificate is for; if it is not: --url")
        notes.append(f"a certificate authority of your own is told to this client by {authority}")
    return f"{scheme}://{f'[{host}]' if host and ':' in host else host}:{listen.port}", notes


# Who


def _user(config: Config, name: str | None) -> UserConfig | None:
    """Return the user, or None where there is none or it is not said which.

    Raises:
        ConfigError: There is no such user.
    """
    names = [one.name for one in config.users]
    if name is None:
        return config.users[0] if len(names) == 1 else None
    if name not in names:
        raise ConfigError(f"there is no such user; the configuration has {', '.join(names) or 'none'}")
    return config.users[names.index(name)]


def _export(config: Config, user: UserConfig | None) -> tuple[str, list[str]]:
    """Return the line that sets the token, and what is to be known about it."""
    if not config.users:
        return "export AI_MUX_TOKEN=none-needed", ["no users are configured, so any token will do"]
    if user is None:
        names = ", ".join(one.name for one in config.users)
        return _REPLACE, [f"put in a user's token; with --user NAME it is said where that is: {names}"]
    if user.token_file is not None:
        line = f'export AI_MUX_TOKEN="$(cat {shlex.quote(str(user.token_file))})"'
        return line, [f"on another machine, put in what {user.token_file} holds"]
    where = f"{config.source}:{user.token_line} ({user.token_key})"
    if user.token_key.endswith("token_sha256"):
        return _REPLACE, [f"put in the token of {user.name}; {where} holds its hash alone"]
    return _REPLACE, [f"put in the token of {user.name}; it stands in {where}"]


_REPLACE: Final = "export AI_MUX_TOKEN=PUT-THE-TOKEN-HERE"
