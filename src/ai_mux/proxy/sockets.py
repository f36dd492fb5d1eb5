"""Listening sockets and TLS contexts, made before anything else runs."""

import contextlib
import errno
import os
import resource
import socket
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ai_mux.errors import ConfigError

ALL_INTERFACES: Final = frozenset({"::", "0.0.0.0"})  # noqa: S104 - compared, not bound
_BACKLOG: Final = 1024
# Kept free for the log, credential files, resolvers and the interpreter itself.
_OTHER_DESCRIPTORS: Final = 128
# RFC 9325, section 4.2: forward secrecy and AEAD only. TLS 1.3 suites are all of that kind.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def listen(
    *, host: str | None, port: int, path: Path | None, mode: int = 0o660, key: str = "listen"
) -> list[socket.socket]:
    """Open the sockets to listen on.

    Args:
        host: A name or address; None for every interface, IPv4 and IPv6 by one socket.
        port: The TCP port.
        path: A unix socket instead.
        mode: Who may connect to that: the permissions that it has from birth.
        key: The setting that says where, for messages.

    Raises:
        ConfigError: It cannot be listened on.
    """
    where = f"unix:{path}" if path is not None else f"{host or ''}:{port}"
    try:
        if path is not None:
            return [_listen_unix(path, mode)]
        if host is None:
            return [_listen_everywhere(port)]
        return _listen_host(host, port)
    except OSError as exc:
        advice = _advice(exc, path)
        raise ConfigError(f"{key}: cannot listen on {where}: {exc.strerror or exc}; {advice}") from exc


def _advice(exc: OSError, path: Path | None) -> str:
    if path is not None:
        if exc.errno == errno.EADDRINUSE:
            return "another program answers there, or it is no socket; choose another path, or remove it"
        return "check that its directory exists and may be written"
    if exc.errno == errno.EADDRINUSE:
        return "another program uses it; choose another port, or stop that program"
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a higher one, or grant it"
    return "check the address"


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        except OSError as exc:
            # Compiled in and yet switched off. Any other failure counts: were the port
            # taken in IPv6 alone, whoever took it would get our users' tokens.
            if exc.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise
    return socket.create_server(("", port), backlog=_BACKLOG)


def _listen_host(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
        except OSError as exc:
            if sock is not None:
                sock.close()
            if exc.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                for opened in sockets:
                    opened.close()
                raise
            failed = exc  # "localhost" names ::1 on machines without IPv6 too
    if not sockets and failed is not None:
        raise failed
    return sockets


def _listen_unix(path: Path, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            _remove_stale(path)
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket on which nobody answers any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return


def addresses(sockets: Sequence[socket.socket], *, tls: bool) -> list[str]:
    """Return the URLs at which the sockets are reached.

    ``*`` is every interface by IPv4 and IPv6. It is not loopback that is named then: who reads
    that takes the server for closed to others, or looks for it inside a container.
    """
    scheme = "https" if tls else "http"
    found: list[str] = []
    for sock in sockets:
        if sock.family == socket.AF_UNIX:
            found.append(f"unix:{unix_name(sock)}")
            continue
        host, port = sock.getsockname()[:2]
        if host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            host = "*"
        found.append(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
    return found


def unix_name(sock: socket.socket) -> str:
    """Return a unix socket's path, or its name of Linux's own with an ``@`` before it (unix(7))."""
    name = sock.getsockname()
    if isinstance(name, bytes):
        return name.decode("utf-8", "backslashreplace").replace("\0", "@")
    return str(name)


def server_tls(cert_path: Path, key_path: Path) -> ssl.SSLContext:
    """Return the listener's TLS context: 1.2 and up, HTTP/1.1 only.

    Raises:
        ConfigError: The certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert_path, key_path, password=_no_password)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"tls: cannot use {cert_path} with {key_path}: {exc}") from exc
    return context


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted; ai-mux asks for no password, so store it decrypted, mode 0600")


def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return the context for connections to providers: verified, HTTP/1.1 only.

    Raises:
        ConfigError: The file of certificates cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"ca_file: cannot use {ca_file}: {exc}") from exc
    # Python 3.11.2, which Debian 12 has, sets it: then anyone on the way could cut an answer
    # whose end is the connection's, and it would look whole (RFC 9112, 9.8).
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def raise_descriptor_limit(configured: int) -> int:
    """Raise the soft limit of descriptors to the hard one, and return how many clients that allows.

    Each client may need one connection upstream.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS refuses "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return configured
    return max(1, min(configured, (soft - _OTHER_DESCRIPTORS) // 2))
