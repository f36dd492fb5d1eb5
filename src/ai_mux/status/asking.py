"""Asks a server's admin listener how it is: one request, over TCP or a unix socket.

Rule 1: the token goes nowhere but to the listener of the configuration that it stands in.
No proxy of the environment is used.

Rule 2: whoever answers there is not trusted: so long, and so much, is read of it.
"""

import http.client
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Final

from ai_mux.config import AdminConfig, Config
from ai_mux.config.files import contents
from ai_mux.config.json_tree import read_json
from ai_mux.config.report import Wrong
from ai_mux.config.tree import Malformed, Node, Scalar, Table
from ai_mux.config.yaml_tree import read_yaml
from ai_mux.errors import ConfigError, NoStatus
from ai_mux.secret import Secret

_WAIT_S: Final = 5.0
# Two credentials with sixteen windows each are 8 KiB.
_MOST_BYTES: Final = 2**20
_ANY_ADDRESS: Final = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared
EXAMPLE: Final = "127.0.0.1:9180"


def asked(config: Config) -> tuple[dict[str, object], str]:
    """Ask the server of this configuration. Blocks, for some seconds at most.

    Returns:
        What it answered, and where it was asked.

    Raises:
        ConfigError: The configuration has no admin listener, or one that cannot be found.
        NoStatus: Nobody answers, or not as an ai-mux does.
    """
    admin = config.admin
    if admin is None:
        raise ConfigError(_how_to_have_one(config.source))
    if admin.listen.path is None and not admin.listen.port:
        raise ConfigError("admin.listen has port 0, so each start has another; give it one of your choice")
    token = None if admin.token_digest is None else _token(admin, config.source)
    at = admin.listen.text
    try:
        with closing(_connection(admin)) as connection:
            fields = {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
            connection.request("GET", "/status", headers=fields)
            response = connection.getresponse()
            body = response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as exc:
        raise NoStatus(_unreached(exc, at, config.source)) from None
    return _document(response.status, body, at), at


def _how_to_have_one(source: Path | None) -> str:
    if source is None:
        return (
            "without --config all defaults apply, and they have no admin listener; "
            "name the server's configuration: ai-mux status --config FILE"
        )
    example = f'admin:\n  listen: "{EXAMPLE}"'
    if source.suffix.lower() == ".json":
        example = f'"admin": {{"listen": "{EXAMPLE}"}}'
    return f"{source}: the server has no admin listener to ask; add this, and restart it:\n{example}"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_WAIT_S)
        self.sock.connect(str(self._path))


def _connection(admin: AdminConfig) -> http.client.HTTPConnection:
    listen = admin.listen
    if listen.path is not None:
        return _UnixConnection(listen.path)
    host = _ANY_ADDRESS.get(listen.host, listen.host)
    return http.client.HTTPConnection(host or "127.0.0.1", listen.port, timeout=_WAIT_S)


def _token(admin: AdminConfig, source: Path | None) -> Secret:
    """Return the token, read once more: a configuration that has been read holds its hash alone.

    Raises:
        ConfigError: It is not there any more.
    """
    found = None
    try:
        if admin.token_file is not None:
            text = contents(admin.token_file).decode("latin-1")
            found = Secret(text.removesuffix("\n").removesuffix("\r"))
        elif source is not None:
            text = contents(source).decode("utf-8-sig")
            root = read_json(text) if source.suffix.lower() == ".json" else read_yaml(text)
            written = _entry(_entry(root, "admin"), "token")
            found = Secret(written.text) if isinstance(written, Scalar) else None
    except (Wrong, Malformed, UnicodeDecodeError):
        pass
    if found is None or found.digest() != admin.token_digest:
        # Also where the configuration is a pipe, which is read only once.
        raise ConfigError("admin: the token cannot be read a second time; put it into a token_file")
    return found


def _entry(node: Node | None, key: str) -> Node | None:
    entries = node.entries if isinstance(node, Table) else ()
    return next((entry.value for entry in entries if entry.key == key), None)


def _unreached(exc: Exception, at: str, source: Path | None) -> str:
    start = "ai-mux --config FILE" if source is None else f"ai-mux --config {source}"
    match exc:
        case ConnectionRefusedError() | FileNotFoundError():
            return (
                f"nobody answers at {at} (admin.listen). Is the server running, and was it started since "
                f"that was written? Start it: {start}"
            )
        case PermissionError():
            return f"{at} (admin.listen) may not be opened; run this as the user that the server runs as"
        case TimeoutError():
            return f"{at} (admin.listen) does not answer within {_WAIT_S:.0f} s; its log may say why"
        case http.client.HTTPException():
            return f"what answers at {at} (admin.listen) does not speak HTTP; does another program listen?"
    return f"{at} (admin.listen) cannot be reached: {getattr(exc, 'strerror', None) or type(exc).__name__}"


def _document(status: int, body: bytes, at: str) -> dict[str, object]:
    if status in {401, 403}:
        raise NoStatus(
            f"{at} (admin.listen) does not take this configuration's token; "
            "if that was changed since the server's start, reload (SIGHUP) or restart the server"
        )
    try:
        document = json.loads(body) if status == 200 else None  # cut, where it was too much to be read
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "version" not in document:
        raise NoStatus(f"what answers at {at} (admin.listen) is no ai-mux; does another program listen?")
    return document
