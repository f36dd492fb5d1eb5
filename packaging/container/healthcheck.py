"""The container's HEALTHCHECK: asks ai-mux for ``/healthz`` where its configuration says that it listens.

So it needs no curl, and holds with TLS, another port and a unix socket. Exit code 0: it
serves; 1: it does not, and the last line says what was asked and what came.

Rule 1: it sends no secret. So the certificate, which is for the name by which clients come,
need not be verified: what is asked is this container's own.

Rule 2: a configuration that was broken after the start is no reason to call a server unwell that
goes on with the one it has: then the usual port is asked.
"""

import http.client
import socket
import ssl
import sys
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from ai_mux.config import Config, load
from ai_mux.errors import ConfigError
from ai_mux.providers import PROVIDERS

_WAIT_S: Final = 5.0  # half of the HEALTHCHECK's own, so that there is time to say what was wrong
_USUAL_PORT: Final = 8080
_MOST_BYTES: Final = 200
# Who listens everywhere is asked here.
_NEAREST: Final = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared


class Place(NamedTuple):
    """Where to ask: a port of this container, or a unix socket."""

    host: str
    port: int
    path: Path | None
    tls: bool

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class _Connection(http.client.HTTPConnection):
    """HTTP to a place, over TLS or a unix socket if need be."""

    def __init__(self, place: Place) -> None:
        super().__init__("localhost", timeout=_WAIT_S)
        self._place = place

    def connect(self) -> None:
        place = self._place
        if place.path is None:
            self.sock = socket.create_connection((place.host, place.port), _WAIT_S)
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(_WAIT_S)
            self.sock.connect(str(place.path))
        if place.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)


def named(arguments: list[str]) -> Path | None:
    """Return the configuration that a command line names, or None."""
    for at, word in enumerate(arguments):
        if word == "--config" and at + 1 < len(arguments):
            return Path(arguments[at + 1])
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
    return None


def first_process() -> list[str]:
    """Return the command line of the container's first process: ai-mux, or an init that was given it."""
    words = Path("/proc/1/cmdline").read_bytes().decode(errors="surrogateescape")
    return words.split("\0")[:-1]


def places(path: Path | None) -> list[Place]:
    """Return where the server of a configuration can be, the likeliest first."""
    try:
        config = load(path, known_providers=tuple(PROVIDERS))
    except ConfigError:
        return [Place("127.0.0.1", _USUAL_PORT, None, tls) for tls in (False, True)]
    return [_place(config)]


def _place(config: Config) -> Place:
    listen = config.listen
    host = _NEAREST.get(listen.host, listen.host) or "127.0.0.1"
    return Place(host, listen.port, listen.path, config.tls is not None)


def answer(place: Place) -> str:
    """Ask, and return the answer in a line: ``200 ok``, or why there is none."""
    try:
        with closing(_Connection(place)) as connection:
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            return f"{response.status} {response.read(_MOST_BYTES).decode('latin-1').strip()}"
    except (OSError, http.client.HTTPException) as exc:
        return f"{type(exc).__name__}: {exc}"


def main() -> int:
    """Ask wherever it may be, until one answer is good."""
    said = ""
    for place in places(named(first_process())):
        said = f"{place}: {answer(place)}"
        if said.endswith(": 200 ok"):
            break
    print(said)
    return 0 if said.endswith(": 200 ok") else 1


if __name__ == "__main__":
    sys.exit(main())
