"""Sockets that systemd listens on and hands over: real ones, to a real process."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from clients.gateway_process import verb
from service_manager import LIMIT_S, TOKEN, ask, configure, service

ADMIN_TOKEN = "made-up-token-of-the-operator"


@contextlib.contextmanager
def listening(where="127.0.0.1", mode=0o660):
    """Listen as a socket unit would: on a port of an address, at a path, or by a name after ``@``."""
    is_path = isinstance(where, Path)
    is_unix = is_path or where.startswith("@")
    with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(str(where).replace("@", "\0") if is_unix else (where, 0))
        if is_path:
            where.chmod(mode)
        sock.listen()
        yield sock


@pytest.fixture
def short():
    """A directory whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="amx-") as made:
        yield Path(made)


def handing(*names, count=None):
    given = {"LISTEN_PID": "its own", "LISTEN_FDS": str(len(names) if count is None else count)}
    return given | ({"LISTEN_FDNAMES": ":".join(names)} if any(names) else {})


def port_of(sock):
    return sock.getsockname()[1]


async def test_a_socket_that_is_handed_over_is_served_and_listen_is_not_opened(tmp_path, short):
    config = configure(tmp_path, listen=f"unix:{short}/written")
    with listening() as first, listening(short / "given") as second:
        async with service(config, environ=handing("ai-mux.socket", "listen"), handed=[first, second]) as it:
            line = await it.logged("listening")
            assert line["addresses"] == [f"http://127.0.0.1:{port_of(first)}", f"unix:{short}/given"]
            assert line["handed_over"] is True
            for to in (port_of(first), f"{short}/given") * 2:
                assert (await ask(to)).endswith(b"ok\n")
            assert not (short / "written").exists()
            await it.stop()
        assert (short / "given").is_socket()  # systemd's, which goes on listening there


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_who_connects_during_a_restart_is_served_by_the_next_one(tmp_path, short, kind):
    config = configure(tmp_path)
    with listening("127.0.0.1" if kind == "tcp" else short / "given") as sock:
        to = port_of(sock) if kind == "tcp" else f"{short}/given"
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            await it.logged("listening")
            await it.stop()
        waiting = asyncio.create_task(ask(to))
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            assert (await waiting).endswith(b"ok\n")
            await it.stop()


async def test_a_reload_keeps_the_socket_and_asks_for_no_restart(tmp_path):
    config = configure(tmp_path)
    with listening() as sock:
        async with service(config, environ=handing(""), handed=[sock]) as it:
            await it.logged("listening")
            it.program.send_signal(signal.SIGHUP)
            await it.logged("config.reloaded")
            assert (await ask(port_of(sock))).endswith(b"ok\n")
            await it.stop()
            assert not it.lines("config.needs_restart")


async def test_what_is_guarded_is_decided_by_the_socket_and_not_by_listen(tmp_path):
    """Without users a web page in a browser must not reach a server on loopback by a name of its own."""
    config = configure(tmp_path, listen=":8080", users=None)
    with listening() as sock:
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            await it.logged("listening")
            answer = await ask(port_of(sock), "/claude/v1/models", host="rebound.example")
            assert answer.startswith(b"HTTP/1.1 403 ")
            await it.stop()
            assert [line["level"] for line in it.lines("users.none")] == ["warn"]


async def test_a_socket_of_every_interface_is_called_so_whatever_listen_says(tmp_path):
    config = configure(tmp_path, listen="192.0.2.1:1", users=None)
    with listening("0.0.0.0") as sock:
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            assert (await it.logged("listening"))["addresses"] == [f"http://0.0.0.0:{port_of(sock)}"]
            assert (await it.logged("users.none"))["level"] == "error"
            await it.stop()


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_a_unix_socket_that_every_local_user_may_use_is_not_called_local(tmp_path, short, kind):
    """SocketMode= is 0666 where nobody writes it, and a name of Linux's own has no mode at all."""
    config = configure(tmp_path, users=None)
    where = short / "given" if kind == "path" else f"@amx-{os.getpid()}"
    with listening(where, 0o666) as sock:
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            line = await it.logged("users.none")
            assert (line["level"], "SocketMode=0660" in line["problem"]) == ("error", True)
            await it.stop()


async def test_a_unix_socket_for_a_group_is_local(tmp_path, short):
    config = configure(tmp_path, listen=f"unix:{short}/written", users=None)
    with listening(short / "given", 0o660) as sock:
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            assert (await it.logged("users.none"))["level"] == "warn"
            await it.stop()
            assert not it.lines("listen.wider")


async def test_an_open_unix_socket_takes_no_guard_from_loopback_beside_it(tmp_path, short):
    config = configure(tmp_path, users=None)
    with listening() as first, listening(short / "given", 0o666) as second:
        async with service(config, environ=handing("listen", "listen"), handed=[first, second]) as it:
            await it.logged("listening")
            answer = await ask(port_of(first), "/claude/v1/models", host="rebound.example")
            assert answer.startswith(b"HTTP/1.1 403 ")
            await it.stop()


