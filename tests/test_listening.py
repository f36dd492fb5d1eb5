"""Where the server listens, as a process or by its own sockets."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ai_mux.errors import ConfigError
from ai_mux.proxy import sockets

LIMIT_S = 20


async def _serving(tmp_path: Path, listen: str) -> tuple[asyncio.subprocess.Process, list[str]]:
    """Start the server, and return it with the addresses that it names."""
    config = tmp_path / "config.json"
    config.touch(0o600)
    user = {"name": "alice", "token": "made-up-token-of-alice"}
    config.write_text(json.dumps({"listen": listen, "state_dir": str(tmp_path / "state"), "users": [user]}))
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ai_mux", "--config", str(config), stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert program.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        while True:
            line = json.loads(await program.stderr.readline())
            if line["event"] == "listening":
                return program, line["addresses"]


async def _healthy(family: socket.AddressFamily, host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, family=family)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_port_alone_serves_both_families_one_client_after_the_other(tmp_path):
    """The default, ``:8080``. A client that says nothing must not keep the others waiting."""
    program, (address,) = await _serving(tmp_path, ":0")
    port = int(address.rpartition(":")[2])
    # Loopback would be a lie: in a container, or to who asks whether others reach it.
    assert address == f"http://{'*' if socket.has_dualstack_ipv6() else '0.0.0.0'}:{port}"
    silent = socket.create_connection(("127.0.0.1", port))
    families = [(socket.AF_INET, "127.0.0.1")]
    if socket.has_dualstack_ipv6():
        families.append((socket.AF_INET6, "::1"))
    for family, host in families * 2:
        assert (await _healthy(family, host, port)).endswith(b"ok\n")
    program.send_signal(signal.SIGTERM)
    async with asyncio.timeout(LIMIT_S):
        assert await program.wait() == 0
    silent.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_port_that_is_taken_in_one_family_alone_is_taken():
    """Else whoever took it would get the tokens of those who prefer IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="another program uses it"):
            sockets.listen(host=None, port=other.getsockname()[1], path=None)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_an_address_is_named_as_it_is_bound():
    def named(family, host, v6_only):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
            sock.bind((host, 0))
            port = sock.getsockname()[1]
            return sockets.addresses([sock], tls=True)[0].replace(str(port), "PORT")

    assert named(socket.AF_INET6, "::", 0) == "https://*:PORT"
    assert named(socket.AF_INET6, "::", 1) == "https://[::]:PORT"
    assert named(socket.AF_INET6, "::1", 1) == "https://[::1]:PORT"
    assert named(socket.AF_INET, "0.0.0.0", 0) == "https://0.0.0.0:PORT"


def test_a_stale_unix_socket_is_replaced_and_an_answering_one_is_not(tmp_path):
    path = tmp_path / "mux.sock"
    (first,) = sockets.listen(host=None, port=0, path=path)
    assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(ConfigError, match="another program answers there"):
        sockets.listen(host=None, port=0, path=path)
    first.close()  # as after a crash: the file stays, and nobody answers
    (second,) = sockets.listen(host=None, port=0, path=path)
    second.close()


def test_a_file_in_a_unix_sockets_place_is_left_alone(tmp_path):
    path = tmp_path / "mux.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="it is no socket"):
        sockets.listen(host=None, port=0, path=path)
    assert path.read_text() == "precious"


async def test_sighup_before_the_server_is_up_does_not_end_it(tmp_path):
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import signal, os; from ai_mux.cli import main; import ai_mux.cli as c; "
        "load = c._load; "
        "c._load = lambda path: (os.kill(os.getpid(), signal.SIGHUP), load(path))[1]; "
        "main(['--config', 'absent.yaml'])",
        stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT_S):
        _, told = await program.communicate()
    assert program.returncode == 2, told  # the missing file's, not the signal's
