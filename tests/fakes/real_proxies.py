"""Real proxies on loopback: tinyproxy for HTTP, with stunnel before it for HTTPS, and microsocks.

Each is a process of its own. What it logged says whom it connected.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from how_to.programs import free_port

NAME: Final = "invented-user"
PASSWORD: Final = "invented-pass"  # tinyproxy's settings take letters, digits and few signs
PROGRAMS: Final = {
    "http": ("tinyproxy",),
    "https": ("tinyproxy", "stunnel"),
    "socks5": ("microsocks",),
    "socks5h": ("microsocks",),
}
_READY_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RealProxy:
    """A running proxy.

    Attributes:
        url: How to reach it, with credentials where it wants them.
        url_without: The same without them.
        log: What it logged so far.
    """

    url: str
    url_without: str
    log: Path

    def connected(self, port: int) -> bool:
        """Tell whether it has logged a connection to a port."""
        return f":{port}" in self.log.read_text(errors="replace")


def missing(scheme: str) -> list[str]:
    """Return the programs that a proxy of this kind needs and that are not there."""
    return [name for name in PROGRAMS[scheme] if shutil.which(name) is None]


@contextlib.contextmanager
def real_proxy(scheme: str, where: Path, *, certificate: Path, credentials: bool) -> Iterator[RealProxy]:
    """Run a proxy.

    Args:
        scheme: As in a proxy's URL.
        where: An empty directory for its files.
        certificate: Key and certificate of an https proxy, in one file.
        credentials: It wants ``NAME`` and ``PASSWORD``.
    """
    log = where / "log"
    with contextlib.ExitStack() as stack:
        port = free_port()
        if scheme.startswith("socks"):
            command = ["microsocks", "-i", "127.0.0.1", "-p", str(port)]
            stack.enter_context(
                _running([*command, *(["-u", NAME, "-P", PASSWORD] if credentials else [])], port, log)
            )
        else:
            stack.enter_context(_tinyproxy(port, where, log, credentials=credentials))
        if scheme == "https":
            behind, port = port, free_port()
            stack.enter_context(_stunnel(port, behind, where, certificate))
        yield RealProxy(
            url=f"{scheme}://{f'{NAME}:{PASSWORD}@' if credentials else ''}localhost:{port}",
            url_without=f"{scheme}://localhost:{port}",
            log=log,
        )


def _tinyproxy(
    port: int, where: Path, log: Path, *, credentials: bool
) -> contextlib.AbstractContextManager[None]:
    lines = [f"Port {port}", "Listen 127.0.0.1", "LogLevel Connect", "MaxClients 20", "Timeout 60"]
    lines += [f'LogFile "{log}"', *([f"BasicAuth {NAME} {PASSWORD}"] if credentials else [])]
    settings = where / "tinyproxy.conf"
    settings.write_text("\n".join(lines) + "\n")
    log.touch()
    return _running(["tinyproxy", "-d", "-c", str(settings)], port, where / "tinyproxy.out")


def _stunnel(
    port: int, behind: int, where: Path, certificate: Path
) -> contextlib.AbstractContextManager[None]:
    settings = where / "stunnel.conf"
    settings.write_text(
        f"foreground = yes\npid =\n[tls]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{behind}\n"
        f"cert = {certificate}\n"
    )
    return _running(["stunnel", str(settings)], port, where / "stunnel.out")


@contextlib.contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    with process:
        try:
            _wait_for(port, process, log)
            yield
        finally:
            process.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise AssertionError(f"{process.args} does not run: {log.read_text(errors='replace')[-500:]}")
