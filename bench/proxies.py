"""The programs that are compared: how each is configured and started.

ai-mux runs as it is shipped, and with everything on that counts: meter, ledger, limits
far away from being reached, and the listener for metrics.

All do comparable work: take off ``/claude``, set Authorization and Host, keep
upstream connections alive, stream without buffering, write a log line a request
to a file, and verify a TLS upstream against the same authority. ai-mux and nginx also
relay WebSockets below ``/chatgpt``; the aiohttp proxy would write every frame anew.
"""

import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ledger
import traffic
from load import Target, WrongAnswer
from measure import Process, free_port, running

_HERE: Final = Path(__file__).parent
_REQUEST_PATH: Final = "/v1/messages?beta=true"
_BACKEND: Final = "/backend-api/codex"  # what takes the place of /chatgpt/v1

# What a server's environment must not bring into the comparison: a proxy
# setting or a home directory with somebody's credentials.
_ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run happens.

    Attributes:
        directory: For configurations and logs; removed afterwards.
        proxy_core: The core of the proxy that is measured.
        load_core: The core of the upstream and of the clients.
        plain: The upstream's port for HTTP.
        tls: Its port for HTTPS.
    """

    directory: Path
    proxy_core: int
    load_core: int
    plain: int
    tls: int

    @property
    def ca(self) -> Path:
        """The certificate of the authority that vouches for the upstream."""
        return self.directory / "ca.pem"

    def directly(self, *, tls: bool) -> Target:
        """Return the upstream itself, as a target without a proxy."""
        context = ssl.create_default_context(cafile=str(self.ca)) if tls else None
        return Target(
            port=self.tls if tls else self.plain,
            path=_REQUEST_PATH,
            tunnel=f"{_BACKEND}/responses",
            token=traffic.PROVIDER_TOKEN,
            tls=context,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A program to be measured.

    Attributes:
        name: As the table shows it.
        engine: For ai-mux, the value of AI_MUX_ENGINE; None for the one it chooses.
        counts: For ai-mux, with meter, ledger, limits and metrics. What its ledger holds in the end is
            compared with what was sent.
    """

    name: str
    engine: str | None = None
    counts: bool = True

    @property
    def relays_tunnels(self) -> bool:
        """It relays WebSockets."""
        return self.name != "aiohttp"

    @contextmanager
    def started(self, place: Place, *, tls: bool) -> Iterator[tuple[Target, Process]]:
        """Run the program in front of the upstream. Raises NotStarted and, for its ledger, WrongAnswer."""
        port = free_port()
        home = place.directory / f"{self.name}-{port}"
        home.mkdir(mode=0o700)
        kind = self.name.partition(" ")[0]
        command, environment = _COMMANDS[kind](home, port, place, tls)
        if not self.counts:
            _count_nothing(home / "config.json")
        if self.engine:
            environment["AI_MUX_ENGINE"] = self.engine
        with running(
            command, port=port, core=place.proxy_core, log=home / "log", environment=environment
        ) as process:
            target = Target(
                port=port,
                path=f"/claude{_REQUEST_PATH}",
                tunnel="/chatgpt/v1/responses" if self.relays_tunnels else None,
                token=traffic.USER_TOKEN,
            )
            yield target, process
        if kind == "ai-mux" and self.counts:  # it has ended, and so has written all
            try:
                ledger.check(home / "state", target.carried)
            except WrongAnswer as error:
                raise WrongAnswer(f"{self.name}: {error}") from error


_Command = tuple[list[str], dict[str, str]]


def _ai_mux(home: Path, port: int, place: Place, tls: bool) -> _Command:
    common = {"token_url": f"http://127.0.0.1:{place.plain}/none"}
    if tls:
        common["ca_file"] = str(place.ca)
    origin = _origin(place, tls)
    config = {
        "listen": f"127.0.0.1:{port}",
        "state_dir": str(home / "state"),
        "log_level": "info",
        "providers": [
            {"name": "claude", "base_url": origin, **common},
            {"name": "chatgpt", "base_url": origin + _BACKEND, **common},
        ],
        "users": [{"name": "bench", "token": traffic.USER_TOKEN, "limits": _LIMITS}],
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
    }
    expires_at = int(time.time()) + 30 * 86400
    claude = {
        "accessToken": traffic.PROVIDER_TOKEN,
        "refreshToken": "bench-refresh-token-0123456789",
        "expiresAt": expires_at * 1000,
    }
    chatgpt = {
        "access_token": traffic.PROVIDER_TOKEN,
        "refresh_token": "bench-refresh-token-9876543210",
        "expires_at": expires_at,
        "account_id": "bench-account",
    }
    _private(home / "config.json", json.dumps(config))
    _private(home / "state" / "claude" / ".credentials.json", json.dumps({"claudeAiOauth": claude}))
    _private(home / "state" / "chatgpt" / "auth.json", json.dumps(chatgpt))
    command = [sys.executable, "-m", "ai_mux", "--config", str(home / "config.json")]
    return command, _ENVIRONMENT | {"HOME": str(home)}


