"""nginx and Caddy as docs/how-to/behind-nginx-or-caddy.md sets them up, in front of a gateway process.

The configuration is the page's own text. What is changed in it is what whoever reads it
has to change: the name, the port, the certificate and where ai-mux listens.
"""

import contextlib
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clients.gateway_process import TOKEN, running
from documents import blocks
from engine.upstream import Upstream
from engine.wires import TlsWire, Wire
from how_to.programs import answers, bare, free_port, started

PAGE: Final = "docs/how-to/behind-nginx-or-caddy.md"
NGINX, CADDY = "nginx", "caddy"
_LANGUAGE: Final = {NGINX: "nginx", CADDY: "caddyfile"}

# What a package's own nginx.conf has around such a file, in one process that stays in the foreground. It
# compresses, as Debian's does, and more: the page has to switch that off.
_NGINX: Final = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events {}
http {
    access_log access.log;
    gzip on;
    gzip_types *;
    gzip_min_length 1;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
%s
}
"""

Edit = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """ai-mux behind a web server, a provider behind ai-mux.

    Attributes:
        port: The web server's.
        trust: What its certificate is verified with.
        provider: What ai-mux reaches.
        log: What the web server printed.
    """

    port: int
    trust: Path
    provider: Upstream
    log: Path
    _clients: list[Wire] = field(default_factory=list)

    async def client(self) -> TlsWire:
        """Connect to the web server."""
        plain = await Wire.to(self.port)
        self._clients.append(plain)
        context = ssl.create_default_context(cafile=str(self.trust))
        return await TlsWire(plain.sock, context, server=False).handshake()

    async def ask(self, request: bytes) -> tuple[TlsWire, Wire]:
        """Send a request, and return the client's end and the provider's."""
        client = await self.client()
        await client.send(request)
        return client, await self.provider.accept()

    async def hang_up(self) -> None:
        """Close everything, so that nothing is under way when the programs are asked to end."""
        for wire in self._clients:
            wire.close()
        await self.provider.close()


def page_block(front: str) -> str:
    """Return the page's whole configuration for a web server."""
    return blocks(_LANGUAGE[front], document=PAGE)[0]


@contextlib.asynccontextmanager
async def site(
    front: str, program: str, directory: Path, *, edit: Edit = str, unix: bool = False
) -> AsyncIterator[Site]:
    """Run provider, ai-mux and web server.

    Args:
        front: Which web server.
        program: Where it is.
        directory: An empty one.
        edit: What is changed in the page's configuration besides.
        unix: ai-mux listens on a unix socket.
    """
    certificate, key = _certificate(directory)
    provider = Upstream()
    port = free_port()
    home = directory / front
    home.mkdir()
    try:
        async with contextlib.AsyncExitStack() as stack:
            where = await stack.enter_async_context(_ai_mux(directory, provider.port, unix=unix))
            made = _made(
                front, edit(page_block(front)), port=port, certificate=certificate, key=key, where=where
            )
            command = [program, "-p", home, "-c", home / "configuration", "-e", home / "error.log"]
            if front == CADDY:
                command = [program, "run", "--adapter", "caddyfile", "--config", home / "configuration"]
            (home / "configuration").write_text(made)
            ready = started(
                command, cwd=home, environment=bare(home), log=home / "log", is_ready=lambda: answers(port)
            )
            await stack.enter_async_context(ready)
            one = Site(port=port, trust=certificate, provider=provider, log=home / "log")
            try:
                yield one
            finally:
                await one.hang_up()
    finally:
        await provider.close()


def _made(front: str, text: str, *, port: int, certificate: Path, key: Path, where: str) -> str:
    """Return the page's configuration for this machine."""
    if front == NGINX:
        changes = {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "listen [::]:443 ssl;": "",
            "ai-mux.example;": "localhost;",
            "/etc/ssl/ai-mux.example/fullchain.pem": str(certificate),
            "/etc/ssl/ai-mux.example/privkey.pem": str(key),
            "server 127.0.0.1:8080;": f"server {where};",
        }
    else:
        # Caddy writes a unix socket in a way of its own.
        where = where.replace("unix:", "unix/")
        changes = {
            # No second port, and no way in to change it.
            "{\n\tlog {": "{\n\tadmin off\n\tauto_https disable_redirects\n\tlog {",
            "ai-mux.example {": f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {key}",
            "reverse_proxy 127.0.0.1:8080 {": f"reverse_proxy {where} {{",
        }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return _NGINX % text if front == NGINX else text


@contextlib.asynccontextmanager
async def _ai_mux(directory: Path, upstream: int, *, unix: bool) -> AsyncIterator[str]:
    """Run ai-mux and say where it listens, as nginx wants it said."""
    state = directory / "state"
    claude = {"claudeAiOauth": {"accessToken": "made-up-access-token", "expiresAt": None}}
    _private(state / "claude" / ".credentials.json", claude)
    chatgpt = {"access_token": "made-up-access-token", "refresh_token": "", "account_id": "made-up"}
    _private(state / "chatgpt" / "auth.json", chatgpt | {"expires_at": 4_000_000_000})
    origin = f"http://127.0.0.1:{upstream}"
    providers = [{"name": name, "base_url": origin} for name in ("claude", "chatgpt")]
    if not unix:
        async with running(directory, providers=providers) as gateway:
            yield gateway.url.removeprefix("http://")
        return
    # The path of a socket has some hundred characters at most, which a test's directory may exceed.
    path = Path(f"/tmp/ai-mux-{free_port()}.sock")
    config = directory / "config.json"
    users = [{"name": "alice", "token": TOKEN}]
    _private(
        config, {"listen": f"unix:{path}", "state_dir": str(state), "providers": providers, "users": users}
    )
    command = [sys.executable, "-m", "ai_mux", "--config", config]
    async with started(
        command, cwd=directory, environment=bare(directory), log=directory / "log", is_ready=path.exists
    ):
        yield f"unix:{path}"


def _private(path: Path, document: object) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Make a throwaway certificate for localhost, its own authority, and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = [
        shutil.which("openssl") or "openssl", "req", "-x509", "-newkey", "ec",
        "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost", "-days", "2",
        "-addext", "subjectAltName=DNS:localhost",
        "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, key