@pytest.mark.parametrize(
    ("written", "where", "says"),
    [
        ("127.0.0.1:8080", "0.0.0.0", "add users, or ListenStream=127.0.0.1:"),
        ("unix:/nowhere/http", "0.0.0.0", "add users, or ListenStream=127.0.0.1:"),
        ("unix:/nowhere/http", "given", "add users, or SocketMode=0660 in the socket unit"),
    ],
)
async def test_a_socket_unit_does_not_open_to_others_what_was_written_as_local(
    tmp_path, short, written, where, says
):
    config = configure(tmp_path, listen=written, users=None)
    with listening(short / where if where == "given" else where, 0o666) as sock:
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            assert await it.ended() == 2
    assert says in it.log.read_text()


@pytest.mark.parametrize(
    ("written", "where", "warns"),
    [
        ("127.0.0.1:8080", "0.0.0.0", True),
        ("192.0.2.1:8080", "0.0.0.0", True),
        ("unix:/nowhere/http", "127.0.0.1", True),
        ("0.0.0.0:8080", "0.0.0.0", False),
        (":8080", "127.0.0.1", False),
    ],
)
async def test_with_users_a_socket_that_reaches_farther_than_listen_is_a_warning(
    tmp_path, written, where, warns
):
    config = configure(tmp_path, listen=written)
    with listening(where) as sock:
        async with service(config, environ=handing("listen"), handed=[sock]) as it:
            await it.logged("listening")
            await it.stop()
        found = [(line["level"], line["listen"], line["handed_over"]) for line in it.lines("listen.wider")]
        given = f"{'' if where == '0.0.0.0' else where}:{port_of(sock)}"
    assert found == ([("warn", written, given)] if warns else [])


async def test_sockets_that_are_meant_for_another_process_are_left_alone(tmp_path):
    config = configure(tmp_path)
    with listening() as sock:
        environ = handing("listen") | {"LISTEN_PID": str(os.getpid())}
        async with service(config, environ=environ, handed=[sock]) as it:
            line = await it.logged("listening")
            assert line["handed_over"] is False
            assert not line["addresses"][0].endswith(f":{port_of(sock)}")
            await it.stop()