# Each is looked at with every request, and none is reached.
_LIMITS: Final = {
    "concurrent": 100_000,
    "requests": ["100M/min"],
    "tokens": ["900000G/day"],
    "cost": ["$900M/week"],
}


def _count_nothing(path: Path) -> None:
    """Take out of a configuration of ai-mux's all that counts."""
    config = json.loads(path.read_text())
    del config["admin"], config["users"][0]["limits"]
    config["usage"] = {"enabled": False}
    path.write_text(json.dumps(config))


def _private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


# One worker, as ai-mux is one process. nginx would close a connection after
# 1,000 requests, on both sides, and hand its log to nobody: both are set as an
# operator of this traffic would.
_NGINX: Final = """
daemon off;
worker_processes 1;
worker_rlimit_nofile %(descriptors)d;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 20000; }
http {
    access_log access.log combined;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 64m;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    tcp_nodelay on;
    map $http_upgrade $connection_upstream {
        default upgrade;
        "" "";
    }
    upstream provider {
        server 127.0.0.1:%(upstream)d;
        keepalive 512;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection $connection_upstream;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Host "localhost:%(upstream)d";
        proxy_set_header Authorization "Bearer %(token)s";
        proxy_buffering off;
        proxy_request_buffering off;
        proxy_read_timeout 300s;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate %(ca)s;
        location /claude/ {
            proxy_pass %(scheme)s://provider/;
        }
        location /chatgpt/v1/ {
            proxy_pass %(scheme)s://provider%(backend)s/;
        }
    }
}
"""


def nginx() -> str | None:
    """Return nginx's path, or None where it is not installed."""
    return shutil.which("nginx", path=f"{_ENVIRONMENT['PATH']}:/usr/sbin:/usr/local/sbin")


def _nginx(home: Path, port: int, place: Place, tls: bool) -> _Command:
    values = {
        "descriptors": min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536),
        "port": port,
        "upstream": place.tls if tls else place.plain,
        "scheme": "https" if tls else "http",
        "token": traffic.PROVIDER_TOKEN,
        "backend": _BACKEND,
        "ca": place.ca,
    }
    (home / "nginx.conf").write_text(_NGINX % values)
    return [nginx() or "nginx", "-p", str(home), "-c", "nginx.conf", "-e", "error.log"], dict(_ENVIRONMENT)


def _aiohttp(home: Path, port: int, place: Place, tls: bool) -> _Command:
    program = [sys.executable, str(_HERE / "aiohttp_proxy.py"), "--port", str(port)]
    return [*program, "--upstream", _origin(place, tls), "--ca", str(place.ca)], _ENVIRONMENT | {
        "HOME": str(home)
    }


_COMMANDS: Final = {"ai-mux": _ai_mux, "nginx": _nginx, "aiohttp": _aiohttp}


def _origin(place: Place, tls: bool) -> str:
    return f"https://localhost:{place.tls}" if tls else f"http://127.0.0.1:{place.plain}"


@contextmanager
def upstream(place: Place) -> Iterator[Process]:
    """Run the upstream, with a certificate of a throwaway authority."""
    _make_certificates(place)
    command = [
        sys.executable,
        str(_HERE / "upstream.py"),
        "--plain",
        str(place.plain),
        "--tls",
        str(place.tls),
    ]
    command += ["--cert", str(place.directory / "server.pem"), "--key", str(place.directory / "server.key")]
    log = place.directory / "upstream.log"
    with running(command, port=place.tls, core=place.load_core, log=log, environment=_ENVIRONMENT) as process:
        yield process


def _make_certificates(place: Place) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=place.directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-subj", "/CN=ai-mux benchmark CA", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *key[:-2], "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (place.directory / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")