async def test_the_real_systemd_socket_activate_starts_it_for_its_first_client(tmp_path, needed):
    activate = needed("systemd-socket-activate")
    config = configure(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = port_of(free)
    program = (
        activate,
        "-l",
        f"127.0.0.1:{port}",
        "--fdname=listen",
        "-E",
        "HOME",
        sys.executable,
        "-m",
        "ai_mux",
    )
    async with service(config, program=program) as it:
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    assert (await ask(port)).endswith(b"ok\n")
                    break
                await asyncio.sleep(0.02)
        assert (await it.logged("listening"))["handed_over"] is True
        await it.stop()


# The admin listener's


async def test_a_socket_named_admin_is_the_admin_listener_s_and_its_file_stays(tmp_path, short):
    admin = {"listen": "127.0.0.1:1", "token": ADMIN_TOKEN}
    config = configure(tmp_path, admin=admin)
    with listening() as first, listening(short / "admin") as second:
        async with service(config, environ=handing("listen", "admin"), handed=[first, second]) as it:
            assert (await it.logged("admin.listening"))["addresses"] == [f"unix:{short}/admin"]
            assert b"ai_mux_" in await ask(f"{short}/admin", "/metrics", token=ADMIN_TOKEN)
            assert (await ask(f"{short}/admin", "/metrics", token=TOKEN)).startswith(b"HTTP/1.1 401 ")
            await it.stop()
        assert (short / "admin").is_socket()


@pytest.mark.parametrize(
    ("admin", "where", "says"),
    [
        (None, "127.0.0.1", "add `admin` to the configuration, or disable that socket unit"),
        ({"listen": "127.0.0.1:1"}, "0.0.0.0", "is reached from elsewhere, and there is no token"),
    ],
)
async def test_an_admin_socket_that_lets_strangers_in_or_has_no_use_is_an_error(tmp_path, admin, where, says):
    config = configure(tmp_path, admin=admin)
    with listening() as first, listening(where) as second:
        async with service(config, environ=handing("listen", "admin"), handed=[first, second]) as it:
            assert await it.ended() == 2
        assert says in it.log.read_text()


@pytest.mark.parametrize(
    ("mode", "code"), [(0o600, 0), (0o660, 2), (0o666, 2), (None, 2)]
)  # fmt: skip
async def test_an_admin_socket_without_a_token_is_for_its_owner_alone(tmp_path, short, mode, code):
    config = configure(tmp_path, admin={"listen": "127.0.0.1:1"})
    where = short / "admin" if mode is not None else f"@amx-{os.getpid()}"
    with listening() as first, listening(where, mode) as second:
        async with service(config, environ=handing("listen", "admin"), handed=[first, second]) as it:
            if code == 0:
                await it.logged("admin.listening")
                await it.stop()
            assert await it.ended() == code
    assert ("write SocketMode=0600" in it.log.read_text()) is (code == 2)


# What is not what it is taken for


def datagram():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return [sock]


def connection():
    return list(socket.socketpair())


def unbound():
    return [socket.socket()]


def fine():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return [sock]


@pytest.mark.parametrize(
    ("sockets", "environ", "says"),
    [
        (datagram, handing("listen"), "descriptor 3 is no stream socket; write ListenStream="),
        (connection, handing("connection", "connection"), "a socket named 'connection' says nothing"),
        (connection, handing("listen", "listen"), "descriptor 3 does not listen; write Accept=no"),
        (unbound, handing(""), "descriptor 3 does not listen; write Accept=no"),
        (fine, handing("metrics"), "write FileDescriptorName=listen where it serves requests"),
        (fine, handing("ai-mux-admin.socket"), "or FileDescriptorName=admin where it is the admin"),
        (fine, handing("admin"), "none of its sockets is for requests; add a ListenStream="),
        (fine, handing("listen", "listen", count=1), "it hands over as many as 1, with as many names as 2"),
        (fine, handing("", count=2), "descriptor 4 is no socket (Bad file descriptor)"),
        (fine, handing("", count=0), "it hands over no socket (LISTEN_FDS=0); give it a ListenStream="),
        (fine, handing("", count="many"), "it hands over no socket (LISTEN_FDS=many)"),
        (fine, handing("", count=-1), "it hands over no socket (LISTEN_FDS=-1)"),
    ],
)  # fmt: skip
async def test_a_socket_unit_that_is_wrong_is_said_to_be_so_with_what_mends_it(
    tmp_path, sockets, environ, says
):
    config = configure(tmp_path)
    handed = sockets()
    try:
        async with service(config, environ=environ, handed=handed) as it:
            assert await it.ended() == 2
        text = it.log.read_text()
        assert text.startswith("ai-mux: socket unit: ")
        assert says in text
        assert "Traceback" not in text
    finally:
        for sock in handed:
            sock.close()


# A unit's credentials


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/run/credentials/ai-mux.service/alice", "LoadCredential=alice:/PATH/OF/THE/FILE"),
        ("$CREDENTIALS_DIRECTORY/alice", "not expanded here; write /run/credentials/ai-mux.service/"),
        ("%d/alice", "variables are not expanded here"),
        ("/etc/ai-mux/alice", "check that the path is right"),
    ],
)  # fmt: skip
async def test_a_unit_without_its_credentials_is_told_of_loadcredential(tmp_path, path, says):
    config = configure(tmp_path, users=[{"name": "alice", "token_file": path}])
    async with service(config) as it:
        assert await it.ended() == 2
    assert says in it.log.read_text()
    code, text = await verb(tmp_path, "check")
    assert (code, says in text) == (2, True)


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_a_file_of_a_plain_name_is_no_unit_s_credential(tmp_path, environ):
    done = subprocess.run(
        [sys.executable, "-m", "ai_mux", "--config", "nosuch.yaml"],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | environ,
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert "check that the path is right" in done.stderr
    assert "LoadCredential" not in done.stderr


async def test_credentials_elsewhere_are_known_by_the_environment(tmp_path):
    config = configure(tmp_path, users=[{"name": "alice", "token_file": str(tmp_path / "given" / "alice")}])
    async with service(config, environ={"CREDENTIALS_DIRECTORY": str(tmp_path / "given")}) as it:
        assert await it.ended() == 2
    assert "LoadCredential=alice:" in it.log.read_text()


def test_a_child_of_the_service_does_not_get_the_sockets_that_were_handed_over():
    program = (
        "import os, subprocess, sys; from ai_mux.systemd import handed_sockets; "
        "os.dup2(int(sys.argv[1]), 3); os.closerange(4, 99); "
        "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}; "
        "handed = handed_sockets(os.environ, pid=os.getpid()); "
        "print(handed.requests[0].fileno(), flush=True); "
        "subprocess.run(['sh', '-c', 'readlink /proc/self/fd/3 || echo none'], close_fds=False)"
    )
    with listening() as sock:
        done = subprocess.run(
            [sys.executable, "-c", program, str(sock.fileno())],
            pass_fds=[sock.fileno()], capture_output=True, text=True, check=True, timeout=LIMIT_S,
        )  # fmt: skip
    assert done.stdout.split() == ["3", "none"]


def test_a_child_of_the_service_does_not_take_itself_for_it():
    """The variables leave the environment before anything else is started."""
    program = (
        "import os; from ai_mux.systemd import Manager, handed_sockets; pid = os.getpid(); "
        "os.environ |= {'LISTEN_PID': '1', 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'x', 'NOTIFY_SOCKET': '/x', "
        "'WATCHDOG_USEC': '1', 'WATCHDOG_PID': '1'}; "
        "Manager.taken_from(os.environ, pid=pid); handed_sockets(os.environ, pid=pid); os.system('env')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert not [
        line for line in done.stdout.splitlines() if line.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))
    ]
